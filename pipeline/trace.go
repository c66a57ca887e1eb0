package pipeline

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// begin starts the span of a delivery, in the trace that its publisher began. Steps
// are children of it, and the log's lines have its ids.
func (w *Worker) begin(ctx context.Context, t *task) (context.Context, trace.Span) {
	attributes := []attribute.KeyValue{
		span.Account.String(t.account.Name), span.Lane.String(string(t.lane)),
		span.Product.String(string(t.product)), span.Token.String(t.event.Token),
	}
	if t.meta != nil {
		attributes = append(attributes, span.Attempt.Int64(int64(t.attempts())))
	}
	return w.tracer.Start(telemetry.Extract(ctx, t.msg.Headers()), "ingest "+event.Stream,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributes...))
}

// endPull ends a step that ends with an answer of the API or an error of getting it.
func endPull(step trace.Span, err error) {
	if err != nil {
		span.Fail(step, string(faceid.ClassOf(err)), apiCode(err))
	}
	step.End()
}

// endSink ends a step that ends with a sink's word.
func endSink(step trace.Span, err *sinkError) {
	if err != nil {
		span.Fail(step, string(err.class), "")
	}
	step.End()
}

// endStep ends a step of this program and NATS.
func endStep(step trace.Span, err error) {
	if err != nil {
		class, _ := sinks.ClassOf(err)
		span.Fail(step, string(class), "")
	}
	step.End()
}

// failTask marks the span of a task that ended with err, if something is wrong.
func failTask(step trace.Span, err error) {
	var end *giveUp
	var again *later
	var pulling *pullError
	var storing sinkErrors
	switch {
	case errors.As(err, &end):
		span.Fail(step, string(end.reason), end.code)
	case !errors.As(err, &again) || again.quiet:
	case errors.As(err, &pulling):
		span.Fail(step, string(pulling.class), apiCode(err))
	case errors.As(err, &storing):
		class, _ := storing.class()
		span.Fail(step, string(class), "")
	default:
		span.Fail(step, string(sinks.ClassTransient), "")
	}
}
