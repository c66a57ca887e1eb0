// Package kafka sends a message about each result to a topic of Kafka, or of
// Tencent's CKafka, which speaks the same protocol.
//
// In goes a result that is stored; out goes one record whose value is the message
// of package notice. Its key is the token hash, so that all records of a token are
// in one partition, in order, and a compacted topic keeps the latest of them; its
// headers are
//
//	content-type: application/cloudevents+json
//	message-id:   the message's id, the same each time it is sent
//
// A record counts as sent when all in-sync replicas have it (acks=all); repetitions
// on the way to the broker are dropped by it (idempotent producer). A result may
// still be sent again, after a crash or a timeout: consumers drop a message-id that
// they have seen.
//
// The topic must be there: the sink never creates one. The user needs the right to
// DESCRIBE and WRITE the topic and, before Kafka 3.0, IDEMPOTENT_WRITE on the
// cluster.
//
// For CKafka, take the address and port of the access point that the console shows
// for the network this daemon is in. The access mode SASL_PLAINTEXT means sasl with
// mechanism "plain" or "scram-sha-256" without tls, SASL_SSL with; the user is
// "<instance>#<user>", such as "ckafka-abcd1234#ingest", with the id of the
// instance before the name that the console shows.
//
// Kafka cannot take single records away: Erase tells the consumers, by a message of
// another type under the same key, and what was sent stays in the topic until its
// retention ends, or is replaced by that message where the topic is compacted.
// Personal values are not in messages unless fields asks for them; ask for such as
// are sealed or hashed, or keep the retention short.
//
// What may go wrong: a message larger than the topic takes is permanent. All else
// is transient, since its owner can mend it: brokers that cannot be reached, a
// password, certificate or right that is wrong, a topic that is not there, too few
// replicas in sync. The errors say which in words.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/sync/semaphore"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

const (
	// deliverWait bounds one record's way to all replicas, in which brokers may
	// elect another leader.
	deliverWait = 30 * time.Second
	// checkWait bounds Check.
	checkWait = 10 * time.Second
	// metadataWait is how soon the client asks again about a topic that was not
	// there.
	metadataWait = time.Second
	// everybody is more than all callers together.
	everybody = 1 << 30
)

// Sink sends records. All methods but Close may be called by several goroutines at
// once.
type Sink struct {
	name   string
	topic  string
	policy *privacy.Policy
	fields notice.Fields
	// options make a client.
	options []kgo.Opt
	// deliverWait is the constant, shorter in tests.
	deliverWait time.Duration
	// produce sends one record; tests put faults before it.
	produce func(context.Context, *kgo.Record) error
	// alone is held once by those who produce, and wholly by one whose record must
	// be in a batch of its own.
	alone   *semaphore.Weighted
	trouble connectTrouble

	mu     sync.Mutex
	client *kgo.Client
}

var (
	_ sinks.Notifier = (*Sink)(nil)
	_ sinks.Eraser   = (*Sink)(nil)
)

