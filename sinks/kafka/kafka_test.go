package kafka_test

import (
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestRecord(t *testing.T) {
	c := newCluster(t, kfake.SeedTopics(3, topic))
	cfg := c.config()
	cfg.Fields = notice.Fields{privacy.Mobile}
	sink := open(t, cfg, env(t), plenty)
	defer func() { must(t, sink.Close(t.Context())) }()
	r := sinktest.Archived(sinktest.Result(0))
	must(t, sink.(sinks.Notifier).Notify(t.Context(), r))
	must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
	records := c.records(t)
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	for i, want := range []struct{ id, typ string }{
		{r.TokenHash(), notice.TypeStored}, {r.TokenHash() + "-erased", notice.TypeErased},
	} {
		got := records[i]
		var event notice.Event
		must(t, json.Unmarshal(got.Value, &event))
		if string(got.Key) != r.TokenHash() || header(got, "message-id") != want.id || event.ID != want.id || event.Type != want.typ ||
			header(got, "content-type") != "application/cloudevents+json" || got.Partition != records[0].Partition {
			t.Errorf("record %d: key %s, headers %v, %s", i, got.Key, got.Headers, event.Type)
		}
	}
	var event notice.Event
	must(t, json.Unmarshal(records[0].Value, &event))
	var data notice.Result
	must(t, json.Unmarshal(event.Data, &data))
	if data.Token != r.Token || data.Personal[privacy.Mobile][0].Value == "" {
		t.Errorf("got %+v", data)
	}
}

func TestSASLAndTLS(t *testing.T) {
	sink := open(t, secureCluster(t), env(t), plenty)
	defer func() { must(t, sink.Close(t.Context())) }()
	must(t, sink.Check(t.Context()))
	must(t, sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0)))
}

// A topic that takes single messages, but no two in one batch: none of them is
// called too large for good.
func TestMessagesThatAreTooLargeOnlyTogether(t *testing.T) {
	c := newCluster(t)
	r := sinktest.Archived(sinktest.Result(0))
	m, err := notice.OfResult(env(t).Policy, r, nil)
	must(t, err)
	limit := len(m.Body) + 400 // less than two of them, compressed or not
	must(t, c.CreateTopic(topic, 1, map[string]string{"max.message.bytes": strconv.Itoa(limit)}))
	var refused atomic.Int64
	sink := openWith(t, c.config(), env(t), plenty, func(next kafka.Produce) kafka.Produce {
		return func(ctx context.Context, r *kgo.Record) error {
			err := next(ctx, r)
			if errors.Is(err, kerr.MessageTooLarge) {
				refused.Add(1)
			}
			return err
		}
	})
	defer func() { must(t, sink.Close(t.Context())) }()
	const n = 64
	// While the first requests wait, the other records gather in a batch.
	hold := newGate(c)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := sink.(sinks.Notifier).Notify(t.Context(), sinktest.Archived(sinktest.Result(i))); err != nil {
				t.Error(err)
			}
		})
	}
	for kafka.Buffered(sink) < n {
		runtime.Gosched()
	}
	close(hold.release)
	group.Wait()
	if got := len(c.records(t)); got != n || refused.Load() == 0 {
		t.Errorf("%d records, %d refused at first", got, refused.Load())
	}
}

// gate holds produce requests until it is released.
type gate struct {
	arrived func()
	came    chan struct{}
	release chan struct{}
}

func newGate(c cluster) *gate {
	g := &gate{came: make(chan struct{}), release: make(chan struct{})}
	g.arrived = sync.OnceFunc(func() { close(g.came) })
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		g.arrived()
		c.SleepControl(func() { <-g.release })
		return nil, nil, false
	})
	return g
}

// A caller that gives up while its record is on the way gets its answer at once,
// although the brokers never give one.
func TestCancelledOnTheWay(t *testing.T) {
	c := newCluster(t, kfake.SeedTopics(1, topic))
	sink := open(t, c.config(), env(t), plenty)
	defer func() { must(t, sink.Close(t.Context())) }()
	hold := newGate(c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- sink.(sinks.Notifier).Notify(ctx, sinktest.Result(0)) }()
	<-hold.came
	cancel()
	err := <-done
	close(hold.release)
	if class, _ := sinks.ClassOf(err); class != sinks.ClassCanceled {
		t.Errorf("%s: %v", class, err)
	}
	must(t, sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0)))
}

