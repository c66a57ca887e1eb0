package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// listen takes a port of the loopback interface and never says anything there.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// guardedNATS runs a server that wants a user and a password.
func guardedNATS(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		Username: "ingest", Password: "right",
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s.Addr().String()
}

// What makes "run" fail at once makes "config check" fail, with the same words, and both
// exit with 2: starting again is of no use.
func TestRunAndConfigCheckAgree(t *testing.T) {
	const admin, worker, sinksKey = "http: {admin: 127.0.0.1:0}", "worker: {", "sinks:\n"
	taken := listen(t).Addr().String()
	guarded := guardedNATS(t)
	alone, _ := externalNATS(t, true)
	for _, tt := range []struct {
		name string
		// changes may hold FOLDER, which is the site's.
		changes []string
		before  func(s *site)
		// check is the step that fails.
		check, says string
		// more is how many others the check finds that "run" lives with.
		more int
	}{
		{"port in use", []string{admin, "http: {admin: " + taken + "}"}, nil, "http.admin", "has the port", 0},
		{"no token file", []string{admin, "http: {admin: 127.0.0.1:0, admin_token_file: FOLDER/none}"}, nil, "http.admin", "read http.admin_token_file", 0},
		{"short token", []string{admin, "http: {admin: 127.0.0.1:0, admin_token_file: FOLDER/token}"}, func(s *site) { s.write("token", "short") }, "http.admin", "less than 16 characters", 0},
		{"no certificate", []string{admin, "http: {admin: 127.0.0.1:0, tls: {cert: FOLDER/none, key: FOLDER/none}}"}, nil, "http.admin", "read http.tls.cert", 0},
		{"data_dir below a file", []string{"data_dir: ", "data_dir: FOLDER/secret_key/below #"}, nil, "data_dir", "name another one", 0},
		{"spool below a file", []string{"spool: {", "spool: {dir: FOLDER/secret_key/below, "}, nil, "spool", "not a directory", 0},
		{"no keyring", []string{worker, "privacy: {keyring_file: FOLDER/none}\nworker: {"}, nil, "keyring in use", "privacy.keyring_file", 0},
		{"no headers", []string{worker, "tracing: {endpoint: \"http://127.0.0.1:4318\", headers_file: FOLDER/none}\nworker: {"}, nil, "tracing", "no such file", 0},
		{"no parent of an archive", []string{"/media}", "/none/there}"}, nil, "sink media", "create it", 0},
		{"no folder of a database", []string{"records/faceid.db", "none/faceid.db"}, nil, "sink records", "create the folder", 0},
		{"no secret of a receiver", []string{sinksKey, "sinks:\n  - {name: hook, type: webhook, url: \"https://127.0.0.1:1/\", allow_private: true, secret_file: FOLDER/none}\n"}, nil, "sink hook", "secret_file", 0},
		{"nothing keeps a result", []string{"  - {name: media,", "  - {name: hook, type: webhook, url: \"https://127.0.0.1:1/\", allow_private: true, secret: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}\n#", "  - {name: records", "# "}, nil, "worker", "no sink keeps anything", 1},
		{"no key of a merchant", []string{"    rule_id:", "    eid: {private_key_file: FOLDER/none}\n    rule_id:"}, nil, "account main", "eid.private_key_file", 0},
		{"no key of the console", []string{"    rule_id:", "    encryption: {mode: fields, public_key_file: FOLDER/none}\n    rule_id:"}, nil, "account main", "encryption.public_key_file", 0},
		{"no account", []string{"accounts:\n", "accounts: []\nignored: &x\n"}, func(s *site) {
			text := read(s.t.(*testing.T), s.config)
			from, to := strings.Index(text, "ignored:"), strings.Index(text, "worker:")
			s.write("config.yaml", text[:from]+text[to:])
		}, "accounts", "no account is configured", 0},
		{"wrong password of NATS", []string{worker, "nats: {url: \"nats://" + guarded + "\", user: ingest, password: wrong}\nworker: {"}, nil, "nats", "check nats.user and nats.password_file", 0},
		{"no credentials of NATS", []string{worker, "nats: {url: \"nats://" + guarded + "\", creds_file: FOLDER/none}\nworker: {"}, nil, "nats", "no such file", 0},
		{"more replicas than servers", []string{worker, "nats: {url: \"" + alone + "\", replicas: 3}\nworker: {"}, nil, "nats", "replicas > 1 not supported", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, tt.changes...)
			s.write("config.yaml", strings.ReplaceAll(read(t, s.config), "FOLDER", s.folder))
			if tt.before != nil {
				tt.before(s)
			}

			_, log := s.command(exitUsage, "run")
			runSays := failure(t, log)
			if !strings.Contains(runSays, tt.says) {
				t.Errorf("run says\n%s", log)
			}
			all := s.found(exitUsage)
			i := slices.IndexFunc(all[checkFailed], func(c checked) bool { return c.Check == tt.check })
			if i < 0 || len(all[checkFailed]) != 1+tt.more {
				t.Fatalf("config check says %+v", all[checkFailed])
			}
			// "run" makes all accounts at once, within the worker.
			detail := all[checkFailed][i].Detail
			if want := tt.check + ": " + detail; runSays != want && runSays != "worker: "+want {
				t.Errorf("run says %s\nconfig check says %s", runSays, want)
			}
		})
	}
}

