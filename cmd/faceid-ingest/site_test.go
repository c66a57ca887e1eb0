package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

// binary is the program as its users have it, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "faceid-ingest-test-")
	if err == nil {
		binary = filepath.Join(folder, "faceid-ingest")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		err = errors.Join(build.Run(), os.Chmod(folder, 0o755)) // an unprivileged process runs it, too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the binary:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(folder); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}))
}

// site is an API, a configuration, and the folders of a daemon.
type site struct {
	t      testing.TB
	api    *faceidtest.Server
	clock  *clock
	folder string
	config string
	// foreign says that the files belong to nobody, as whom commands run then.
	foreign bool
}

// clock is the API's.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

// newSite writes a configuration; changes replace parts of it.
func newSite(t testing.TB, changes ...string) *site {
	t.Helper()
	apiClock := &clock{}
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{Clock: apiClock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	api.AddCredential("AKID-test", "right-key", "")
	folder := t.TempDir()
	s := &site{t: t, api: api, clock: apiClock, folder: folder, config: filepath.Join(folder, "config.yaml")}
	s.write("secret_key", "right-key")
	text := strings.NewReplacer(changes...).Replace(fmt.Sprintf(`data_dir: %[1]s/data
accounts:
  - name: main
    secret_id: AKID-test
    secret_key_file: %[1]s/secret_key
    endpoint: %[2]s
    rate_limit: 10000
    rule_id: "1"
    storage: {bucket: faceid-1250000000, region: ap-guangzhou}
worker: {slots: 16, ack_wait: 1m, shutdown_grace: 20s}
spool: {memory: 16KiB}
sinks:
  - {name: media, type: dir, path: %[1]s/media}
  - {name: records, type: sqlite, path: %[1]s/records/faceid.db}
http: {admin: 127.0.0.1:0}
log: {level: debug, format: json}
`, folder, api.URL()))
	s.write("config.yaml", text)
	if err := os.Mkdir(filepath.Join(folder, "records"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.folder, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// command runs one command line, in this process if that owns the files.
func (s *site) command(want int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	code, stdout, stderr := s.tryCommand(args...)
	if code != want {
		s.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

// tryCommand is command whose exit code may be any.
func (s *site) tryCommand(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	args = append([]string{"--config", s.config}, args...)
	if s.foreign {
		return s.commandAsNobody(args...)
	}
	var out, errs bytes.Buffer
	code = run(s.t.Context(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func command(t testing.TB, want int, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(stdin), &out, &errs); code != want {
		t.Fatalf("%v: exit code %d, want %d\n%s%s", args, code, want, &out, &errs)
	}
	return out.String(), errs.String()
}

// publish puts checks into the API, and their events into the stream.
func (s *site) publish(checks []faceidtest.Check) {
	s.t.Helper()
	for _, product := range []string{"enhanced", "eid"} {
		var lines strings.Builder
		for _, c := range checks {
			if s.api.Put(c); string(c.Product) == product {
				fmt.Fprintln(&lines, c.Token)
			}
		}
		if lines.Len() > 0 {
			command(s.t, exitDone, lines.String(), "--config", s.config, "publish", "--account", "main", "--product", product, "--file", "-")
		}
	}
}

func newChecks(n int, videoSize int64) []faceidtest.Check {
	checks := make([]faceidtest.Check, n)
	for i := range checks {
		checks[i] = faceidtest.NewCheck(i, videoSize)
	}
	return checks
}

// status asks the running daemon's server.
func (s *site) status() pipeline.Status {
	s.t.Helper()
	stdout, _ := s.command(exitDone, "status", "--json")
	var status pipeline.Status
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		s.t.Fatal(err)
	}
	return status
}

// open returns how many events are not settled, or -1 if the server does not answer in
// time, as while it starts again or on a busy machine: nobody knows then.
func (s *site) open() int {
	s.t.Helper()
	code, stdout, stderr := s.tryCommand("status", "--json")
	switch code {
	case exitDone:
	case exitFailed:
		s.t.Logf("status: %s", stderr)
		return -1
	default:
		s.t.Fatalf("status: exit code %d\n%s", code, stderr)
	}
	var status pipeline.Status
	if err := json.Unmarshal([]byte(stdout), &status); err != nil {
		s.t.Fatal(err)
	}
	return openIn(status)
}

func openIn(status pipeline.Status) (n int) {
	for _, lane := range status.Lanes {
		n += int(lane.Waiting) + lane.Held
	}
	return n
}

// until waits for a condition, and fails the test if it never comes. How long it waits
// matters only then: the machine may be slow, and other tests run beside this one.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	end := time.NewTimer(10 * time.Minute)
	defer end.Stop()
	for {
		began := time.Now()
		if condition() {
			return
		}
		// To look must not keep what is waited for from the processor.
		pause := time.NewTimer(max(20*time.Millisecond, 2*time.Since(began)))
		select {
		case <-pause.C:
		case <-end.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// process is a running daemon.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	log *log
	// ended is closed when the process has ended.
	ended chan struct{}
}

// log is what a process printed so far.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start runs the daemon and waits until it works. Its end is the test's duty;
// what is left at the end of the test is killed.
func (s *site) start(change ...func(*exec.Cmd)) *process {
	s.t.Helper()
	p := s.launch(change...)
	p.runs()
	return p
}

// launch is start that does not wait.
func (s *site) launch(change ...func(*exec.Cmd)) *process {
	s.t.Helper()
	p := &process{t: s.t, log: &log{}, ended: make(chan struct{})}
	p.cmd = exec.Command(binary, "--config", s.config, "run")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	for _, c := range change {
		c(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its exit code is looked at by stop
	}()
	s.t.Cleanup(func() {
		p.kill()
		if s.t.Failed() {
			s.t.Logf("the daemon's log:\n%s", p.log)
		}
	})
	return p
}

// runs waits until the daemon works.
func (p *process) runs() {
	p.t.Helper()
	p.says("faceid-ingest is running")
}

// says waits until the daemon's log has a text.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, "the daemon says "+text, func() bool {
		select {
		case <-p.ended:
			if !strings.Contains(p.log.String(), text) {
				p.t.Fatalf("the daemon ended and did not say %q:\n%s", text, p.log)
			}
		default:
		}
		return strings.Contains(p.log.String(), text)
	})
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// stop asks the process to end and checks that it does so well.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != exitDone {
		p.t.Errorf("the daemon ended with code %d", code)
	}
}

var adminAddress = regexp.MustCompile(`"address":"(https?://127\.0\.0\.1:\d+)"`)

// admin gets a page of the admin endpoint.
func (p *process) admin(page string) (int, string) {
	p.t.Helper()
	return p.adminWith("", page)
}

// adminWith is admin with a token.
func (p *process) adminWith(token, page string) (int, string) {
	p.t.Helper()
	address := adminAddress.FindStringSubmatch(p.log.String())
	if address == nil {
		p.t.Fatal("the log does not tell the admin address")
	}
	request, err := http.NewRequestWithContext(context.WithoutCancel(p.t.Context()), http.MethodGet, address[1]+page, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	response, err := client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
