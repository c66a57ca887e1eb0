package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// TracingConfig says where spans go.
type TracingConfig struct {
	// Endpoint is the base URL of a collector that speaks OTLP over HTTP, such as
	// http://otel-collector:4318; spans go to v1/traces below it. Without one nothing
	// is traced.
	Endpoint string
	// HeadersFile holds headers for the collector, "Name: value" in each line. It is
	// read for each request, so that a rotated token is used; may be empty.
	HeadersFile string
	// Sample is the share of traces that begin here and are kept, 0 to 1. One that
	// began elsewhere is kept if it is kept there.
	Sample float64
	// Version is the program's.
	Version string
	// Log hears, once, that spans cannot be delivered, and that they can again.
	Log *slog.Logger
}

const (
	// spanQueue bounds the spans that wait for the collector; more are dropped, and
	// nobody waits. An event has about ten.
	spanQueue = 8192
	// spanBatch is how many spans go in one request, and spanWait how long the first
	// of them waits.
	spanBatch = 512
	spanWait  = 2 * time.Second
	// exportWait bounds the delivery of one batch, with its retries.
	exportWait = 10 * time.Second
	// tracingEnd bounds the delivery of what is left at the end.
	tracingEnd = 3 * time.Second
)

// OpenTracing returns the provider of tracers, and a function that delivers what is
// left, within seconds, and ends it. A collector that is away holds nobody: spans
// are dropped. The error says what is wrong with the configuration.
func OpenTracing(ctx context.Context, cfg TracingConfig) (trace.TracerProvider, func(context.Context) error, error) {
	if cfg.Endpoint == "" {
		return noop.NewTracerProvider(), func(context.Context) error { return nil }, nil
	}
	exporter, err := newExporter(ctx, cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("open tracing (tracing): %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "faceid-ingest"), attribute.String("service.version", cfg.Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("open tracing (OTEL_RESOURCE_ATTRIBUTES): %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Sample))),
		sdktrace.WithResource(about),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 512, AttributeCountLimit: 32, EventCountLimit: 32, LinkCountLimit: 4,
			AttributePerEventCountLimit: 4, AttributePerLinkCountLimit: 4,
		}),
		sdktrace.WithBatcher(exporter,
			sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch),
			sdktrace.WithBatchTimeout(spanWait), sdktrace.WithExportTimeout(exportWait)))
	return provider, func(ctx context.Context) error {
		// The provider waits for its exporter, which gives up in time.
		stop := time.AfterFunc(tracingEnd, exporter.giveUp)
		defer stop.Stop()
		err := provider.Shutdown(context.WithoutCancel(ctx))
		exporter.giveUp()
		exporter.transport.base.CloseIdleConnections()
		return err
	}, nil
}

// exporter delivers spans, and tells of it when it cannot: the SDK would print each
// failure, with what the collector said.
type exporter struct {
	sdktrace.SpanExporter
	transport *headers
	log       *slog.Logger
	// life ends when giveUp is called: then nothing more is sent.
	life   context.Context
	giveUp context.CancelFunc
	down   atomic.Bool
}

func newExporter(ctx context.Context, cfg TracingConfig) (*exporter, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" {
		return nil, errors.New("endpoint must be a URL such as http://127.0.0.1:4318")
	}
	transport := &headers{file: cfg.HeadersFile, base: wire.Transport{Base: wire.ThroughProxy(&http.Transport{
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: exportWait, ForceAttemptHTTP2: true,
	})}}
	if _, err := transport.read(); err != nil {
		return nil, err
	}
	client := &http.Client{
		Transport: transport, // which follows nothing: a token goes to no other place
		Timeout:   exportWait,
	}
	sender, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()),
		otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 4 * time.Second, MaxElapsedTime: exportWait,
		}))
	if err != nil {
		return nil, err
	}
	e := &exporter{SpanExporter: sender, transport: transport, log: cfg.Log}
	e.life, e.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	return e, nil
}

// ExportSpans delivers spans; those that it cannot deliver are lost.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)() //nolint:contextcheck // Two ends: the caller's, and the exporter's own.
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err == nil && e.down.CompareAndSwap(true, false):
		e.log.InfoContext(ctx, "spans reach the collector again")
	case err != nil && e.down.CompareAndSwap(false, true):
		// The error itself may hold all that the collector answered.
		e.log.WarnContext(ctx, "spans do not reach the collector (tracing.endpoint) and are dropped", "reason", e.transport.reason())
	}
	return nil
}

// headers adds headers to each request.
type headers struct {
	// file may be empty.
	file string
	base wire.Transport
	// last says how the latest request ended, a string.
	last atomic.Value
}

// reason says in short how the latest request ended.
func (h *headers) reason() string {
	text, _ := h.last.Load().(string)
	return text
}

// maxHeaders bounds the file of headers, in bytes.
const maxHeaders = 16 << 10

func (h *headers) read() (http.Header, error) {
	list := http.Header{}
	if h.file == "" {
		return list, nil
	}
	content, err := setting.ReadFile(h.file)
	if err != nil {
		return nil, fmt.Errorf("read headers_file: %w", err)
	}
	if len(content) > maxHeaders {
		return nil, fmt.Errorf("read headers_file: %s is larger than %d bytes", h.file, maxHeaders)
	}
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !found || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("read headers_file: %s:%d must be \"Name: value\"", h.file, number)
		}
		list.Add(name, strings.TrimSpace(value))
	}
	return list, nil
}

// RoundTrip sends r with the headers of the file.
func (h *headers) RoundTrip(r *http.Request) (*http.Response, error) {
	list, err := h.read()
	if err != nil {
		h.last.Store(err.Error())
		return nil, err
	}
	r = r.Clone(r.Context())
	for name, values := range list {
		r.Header[name] = values
	}
	response, err := h.base.RoundTrip(r)
	if err != nil {
		h.last.Store(err.Error())
		return nil, err
	}
	h.last.Store(fmt.Sprintf("answered with status %d", response.StatusCode))
	return response, nil
}

// propagator reads and writes traceparent and tracestate (W3C Trace Context), and
// nothing else: baggage may hold whatever a publisher puts into it.
var propagator = propagation.TraceContext{}

// Inject writes the trace context of ctx into an event's header.
func Inject(ctx context.Context, header nats.Header) { propagator.Inject(ctx, carrier(header)) }

// Extract returns ctx with the trace context of an event's header, if it has one
// that can be read.
func Extract(ctx context.Context, header nats.Header) context.Context {
	return propagator.Extract(ctx, carrier(header))
}

// carrier lets OpenTelemetry use the header of a NATS message.
type carrier nats.Header

// Get returns the value of a key. Headers of NATS have upper and lower case; publishers
// that treat them as those of HTTP write Traceparent.
func (c carrier) Get(key string) string {
	if v := nats.Header(c).Get(key); v != "" {
		return v
	}
	return nats.Header(c).Get(textproto.CanonicalMIMEHeaderKey(key))
}

// Set sets the value of a key.
func (c carrier) Set(key, value string) { nats.Header(c).Set(key, value) }

// Keys returns all keys.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
