package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// openTracing opens tracing as the configuration says. The returned function delivers
// what is left, within seconds; ctx may be done by then.
func openTracing(ctx context.Context, cfg *config.Config, log *slog.Logger) (trace.TracerProvider, func() error, error) {
	if err := cfg.Need("tracing"); err != nil {
		return nil, nil, err
	}
	provider, shutdown, err := telemetry.OpenTracing(ctx, telemetry.TracingConfig{
		Endpoint:    cfg.Tracing.Endpoint,
		HeadersFile: cfg.Tracing.HeadersFile,
		Sample:      cfg.Tracing.Sample,
		Version:     thisBuild().Version,
		Log:         log,
	})
	if err != nil {
		return nil, nil, err
	}
	return provider, func() error { return shutdown(ctx) }, nil
}

// tracedPublisher begins the trace of each event that it publishes.
type tracedPublisher struct {
	*event.Publisher
	tracer  trace.Tracer
	lane    event.Lane
	account string
	product result.Product
	// again has tokens ingested once more.
	again bool
}

func (p *tracedPublisher) publish(ctx context.Context, e event.Event) (duplicate bool, err error) {
	ctx, step := p.tracer.Start(ctx, "publish "+event.Stream, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		span.Account.String(p.account), span.Lane.String(string(p.lane)),
		span.Product.String(string(p.product)), span.Token.String(e.Token)))
	defer step.End()
	header := nats.Header{}
	telemetry.Inject(ctx, header)
	if p.again {
		err = p.PublishAgain(ctx, p.lane, p.account, p.product, e, header)
	} else {
		duplicate, err = p.Publish(ctx, p.lane, p.account, p.product, e, header)
	}
	var wrong *event.MalformedError
	switch {
	case errors.As(err, &wrong):
		span.Fail(step, string(event.Malformed), "")
	case err != nil:
		class, _ := sinks.ClassOf(err)
		span.Fail(step, string(class), "")
	}
	return duplicate, err
}
