package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// giveAway makes the whole site nobody's, if this process is root and can.
func (s *site) giveAway() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	s.foreign = true
	if err := filepath.WalkDir(s.folder, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}); err != nil {
		s.t.Fatal(err)
	}
	// The test's folder is in one that only its owner may enter.
	if err := os.Chmod(filepath.Dir(s.folder), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// needsRoot is for what only root can have: files of another user.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
}

// commandAsNobody runs one command line as the owner of the files.
func (s *site) commandAsNobody(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(s.t.Context(), binary, args...)
	unprivileged(cmd)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		s.t.Fatalf("%v as nobody: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// snapshot describes all that is in a folder: content, mode and owner.
func snapshot(t testing.TB, folder string) map[string]string {
	t.Helper()
	found := map[string]string{}
	if err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content := []byte{}
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		stat := info.Sys().(*syscall.Stat_t)
		found[path] = fmt.Sprintf("%s %d:%d %x", info.Mode(), stat.Uid, stat.Gid, sha256.Sum256(content))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// allCommands returns the words of every command there is.
func allCommands(t *testing.T) []string {
	t.Helper()
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, leaf := range parser.Model.Leaves(true) {
		words := []string{}
		for node := leaf; node.Type == kong.CommandNode; node = node.Parent {
			words = append(words, node.Name)
		}
		slices.Reverse(words)
		all = append(all, strings.Join(words, " "))
	}
	return all
}

// Root, beside a daemon of another user, is refused in words, and changes nothing: what
// it made, the daemon could not use.
func TestCommandsAsRoot(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	s, checks := stockedSite(t)
	token := checks[0].Token
	s.command(exitDone, "keys", "rotate")
	s.giveAway()

	// These open nothing that is the daemon's.
	harmless := map[string]bool{
		"demo": true, "codes": true, "man": true, "version": true, "help": true, "completion": true, "config example": true, "config schema": true,
	}
	args := map[string][]string{
		"publish":     {token, "--again"},
		"where":       {token},
		"export":      {token, "--to", s.path("export"), "--reason", "ticket 7"},
		"dead show":   {"1"},
		"dead retry":  {"--all"},
		"dead drop":   {"--all", "--yes"},
		"list":        {"--find", "name"},
		"show":        {token, "--reveal", "--reason", "ticket 7"},
		"erase":       {token, "--yes", "--reason", "ticket 7"},
		"keys remove": {"00000000", "--yes"},
	}
	before := snapshot(t, s.folder)
	for _, words := range allCommands(t) {
		if harmless[words] {
			continue
		}
		var stdout, stderr bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a command that went on would never end
		line := append(append([]string{"--config", s.config}, strings.Fields(words)...), args[words]...)
		code := run(ctx, line, strings.NewReader("somebody\n"), &stdout, &stderr)
		cancel()
		if code != exitUsage || !strings.Contains(stderr.String(), "belongs to user 65534") || !strings.Contains(stderr.String(), "sudo -u '#65534' faceid-ingest") {
			t.Errorf("%s: exit code %d\n%s%s", words, code, &stdout, &stderr)
		}
		if after := snapshot(t, s.folder); !maps.Equal(after, before) {
			t.Fatalf("%s has changed something", words)
		}
	}

	// The owner goes on as before.
	p := s.start(unprivileged)
	p.stop()
	if stdout, _ := s.command(exitDone, "show", token); !strings.Contains(stdout, token) {
		t.Errorf("%s", stdout)
	}
}

// One file of another user is enough to be refused.
func TestOneFileOfAnother(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	for _, name := range []string{"data", "data/keyring.json", "data/audit.log", "data/spool", "data/nats", "media", "records/faceid.db", "records/faceid.db-wal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			path := s.path(name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			var err error
			if filepath.Ext(path) != "" {
				err = os.WriteFile(path, nil, 0o600)
			} else {
				err = os.Mkdir(path, 0o700)
			}
			if err := errors.Join(err, os.Chown(path, nobody, nobody)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, s.folder)
			for _, line := range []string{"verify", "run"} {
				if _, stderr := s.command(exitUsage, line); !strings.Contains(stderr, path+" belongs to user 65534") {
					t.Errorf("%s: %s", line, stderr)
				}
			}
			if !maps.Equal(snapshot(t, s.folder), before) {
				t.Error("something was changed")
			}
		})
	}
}

// What opens NATS alone, elsewhere, is for everybody.
func TestNATSElsewhereAsRoot(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	url, _ := externalNATS(t, true)
	s := newSite(t, "accounts:\n", fmt.Sprintf("nats: {url: %q}\naccounts:\n", url))
	if err := errors.Join(os.Mkdir(s.path("data"), 0o700), os.Chown(s.path("data"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	s.command(exitDone, "publish", "TOKEN-1")
	s.command(exitDone, "status")
	if _, stderr := s.command(exitUsage, "verify"); !strings.Contains(stderr, "belongs to user 65534") {
		t.Errorf("%s", stderr)
	}
}

// A volume that belongs to another user, and in which everything is root's, has a daemon
// that runs as root: it starts, and root's commands work beside it.
func TestVolumeOfAnother(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	s := newSite(t)
	p := s.start()
	p.stop()
	if err := os.Chown(s.path("data"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	p = s.start()
	s.command(exitDone, "list")
	s.command(exitDone, "keys", "status")
	p.stop()
}

// A daemon that is kept from its own files by what root left says which, and what to do.
func TestFilesThatRootLeft(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	for _, name := range []string{"data/keyring.json", "data/nats/lock", "data/nats/jetstream", "data/spool/gate", "media", "records/faceid.db", "records/faceid.db.lock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			p := s.start()
			p.stop()
			s.giveAway()
			if err := os.Chown(s.path(name), 0, 0); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%s, which belongs to user 0", s.path(name))
			for _, args := range [][]string{{"run"}, {"config", "check"}} {
				if _, stderr := s.command(exitUsage, args...); !strings.Contains(stderr, want) || !strings.Contains(stderr, "chown -R 65534:65534 "+s.path(name)) {
					t.Errorf("%v: %s", args, stderr)
				}
			}

			// What it says to do helps.
			if err := os.Chown(s.path(name), nobody, nobody); err != nil {
				t.Fatal(err)
			}
			p = s.start(unprivileged)
			p.stop()
		})
	}
}

// A command of an unprivileged stranger fails with the owner in its message.
func TestStrangerIsTold(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	s.giveAway()
	if err := os.Chown(s.path("data"), 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, stderr := s.command(exitUsage, "keys", "list"); !strings.Contains(stderr, "run this as the user the file belongs to") {
		t.Errorf("%s", stderr)
	}
}
