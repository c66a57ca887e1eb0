package telemetry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// Whatever is passed for a label, by whom ever, makes no series of its own.
func TestHostileLabels(t *testing.T) {
	const values, bound = 10_000, 150
	m := filled(t)
	shapes := []string{
		"evil-%d\"}\n\xff", // breaks out of a label, and is no UTF-8
		// As tokens, codes, kinds and reasons that look as if they were right.
		"evil%d", "InvalidParameterValue.Evil%d", "read_aloud:9%d", "9%d", "sinks.evil%d.tls",
	}
	for i := range values {
		for _, shape := range shapes {
			hostile(t, m, fmt.Sprintf(shape, i))
		}
	}
	_, text := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics")
	series := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		series++
		if strings.Contains(line, "evil") || strings.Contains(line, "Evil") || strings.Contains(line, `="9`) || strings.Contains(line, ":9") {
			t.Fatalf("a label came through: %s", line)
		}
	}
	t.Logf("%d series of this program after %d hostile values of each label, bound %d", series, len(shapes)*values, bound)
	if series > bound {
		t.Errorf("%d series", series)
	}
}

// hostile passes a value for each label there is.
func hostile(t *testing.T, m *telemetry.Metrics, v string) {
	t.Helper()
	age := time.Second
	m.Event(v, v, telemetry.Outcome(v))
	m.Event("main", "live", telemetry.Outcome(v))
	m.Dead(v, v)
	m.Dead("main", v)
	m.DeadStored(v, map[string]uint64{v: 1})
	m.Call(v, v, v, v)
	m.Call("main", "GetEidResult", "permanent", v)
	m.SinkError(v, v)
	m.SinkUp(v, true)
	m.Asset(v, true, 1)
	m.Verdict(v, v, false, v)
	m.Verdict("main", "eid", false, v)
	m.Stage(t.Context(), v, time.Second)
	m.Parked(v)
	m.AccountPaused(v, true)
	m.Backlog(v, v, 1)
	m.Oldest(v, &age)
	m.Deadline(v, time.Second)
	m.Due(v, v, 1)
	m.Expires(v, time.Unix(1, 0))
}

// An account that is not served has no limiter to be shown.
func TestForeignLimiters(t *testing.T) {
	m := telemetry.New()
	m.ServeAccount("main")
	m.Limiters(func() map[string]telemetry.Limit { return map[string]telemetry.Limit{"main": {}, "a": {}, "b": {}} })
	_, text := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics")
	if n := strings.Count(text, prefix+"limiter_share{"); n != 1 {
		t.Errorf("%d limiters are shown", n)
	}
}

// What is not known is not lost, either: it is counted as other.
func TestOther(t *testing.T) {
	m := filled(t)
	m.Call("main", "GetEidResult", "permanent", "Invented.Code")
	m.Call("main", "GetEidResult", "permanent", "InvalidParameterValue.BizTokenExpired")
	m.Verdict("main", "eid", false, "424242")
	m.Verdict("main", "eid", false, "read_aloud:3001")
	m.Dead("stranger", "crashed")
	m.DeadStored("main", map[string]uint64{"made-up": 2, "invented": 3, "expired": 4})
	_, text := serve(t, telemetry.AdminConfig{Metrics: m}).get("/metrics")
	lines := strings.Split(text, "\n")
	for _, line := range []string{
		`api_calls_total{account="main",action="GetEidResult",class="permanent",code="other"} 1`,
		`api_calls_total{account="main",action="GetEidResult",class="permanent",code="InvalidParameterValue.BizTokenExpired"} 1`,
		`verdicts_total{account="main",code="other",product="eid",verdict="failed"} 1`,
		`verdicts_total{account="main",code="read_aloud:3001",product="eid",verdict="failed"} 1`,
		`dead_letters_total{account="other",reason="crashed"} 1`,
		`dead_letters_stored{account="main",reason="other"} 5`,
		`dead_letters_stored{account="main",reason="expired"} 4`,
	} {
		if !slices.Contains(lines, prefix+line) {
			t.Errorf("no %s", line)
		}
	}
}
