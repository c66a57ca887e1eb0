package streams

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DefaultMaxBytes bounds each stream that may grow, in bytes: some ten million events.
const DefaultMaxBytes = 4 << 30

// Layout is how an operator wants the streams. The zero Layout has the names of this
// package and DefaultMaxBytes.
type Layout struct {
	// Streams and Buckets are what things are called in place of the constants of this
	// package; what is missing or empty is called by those.
	Streams, Buckets map[string]string
	// MaxBytes bounds each of the streams that are made, those that may grow; 0 means
	// DefaultMaxBytes.
	MaxBytes int64
}

// Of returns js with the layout: all its methods that this program uses take the constants
// of this package, or a stream's own name, and reach what the operator calls so. Their
// errors say the operator's name.
func (l Layout) Of(js jetstream.JetStream) jetstream.JetStream {
	return &laidOut{JetStream: js, layout: l}
}

// layoutOf returns the layout of js.
func layoutOf(js jetstream.JetStream) Layout {
	if l, ok := js.(*laidOut); ok {
		return l.layout
	}
	return Layout{}
}

// NameIn returns what the operator of js calls a stream of this package.
func NameIn(js jetstream.JetStream, stream string) string { return layoutOf(js).Stream(stream) }

// SubjectIn returns what the subjects of a bucket begin with, with a dot at the end.
func SubjectIn(js jetstream.JetStream, bucket Need) string {
	layout := layoutOf(js)
	if name, ok := strings.CutPrefix(bucket.Config.Name, objectStore); ok {
		return "$O." + layout.Bucket(name) + "."
	}
	return "$KV." + layout.Bucket(strings.TrimPrefix(bucket.Config.Name, keyValue)) + "."
}

// Bucket returns what a bucket is called.
func (l Layout) Bucket(name string) string {
	if own := l.Buckets[name]; own != "" {
		return own
	}
	return name
}

// Stream returns what a stream is called; it may be that of a bucket.
func (l Layout) Stream(name string) string {
	for _, kind := range []string{keyValue, objectStore} {
		if bucket, ok := strings.CutPrefix(name, kind); ok {
			return kind + l.Bucket(bucket)
		}
	}
	if own := l.Streams[name]; own != "" {
		return own
	}
	return name
}

// config returns c with the operator's names, in its subjects, too.
func (l Layout) config(c jetstream.StreamConfig) jetstream.StreamConfig {
	name := c.Name
	c.Name = l.Stream(name)
	subjects := make([]string, len(c.Subjects))
	for i, subject := range c.Subjects {
		subjects[i] = l.subject(name, subject)
	}
	c.Subjects = subjects
	return c
}

func (l Layout) subject(stream, subject string) string {
	for kind, prefix := range map[string]string{keyValue: "$KV.", objectStore: "$O."} {
		if bucket, ok := strings.CutPrefix(stream, kind); ok {
			return prefix + l.Bucket(bucket) + strings.TrimPrefix(subject, prefix+bucket)
		}
	}
	if rest, ok := strings.CutPrefix(subject, advisoryPrefix+Events+"."); ok {
		return advisoryPrefix + l.Stream(Events) + "." + rest
	}
	return subject
}

// laidOut is a JetStream whose streams have other names.
type laidOut struct {
	jetstream.JetStream
	layout Layout
}

// of says an operator's name beside an error about a stream.
func (l *laidOut) of(stream string, err error) error {
	if own := l.layout.Stream(stream); err != nil && own != stream {
		return fmt.Errorf("%w (it is named %s here)", err, own)
	}
	return err
}

func (l *laidOut) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := l.JetStream.Stream(ctx, l.layout.Stream(name))
	return s, l.of(name, err)
}

func (l *laidOut) CreateStream(ctx context.Context, c jetstream.StreamConfig) (jetstream.Stream, error) {
	s, err := l.JetStream.CreateStream(ctx, l.layout.config(c))
	return s, l.of(c.Name, err)
}

func (l *laidOut) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	kv, err := l.JetStream.KeyValue(ctx, l.layout.Bucket(bucket))
	return kv, l.of(keyValue+bucket, err)
}

func (l *laidOut) CreateOrUpdateConsumer(ctx context.Context, stream string, c jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	consumer, err := l.JetStream.CreateOrUpdateConsumer(ctx, l.layout.Stream(stream), c)
	return consumer, l.of(stream, err)
}

func (l *laidOut) OrderedConsumer(ctx context.Context, stream string, c jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	consumer, err := l.JetStream.OrderedConsumer(ctx, l.layout.Stream(stream), c)
	return consumer, l.of(stream, err)
}

func (l *laidOut) Consumer(ctx context.Context, stream, consumer string) (jetstream.Consumer, error) {
	c, err := l.JetStream.Consumer(ctx, l.layout.Stream(stream), consumer)
	return c, l.of(stream, err)
}

func (l *laidOut) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	return l.of(stream, l.JetStream.DeleteConsumer(ctx, l.layout.Stream(stream), consumer))
}

func (l *laidOut) PauseConsumer(ctx context.Context, stream, consumer string, until time.Time) (*jetstream.ConsumerPauseResponse, error) {
	r, err := l.JetStream.PauseConsumer(ctx, l.layout.Stream(stream), consumer, until)
	return r, l.of(stream, err)
}

func (l *laidOut) ResumeConsumer(ctx context.Context, stream, consumer string) (*jetstream.ConsumerPauseResponse, error) {
	r, err := l.JetStream.ResumeConsumer(ctx, l.layout.Stream(stream), consumer)
	return r, l.of(stream, err)
}
