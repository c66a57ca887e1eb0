package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// OpenWith opens a sink that sends through wrap, and gives a record up after wait.
func OpenWith(ctx context.Context, c *Config, env sinks.Env, wait time.Duration, wrap func(Produce) Produce) (sinks.Sink, error) {
	sink, err := c.Open(ctx, env)
	if err != nil {
		return nil, err
	}
	s := sink.(*Sink)
	s.deliverWait = wait
	s.produce = wrap(s.produce)
	return s, nil
}

// Produce sends one record.
type Produce = func(context.Context, *kgo.Record) error

// SetWait changes how long a sink waits before it gives up; nothing may be under
// way.
func SetWait(sink sinks.Sink, wait time.Duration) { sink.(*Sink).deliverWait = wait }

// Buffered returns how many records are on the way.
func Buffered(sink sinks.Sink) int { return int(sink.(*Sink).current().BufferedProduceRecords()) }