// Open implements sinks.Config. It reads the files that the configuration names,
// and connects to nobody.
func (c *Config) Open(_ context.Context, env sinks.Env) (sinks.Sink, error) {
	s := &Sink{
		name: env.Name, topic: c.Topic, policy: env.Policy, fields: c.Fields,
		deliverWait: deliverWait, alone: semaphore.NewWeighted(everybody),
	}
	s.options = []kgo.Opt{
		kgo.ClientID("faceid-ingest"),
		kgo.SeedBrokers(c.Brokers...),
		kgo.DefaultProduceTopic(c.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// A caller that gives up gets its answer; it will repeat the message anyway.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.ProducerLinger(0),
		kgo.UnknownTopicRetries(1), kgo.MetadataMinAge(metadataWait),
		kgo.RetryTimeout(checkWait),
		kgo.WithHooks(&s.trouble),
	}
	if c.TLS.Enabled {
		settings, err := c.TLS.files().Client()
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		s.options = append(s.options, kgo.DialTLSConfig(settings))
	}
	if c.SASL.Mechanism != "" {
		if _, err := c.SASL.credentials(); err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		s.options = append(s.options, kgo.SASL(c.SASL.mechanism()))
	}
	client, err := kgo.NewClient(s.options...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	s.client, s.produce = client, s.produceSync
	return s, nil
}

func (s *Sink) produceSync(ctx context.Context, r *kgo.Record) error {
	client := s.current()
	err := client.ProduceSync(ctx, r).FirstErr()
	if errors.Is(err, kerr.ClusterAuthorizationFailed) {
		s.replace(client)
	}
	return err
}

func (s *Sink) current() *kgo.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}

// replace makes a new client in place of one that was refused the right to be
// idempotent: it would not ask again when it has that right.
func (s *Sink) replace(refused *kgo.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != refused {
		return
	}
	if client, err := kgo.NewClient(s.options...); err == nil {
		s.client = client
		refused.Close()
	}
}

// mechanism reads the password anew each time it is asked for.
func (s SASL) mechanism() sasl.Mechanism {
	shake := func(context.Context) (scram.Auth, error) {
		password, err := s.credentials()
		return scram.Auth{User: s.User, Pass: password}, err
	}
	switch s.Mechanism {
	case scramSHA256:
		return scram.Sha256(shake)
	case scramSHA512:
		return scram.Sha512(shake)
	}
	return plain.Plain(func(context.Context) (plain.Auth, error) {
		password, err := s.credentials()
		return plain.Auth{User: s.User, Pass: password}, err
	})
}

func (s SASL) credentials() (string, error) {
	return notice.ReadSecret("sasl.password", s.Password, s.PasswordFile)
}

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink. Nothing is on the way any more, since Notify and
// Erase return when a record has arrived or was given up.
func (s *Sink) Close(context.Context) error {
	s.current().Close()
	return nil
}

// Check implements sinks.Sink: it asks the brokers about the topic. Whether the
// user may write to it is known only when it does.
func (s *Sink) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	wait := min(checkWait, s.deliverWait)
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := s.askTopic(limited); err != nil {
		return s.explain(ctx, wait, err)
	}
	return nil
}

func (s *Sink) askTopic(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(s.topic)
	req.Topics = append(req.Topics, topic)
	req.AllowAutoTopicCreation = false
	resp, err := req.RequestWith(ctx, s.current())
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 {
		return kerr.UnknownTopicOrPartition
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return err
	}
	for _, p := range resp.Topics[0].Partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil && !errors.Is(err, kerr.ReplicaNotAvailable) {
			return err
		}
	}
	return nil
}

// Notify implements sinks.Notifier. It returns when all in-sync replicas have the
// record.
func (s *Sink) Notify(ctx context.Context, r *result.Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := notice.OfResult(s.policy, r, s.fields)
	if err != nil {
		return err
	}
	return s.send(ctx, m)
}

// Erase implements sinks.Eraser: it tells the consumers. Records that were sent
// before stay, see the package comment.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, _ string) (sinks.Holding, error) {
	if err := ctx.Err(); err != nil {
		return sinks.Holding{}, err
	}
	m, err := notice.OfErasure(key)
	if err != nil {
		return sinks.Holding{}, err
	}
	return sinks.Holding{}, s.send(ctx, m)
}

func (s *Sink) send(ctx context.Context, m notice.Message) error {
	limited, cancel := context.WithTimeout(ctx, s.deliverWait)
	defer cancel()
	err := s.sendAmong(limited, m, 1)
	if errors.Is(err, kerr.MessageTooLarge) {
		// A batch with others may be too large where the record is not.
		err = s.sendAmong(limited, m, everybody)
	}
	if err != nil {
		return s.explain(ctx, s.deliverWait, err)
	}
	return nil
}

// sendAmong sends while it holds the given share of all sending.
func (s *Sink) sendAmong(ctx context.Context, m notice.Message, share int64) error {
	if err := s.alone.Acquire(ctx, share); err != nil {
		return err
	}
	defer s.alone.Release(share)
	return s.produce(ctx, &kgo.Record{
		Key: []byte(m.TokenHash), Value: m.Body,
		Headers: []kgo.RecordHeader{
			{Key: "content-type", Value: []byte(notice.ContentType)},
			{Key: "message-id", Value: []byte(m.ID)},
		},
	})
}

// connectTrouble remembers why the last connection failed, which the client does
// not say when it gives a record up.
type connectTrouble struct {
	mu  sync.Mutex
	err error
	at  time.Time
}

var _ kgo.HookBrokerConnect = (*connectTrouble)(nil)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c *connectTrouble) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil && c.err != nil && hintOf(err) == "" && time.Since(c.at) < checkWait {
		// A dial that is cut off as its caller gives up says less than the broker did a
		// moment ago.
		return
	}
	c.err, c.at = err, time.Now()
}

func (c *connectTrouble) last() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
