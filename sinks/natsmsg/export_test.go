package natsmsg

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Publish sends one message.
type Publish = func(context.Context, *nats.Msg) error

// OpenWith opens a sink that publishes through wrap, and waits for answers as long
// as wait.
func OpenWith(c *Config, env sinks.Env, wait time.Duration, wrap func(Publish) Publish) (sinks.Sink, error) {
	s, err := c.open(env, wait)
	if err != nil {
		return nil, err
	}
	s.publish = wrap(s.publish)
	return s, nil
}

// Conn is the connection of a sink.
func Conn(sink sinks.Sink) *nats.Conn { return sink.(*Sink).nats }
