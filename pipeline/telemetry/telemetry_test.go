package telemetry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMetrics(t *testing.T) {
	m := telemetry.New()
	m.Spool(func() (int64, int64) { return 7, 100 })
	m.Event("main", "live", telemetry.Ingested)
	m.Event("main", "live", telemetry.Ingested)
	m.Dead("main", "expired")
	m.Call("main", "eid", "throttled")
	m.SinkError("media", "transient")
	m.SinkUp("media", true)
	m.SinkUp("records", false)
	m.Asset("video", true, 1000)
	m.Asset("image", false, 0)
	m.Verdict("main", "enhanced", true)
	m.Stage("pull", 30*time.Millisecond)
	m.Strangers(5)
	m.Held(3)
	m.Held(-1)
	status, page := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	for _, line := range []string{
		`faceid_ingest_events_total{account="main",lane="live",outcome="ingested"} 2`,
		`faceid_ingest_dead_letters_total{account="main",reason="expired"} 1`,
		`faceid_ingest_api_calls_total{account="main",class="throttled",product="eid"} 1`,
		`faceid_ingest_sink_errors_total{class="transient",sink="media"} 1`,
		`faceid_ingest_sink_up{sink="media"} 1`,
		`faceid_ingest_sink_up{sink="records"} 0`,
		`faceid_ingest_assets_total{form="inline",kind="video"} 1`,
		`faceid_ingest_assets_total{form="cos",kind="image"} 1`,
		`faceid_ingest_asset_bytes_total{kind="video"} 1000`,
		`faceid_ingest_verdicts_total{account="main",passed="true",product="enhanced"} 1`,
		`faceid_ingest_stage_seconds_count{stage="pull"} 1`,
		`faceid_ingest_stage_seconds_bucket{stage="pull",le="0.08"} 1`,
		`faceid_ingest_events_in_flight 2`,
		`faceid_ingest_unconfigured_events 5`,
		`faceid_ingest_spool_bytes 7`,
		`faceid_ingest_spool_quota_bytes 100`,
		`go_goroutines `,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("no %s", line)
		}
	}
}
