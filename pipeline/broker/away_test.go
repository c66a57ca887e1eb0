package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

// What is worth waiting for, and what is an answer.
func TestIsAway(t *testing.T) {
	api := func(code int, number jetstream.ErrorCode) error {
		return fmt.Errorf("create stream: %w", &jetstream.APIError{Code: code, ErrorCode: number})
	}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("stream FACEID_EVENTS would lose events"), false},
		{context.Canceled, false},
		{nats.ErrConnectionClosed, false},
		{nats.ErrAuthorization, false},
		{jetstream.ErrStreamNotFound, false},
		{jetstream.ErrJetStreamNotEnabled, false},
		{jetstream.ErrJetStreamNotEnabledForAccount, false},
		{api(500, 10058), false}, // the name is in use
		{api(503, 10008), true},  // the system is temporarily unavailable
		{api(500, 10009), true},  // not the leader
		{api(400, 10005), true},  // no suitable peers
		{api(500, 10118), true},  // the stream is offline
		{api(500, 10119), true},  // the consumer is offline
		{fmt.Errorf("look: %w", context.DeadlineExceeded), true},
		{nats.ErrTimeout, true},
		{nats.ErrNoResponders, true},
		{fmt.Errorf("connect to NATS: %w", io.EOF), true},
		{nats.ErrReconnectBufExceeded, true},
		{&net.OpError{Op: "dial", Err: errors.New("no route to host")}, true},
		{&fs.PathError{Op: "open", Path: "/none", Err: syscall.ENOENT}, false}, // a file is no network
		{syscall.EACCES, false},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, false},
	} {
		if got := broker.IsAway(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
	// The real thing: nobody listens, and somebody who refuses.
	_, err := broker.Connect(t.Context(), broker.Config{URL: "nats://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if !broker.IsAway(err) {
		t.Errorf("nobody listens: %v", err)
	}
	address := startServer(t, &server.Options{Username: "user", Password: "right"})
	_, err = broker.Connect(t.Context(), broker.Config{URL: "nats://" + address, User: "user", Password: "wrong", Log: slog.New(slog.DiscardHandler)})
	if err == nil || broker.IsAway(err) {
		t.Errorf("a wrong password: %v", err)
	}
}
