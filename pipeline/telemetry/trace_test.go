package telemetry_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// collector is a stand-in for an OpenTelemetry collector.
type collector struct {
	*httptest.Server
	mu sync.Mutex
	// names are those of the spans it got, tokens the Authorization headers.
	names, tokens []string
	broken        bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.take(t, w, r) }))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) take(t *testing.T, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		http.Error(w, "SECRET of the collector", http.StatusBadRequest)
		return
	}
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	body, err := io.ReadAll(unzipped)
	var request coltrace.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &request) != nil || r.URL.Path != "/otlp/v1/traces" {
		t.Errorf("%s: %v", r.URL.Path, err)
	}
	c.tokens = append(c.tokens, r.Header.Get("Authorization"))
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.names = append(c.names, s.Name)
			}
		}
	}
}

func (c *collector) got() (names, tokens []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names, c.tokens
}

func open(t *testing.T, cfg telemetry.TracingConfig) (trace.Tracer, func()) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	provider, shutdown, err := telemetry.OpenTracing(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return provider.Tracer(span.Scope), func() {
		t.Helper()
		if err := shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestNoTracing(t *testing.T) {
	tracer, shutdown := open(t, telemetry.TracingConfig{})
	defer shutdown()
	if _, s := tracer.Start(t.Context(), "x"); s.IsRecording() {
		t.Error("spans are recorded for nobody")
	}
}

func TestSpansArrive(t *testing.T) {
	c := newCollector(t)
	file := filepath.Join(t.TempDir(), "headers")
	write(t, file, "Authorization: Bearer one\n\n")
	tracer, shutdown := open(t, telemetry.TracingConfig{Endpoint: c.URL + "/otlp", HeadersFile: file, Sample: 1})
	ctx, parent := tracer.Start(t.Context(), "parent")
	_, child := span.Start(ctx, "child", span.Sink.String("media"))
	span.Fail(child, "transient", "")
	child.End()
	parent.End()
	arrived := func(n int) func() bool {
		return func() bool { names, _ := c.got(); return len(names) == n }
	}
	until(t, "two spans", arrived(2))
	write(t, file, "Authorization: Bearer two\n")
	_, last := tracer.Start(t.Context(), "last")
	last.End()
	shutdown()
	names, tokens := c.got()
	if strings.Join(names, " ") != "child parent last" || tokens[0] != "Bearer one" || tokens[len(tokens)-1] != "Bearer two" {
		t.Errorf("got %v with %v", names, tokens)
	}
}

// What a publisher decided holds; what begins here is sampled by the ratio.
func TestSampling(t *testing.T) {
	c := newCollector(t)
	for _, tt := range []struct {
		name        string
		sample      float64
		traceparent string
		want        bool
	}{
		{"all", 1, "", true},
		{"none", 0, "", false},
		{"none, but the publisher's", 0, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true},
		{"all, but the publisher's", 1, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false},
		{"what cannot be read counts as nothing", 1, "00-zzz-01", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tracer, shutdown := open(t, telemetry.TracingConfig{Endpoint: c.URL + "/otlp", Sample: tt.sample})
			ctx := telemetry.Extract(t.Context(), nats.Header{"traceparent": {tt.traceparent}})
			_, s := tracer.Start(ctx, tt.name)
			s.End()
			shutdown()
			if names, _ := c.got(); slices.Contains(names, tt.name) != tt.want {
				t.Errorf("arrived: %v", !tt.want)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, name := range []string{"traceparent", "Traceparent"} {
		ctx := telemetry.Extract(t.Context(), nats.Header{name: {parent}, "tracestate": {"a=b"}, "baggage": {"name=somebody"}})
		header := nats.Header{}
		telemetry.Inject(ctx, header)
		if header.Get("traceparent") != parent || header.Get("tracestate") != "a=b" || len(header) != 2 {
			t.Errorf("%s: %v", name, header)
		}
	}
}

// Without a collector spans are dropped: nobody waits for it, at the end neither, and
// the log says it once.
func TestCollectorAway(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	}))
	defer hanging.Close()
	defer close(hangs)
	var log bytes.Buffer
	tracer, shutdown := open(t, telemetry.TracingConfig{Endpoint: hanging.URL, Sample: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	began := time.Now()
	for range 30_000 { // several times the queue
		_, s := tracer.Start(t.Context(), "x", trace.WithAttributes(attribute.Int("n", 1)))
		s.End()
	}
	shutdown()
	// A bound that only a wait for the collector breaks: a batch may take ten seconds,
	// and there are many.
	if took := time.Since(began); took > 5*time.Minute {
		t.Errorf("took %s", took)
	}
	if n := strings.Count(log.String(), "spans do not reach the collector"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
}

func TestCollectorRefuses(t *testing.T) {
	c := newCollector(t)
	c.broken = true
	var log lockedBuffer
	tracer, shutdown := open(t, telemetry.TracingConfig{Endpoint: c.URL + "/otlp", Sample: 1, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	step := func() { _, s := tracer.Start(t.Context(), "x"); s.End() }
	step()
	until(t, "the log tells it", func() bool { return strings.Contains(log.String(), "answered with status 400") })
	c.mu.Lock()
	c.broken = false
	c.mu.Unlock()
	step()
	shutdown()
	if text := log.String(); !strings.Contains(text, "spans reach the collector again") || strings.Contains(text, "SECRET") {
		t.Errorf("log: %s", text)
	}
}

func TestOpenTracingErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "headers")
	write(t, file, "Authorization Bearer SECRET\n")
	for want, cfg := range map[string]telemetry.TracingConfig{
		"endpoint must be a URL":                   {Endpoint: "collector:4318"},
		"read headers_file: open /nonexistent":     {Endpoint: "http://127.0.0.1:1", HeadersFile: "/nonexistent"},
		"headers:1 must be \"Name: value\"":        {Endpoint: "http://127.0.0.1:1", HeadersFile: file},
		"open tracing (tracing): endpoint must be": {Endpoint: "%"},
	} {
		_, _, err := telemetry.OpenTracing(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLogHasTrace(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(telemetry.WithTrace(slog.NewJSONHandler(&out, nil))).With("sink", "media")
	ctx := telemetry.Extract(t.Context(), nats.Header{"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	log.InfoContext(ctx, "inside")
	log.InfoContext(t.Context(), "outside")
	lines := strings.Split(out.String(), "\n")
	var inside map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &inside); err != nil {
		t.Fatal(err)
	}
	if inside["trace_id"] != "0af7651916cd43dd8448eb211c80319c" || inside["span_id"] != "b7ad6b7169203331" || inside["sink"] != "media" {
		t.Errorf("%v", inside)
	}
	if strings.Contains(lines[1], "trace_id") {
		t.Errorf("%s", lines[1])
	}
}

// lockedBuffer is a buffer that is written while it is read.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