// failure returns why a daemon ended, from its log.
func failure(t *testing.T, log string) string {
	t.Helper()
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Error string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if entry.Msg == "faceid-ingest has failed" {
			return entry.Error
		}
	}
	t.Fatalf("it does not say why it failed:\n%s", log)
	return ""
}

// A folder that cannot be written is one problem, however many things lie in it.
func TestReadOnlyDataDir(t *testing.T) {
	s := newSite(t)
	readOnlyArchive(t, s) // gives all to the unprivileged user
	for _, change := range []error{os.Chmod(s.path("media"), 0o700), os.Mkdir(s.path("data"), 0o500), own(s.path("data"))} {
		if change != nil {
			t.Fatal(change)
		}
	}
	code, output := s.unprivileged("config", "check", "--json")
	if code != exitUsage || strings.Count(output, `"state":"failed"`) != 1 || !strings.Contains(output, `"check":"data_dir","state":"failed"`) || !strings.Contains(output, "the right to write there") {
		t.Errorf("%d\n%s", code, output)
	}
	if code, output := s.unprivileged("run"); code != exitUsage || !strings.Contains(output, "the right to write there") {
		t.Errorf("%d\n%s", code, output)
	}
}

// own gives a folder to the unprivileged user.
func own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, nobody, nobody)
}

// Of two daemons on one data folder the second one is refused at once, whatever NATS they
// use, and a command says that the first one is there.
func TestTwoDaemons(t *testing.T) {
	external, _ := externalNATS(t, true)
	for name, change := range map[string]string{"embedded": "", "elsewhere": "nats: {url: \"" + external + "\"}\n"} {
		t.Run(name, func(t *testing.T) {
			port := listen(t)
			address := port.Addr().String()
			if err := port.Close(); err != nil {
				t.Fatal(err)
			}
			s := newSite(t, "worker: {", change+"worker: {", "admin: 127.0.0.1:0", "admin: "+address)
			p := s.start()

			_, stderr := s.command(exitUsage, "run")
			if want := "another daemon (process " + strconv.Itoa(p.cmd.Process.Pid) + ") works in " + s.path("data"); !strings.Contains(stderr, want) {
				t.Errorf("no %q in %s", want, stderr)
			}
			stdout, _ := s.command(exitDone, "config", "check")
			for _, want := range []string{
				fmt.Sprintf("%-24s ok (a daemon (process %d) works in it)", "data_dir", p.cmd.Process.Pid),
				fmt.Sprintf("%-24s ok (the daemon (process %d) that works in data_dir has the port)", "http.admin", p.cmd.Process.Pid),
			} {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}

			// The port of somebody else is a problem, daemon or not.
			s.write("config.yaml", strings.ReplaceAll(read(t, s.config), address, listen(t).Addr().String()))
			if failed := s.found(exitUsage)[checkFailed]; len(failed) != 1 || failed[0].Check != "http.admin" {
				t.Errorf("%+v", failed)
			}
			p.kill()
			s.write("config.yaml", strings.Replace(read(t, s.config), "http: {admin: ", "http: {admin: \"\"} #", 1))
			next := s.start() // what was killed holds nothing
			next.stop()
		})
	}
}

