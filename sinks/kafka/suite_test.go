package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

const (
	topic = "faceid-results"
	// patience is how long sinks wait for brokers that never answer well, and
	// plenty how long for those that do.
	patience = 2 * time.Second
	plenty   = time.Minute
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return newCluster(t, kfake.SeedTopics(3, topic)) },
		Troubles: troubles(),
	})
}

// cluster is a Kafka cluster of one broker in this process.
type cluster struct{ *kfake.Cluster }

func newCluster(t testing.TB, options ...kfake.Opt) cluster {
	t.Helper()
	c, err := kfake.NewCluster(append(options, kfake.NumBrokers(1))...)
	must(t, err)
	t.Cleanup(c.Close)
	return cluster{c}
}

func (c cluster) config() *kafka.Config {
	return &kafka.Config{Brokers: c.ListenAddrs(), Topic: topic}
}

func (c cluster) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	return openWith(t, c.config(), env, plenty, func(next kafka.Produce) kafka.Produce {
		return func(ctx context.Context, r *kgo.Record) error {
			if err := faults.Step(); err != nil {
				return err
			}
			err := next(ctx, r)
			if fault := faults.Step(); fault != nil {
				return fault // it is sent, but the answer is lost
			}
			return err
		}
	})
}

func (c cluster) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	var s sinktest.Stored
	hash := result.TokenHash(p, token)
	for _, r := range c.records(t) {
		if string(r.Key) == hash {
			s.Messages = append(s.Messages, sinktest.Message{ID: header(r, "message-id"), Body: r.Value})
		}
	}
	return s
}

// records reads the whole topic with a client of its own.
func (c cluster) records(t testing.TB) []*kgo.Record {
	t.Helper()
	want := 0
	for _, p := range c.PartitionInfos(topic) {
		want += int(p.HighWatermark)
	}
	if want == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(100*time.Millisecond))
	must(t, err)
	defer client.Close()
	var all []*kgo.Record
	for len(all) < want {
		fetches := client.PollFetches(t.Context())
		must(t, fetches.Err())
		all = append(all, fetches.Records()...)
	}
	return all
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// troubles are what clusters and their owners have.
func troubles() []sinktest.Trouble {
	produce := []kmsg.Key{kmsg.Produce}
	list := []sinktest.Trouble{
		{
			Name: "nobody listens", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"kafka topic faceid-results", "nobody listens there: check brokers"},
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				must(t, err)
				address := listener.Addr().(*net.TCPAddr)
				must(t, listener.Close())
				c := &kafka.Config{Brokers: []string{address.String()}, Topic: topic}
				return impatient(open(t, c, env, patience), func() {
					newCluster(t, kfake.Ports(address.Port), kfake.SeedTopics(1, topic))
				})
			},
		},
		{
			Name: "no topic", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"the topic is not there: create it"},
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				c := newCluster(t)
				return sinktest.Troubled{Sink: open(t, c.config(), env, plenty), Heal: func() {
					must(t, c.CreateTopic(topic, 1, nil))
				}}
			},
		},
		{
			Name: "no right to the topic", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"give the user the right to describe and write the topic"},
			Provoke: withFault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Metadata, kmsg.Produce}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1,
			}, plenty),
		},
		{
			Name: "no right to write", Class: sinks.ClassTransient,
			Words:   []string{"give the user the right to describe and write the topic"},
			Provoke: withFault(kfake.Fault{Keys: produce, Err: kerr.TopicAuthorizationFailed, Count: -1}, plenty),
		},
		{
			Name: "no right to be idempotent", Class: sinks.ClassTransient,
			Words: []string{"IDEMPOTENT_WRITE"},
			Provoke: withFault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ClusterAuthorizationFailed, TopLevel: true, Count: -1,
			}, plenty),
		},
		{
			Name: "a policy", Class: sinks.ClassTransient,
			Words:   []string{"a policy of the brokers"},
			Provoke: withFault(kfake.Fault{Keys: produce, Err: kerr.PolicyViolation, Count: -1}, plenty),
		},
		{
			Name: "too few replicas", Class: sinks.ClassTransient,
			Words:   []string{"no acknowledgement within 2s", "min.insync.replicas"},
			Provoke: withFault(kfake.Fault{Keys: produce, Err: kerr.NotEnoughReplicas, Count: -1}, patience),
		},
		{
			Name: "a message too large for the topic", Class: sinks.ClassPermanent,
			Words: []string{"larger than is taken", "max.message.bytes"},
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				c := newCluster(t)
				must(t, c.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "1000"}))
				return sinktest.Troubled{Sink: open(t, c.config(), env, plenty)}
			},
		},
		{
			Name: "a message too large for all topics", Class: sinks.ClassPermanent,
			Words: []string{"larger than is taken", "max.message.bytes"},
			Provoke: func(t testing.TB, env sinks.Env, r *result.Result) sinktest.Troubled {
				for i := range 5000 {
					r.Assets = append(r.Assets, sinktest.Inline("LivenessVideos["+strconv.Itoa(i)+"]", result.Video, "video/mp4", nil))
				}
				r.Assets = sinktest.Archived(r).Assets
				return sinktest.Troubled{Sink: open(t, newCluster(t, kfake.SeedTopics(1, topic)).config(), env, plenty)}
			},
		},
	}
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		list = append(list, sinktest.Trouble{
			Name: "a wrong password of " + mechanism, Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"check sasl"}, Provoke: withPassword(mechanism),
		})
	}
	return append(list,
		sinktest.Trouble{
			// kfake only closes the connection of a user it does not know.
			Name: "a user that the brokers refuse", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"the brokers refuse the user: check sasl", "<instance>#<user>"},
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				c := newCluster(t, kfake.SeedTopics(1, topic), kfake.EnableSASL(), kfake.Superuser("PLAIN", "ingest", "right"))
				refusal := c.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Err: kerr.SaslAuthenticationFailed, TopLevel: true, Count: -1,
				})
				cfg := c.config()
				cfg.SASL = kafka.SASL{Mechanism: "plain", User: "ingest", Password: "right"}
				return impatient(open(t, cfg, env, patience), refusal.Remove)
			},
		},
		sinktest.Trouble{
			Name: "a mechanism that the brokers do not know", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"check sasl"},
			Provoke: withConfigs(func(c *kafka.Config) { c.SASL.Mechanism = "scram-sha-512" }),
		},
		sinktest.Trouble{
			Name: "a certificate that is not trusted", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"check tls.ca"},
			Provoke: withConfigs(func(c *kafka.Config) { c.TLS.CA = "" }),
		},
	)
}