func TestValidate(t *testing.T) {
	valid := func() *kafka.Config {
		return &kafka.Config{Brokers: []string{"kafka:9092", "[::1]:9092"}, Topic: "faceid.results-1"}
	}
	must(t, valid().Validate())
	secure := valid()
	secure.TLS = kafka.TLS{Enabled: true, CA: "ca", Cert: "cert", Key: "key"}
	secure.SASL = kafka.SASL{Mechanism: "scram-sha-512", User: "u", PasswordFile: "f"}
	must(t, secure.Validate())
	for _, tt := range []struct {
		name  string
		edit  func(*kafka.Config)
		field string
		words string
	}{
		{"no brokers", func(c *kafka.Config) { c.Brokers = nil }, "brokers", "at least one"},
		{"no port", func(c *kafka.Config) { c.Brokers = []string{"kafka"} }, "brokers", "host:port"},
		{"a scheme", func(c *kafka.Config) { c.Brokers = []string{"kafka://kafka:9092"} }, "brokers", "without a scheme"},
		{"a list", func(c *kafka.Config) { c.Brokers = []string{"a:1,b:2"} }, "brokers", "host:port"},
		{"port 0", func(c *kafka.Config) { c.Brokers = []string{"a:0"} }, "brokers", "host:port"},
		{"no topic", func(c *kafka.Config) { c.Topic = "" }, "topic", "1 to 249"},
		{"dots", func(c *kafka.Config) { c.Topic = ".." }, "topic", "1 to 249"},
		{"a space", func(c *kafka.Config) { c.Topic = "a b" }, "topic", "1 to 249"},
		{"mechanism", func(c *kafka.Config) { c.SASL = kafka.SASL{Mechanism: "PLAIN", User: "u", Password: "p"} }, "sasl.mechanism", "scram-sha-256"},
		{"no mechanism", func(c *kafka.Config) { c.SASL.User = "u" }, "sasl.mechanism", "is missing"},
		{"no user", func(c *kafka.Config) { c.SASL = kafka.SASL{Mechanism: "plain", Password: "p"} }, "sasl.user", "is missing"},
		{"no password", func(c *kafka.Config) { c.SASL = kafka.SASL{Mechanism: "plain", User: "u"} }, "sasl.password", "is missing"},
		{"two passwords", func(c *kafka.Config) {
			c.SASL = kafka.SASL{Mechanism: "plain", User: "u", Password: "hunter2", PasswordFile: "f"}
		}, "sasl.password", "not both"},
		{"TLS that is off", func(c *kafka.Config) { c.TLS.CA = "ca" }, "tls", "set tls.enabled"},
		{"half a certificate", func(c *kafka.Config) { c.TLS = kafka.TLS{Enabled: true, Key: "k"} }, "tls", "both cert and key"},
		{"raw", func(c *kafka.Config) { c.Fields = notice.Fields{privacy.Raw} }, "fields", "raw is never sent"},
	} {
		c := valid()
		tt.edit(c)
		err := c.Validate()
		var invalid *sinks.InvalidFieldError
		if !errors.As(err, &invalid) || invalid.Field != tt.field || !strings.Contains(invalid.Problem, tt.words) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		edit  func(*kafka.Config)
		words string
	}{
		{func(c *kafka.Config) { c.TLS = kafka.TLS{Enabled: true, CA: "/nonexistent/ca.pem"} }, "read tls.ca: open /nonexistent/ca.pem"},
		{func(c *kafka.Config) {
			c.SASL = kafka.SASL{Mechanism: "plain", User: "u", PasswordFile: "/nonexistent/password"}
		}, "read sasl.password_file: open /nonexistent/password"},
	} {
		c := &kafka.Config{Brokers: []string{"127.0.0.1:1"}, Topic: topic}
		tt.edit(c)
		must(t, c.Validate())
		if _, err := c.Open(t.Context(), env(t)); err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("got %v", err)
		}
	}
}
