package telemetry_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// contract are the metrics that rules, dashboards and other people's tools depend on:
// name, type and labels. A change here breaks them.
const contract = `
events_total counter account lane outcome
dead_letters_total counter account reason
dead_letters_stored gauge account reason
api_calls_total counter account action class code
stage_seconds histogram stage
unread_fields_total counter source field
missing_parts_total counter account reason
events_in_flight gauge
backlog_events gauge account lane
oldest_event_seconds gauge account
nearest_deadline_seconds gauge account
due_events gauge account within
unconfigured_events gauge
account_paused gauge account
limiter_limit gauge account
limiter_share gauge account
limiter_throttles_total counter account
replicas gauge
sink_up gauge sink
sink_errors_total counter sink class
parks_total counter account
parked_results gauge
parked_bytes gauge
parking_quota_bytes gauge
spool_bytes gauge
spool_quota_bytes gauge
assets_total counter kind form
asset_bytes_total counter kind
verdicts_total counter account product verdict code
expiry_timestamp_seconds gauge what
config_last_reload_successful gauge
build_info gauge version commit goversion
`

const prefix = "faceid_ingest_"

// The catalog is the contract.
func TestContract(t *testing.T) {
	var want, have []string
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		want = append(want, prefix+strings.TrimSpace(line))
	}
	for _, d := range telemetry.Catalog() {
		have = append(have, strings.Join(append([]string{d.Name, d.Type}, d.Labels...), " "))
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Errorf("the contract is\n%s\nthe catalog\n%s", strings.Join(want, "\n"), strings.Join(have, "\n"))
	}
}

// page is what deploy/prometheus/lint/page finds.
type page struct {
	Types     map[string]string
	Exemplars map[string][]string
}

// scrape asks as Prometheus does, and has its own parser read the answer.
func scrape(t *testing.T, m *telemetry.Metrics, accept string) page {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, serve(t, telemetry.AdminConfig{Metrics: m}).url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	kind := response.Header.Get("Content-Type")
	if want, _, _ := strings.Cut(accept, ";"); !strings.HasPrefix(kind, want) {
		t.Fatalf("asked for %s, got %s", accept, kind)
	}
	parse := exec.CommandContext(t.Context(), "go", "run", "./page", kind)
	parse.Dir = "../../deploy/prometheus/lint"
	parse.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	parse.Stdin, parse.Stderr = bytes.NewReader(body), &stderr
	output, err := parse.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var p page
	if err := json.Unmarshal(output, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Prometheus reads the page as text and as OpenMetrics, and finds the metrics of the
// contract in it and no others.
func TestPrometheusReadsThePage(t *testing.T) {
	m := filled(t)
	id := trace.TraceID{7}
	m.Stage(trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})), "record", time.Second)
	for accept, openMetrics := range map[string]bool{"text/plain; version=0.0.4": false, "application/openmetrics-text; version=1.0.0": true} {
		want := map[string]string{}
		for _, d := range telemetry.Catalog() {
			name := d.Name
			if openMetrics && d.Type == "counter" {
				name = strings.TrimSuffix(name, "_total")
			}
			want[name] = d.Type
		}
		got := scrape(t, m, accept)
		// Beside them there are those of Go, the process and the page itself.
		maps.DeleteFunc(got.Types, func(name, _ string) bool {
			return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
		})
		if !maps.Equal(want, got.Types) {
			t.Errorf("%s: want %v, got %v", accept, want, got.Types)
		}
		exemplars := got.Exemplars[prefix+"stage_seconds_bucket"]
		if openMetrics && !slices.Equal(exemplars, []string{id.String()}) || !openMetrics && len(got.Exemplars) > 0 {
			t.Errorf("%s: exemplars %v", accept, got.Exemplars)
		}
	}
}
