//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// records opens the database of a site whose daemon does not run.
func (s *site) records() *sqldb.Sink {
	s.t.Helper()
	cfg, err := config.Load(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	policy, _, err := preparePolicy(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	sink, err := cfg.Sinks[1].Config.Open(s.t.Context(), sinks.Env{Name: "records", Policy: policy, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := sink.Close(s.t.Context()); err != nil {
			s.t.Error(err)
		}
	})
	return sink.(*sqldb.Sink)
}

// holdsExactly checks that the sinks hold every check once, byte for byte, and
// nothing else, and that nothing is left in flight.
func (s *site) holdsExactly(checks []faceidtest.Check) {
	s.t.Helper()
	records := s.records()
	sum := &demoSum{forms: map[string]int{}}
	want, found := 0, 0
	for _, c := range checks {
		if err := verifyCheck(s.t.Context(), s.path("media"), records, c, sum); err != nil {
			s.t.Errorf("%s: %v", c.Token, err)
		}
		want++ // the manifest
		for _, m := range c.Media {
			if !m.Form.InCOS() {
				want++
			}
		}
	}
	count, err := records.Count(s.t.Context())
	if err != nil || count != int64(len(checks)) {
		s.t.Errorf("%d records of %d checks, %v", count, len(checks), err)
	}
	for _, file := range filesIn(s.t, s.path("media")) {
		if name := filepath.Base(file); name != ".lock" && name != "erased.json" && name != markFile {
			found++
		}
	}
	if found != want {
		s.t.Errorf("%d files in the archive, want %d", found, want)
	}
	for _, file := range filesIn(s.t, s.path("data/spool")) {
		if filepath.Base(file) != "gate" { // the lock of the spool, empty
			s.t.Errorf("left in the spool: %s", file)
		}
	}
}

func filesIn(t testing.TB, folder string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestKill kills the daemon four times in the middle of 500 events. The last ones hang, so
// that there is a middle however fast it is.
func TestKill(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ack_wait: 1m", "ack_wait: 5s") // for what a killed daemon held
	checks := newChecks(500, 128<<10)
	s.publish(checks)
	var lifts []func()
	for _, c := range checks[len(checks)-4:] {
		lifts = append(lifts, s.api.Fail(faceidtest.Fault{Token: c.Token, Hang: true}))
	}
	for _, asked := range []int{60, 150, 250, 350} {
		p := s.start()
		until(t, fmt.Sprintf("the API was asked %d times", asked), func() bool { return s.api.Stats().Requests >= asked })
		p.kill()
	}
	if openIn(s.status()) == 0 {
		t.Error("nothing is left to do before the last start")
	}
	for _, lift := range lifts {
		lift()
	}
	p := s.start()
	until(t, "all events are settled", func() bool { return s.open() == 0 })
	if status := s.status(); status.Dead != 0 || status.Events != 500 {
		t.Errorf("%+v", status)
	}
	p.stop()
	s.holdsExactly(checks)
}

// An event near its deadline that ends the daemon which works on it out of turn waits for
// its turn after that, so that it does not end one daemon after the other.
func TestUrgentEventThatEndsDaemons(t *testing.T) {
	t.Parallel()
	s := newSite(t, "rate_limit: 10000", "rate_limit: 4", "ack_wait: 1m", "ack_wait: 5s")
	checks := newChecks(150, 8<<10)
	lethal := checks[len(checks)-1]
	s.publish(checks[:len(checks)-1])
	s.api.Put(lethal)
	soon := fmt.Sprintf("{\"token\":%q,\"issued_at\":%q}", lethal.Token, time.Now().Add(-70*time.Hour).Format(time.RFC3339))
	command(t, exitDone, soon, "--config", s.config, "publish", "--account", "main", "--product", string(lethal.Product), "--file", "-")
	lift := s.api.Fail(faceidtest.Fault{Token: lethal.Token, Hang: true})
	p := s.start()
	until(t, "the event is worked on out of turn", func() bool { return s.api.Calls(lethal.Token) == 1 })
	asked := s.api.Stats().Requests
	if asked > 100 {
		t.Fatalf("%d events came before", asked)
	}
	p.kill()
	s.write("config.yaml", strings.Replace(read(t, s.config), "rate_limit: 4", "rate_limit: 20", 1))
	p = s.start()
	until(t, "others have their turn", func() bool { return s.api.Stats().Requests > asked+20 })
	if n := s.api.Calls(lethal.Token); n != 1 {
		t.Errorf("it was worked on %d times", n)
	}
	lift()
	until(t, "all events are settled", func() bool { return s.open() == 0 })
	p.stop()
	s.holdsExactly(checks)
}

// TestLargeVideo ingests a video of 200 MiB and asks the kernel for the most
// memory that the process ever had.
func TestLargeVideo(t *testing.T) {
	t.Parallel()
	s := newSite(t, "worker: {", "worker: {max_response: 512MiB, timeout: 10m, ")
	c := faceidtest.NewCheck(0, 1<<10)
	c.Media = append(c.Media[:2:2], faceidtest.Medium{Field: "VideoData.LivenessVideo", Kind: result.Video, Size: 200 << 20, Seed: 1, Form: faceidtest.Base64})
	s.publish([]faceidtest.Check{c})
	p := s.start()
	until(t, "the event is settled", func() bool { return s.open() == 0 })
	peak := peakMemory(t, p.cmd.Process.Pid)
	t.Logf("peak memory: %d MiB", peak>>20)
	if peak > 100<<20 {
		t.Errorf("the process took up to %d MiB", peak>>20)
	}
	p.stop()
	s.holdsExactly([]faceidtest.Check{c})
}

// TestLargeEncryptedBody is TestLargeVideo for an answer of which the whole is
// encrypted, and so goes through the spool twice.
func TestLargeEncryptedBody(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"SM4": "encryption: {mode: body, algorithm: SM4-GCM, public_key_file: FOLDER/sm4.txt}",
		"AES": "encryption: {mode: body, algorithm: AES-256-CBC, public_key_file: FOLDER/aes.txt}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "worker: {", "worker: {timeout: 10m, ")
			s.equip()
			settings := strings.ReplaceAll(settings, "FOLDER", s.folder)
			s.write("config.yaml", strings.Replace(read(t, s.config), "    rule_id:", "    "+settings+"\n    rule_id:", 1))
			c := faceidtest.NewCheck(0, 1<<10)
			c.Media = append(c.Media[:2:2], faceidtest.Medium{Field: "VideoData.LivenessVideo", Kind: result.Video, Size: 64 << 20, Seed: 1, Form: faceidtest.Base64})
			s.publish([]faceidtest.Check{c})
			p := s.start()
			until(t, "the event is settled", func() bool { return s.open() == 0 })
			peak := peakMemory(t, p.cmd.Process.Pid)
			t.Logf("peak memory: %d MiB", peak>>20)
			if peak > 100<<20 {
				t.Errorf("the process took up to %d MiB", peak>>20)
			}
			p.stop()
			s.holdsExactly([]faceidtest.Check{c})
		})
	}
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peakMemory returns the most resident memory that a process had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := highWater.FindSubmatch(status)
	if found == nil {
		t.Fatal("the kernel does not tell the peak memory")
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestNothingPersonalIsPrinted runs into every kind of trouble with values that
// can be recognised, and looks for them in everything that leaves the sinks.
func TestNothingPersonalIsPrinted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	checks := newChecks(24, 8<<10)
	var secrets []string
	for i := range checks {
		c := &checks[i]
		c.Person = faceidtest.Person{
			Name: fmt.Sprintf("马克测试%d", i), IDCard: fmt.Sprintf("CANARYID%010d", i),
			Address: fmt.Sprintf("CANARY-ADDRESS-%d", i), Mobile: fmt.Sprintf("CANARY-MOBILE-%d", i),
		}
		secrets = append(secrets, c.Person.Name, c.Person.IDCard, c.Person.Address, c.Person.Mobile)
		for _, m := range c.Media {
			head := make([]byte, 60)
			if _, err := io.ReadFull(m.Reader(), head); err != nil {
				t.Fatal(err)
			}
			random := head[30:] // behind what all media of a kind share
			secrets = append(secrets, string(random), hex.EncodeToString(random), base64.StdEncoding.EncodeToString(random))
		}
	}
	for i, f := range []faceidtest.Fault{
		{Code: "InternalError"}, {CutAt: 700}, {CutAt: 20_000}, {Status: 502}, {Drop: true},
		{Garbage: `{"Response":{"Text":{"ErrCode":"x","Name":"马克测试5","IdCard":"CANARYID0000000005"}`},
		{Garbage: `{"Response":{"Text":{"Name":"马克测试6"`},
		{Garbage: `<html>CANARYID0000000007</html>`},
	} {
		f.Token, f.Times = checks[i].Token, 1
		s.api.Fail(f)
	}
	rejected := checks[len(checks)-1]
	s.api.Fail(faceidtest.Fault{Token: rejected.Token, Code: "InvalidParameterValue.BizTokenExpired"})
	s.publish(checks)
	p := s.start()
	until(t, "all events are settled", func() bool { return s.open() == 0 })

	until(t, "the last is counted", func() bool { return p.metric(`outcome="ingested"} 23`) })
	_, ready := p.admin("/readyz")
	_, metrics := p.admin("/metrics")
	status, _ := s.command(exitDone, "status")
	letters, _ := s.command(exitDone, "dead", "list", "--json")
	letter, _ := s.command(exitDone, "dead", "show", "1")
	p.stop()
	if !strings.Contains(letters, "BizTokenExpired") || !strings.Contains(letter, rejected.Token) || !strings.Contains(metrics, `outcome="ingested"} 23`) {
		t.Errorf("the flow went another way:\n%s\n%s", letters, letter)
	}
	places := map[string][]byte{
		"the log": []byte(p.log.String()), "/readyz": []byte(ready), "/metrics": []byte(metrics),
		"status": []byte(status), "dead list": []byte(letters), "dead show": []byte(letter),
	}
	// The stream's files, the spool, the keyring and the records are no place
	// for them either, and of the archive only the media themselves.
	for _, file := range append(append(filesIn(t, s.path("data")), filesIn(t, s.path("records"))...), manifests(t, s.path("media"))...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		places[file] = b
	}
	for place, text := range places {
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s holds %q", place, secret)
			}
		}
	}
	s.holdsExactly(checks[:len(checks)-1])
}

func manifests(t *testing.T, folder string) []string {
	t.Helper()
	var found []string
	for _, file := range filesIn(t, folder) {
		if strings.HasSuffix(file, ".json") {
			found = append(found, file)
		}
	}
	if len(found) == 0 {
		t.Fatal("no manifest found")
	}
	return found
}

// TestTroubleIsToldOnce: one clear message, no loop of noise, nothing lost.
func TestTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	const events = 20
	for _, test := range []struct {
		name string
		// changes are of the configuration, break is done before the start.
		changes []string
		before  func(*testing.T, *site)
		change  func(*exec.Cmd)
		// sign is the metric that shows the trouble, message what the log says.
		sign, message string
	}{
		{"wrong secret", nil, func(_ *testing.T, s *site) { s.write("secret_key", "wrong-key") }, nil, accountPaused,
			"AuthFailure.SignatureFailure: the signature is wrong: check secret_key"},
		{"unknown secret id", []string{"AKID-test", "AKID-other"}, nil, nil, accountPaused,
			"AuthFailure.SecretIdNotFound: the secret_id does not exist or is disabled: check secret_id"},
		{"unknown endpoint", []string{"    endpoint: http://", "    endpoint: https://faceid.invalid #"}, nil, nil, accountPaused,
			"the endpoint faceid.invalid does not exist: check endpoint, and name resolution"},
		{"clock that is wrong", nil, func(_ *testing.T, s *site) { s.clock.offset.Store(int64(time.Hour)) }, nil, accountPaused,
			"AuthFailure.SignatureExpire: this machine's clock is more than five minutes off: synchronise it"},
		{"read-only folder", nil, readOnlyArchive, unprivileged,
			fmt.Sprintf(`faceid_ingest_events_total{account="main",lane="live",outcome="parked"} %d`, events), `the right to write there","class":"transient"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, append([]string{"shutdown_grace: 20s", "shutdown_grace: 1s"}, test.changes...)...) // it would wait for the account
			s.publish(newChecks(events, 8<<10))
			if test.before != nil {
				test.before(t, s)
			}
			var changes []func(*exec.Cmd)
			if test.change != nil {
				changes = append(changes, test.change)
			}
			p := s.start(changes...)
			until(t, "the trouble shows", func() bool {
				_, page := p.admin("/metrics")
				return strings.Contains(page, test.sign)
			})
			p.says(test.message)
			p.saysOnceAMinute(test.message)
			if strings.Contains(p.log.String(), `"level":"ERROR"`) {
				t.Error("there are errors besides")
			}
			until(t, "none of the events is gone", func() bool { return s.open() == events })
			if status := s.status(); status.Dead != 0 {
				t.Errorf("given up: %+v", status)
			}
			p.stop()
		})
	}
}

// saysOnceAMinute checks that a minute lies between one line of the daemon's log with a
// text and the next.
func (p *process) saysOnceAMinute(text string) {
	p.t.Helper()
	var last time.Time
	for line := range strings.Lines(p.log.String()) {
		if !strings.Contains(line, text) {
			continue
		}
		var entry struct{ Time time.Time }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			p.t.Fatal(err)
		}
		if since := entry.Time.Sub(last); since < 59*time.Second {
			p.t.Errorf("told again after %s: %s", since, text)
		}
		last = entry.Time
	}
	if last.IsZero() {
		p.t.Errorf("not told: %s", text)
	}
}

const accountPaused = `faceid_ingest_account_paused{account="main"} 1`

// TestConfigCheckAsRoot makes nothing that an unprivileged daemon could not use.
func TestConfigCheckAsRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := os.MkdirAll(s.path("data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		s.command(exitDone, "config", "check") // as the owner
		return
	}
	if err := os.Chown(s.path("data"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if _, stderr := s.command(exitUsage, "config", "check"); !strings.Contains(stderr, "belongs to user 65534") {
		t.Errorf("%s", stderr)
	}
	if made := filesIn(t, s.path("data")); len(made) > 0 {
		t.Errorf("made %v", made)
	}
	s.command(exitDone, "config", "check", "--static")
}

// nobody is who the daemon runs as where the test is root, whom no folder is
// read-only for.
const nobody = 65534

func unprivileged(cmd *exec.Cmd) {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

// readOnlyArchive makes the archive's folder unwritable for the daemon, which
// owns all others.
func readOnlyArchive(t *testing.T, s *site) {
	t.Helper()
	if err := os.Mkdir(s.path("media"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.giveAway()
	// The clean-up of the test must be able to enter it.
	t.Cleanup(func() { _ = os.Chmod(s.path("media"), 0o700) })
	if err := os.Chmod(s.path("media"), 0o500); err != nil {
		t.Fatal(err)
	}
}
