package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	attr "go.opentelemetry.io/otel/attribute"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// collector is a stand-in for an OpenTelemetry collector.
type collector struct {
	*httptest.Server
	t  *testing.T
	mu sync.Mutex
	// sent is all that came, traces the spans of it by trace id.
	sent   bytes.Buffer
	traces map[string][]*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, traces: map[string][]*tracepb.Span{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// ServeHTTP takes spans.
func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unzipped, err := gzip.NewReader(r.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	body, err := io.ReadAll(unzipped)
	if err != nil {
		c.t.Error(err)
	}
	c.sent.Write(body)
	var request coltrace.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &request); err != nil {
		c.t.Error(err)
	}
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				id := hex.EncodeToString(s.TraceId)
				c.traces[id] = append(c.traces[id], s)
			}
		}
	}
}

// of returns the one trace of a token, and its id.
func (c *collector) of(token string) (id string, spans []*tracepb.Span) {
	c.t.Helper()
	for one, list := range c.traces {
		for _, s := range list {
			if attribute(s, "faceid.token") != token {
				continue
			}
			if id != "" && id != one {
				c.t.Errorf("%s has several traces", token)
			}
			id, spans = one, list
		}
	}
	return id, spans
}

// tree returns a trace as lines, what is inside of what by the indent.
func tree(spans []*tracepb.Span) string {
	var b strings.Builder
	var write func(parent []byte, depth int)
	write = func(parent []byte, depth int) {
		for _, s := range spans {
			if !bytes.Equal(s.ParentSpanId, parent) {
				continue
			}
			took := time.Duration(s.EndTimeUnixNano - s.StartTimeUnixNano).Round(time.Microsecond)
			fmt.Fprintf(&b, "%s%s (%s, %s)", strings.Repeat("  ", depth), s.Name, strings.ToLower(strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_")), took)
			for _, a := range s.Attributes {
				fmt.Fprintf(&b, " %s=%s", a.Key, valueOf(a))
			}
			fmt.Fprintln(&b)
			write(s.SpanId, depth+1)
		}
	}
	slices.SortFunc(spans, func(a, b *tracepb.Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	write(nil, 0)
	return b.String()
}

func valueOf(a *commonpb.KeyValue) string {
	if n, isNumber := a.Value.Value.(*commonpb.AnyValue_IntValue); isNumber {
		return strconv.FormatInt(n.IntValue, 10)
	}
	return a.Value.GetStringValue()
}

func attribute(s *tracepb.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// way returns the names from the beginning of a trace to s, which must come one below
// the other.
func way(t *testing.T, spans []*tracepb.Span, s *tracepb.Span) string {
	t.Helper()
	if len(s.ParentSpanId) == 0 {
		return s.Name
	}
	for _, parent := range spans {
		if bytes.Equal(parent.SpanId, s.ParentSpanId) {
			return way(t, spans, parent) + " > " + s.Name
		}
	}
	t.Errorf("the parent of %s is not in its trace", s.Name)
	return s.Name
}

// One trace leads from the publisher through the API and the sinks to the
// acknowledgement, and tells nothing of the person.
func TestOneTrace(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	s := newSite(t,
		"http: {", "  - {name: stream, type: nats, create_stream: RESULTS}\nhttp: {",
		"log: {level: debug", "tracing: {endpoint: \""+c.URL+"\", sample: 1}\nlog: {level: debug")
	checks := newChecks(6, 64<<10)
	refused := checks[0]
	s.api.Fail(faceidtest.Fault{Token: refused.Token, Code: "InvalidParameterValue.BizTokenIllegal"})
	p := s.start()
	s.publish(checks)
	until(t, "all are settled", func() bool { return s.open() == 0 })
	p.stop()
	c.mu.Lock()
	defer c.mu.Unlock()

	for _, check := range checks[1:] {
		action := map[bool]string{true: "GetEidResult", false: "GetDetectInfoEnhanced"}[check.Product == "eid"]
		id, spans := c.of(check.Token)
		t.Logf("trace %s\n%s", id, tree(spans))
		const begin = "publish FACEID > ingest FACEID"
		want := map[string]tracepb.Span_SpanKind{
			"publish FACEID":              tracepb.Span_SPAN_KIND_PRODUCER,
			begin:                         tracepb.Span_SPAN_KIND_CONSUMER,
			begin + " > pull":             tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > pull > " + action: tracepb.Span_SPAN_KIND_CLIENT,
			begin + " > pull > " + action + " > extract": tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > pull > open":                     tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > pull > read":                     tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > archive media":                   tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > record records":                  tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > notify stream":                   tracepb.Span_SPAN_KIND_INTERNAL,
			begin + " > ack":                             tracepb.Span_SPAN_KIND_INTERNAL,
		}
		for _, one := range spans {
			name := way(t, spans, one)
			if kind, known := want[name]; !known || kind != one.Kind {
				t.Errorf("%s: %s, %s", check.Token, name, one.Kind)
			}
			delete(want, name)
			switch one.Name {
			case "ingest FACEID":
				if attribute(one, "faceid.outcome") != "ingested" || attribute(one, "faceid.account") != "main" ||
					attribute(one, "faceid.product") != string(check.Product) || attribute(one, "faceid.lane") != "live" {
					t.Errorf("%s", one.Attributes)
				}
			case action:
				if attribute(one, "faceid.request_id") == "" || attribute(one, "faceid.action") != action {
					t.Errorf("%s", one.Attributes)
				}
			}
		}
		for name := range want {
			t.Errorf("%s has no %s", check.Token, name)
		}
		if !strings.Contains(p.log.String(), `"trace_id":"`+id+`"`) {
			t.Errorf("the log does not tell the trace of %s", check.Token)
		}
	}

	failed := map[string]string{}
	_, spans := c.of(refused.Token)
	t.Logf("a token that the API does not know\n%s", tree(spans))
	for _, one := range spans {
		if one.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			failed[one.Name] = attribute(one, "error.type") + " " + attribute(one, "faceid.error_code")
		}
		if len(one.Events) > 0 {
			t.Errorf("%s has events: %s", one.Name, one.Events)
		}
	}
	if failed["ingest FACEID"] != "rejected InvalidParameterValue.BizTokenIllegal" || failed["pull"] != "permanent InvalidParameterValue.BizTokenIllegal" {
		t.Errorf("%v", failed)
	}

	c.holdsNothingPersonal(checks)
}

// holdsNothingPersonal looks for what the checks know of their persons, and for
// attributes that are none of ours.
func (c *collector) holdsNothingPersonal(checks []faceidtest.Check) {
	c.t.Helper()
	known := []attr.Key{
		span.Account, span.Product, span.Lane, span.Token, span.Attempt, span.Outcome, span.Sink,
		span.Action, span.RequestID, span.Media, span.ErrorClass, span.ErrorCode,
	}
	for _, spans := range c.traces {
		for _, one := range spans {
			for _, a := range one.Attributes {
				if !slices.Contains(known, attr.Key(a.Key)) {
					c.t.Errorf("%s has %s", one.Name, a.Key)
				}
			}
		}
	}
	for _, check := range checks {
		for _, m := range check.Media {
			head := make([]byte, 48)
			if _, err := io.ReadFull(m.Reader(), head); err != nil {
				c.t.Fatal(err)
			}
			if tail := head[24:]; bytes.Contains(c.sent.Bytes(), tail) || bytes.Contains(c.sent.Bytes(), []byte(base64.StdEncoding.EncodeToString(tail))) || bytes.Contains(c.sent.Bytes(), []byte(m.Key())) {
				c.t.Errorf("%s is in a trace", m.Field)
			}
		}
		for _, personal := range []string{check.Person.Name, check.Person.IDCard, check.Person.Address, check.Person.Mobile, "right-key"} {
			if personal == "" || bytes.Contains(c.sent.Bytes(), []byte(personal)) {
				c.t.Errorf("%q is in a trace", personal)
			}
		}
	}
}

// A collector that is away keeps no event from the stream and none from the sinks.
func TestNoCollector(t *testing.T) {
	t.Parallel()
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	s := newSite(t, "log: {level: debug", "tracing: {endpoint: \""+away.URL+"\", sample: 1}\nlog: {level: debug")
	p := s.start()
	s.publish(newChecks(3, 1<<10))
	until(t, "all are settled", func() bool { return s.open() == 0 })
	p.stop()
	if n := strings.Count(p.log.String(), "spans do not reach the collector"); n != 1 {
		t.Errorf("the log tells it %d times", n)
	}
	if status := s.status(); status.Dead != 0 {
		t.Errorf("%+v", status)
	}
}
