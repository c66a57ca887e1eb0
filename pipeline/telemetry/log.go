package telemetry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// WithTrace returns a handler that adds trace_id and span_id of a record's context to
// it, where there is a trace, and passes it on.
func WithTrace(next slog.Handler) slog.Handler { return &traceHandler{next} }

type traceHandler struct{ slog.Handler }

// Handle adds the ids.
func (h *traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() {
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String())) //nolint:sloglint // Here they are added.
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the decoration.
func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &traceHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the decoration.
func (h *traceHandler) WithGroup(name string) slog.Handler {
	return &traceHandler{h.Handler.WithGroup(name)}
}