// Which configuration is used, where none is named.
func TestWhichConfiguration(t *testing.T) {
	s := newSite(t)
	t.Chdir(t.TempDir())
	old := systemConfig
	t.Cleanup(func() { systemConfig = old })

	systemConfig = s.config
	stdout, stderr := command(t, exitDone, "", "config", "check")
	if !strings.Contains(stdout, "("+s.config+")") {
		t.Errorf("%s%s", stdout, stderr)
	}
	command(t, exitDone, "", "keys", "new")
	if _, stderr := command(t, exitDone, "", "list"); !strings.Contains(stderr, "configuration: "+s.config+"\n") {
		t.Errorf("%s", stderr)
	}
	stdout, _ = command(t, exitDone, "", "config", "check", "--static", "--json")
	if want := fmt.Sprintf("{\"check\":\"configuration\",\"state\":\"ok\",\"detail\":%q}\n", s.config); stdout != want {
		t.Errorf("%s", stdout)
	}
	if _, stderr := s.command(exitDone, "list"); strings.Contains(stderr, "configuration:") {
		t.Errorf("the one that was named is told of: %s", stderr)
	}

	// One that is there and cannot be read is no reason for another one.
	systemConfig = filepath.Join(s.path("secret_key"), "config.yaml")
	if _, stderr := command(t, exitUsage, "", "status"); !strings.Contains(stderr, systemConfig) {
		t.Errorf("%s", stderr)
	}

	systemConfig = s.path("none")
	stdout, _ = command(t, exitUsage, "", "config", "check", "--json")
	var failed []string
	for line := range strings.Lines(stdout) {
		var one checked
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		if one.State == checkFailed {
			failed = append(failed, one.Check)
		}
	}
	if len(failed) != 1 || failed[0] != "accounts" || !strings.Contains(stdout, "embedded default") {
		t.Errorf("%v\n%s", failed, stdout)
	}
	for _, want := range []string{"data/media", "data/faceid.db"} {
		if _, err := os.Stat(want); err != nil {
			t.Errorf("the default's sinks have no place: %v", err)
		}
	}
	command(t, exitDone, "", "keys", "new")
	command(t, exitDone, "", "list")
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 1 || entries[0].Name() != "data" {
		t.Errorf("there is more than the data folder: %v, %v", entries, err)
	}
}

// Commands need the secrets of what they use, and no others.
func TestSecretsOfOthers(t *testing.T) {
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	s.write("config.yaml", strings.NewReplacer("secret_id: AKID-test", "secret_id: ${SECRET_ID_OF_NOBODY}",
		"sinks:\n", "sinks:\n  - {name: hook, type: webhook, url: \"https://127.0.0.1:1/\", allow_private: true, secret: \"${SECRET_OF_NOBODY}\"}\n",
		"worker: {", "nats: {url: \"nats://127.0.0.1:1\", user: ingest, password: \"${PASSWORD_OF_NOBODY}\"}\nworker: {").Replace(read(t, s.config)))
	s.command(exitDone, "list")
	if _, stderr := s.command(exitUsage, "status"); !strings.Contains(stderr, "PASSWORD_OF_NOBODY") || strings.Contains(stderr, "SECRET") {
		t.Errorf("status: %s", stderr)
	}
	for _, args := range [][]string{{"run"}, {"config", "check"}, {"config", "check", "--static"}} {
		_, stderr := s.command(exitUsage, args...)
		for _, want := range []string{"accounts[0].secret_id: ", "SECRET_ID_OF_NOBODY", "sinks[0].secret: ", "nats.password: "} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%v: no %q in %s", args, want, stderr)
			}
		}
	}
}

// A server that takes the connection and says nothing is told of.
func TestSilentServers(t *testing.T) {
	silent := listen(t).Addr().String()
	for name, tt := range map[string]struct{ old, new, check, says string }{
		"mysql":    {"sinks:\n", "sinks:\n  - {name: rows, type: mysql, dsn: \"user@tcp(" + silent + ")/faceid?timeout=1s\"}\n", "sink rows", "does not answer"},
		"postgres": {"sinks:\n", "sinks:\n  - {name: rows, type: postgres, url: \"postgres://user@" + silent + "/faceid?connect_timeout=1\"}\n", "sink rows", "does not answer"},
		"nats":     {"worker: {", "nats: {url: \"nats://" + silent + "\"}\nworker: {", "nats", "says nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits
			s := newSite(t, tt.old, tt.new)
			if failed := s.found(exitUsage)[checkFailed]; len(failed) != 1 || failed[0].Check != tt.check || !strings.Contains(failed[0].Detail, tt.says) {
				t.Errorf("%+v", failed)
			}
		})
	}
}

// unprivileged runs a command line of the binary as somebody whom a folder may be
// read-only for.
func (s *site) unprivileged(args ...string) (code int, output string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), binary, append([]string{"--config", s.config}, args...)...)
	unprivileged(cmd)
	text, err := cmd.CombinedOutput()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// A disk that is full is a problem before the first result does not fit, and no daemon on
// it is ready.
func TestFullDiskIsNotReady(t *testing.T) {
	if !mayMount(t) {
		return
	}
	t.Parallel()
	for _, name := range []string{"media", "records"} {
		s := newSite(t)
		disk := s.smallDisk(name, "1m")
		if failed := s.found(exitUsage)[checkFailed]; len(failed) != 1 || failed[0].Check != "sink "+name || !strings.Contains(failed[0].Detail, "the disk is full") {
			t.Errorf("%+v", failed)
		}
		p := s.start()
		if code, answer := p.admin("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(answer, "the disk is full") {
			t.Errorf("%d %s", code, answer)
		}
		disk.grow()
		until(t, "it is ready", func() bool { code, _ := p.admin("/readyz"); return code == http.StatusOK })
		p.stop()
	}
}
