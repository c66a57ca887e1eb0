package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

// picture has TestIncident draw the dashboard as it was at the end, see make picture.
var picture = flag.String("picture", "", "the file into which TestIncident draws the dashboard")

// watcher is a Prometheus with the rules of deploy/prometheus, for which time goes
// faster; see hasten.
type watcher struct {
	t   *testing.T
	url string
	// began is when it was started.
	began time.Time
}

// haste is how much faster the rules' time goes.
const haste = 60

// dayAMinute makes yesterday a minute ago, for the dashboard.
const dayAMinute = 24 * 60

var durations = regexp.MustCompile(`(for: |offset |\[|:)([0-9]+)([smhdw])\b`)

// hasten divides every duration in rules or queries: how long an alert waits, windows and
// offsets. Thresholds stay as they are.
func hasten(t *testing.T, rules string, by time.Duration) string {
	t.Helper()
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	return durations.ReplaceAllStringFunc(rules, func(found string) string {
		parts := durations.FindStringSubmatch(found)
		n, err := strconv.Atoi(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s%dms", parts[1], (time.Duration(n) * units[parts[3]] / by).Milliseconds())
	})
}

var listening = regexp.MustCompile(`msg="Listening on" address=(127\.0\.0\.1:\d+)`)

// watch starts a Prometheus that reads the daemon's metrics every second; args are added
// to its command line.
func (s *site) watch(t *testing.T, p *process, args ...string) *watcher {
	t.Helper()
	rules := hasten(t, read(t, filepath.Join("..", "..", "deploy", "prometheus", "rules.yaml")), haste)
	s.write("rules.yaml", rules)
	address := adminAddress.FindStringSubmatch(p.log.String())
	if address == nil {
		t.Fatal("the log does not tell the admin address")
	}
	scheme, host, _ := strings.Cut(address[1], "://")
	s.write("prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - job_name: faceid-ingest
    scheme: %s
    tls_config: {insecure_skip_verify: true}
    static_configs: [{targets: [%q]}]
`, s.path("rules.yaml"), scheme, host))
	output := &log{}
	cmd := exec.Command("prometheus", append(args, "--config.file="+s.path("prometheus.yml"), "--storage.tsdb.path="+t.TempDir(), "--web.listen-address=127.0.0.1:0")...)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: run make tools", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to end
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("Prometheus's log:\n%s", output)
		}
	})
	w := &watcher{t: t, began: time.Now()}
	until(t, "Prometheus listens", func() bool {
		select {
		case <-ended:
			t.Fatalf("Prometheus ended:\n%s", output)
		default:
		}
		if found := listening.FindStringSubmatch(output.String()); found != nil {
			w.url = "http://" + found[1]
		}
		return w.url != ""
	})
	until(t, "Prometheus has the rules and the metrics", func() bool { return w.number("faceid_ingest:target:known") == 1 })
	return w
}

// ask calls Prometheus's API and decodes its data; a refusal fails the test.
func (w *watcher) ask(path string, query url.Values, data any) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(w.url + path + "?" + query.Encode())
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		return // it is not ready yet
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		w.t.Fatalf("%s %v: %s %v", path, query, answer.Error, err)
	}
}

// number returns how many series an expression has now.
func (w *watcher) number(expression string) int {
	w.t.Helper()
	var data struct{ Result []json.RawMessage }
	w.ask("/api/v1/query", url.Values{"query": {expression}}, &data)
	return len(data.Result)
}

// seen tells whether an expression had a value at some time since the beginning.
func (w *watcher) seen(expression string) bool {
	w.t.Helper()
	var data struct{ Result []json.RawMessage }
	w.ask("/api/v1/query_range", url.Values{
		"query": {expression}, "step": {"1"}, "start": {stamp(w.began)}, "end": {stamp(time.Now().Add(time.Second))},
	}, &data)
	return len(data.Result) > 0
}

func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// firing returns the names of the alerts that fire now, sorted.
func (w *watcher) firing() []string {
	w.t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	w.ask("/api/v1/alerts", nil, &data)
	var names []string
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// raises waits until an alert fires, and clears until it does not any more. Both tell
// how long that took, and what fires then. What goes on meanwhile is done several times
// a second.
func (w *watcher) raises(alert string, meanwhile ...func()) {
	w.t.Helper()
	w.waitFor(alert, true, meanwhile...)
}

func (w *watcher) clears(alert string) { w.t.Helper(); w.waitFor(alert, false) }

func (w *watcher) waitFor(alert string, fires bool, meanwhile ...func()) {
	w.t.Helper()
	what := map[bool]string{true: "raised", false: "cleared"}[fires]
	began := time.Now()
	var all []string
	until(w.t, alert+" is "+what, func() bool {
		for _, do := range meanwhile {
			do()
		}
		all = w.firing()
		return slices.Contains(all, alert) == fires
	})
	w.t.Logf("%6.1fs  %-30s %s after %4.1fs; firing: %s", time.Since(w.began).Seconds(), alert, what, time.Since(began).Seconds(), strings.Join(all, " "))
}

// publishOld publishes checks as the backlog of somebody who noticed late: so much time
// is left until Tencent deletes their results.
func (s *site) publishOld(checks []faceidtest.Check, left time.Duration) {
	s.t.Helper()
	made := time.Now().Add(left - 72*time.Hour).UTC().Format(time.RFC3339)
	for _, product := range []string{"enhanced", "eid"} {
		var lines bytes.Buffer
		for _, c := range checks {
			if string(c.Product) == product {
				s.api.Put(c)
				fmt.Fprintf(&lines, "{\"token\": %q, \"issued_at\": %q}\n", c.Token, made)
			}
		}
		command(s.t, exitDone, lines.String(), "--config", s.config, "publish", "--account", "main", "--product", product, "--file", "-")
	}
}

// sawDashboard checks that every query of the dashboard had data at some time, and draws
// the dashboard if that is asked for.
func (w *watcher) sawDashboard() {
	w.t.Helper()
	folder := filepath.Join("..", "..", "deploy", "grafana")
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(w.t, filepath.Join(folder, "faceid-ingest.json"))), &dashboard); err != nil {
		w.t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5s", "$job", ".*", "$account", ".*")
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			if !w.seen(variables.Replace(hasten(w.t, target.Expr, dayAMinute))) {
				w.t.Errorf("the dashboard's panel %q showed nothing: %s", panel.Title, target.Expr)
			}
		}
	}
	if w.t.Logf("looked at %d queries of the dashboard", queries); queries == 0 {
		w.t.Error("the dashboard has no queries")
	}
	if *picture == "" {
		return
	}
	file, err := filepath.Abs(*picture)
	if err != nil {
		w.t.Fatal(err)
	}
	draw := exec.Command("go", "run", ".", "--prometheus", w.url, "--dashboard", "../faceid-ingest.json",
		"--from", stamp(w.began), "--to", stamp(time.Now()), "--haste", strconv.Itoa(dayAMinute), "--out", file)
	draw.Dir = filepath.Join(folder, "draw")
	if output, err := draw.CombinedOutput(); err != nil {
		w.t.Errorf("draw the dashboard: %v\n%s", err, output)
	}
}

// TestIncident is a bad day, minute for hour: the API is slow, a sink is down, the
// account is in arrears, and results pass their deadline while the API is away. Each
// raises its alert in a real Prometheus with the rules that are delivered, and clears it
// when it is mended; every query of the dashboard has shown something by then.
func TestIncident(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	var down atomic.Bool
	hook.refuse = func(w http.ResponseWriter, _ string, _ int) bool {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	}
	s := newSite(t, "slots: 16", "slots: 64")
	s.write("hook-ca.pem", string(hook.certificate()))
	cert, key := certificateAndKey(t, time.Now().Add(60*24*time.Hour))
	s.write("admin.crt", cert)
	s.write("admin.key", key)
	s.write("config.yaml", strings.Replace(read(t, s.config), "http: {", fmt.Sprintf(
		"  - {name: hook, type: webhook, url: %q, secret: %q, tls: {ca: %s}, allow_private: true}\nhttp: {tls: {cert: %s, key: %s}, ",
		hook.server.URL, hookSecret, s.path("hook-ca.pem"), s.path("admin.crt"), s.path("admin.key")), 1))
	checks := newChecks(1000, 8<<10)
	next := func(n int) (some []faceidtest.Check) {
		some, checks = checks[:n], checks[n:]
		return some
	}
	all := checks
	p := s.start()
	w := s.watch(t, p)
	// One that takes native histograms has no classic ones.
	native := s.watch(t, p, "--enable-feature=native-histograms")
	// trickle publishes one check in each half of a second.
	var last time.Time
	trickle := func() {
		if time.Since(last) > time.Second/2 {
			last = time.Now()
			s.publish(next(1))
		}
	}
	settled := func() {
		t.Helper()
		until(t, "all are settled", func() bool { return s.open() == 0 })
	}

	// An ordinary hour.
	s.publish(next(100))
	settled()
	if names := w.firing(); len(names) > 0 {
		t.Errorf("firing on a good day: %v", names)
	}

	lift := s.api.Fail(faceidtest.Fault{Delay: 12 * time.Second})
	w.raises("FaceIDIngestAPISlow", trickle)
	native.raises("FaceIDIngestAPISlow", trickle)
	if native.number("faceid_ingest_stage_seconds_bucket") != 0 || native.number("faceid_ingest_stage_seconds") == 0 {
		t.Error("the second Prometheus has no native histograms")
	}
	lift()
	settled()
	w.clears("FaceIDIngestAPISlow")

	down.Store(true)
	s.publish(next(50))
	w.raises("FaceIDIngestSinkDown")
	if names := w.firing(); slices.Contains(names, "FaceIDIngestAccountPaused") {
		t.Errorf("firing while only a sink is down: %v", names)
	}
	down.Store(false)
	settled()
	w.clears("FaceIDIngestSinkDown")

	lift = s.api.Fail(faceidtest.Fault{Code: "UnauthorizedOperation.Arrears"})
	s.publish(next(20))
	w.raises("FaceIDIngestAccountPaused")
	lift()
	settled()
	w.clears("FaceIDIngestAccountPaused")

	lift = s.api.Fail(faceidtest.Fault{Status: http.StatusBadGateway})
	s.publishOld(next(100), 20*time.Second)
	w.raises("FaceIDIngestResultExpiresNow")
	w.raises("FaceIDIngestAPIErrors")
	until(t, "the deadline is past", func() bool { return w.number("faceid_ingest:nearest_deadline_seconds:min < 0") == 1 })
	s.publish(next(20))
	w.raises("FaceIDIngestBacklogGrows", trickle)
	lift()
	settled()
	w.clears("FaceIDIngestBacklogGrows")
	w.clears("FaceIDIngestAPIErrors")
	w.clears("FaceIDIngestResultExpiresNow")

	rejected := next(1)
	s.api.Fail(faceidtest.Fault{Token: rejected[0].Token, Code: "InvalidParameterValue.BizTokenIllegal"})
	s.publish(rejected)
	w.raises("FaceIDIngestDeadLetters")

	until(t, "the letter is seen", func() bool { return w.number("faceid_ingest_dead_letters_stored") == 1 })
	w.sawDashboard()
	p.stop()
	w.raises("FaceIDIngestAbsent")
	s.holdsExactly(slices.DeleteFunc(slices.Clone(all[:len(all)-len(checks)]), func(c faceidtest.Check) bool { return c.Token == rejected[0].Token }))
}
