package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts an admin endpoint and returns a function that gets a page.
func serve(t *testing.T, metrics *telemetry.Metrics, checks map[string]telemetry.Check) func(path string) (int, string) {
	t.Helper()
	admin, err := telemetry.Listen(t.Context(), "127.0.0.1:0", metrics, checks)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func(path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin.Address()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
}

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
	status, page := serve(t, m, nil)("/metrics")
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

func TestReadiness(t *testing.T) {
	var broken error
	get := serve(t, telemetry.New(), map[string]telemetry.Check{
		"nats":       func(context.Context) error { return nil },
		"sink media": func(context.Context) error { return broken },
	})
	var answer struct {
		Ready  bool
		Checks map[string]string
	}
	read := func(want int) {
		t.Helper()
		status, body := get("/readyz")
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != want {
			t.Fatalf("%d %s: %v", status, body, err)
		}
	}
	read(http.StatusOK)
	if !answer.Ready || answer.Checks["nats"] != "ok" || answer.Checks["sink media"] != "ok" {
		t.Errorf("%+v", answer)
	}
	broken = errors.New("the folder is read-only")
	read(http.StatusServiceUnavailable)
	if answer.Ready || answer.Checks["nats"] != "ok" || answer.Checks["sink media"] != "the folder is read-only" {
		t.Errorf("%+v", answer)
	}
	if status, body := get("/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("a daemon that waits for a sink is alive: %d %s", status, body)
	}
}

func TestListenSaysWhichSetting(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = telemetry.Listen(t.Context(), taken.Addr().String(), telemetry.New(), nil)
	if err == nil || !strings.Contains(err.Error(), "http.admin") || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}
