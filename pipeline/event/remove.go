package event

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Remove takes a message off its stream. One that is not there is no error.
func Remove(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.DeleteMsg(ctx, sequence)
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	// The server has one code for all that goes wrong.
	if _, lookErr := stream.GetMsg(ctx, sequence); errors.Is(lookErr, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("take message %d off stream %s: %w", sequence, stream.CachedInfo().Config.Name, err)
}

// Erase is Remove for a message that holds what must not come back: the server overwrites
// it in its files.
func Erase(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.SecureDeleteMsg(ctx, sequence)
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if _, lookErr := stream.GetMsg(ctx, sequence); errors.Is(lookErr, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("erase message %d of stream %s: %w", sequence, stream.CachedInfo().Config.Name, err)
}
