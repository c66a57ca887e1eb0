package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// markFile is where a folder notes the keyring.
const markFile = "keyring-fingerprint.json"

// keyringPath is where the site's keyring is by default.
func (s *site) keyringPath() string { return s.path("data/keyring.json") }

// hasKeyring reports whether there is a keyring file.
func (s *site) hasKeyring() bool {
	s.t.Helper()
	_, err := os.Lstat(s.keyringPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Fatal(err)
	}
	return err == nil
}

// refuses checks that the daemon, the check and commands that open sealed data end with
// exit code 2 and these words, and make no keyring.
func (s *site) refuses(words ...string) {
	s.t.Helper()
	before := s.hasKeyring()
	p := s.launch()
	<-p.ended
	said := map[string]string{"run": p.log.String()}
	if code := p.cmd.ProcessState.ExitCode(); code != exitUsage {
		s.t.Errorf("run ends with exit code %d", code)
	}
	for _, args := range []string{"config check", "list", "show T-1", "verify", "erase T-1 --yes", "keys rotate", "keys reseal", "keys status"} {
		stdout, stderr := s.command(exitUsage, strings.Fields(args)...)
		said[args] = stdout + stderr
	}

	if s.hasKeyring() != before {
		s.t.Error("a keyring was made")
	}
	for _, word := range words {
		for _, args := range []string{"run", "config check", "verify", "keys status"} {
			if !strings.Contains(said[args], word) {
				s.t.Errorf("%s does not say %q: %s", args, word, said[args])
			}
		}
	}
}

// replicaOf returns a site with the API, the server and the sinks of another, and an
// empty data folder of its own.
func (s *site) replicaOf(first *site) {
	s.t.Helper()
	text := strings.ReplaceAll(read(s.t, first.config), first.path("data"), s.path("data"))
	s.write("config.yaml", text)
}

// stocked ingests some checks with a daemon that then ends.
func (s *site) stocked(n int) {
	s.t.Helper()
	s.publish(newChecks(n, 4<<10))
	p := s.start()
	until(s.t, "the events are settled", func() bool { return s.open() == 0 })
	p.stop()
}

func onServer(url string) []string {
	return []string{"accounts:\n", fmt.Sprintf("nats: {url: %q}\naccounts:\n", url), "type: dir,", "type: dir, seal: true,"}
}

// A second replica with an empty data folder has no keyring, and makes none; with a copy
// it works, and with one from before a rotation it does not.
func TestSecondReplica(t *testing.T) {
	t.Parallel()
	nats := newNATSServer(t)
	first := newSite(t, onServer(nats.running.ClientURL())...)
	first.stocked(3)
	second := newSite(t)
	second.replicaOf(first)

	var status keysStatus
	stdout, _ := first.command(exitDone, "keys", "status", "--json")
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		t.Fatal(err)
	}
	second.refuses("there is no keyring at "+second.keyringPath(), "NATS: ", "sink media: ", "sink records: ", status.Fingerprint, "Restore ", "keys new --start-over")
	if _, stderr := second.command(exitUsage, "keys", "new"); !strings.Contains(stderr, status.Fingerprint) || second.hasKeyring() {
		t.Error(stderr)
	}

	second.write("data/keyring.json", read(t, first.keyringPath()))
	p := second.start()
	stdout, _ = first.command(exitDone, "keys", "status", "--json")
	if err := json.Unmarshal([]byte(stdout), &status); err != nil || len(status.Daemons) != 1 || status.Daemons[0].Fingerprint != status.Fingerprint {
		t.Errorf("%s: %v", stdout, err)
	}
	p.stop()

	first.command(exitDone, "keys", "rotate")
	second.refuses("out of date", "which "+second.keyringPath()+" lacks")
	second.write("data/keyring.json", read(t, first.keyringPath()))
	second.command(exitDone, "verify")
}