type provoke = func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled

func withFault(fault kfake.Fault, wait time.Duration) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		c := newCluster(t, kfake.SeedTopics(1, topic))
		handle := c.Fault(fault)
		return impatient(open(t, c.config(), env, wait), handle.Remove)
	}
}

// impatient is a sink that waits longer once it is healed.
func impatient(sink sinks.Sink, heal func()) sinktest.Troubled {
	return sinktest.Troubled{Sink: sink, Heal: func() {
		heal()
		kafka.SetWait(sink, plenty)
	}}
}

// withPassword has a wrong password in the file at first.
func withPassword(mechanism string) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		c := newCluster(t, kfake.SeedTopics(1, topic), kfake.EnableSASL(), kfake.Superuser(mechanism, "ckafka-x#ingest", "right"))
		file := filepath.Join(t.TempDir(), "password")
		must(t, os.WriteFile(file, []byte("wrong"), 0o600))
		cfg := c.config()
		cfg.SASL = kafka.SASL{Mechanism: lower(mechanism), User: "ckafka-x#ingest", PasswordFile: file}
		return impatient(open(t, cfg, env, patience), func() { must(t, os.WriteFile(file, []byte("right\n"), 0o600)) })
	}
}

func lower(mechanism string) string {
	return map[string]string{"PLAIN": "plain", "SCRAM-SHA-256": "scram-sha-256", "SCRAM-SHA-512": "scram-sha-512"}[mechanism]
}

// withConfigs sends with a wrong configuration at first.
func withConfigs(wrong func(*kafka.Config)) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		right := secureCluster(t)
		bad := *right
		wrong(&bad)
		sink := &restarted{Sink: open(t, &bad, env, patience)}
		return sinktest.Troubled{Sink: sink, Heal: func() {
			must(t, sink.Close(context.WithoutCancel(t.Context())))
			sink.Sink = open(t, right, env, plenty)
		}}
	}
}

// restarted is a sink whose owner mended its configuration and restarted it.
type restarted struct{ sinks.Sink }

func (r *restarted) Notify(ctx context.Context, res *result.Result) error {
	return r.Sink.(sinks.Notifier).Notify(ctx, res)
}

// secureCluster has TLS and SASL, and the configuration that fits it.
func secureCluster(t testing.TB) *kafka.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	c := newCluster(t, kfake.SeedTopics(1, topic), kfake.EnableSASL(), kfake.Superuser("PLAIN", "ingest", "right"),
		kfake.TLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
	cfg := c.config()
	cfg.TLS = kafka.TLS{Enabled: true, CA: ca}
	cfg.SASL = kafka.SASL{Mechanism: "plain", User: "ingest", Password: "right"}
	return cfg
}

func open(t testing.TB, c *kafka.Config, env sinks.Env, wait time.Duration) sinks.Sink {
	t.Helper()
	return openWith(t, c, env, wait, func(p kafka.Produce) kafka.Produce { return p })
}

func openWith(t testing.TB, c *kafka.Config, env sinks.Env, wait time.Duration, wrap func(kafka.Produce) kafka.Produce) sinks.Sink {
	t.Helper()
	must(t, c.Validate())
	sink, err := kafka.OpenWith(t.Context(), c, env, wait, wrap)
	must(t, err)
	return sink
}

// env is that of a sink under a policy that stores every value plainly.
func env(t testing.TB) sinks.Env {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	policy, err := privacy.NewPolicy(cfg, nil)
	must(t, err)
	return sinks.Env{Name: "bus", Policy: policy, Log: slog.New(slog.DiscardHandler)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
