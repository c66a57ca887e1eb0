package event

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// scanForgotten is how long the server keeps the consumer of a scan whose process
	// died.
	scanForgotten = 10 * time.Second
	// scanWait is how long a scan waits for a message before it asks whether there
	// still is one: others may remove what is behind the last one it saw.
	scanWait = 2 * time.Second
)

// Scan visits the messages that a stream holds now, oldest first: those of subjects,
// all if there are none, from a sequence on. It stops at the first error of visit and
// returns it. A stream that is not there is empty.
func Scan(ctx context.Context, js jetstream.JetStream, stream string, from uint64, subjects []string, visit func(jetstream.Msg, *jetstream.MsgMetadata) error) (err error) {
	reader, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(1, from),
		InactiveThreshold: scanForgotten,
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, err)
	}
	defer func() {
		// Left to the server, consumers of scans that follow each other add up.
		if info := reader.CachedInfo(); info != nil {
			_ = js.DeleteConsumer(context.WithoutCancel(ctx), stream, info.Name)
		}
	}()
	if info := reader.CachedInfo(); info == nil || info.NumPending == 0 {
		return nil
	}
	messages, err := reader.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		msg, err := nextOf(ctx, reader, messages)
		if err != nil {
			return fmt.Errorf("read stream %s: %w", stream, err)
		}
		if msg == nil {
			return nil
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read stream %s: %w", stream, err)
		}
		if err := visit(msg, meta); err != nil {
			return err
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}

// nextOf returns the next message, or nil if there is none any more.
func nextOf(ctx context.Context, reader jetstream.Consumer, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, scanWait)
		msg, err := messages.Next(jetstream.NextContext(wait))
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return msg, err
		}
		info, err := reader.Info(ctx)
		if err != nil || info.NumPending == 0 {
			return nil, err
		}
	}
}
