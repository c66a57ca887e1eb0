package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// scrape reads the metrics as Prometheus does.
func (b *bench) scrape() map[string]*dto.MetricFamily {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	admin, err := telemetry.Listen(ctx, telemetry.AdminConfig{Address: "127.0.0.1:0", Metrics: b.metrics, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(admin.URL() + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		b.t.Fatal(err)
	}
	return families
}

// value returns one series, or false if it is not there; labels are written as in
// PromQL, sorted.
func value(families map[string]*dto.MetricFamily, name, labels string) (float64, bool) {
	for _, m := range families["faceid_ingest_"+name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		if strings.Join(have, ",") == labels {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
		}
	}
	return 0, false
}

// What a worker shows of queues, deadlines, dead letters and verdicts.
func TestGauges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	refuse := make(chan struct{})
	b.api.verdict = func(token string) result.Verdict {
		code := int64(2010)
		if strings.HasPrefix(token, "GOOD") {
			return result.Verdict{Passed: true}
		}
		return result.Verdict{Intention: result.IntentionReadAloud, IntentionCode: &code}
	}
	b.api.answer = func(ctx context.Context, token string, _ int) error {
		switch {
		case token == "GONE":
			return expired
		case token != "SLOW":
			return nil
		}
		select {
		case <-refuse:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.publish("GOOD-1", "GOOD-2", "BAD", "GONE", "SLOW")
	b.start()
	shows := func(name, labels string, want float64) {
		t.Helper()
		b.until(fmt.Sprintf("%s{%s} is %v", name, labels, want), func() bool {
			got, ok := value(b.scrape(), name, labels)
			return ok && got == want
		})
	}
	shows("replicas", "", 1)
	shows("dead_letters_total", `account="main",reason="expired"`, 1)
	shows("verdicts_total", `account="main",code="0",product="enhanced",verdict="passed"`, 2)
	shows("verdicts_total", `account="main",code="other",product="enhanced",verdict="failed"`, 1)
	shows("api_calls_total", `account="main",action="GetDetectInfoEnhanced",class="permanent",code="InvalidParameterValue.BizTokenExpired"`, 1)
	shows("api_calls_total", `account="main",action="GetDetectInfoEnhanced",class="ok",code="ok"`, 3)
	shows("account_paused", `account="main"`, 0)
	shows("sink_up", `sink="records"`, 1)
	// A new worker looks at once.
	b.halt()
	b.start()
	shows("backlog_events", `account="main",lane="live"`, 1)
	shows("dead_letters_stored", `account="main",reason="expired"`, 1)
	families := b.scrape()
	if age, ok := value(families, "oldest_event_seconds", `account="main"`); !ok || age <= 0 || age > 3600 {
		t.Errorf("the oldest event is %v seconds old", age)
	}
	if left, ok := value(families, "nearest_deadline_seconds", `account="main"`); !ok || left < 69*3600 || left > 72*3600 {
		t.Errorf("the nearest deadline is in %v seconds", left)
	}
	close(refuse)
	b.noneHeld()
	b.halt()
	b.start()
	b.until("there is no oldest event", func() bool {
		_, ok := value(b.scrape(), "oldest_event_seconds", `account="main"`)
		return !ok
	})
}

// Whatever the API and publishers send, the number of series is bounded.
func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	const tokens = 2_000
	b := newBench(t)
	b.cfg.Slots = 64
	hostile := func(token string) string { return "Evil.\"}\n" + strings.Repeat(token, 10) }
	b.api.answer = func(_ context.Context, token string, _ int) error {
		switch token[len(token)-1] {
		case '0', '1':
			return &faceid.Error{Class: faceid.Permanent, Code: hostile(token), Err: errors.New("refused")}
		}
		return nil
	}
	b.api.verdict = func(token string) result.Verdict {
		var n int64
		_, _ = fmt.Sscanf(token, "T-%d", &n)
		return result.Verdict{Code: n + 100_000, Intention: result.IntentionMode(token), Message: token}
	}
	for i := range tokens {
		token := fmt.Sprintf("T-%d", i)
		e := event.Event{Token: token, RuleID: token, IssuedAt: time.Now().Add(-time.Duration(i) * 5 * time.Minute)}
		if i%20 == 0 {
			b.raw("faceid.completed.main."+token, hostile(token))
			b.raw("faceid.completed.stranger-"+fmt.Sprint(i)+".enhanced", "{}")
			b.raw("faceid.dead.main."+token, hostile(token))
		}
		b.publishEvent(e)
	}
	b.start()
	b.noneHeld()
	b.halt()
	b.start() // its gauges begin with what is there
	b.until("dead letters are shown", func() bool {
		n, _ := value(b.scrape(), "dead_letters_stored", `account="main",reason="rejected"`)
		return n > 0
	})
	series, own := 0, 0
	for name, f := range b.scrape() {
		for _, m := range f.GetMetric() {
			n := 1 + len(m.GetHistogram().GetBucket())
			series += n
			if strings.HasPrefix(name, "faceid_ingest_") {
				own += n
			}
			for _, l := range m.GetLabel() {
				if strings.Contains(l.GetValue(), "T-") || strings.Contains(l.GetValue(), "Evil") || strings.Contains(l.GetValue(), "stranger") {
					t.Errorf("%s has the label %s=%q", name, l.GetName(), l.GetValue())
				}
			}
		}
	}
	t.Logf("%d series, %d of them this program's, after %d tokens", series, own, tokens)
	if own > 250 {
		t.Errorf("%d series", own)
	}
}

// Forged advisories about events of accounts that nobody configured, which say of
// themselves that they crash workers, make dead letters, but no series of their own.
func TestForgedAccountsAreNoLabels(t *testing.T) {
	t.Parallel()
	const forged = 20
	b := newBench(t)
	for i := range forged {
		account := fmt.Sprintf("forged-%d", i)
		msg := nats.NewMsg(event.Subject(event.Live, account, result.Enhanced))
		msg.Data = []byte(`{"token":"T","rule_id":"1"}`)
		msg.Header.Set("Faceid-Crashes", "1000")
		ack, err := b.js.PublishMsg(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		// Somebody was given it.
		given, err := event.EnsureConsumer(t.Context(), b.js, account, event.Live, time.Minute)
		if err == nil {
			_, err = given.Next()
		}
		if err != nil {
			t.Fatal(err)
		}
		consumer := event.ConsumerName(account, event.Live)
		b.raw("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."+event.Stream+"."+consumer,
			fmt.Sprintf(`{"stream":%q,"consumer":%q,"stream_seq":%d,"deliveries":%d}`, event.Stream, consumer, ack.Sequence, event.MaxDeliveries))
	}
	b.start()
	b.gone(event.AdvisoryStream)
	dead := 0.0
	for _, m := range b.scrape()["faceid_ingest_dead_letters_total"].GetMetric() {
		dead += m.GetCounter().GetValue()
		for _, l := range m.GetLabel() {
			if strings.Contains(l.GetValue(), "forged") {
				t.Fatalf("%s=%q is a label", l.GetName(), l.GetValue())
			}
		}
	}
	if dead != forged {
		t.Errorf("%v dead letters are counted, want %d", dead, forged)
	}
}
