package pipeline_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// A result that is parked stays in the trace of its publisher until its sink has it,
// and no text of an error gets into a span.
func TestTraceOfAParkedResult(t *testing.T) {
	t.Parallel()
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	b := newBench(t)
	b.tracing = provider
	var up atomic.Bool
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("the driver says: SECRET NAME")
	}
	header := nats.Header{"traceparent": {"00-" + traceID + "-b7ad6b7169203331-01"}, "baggage": {"name=SECRET"}}
	if _, err := b.publisher.Publish(t.Context(), event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, header); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.parked(1)
	up.Store(true)
	b.parked(0)
	b.settled()
	b.halt()

	// What became of each delivery, and the steps that each had at least once.
	var outcomes []string
	steps := map[string]bool{}
	for _, s := range spans.Ended() {
		if s.SpanContext().TraceID().String() != traceID {
			t.Errorf("%s is in another trace", s.Name())
		}
		set := attribute.NewSet(s.Attributes()...)
		if outcome, is := set.Value(span.Outcome); is {
			lane, _ := set.Value(span.Lane)
			outcomes = append(outcomes, lane.AsString()+" "+outcome.AsString())
		}
		steps[s.Name()+" "+s.Status().Description] = true
		if strings.Contains(fmt.Sprint(s.Attributes(), s.Events(), s.Status()), "SECRET") {
			t.Errorf("%s tells what a driver said", s.Name())
		}
	}
	if outcomes[0] != "live parked" || outcomes[len(outcomes)-1] != "parked ingested" {
		t.Errorf("outcomes: %q", outcomes)
	}
	for _, want := range []string{"ingest FACEID ", "pull ", "archive media ", "record records transient", "park ", "ack ", "take from parking ", "record records ", "notify next "} {
		if !steps[want] {
			t.Errorf("no %q", want)
		}
	}
	lines := strings.Split(b.log.String(), "\n")
	if !slices.ContainsFunc(lines, func(line string) bool {
		return strings.Contains(line, "sink records does not take results") && strings.Contains(line, "trace_id="+traceID)
	}) {
		t.Errorf("the log does not tell the trace:\n%s", &b.log)
	}
}
