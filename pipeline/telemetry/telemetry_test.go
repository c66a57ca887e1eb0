package telemetry_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// filled returns metrics of which each was observed.
func filled(t *testing.T) *telemetry.Metrics {
	t.Helper()
	m := telemetry.New()
	m.ServeAccount("main")
	m.ServeSink("media")
	m.ServeSink("records")
	m.Build("v1.2.3", "0123456", "go1.26")
	m.Spool(func() (int64, int64) { return 7, 100 })
	m.Limiters(func() map[string]telemetry.Limit {
		return map[string]telemetry.Limit{"main": {Limit: 100, Share: 48.5, Throttles: 3}}
	})
	m.Event("main", "live", telemetry.Ingested)
	m.Event("main", "live", telemetry.Ingested)
	m.UnreadField("event", "extra")
	m.MissingPart("main", "not_found")
	m.Dead("main", "expired")
	m.DeadStored("main", map[string]uint64{"expired": 4, "refused": 1})
	m.DeadStored("main", map[string]uint64{"expired": 5})
	m.Call("main", "GetEidResult", "throttled", "RequestLimitExceeded")
	m.SinkError("media", "transient")
	m.SinkUp("media", true)
	m.SinkUp("records", false)
	m.Asset("video", true, 1000)
	m.Asset("image", false, 0)
	m.Verdict("main", "enhanced", true, "0")
	m.Stage(t.Context(), "pull", 30*time.Millisecond)
	m.Strangers(5)
	m.Held(3)
	m.Held(-1)
	m.Parked("main")
	m.Parking(2, 3000, 9000)
	m.AccountPaused("main", true)
	m.Backlog("main", "live", 12)
	age := 90 * time.Second
	m.Oldest("main", &age)
	m.Deadline("main", time.Hour)
	m.Due("main", "1h", 6)
	m.Replicas(3)
	m.Reloaded(false)
	m.Expires("http.tls", time.Unix(1_800_000_000, 0))
	return m
}

func TestMetrics(t *testing.T) {
	status, page := serve(t, telemetry.AdminConfig{Metrics: filled(t)}).get("/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	for _, line := range []string{
		`faceid_ingest_events_total{account="main",lane="live",outcome="ingested"} 2`,
		`faceid_ingest_dead_letters_total{account="main",reason="expired"} 1`,
		`faceid_ingest_dead_letters_stored{account="main",reason="expired"} 5`,
		`faceid_ingest_api_calls_total{account="main",action="GetEidResult",class="throttled",code="RequestLimitExceeded"} 1`,
		`faceid_ingest_sink_errors_total{class="transient",sink="media"} 1`,
		`faceid_ingest_sink_up{sink="media"} 1`,
		`faceid_ingest_sink_up{sink="records"} 0`,
		`faceid_ingest_assets_total{form="inline",kind="video"} 1`,
		`faceid_ingest_assets_total{form="cos",kind="image"} 1`,
		`faceid_ingest_asset_bytes_total{kind="video"} 1000`,
		`faceid_ingest_verdicts_total{account="main",code="0",product="enhanced",verdict="passed"} 1`,
		`faceid_ingest_stage_seconds_count{stage="pull"} 1`,
		`faceid_ingest_stage_seconds_bucket{stage="pull",le="0.04"} 1`,
		`faceid_ingest_events_in_flight 2`,
		`faceid_ingest_unconfigured_events 5`,
		`faceid_ingest_spool_bytes 7`,
		`faceid_ingest_spool_quota_bytes 100`,
		`faceid_ingest_backlog_events{account="main",lane="live"} 12`,
		`faceid_ingest_oldest_event_seconds{account="main"} 90`,
		`faceid_ingest_limiter_limit{account="main"} 100`,
		`faceid_ingest_limiter_share{account="main"} 48.5`,
		`faceid_ingest_limiter_throttles_total{account="main"} 3`,
		`faceid_ingest_replicas 3`,
		`faceid_ingest_config_last_reload_successful 0`,
		`faceid_ingest_expiry_timestamp_seconds{what="http.tls"} 1.8e+09`,
		`faceid_ingest_build_info{commit="0123456",goversion="go1.26",version="v1.2.3"} 1`,
		`go_goroutines `,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(page, `reason="refused"`) {
		t.Error("a reason without letters is still shown")
	}
}

// families reads a page as Prometheus does.
func families(t *testing.T, page io.Reader) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(page)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What is served is what the catalog says: names, types, help and labels.
func TestCatalog(t *testing.T) {
	_, page := serve(t, telemetry.AdminConfig{Metrics: filled(t)}).get("/metrics")
	served := families(t, strings.NewReader(page))
	for _, d := range telemetry.Catalog() {
		f := served[d.Name]
		if f == nil {
			t.Errorf("%s is not served", d.Name)
			continue
		}
		delete(served, d.Name)
		if got := strings.ToLower(f.GetType().String()); got != d.Type || f.GetHelp() != d.Help || d.Chinese == "" {
			t.Errorf("%s is a %s: %q", d.Name, got, f.GetHelp())
		}
		var names []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			names = append(names, l.GetName())
		}
		if want := slices.Sorted(slices.Values(d.Labels)); !slices.Equal(names, want) {
			t.Errorf("%s has the labels %v, want %v", d.Name, names, want)
		}
	}
	for name := range served {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
			t.Errorf("%s is not in the catalog", name)
		}
	}
}

// The tables of the READMEs are those of the code.
func TestTables(t *testing.T) {
	for name, chinese := range map[string]bool{"../../README.md": false, "../../README.zh-CN.md": true} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var table bytes.Buffer
		if err := telemetry.WriteTable(&table, chinese); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, table.Bytes()) {
			t.Errorf("%s has another table: run go generate ./pipeline/telemetry", name)
		}
	}
}

// A stage that belongs to a trace which is kept names it; what is not kept is not named.
func TestExemplars(t *testing.T) {
	m := telemetry.New()
	id := trace.TraceID{1, 2, 3}
	for _, flags := range []trace.TraceFlags{0, trace.FlagsSampled} {
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{1}, TraceFlags: flags}))
		m.Stage(ctx, "pull", time.Duration(1+flags)*time.Second)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, serve(t, telemetry.AdminConfig{Metrics: m}).url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	if n := strings.Count(text, `# {trace_id="`+id.String()+`"} 2.0`); n != 1 {
		t.Errorf("%d exemplars:\n%s", n, text)
	}
	if strings.Contains(text, `"} 1.0 `) || !strings.HasSuffix(text, "# EOF\n") {
		t.Error("an exemplar of a trace that is not kept, or no OpenMetrics")
	}
}

// What is not served any more is not shown.
func TestForget(t *testing.T) {
	m := filled(t)
	m.Forget("main")
	_, page := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics")
	left := families(t, strings.NewReader(page))
	for _, name := range []string{"nearest_deadline_seconds", "due_events", "account_paused", "backlog_events", "oldest_event_seconds", "dead_letters_stored"} {
		if left["faceid_ingest_"+name] != nil {
			t.Errorf("%s is still there", name)
		}
	}
	if left["faceid_ingest_events_total"] == nil {
		t.Error("a counter is gone")
	}
	m.Expires("http.tls", time.Time{})
	if _, page := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics"); strings.Contains(page, "http.tls") {
		t.Error("what has no end has one")
	}
}
