package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

// explain says what is wrong and what to do about it. ctx is the caller's, without
// the sink's own timeout, which is wait.
func (s *Sink) explain(ctx context.Context, wait time.Duration, err error) error {
	at := "kafka topic " + s.topic
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", at, ctx.Err())
	}
	err = closed(err)
	if errors.Is(err, context.DeadlineExceeded) {
		return s.explainTimeout(at, wait, err)
	}
	hint := hintOf(err)
	if hint == "" {
		return fmt.Errorf("%s: %w", at, err)
	}
	err = fmt.Errorf("%s: %s: %w", at, hint, err)
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
		return sinks.Permanent(err)
	}
	return err
}

// closed returns err without what a broker says beside its code.
func closed(err error) error {
	var code *kerr.Error
	if errors.As(err, &code) {
		return code
	}
	return wire.Closed(err)
}

// explainTimeout says why the client kept trying.
func (s *Sink) explainTimeout(at string, wait time.Duration, err error) error {
	cause := closed(s.trouble.last())
	if cause == nil {
		return fmt.Errorf("%s: no acknowledgement within %s: look at the brokers, "+
			"and whether enough replicas are in sync (min.insync.replicas): %w", at, wait, err)
	}
	if hint := hintOf(cause); hint != "" {
		return fmt.Errorf("%s: gave up after %s: %s: %w", at, wait, hint, cause)
	}
	return fmt.Errorf("%s: gave up after %s: %w", at, wait, cause)
}

// hints say what to do about what brokers answer.
var hints = []struct {
	err  error
	hint string
}{
	{kerr.MessageTooLarge, "the message is larger than is taken: raise max.message.bytes of the topic, or send fewer fields"},
	{kerr.RecordListTooLarge, "the message is larger than a segment of the topic: raise segment.bytes, or send fewer fields"},
	{kerr.UnknownTopicOrPartition, "the topic is not there: create it, or give the user the right to describe it"},
	{kerr.TopicAuthorizationFailed, "give the user the right to describe and write the topic"},
	{kerr.ClusterAuthorizationFailed, "give the user the right IDEMPOTENT_WRITE on the cluster"},
	{kerr.SaslAuthenticationFailed, `the brokers refuse the user: check sasl (for CKafka, the user is "<instance>#<user>")`},
	{kerr.UnsupportedSaslMechanism, "the brokers do not know this mechanism: check sasl.mechanism"},
	{kerr.IllegalSaslState, "the brokers want no SASL on this port: check sasl and the port"},
	{kerr.PolicyViolation, "a policy of the brokers refuses the message: ask their owner"},
	{kerr.NotEnoughReplicas, "too few replicas are in sync: look at the brokers"},
	{kerr.NotEnoughReplicasAfterAppend, "too few replicas are in sync: look at the brokers"},
	{kerr.LeaderNotAvailable, "a partition has no leader: look at the brokers"},
	{kerr.KafkaStorageError, "a disk of the brokers is in trouble"},
	{unix.ECONNREFUSED, "nobody listens there: check brokers"},
	{io.EOF, "the brokers close the connection: check sasl, and whether they want TLS on this port"},
}

func hintOf(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return notice.TLSHint(err)
}