// A keyring of another installation is refused, whole or wrapped, and so is a damaged one.
func TestOtherKeyring(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	s.stocked(2)
	own := read(t, s.keyringPath())
	other.command(exitDone, "keys", "new")
	s.write("data/keyring.json", read(t, other.keyringPath()))
	s.refuses("is not the one of this installation", "NATS: sealed by another keyring", "sink records: ", "keys adopt")
	if _, stderr := s.command(exitUsage, "keys", "adopt"); !strings.Contains(stderr, "repeat this with --yes") {
		t.Error(stderr)
	}

	for text, words := range map[string]string{"": "it is empty", own[:len(own)/2]: "damaged", "{}": "version 0 is not known"} {
		s.write("data/keyring.json", text)
		s.refusesFile(words)
	}
	s.write("data/keyring.json", own)
	if err := os.Chmod(s.keyringPath(), 0o644); err != nil {
		t.Fatal(err)
	}
	s.refusesFile("chmod 600")
	if err := os.Chmod(s.keyringPath(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.command(exitDone, "verify")

	// Who means it may go on with the other one, and the first is the stranger then.
	s.write("data/keyring.json", read(t, other.keyringPath()))
	s.command(exitDone, "keys", "adopt", "--yes")
	s.start().stop()
	s.write("data/keyring.json", own)
	s.refuses("is not the one of this installation")
}

// refusesFile checks that a file that cannot be read is not worked with.
func (s *site) refusesFile(words string) {
	s.t.Helper()
	before := read(s.t, s.keyringPath())
	p := s.launch()
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(p.log.String(), words) {
		s.t.Errorf("run ends with exit code %d, and does not say %q: %s", code, words, p.log)
	}
	for _, args := range []string{"config check", "list", "keys list", "keys status"} {
		if stdout, stderr := s.command(exitUsage, strings.Fields(args)...); !strings.Contains(stdout+stderr, words) {
			s.t.Errorf("%s does not say %q: %s", args, words, stderr)
		}
	}
	if read(s.t, s.keyringPath()) != before {
		s.t.Error("the file was changed")
	}
}

// A host that lost its keyring does not start, with the notes and without them; a backup
// brings it back, and so does a new one, if somebody says so.
func TestLostKeyring(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.stocked(2)
	backup := read(t, s.keyringPath())
	if err := os.Remove(s.keyringPath()); err != nil {
		t.Fatal(err)
	}
	s.refuses("there is no keyring at", "Restore ")
	s.forgetMarks()
	s.refuses("there is no keyring at", "sink records: it holds results", "Restore ")

	s.write("data/keyring.json", backup)
	s.start().stop()
	s.command(exitDone, "verify")
	if err := os.Remove(s.keyringPath()); err != nil {
		t.Fatal(err)
	}
	s.command(exitDone, "keys", "new", "--start-over")
	s.start().stop()
}

// forgetMarks makes of an installation one of a version that noted no fingerprint.
func (s *site) forgetMarks() {
	s.t.Helper()
	ctx := s.t.Context()
	conn, err := (&app{configFile: s.config}).connect(ctx)
	if err == nil {
		err = errors.Join(conn.JS.DeleteKeyValue(ctx, keymark.Bucket), conn.Close())
	}
	err = errors.Join(err, os.Remove(s.path("media/"+markFile)), forgetRow(ctx, s.path("records/faceid.db")))
	if err != nil {
		s.t.Fatal(err)
	}
}

func forgetRow(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "DELETE FROM keyring")
	return errors.Join(err, db.Close())
}

// An installation of a version that noted nothing is taken over with the keyring that
// opens what it stored, and with no other.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	s, other := newSite(t, "type: dir,", "type: dir, seal: true,"), newSite(t)
	s.stocked(3)
	s.forgetMarks()
	own := read(t, s.keyringPath())
	other.command(exitDone, "keys", "new")
	s.write("data/keyring.json", read(t, other.keyringPath()))
	s.refuses("sink records: of 3 sealed results, "+s.keyringPath()+" opens none", "sink media: of ")

	s.write("data/keyring.json", own)
	s.command(exitDone, "list") // reads, and notes nothing
	if _, err := os.Stat(s.path("media/" + markFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a command that reads noted a fingerprint: %v", err)
	}
	s.start().stop()
	s.write("data/keyring.json", read(t, other.keyringPath()))
	s.refuses("NATS: sealed by another keyring", "sink records: sealed by another keyring", "sink media: sealed by another keyring")
}

// Parked results alone make an installation one that holds something.
func TestParkedNeedKeyring(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	s.park("T-1")
	if err := os.Remove(s.keyringPath()); err != nil {
		t.Fatal(err)
	}
	s.refuses("NATS: it holds results", "there is no keyring at")
}

// Commands that read make no keyring, and the first start needs no ceremony.
func TestReadersMakeNoKeyring(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for args, want := range map[string]int{
		"list": exitUsage, "show T-1": exitUsage, "verify": exitUsage, "keys list": exitUsage, "keys rotate": exitUsage, "keys reseal": exitUsage,
		"status": exitDone, "keys status": exitDone, "config check": exitDone, "dead list": exitDone,
	} {
		_, stderr := s.command(want, strings.Fields(args)...)
		if want == exitUsage && !strings.Contains(stderr, s.keyringPath()) {
			t.Errorf("%s does not say what is missing: %s", args, stderr)
		}
		if s.hasKeyring() {
			t.Fatalf("%s made a keyring", args)
		}
	}
	s.stocked(2)
	if !s.hasKeyring() || !strings.Contains(read(t, s.path("media/"+markFile)), `"fingerprint"`) {
		t.Error("the first start made no keyring, or noted none")
	}
}

// Of two first starts at once, one makes the keyring of the installation, and the other
// says that it is not its own, and leaves none.
func TestFirstStartsRace(t *testing.T) {
	t.Parallel()
	nats := newNATSServer(t)
	one, two := newSite(t, onServer(nats.running.ClientURL())...), newSite(t, onServer(nats.running.ClientURL())...)
	first, second := one.launch(), two.launch()
	loser, winner := two, first
	select {
	case <-first.ended:
		loser, winner = one, second
	case <-second.ended:
	}
	winner.runs()
	if loser.hasKeyring() {
		t.Error("the loser of the race keeps a keyring")
	}
	for _, p := range []*process{first, second} {
		if p != winner && (p.cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(p.log.String(), "fingerprint")) {
			t.Errorf("exit code %d: %s", p.cmd.ProcessState.ExitCode(), p.log)
		}
	}
	winner.stop()
}

// A key that something needs is not removed, whatever flags say, nor while somebody may
// need it; and nothing is changed.
func TestKeyInUseStays(t *testing.T) {
	t.Parallel()
	s := newSite(t, "type: dir,", "type: dir, seal: true,")
	s.stocked(3)
	old := s.keyList()[0].ID
	s.command(exitDone, "keys", "rotate")
	before := read(t, s.keyringPath())
	_, stderr := s.command(exitFailed, "keys", "remove", old, "--yes")
	if !strings.Contains(stderr, "key "+old+" is needed for ") || !strings.Contains(stderr, " in sink media") || !strings.Contains(stderr, " of 3 results in sink records") {
		t.Error(stderr)
	}

	stdout, _ := s.command(exitDone, "keys", "status", "--json")
	var status keysStatus
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, u := range status.Use {
		if u.Key == old && u.State == string(privacy.Retired) {
			used[u.Sink+" "+u.Holds] = u.Values
		}
	}
	if used["media media"] < 1 || used["records record"] < 1 || status.Places[0].ActiveKey != status.Keys[1].ID {
		t.Errorf("%s", stdout)
	}
	for _, shown := range []string{"NOTED IN", "SINK     HOLDS", old, status.Fingerprint} {
		if page, _ := s.command(exitDone, "keys", "status"); !strings.Contains(page, shown) {
			t.Errorf("no %q in\n%s", shown, page)
		}
	}

	s.command(exitDone, "keys", "reseal", "--sink", "records")
	if _, stderr := s.command(exitFailed, "keys", "remove", old, "--yes"); !strings.Contains(stderr, " in sink media") || strings.Contains(stderr, "sink records") {
		t.Error(stderr)
	}
	s.command(exitDone, "keys", "reseal")
	away := s.path("records.away")
	if err := os.Rename(s.path("records"), away); err != nil {
		t.Fatal(err)
	}
	if _, stderr := s.command(exitFailed, "keys", "remove", old, "--yes"); !strings.Contains(stderr, "sink records: ") || !strings.Contains(stderr, "is not removed") {
		t.Error(stderr)
	}
	if read(t, s.keyringPath()) != before {
		t.Error("the keyring was changed")
	}
	if err := os.Rename(away, s.path("records")); err != nil {
		t.Fatal(err)
	}
	s.command(exitDone, "keys", "remove", old, "--yes")
	s.command(exitDone, "verify")
	s.start().stop()
}
