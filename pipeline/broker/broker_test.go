package broker_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) *broker.Conn {
	t.Helper()
	conn, err := broker.Connect(t.Context(), broker.Config{URL: broker.Embedded, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func closed(t *testing.T, conn *broker.Conn) {
	t.Helper()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// A second connection to the same folder, as another command makes it, joins
// the running server; after a restart what was stored is still there.
func TestEmbeddedIsSharedAndDurable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	first := open(t, dir)
	if !first.Embedded() {
		t.Error("the first connection does not run the server")
	}
	if _, err := first.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	if second.Embedded() {
		t.Error("two servers run on one folder")
	}
	if _, err := second.JS.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Error(err)
	}
	closed(t, second)
	closed(t, first)

	again := open(t, dir)
	defer closed(t, again)
	stream, err := again.JS.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(t.Context(), 1)
	if err != nil || string(msg.Data) != "kept" {
		t.Errorf("got %v, %v", msg, err)
	}
}

// A daemon that joined the server of a command would be cut off when that ends.
func TestServeWaitsForACommandToEnd(t *testing.T) {
	dir := t.TempDir()
	command := open(t, dir)
	type served struct {
		conn *broker.Conn
		err  error
	}
	done := make(chan served, 1)
	serve := func(ctx context.Context) {
		conn, err := broker.Serve(ctx, broker.Config{URL: broker.Embedded, Dir: dir, Log: slog.New(slog.DiscardHandler)})
		done <- served{conn, err}
	}
	given, cancel := context.WithCancel(t.Context())
	go serve(given)
	cancel()
	if s := <-done; s.err == nil || !strings.Contains(s.err.Error(), "another process uses "+dir) {
		t.Errorf("got %v", s.err)
	}
	go serve(t.Context())
	closed(t, command)
	s := <-done
	if s.err != nil {
		t.Fatal(s.err)
	}
	defer closed(t, s.conn)
	if !s.conn.Embedded() {
		t.Error("the daemon does not run the server")
	}
}

func TestEmbeddedNeedsThePassword(t *testing.T) {
	dir := t.TempDir()
	conn := open(t, dir)
	defer closed(t, conn)
	_, err := broker.Connect(t.Context(), broker.Config{URL: conn.NATS.ConnectedUrl(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "Authorization") {
		t.Errorf("got %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "address.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password's file has mode %v, %v", info.Mode(), err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cfg  broker.Config
		want string
	}{
		{"nobody listens", broker.Config{URL: "nats://user:secret@127.0.0.1:1"}, "connect to NATS at nats://user:xxxxx@127.0.0.1:1"},
		{"folder is a file", broker.Config{URL: broker.Embedded, Dir: file}, "make the folder of the embedded NATS server"},
		{"credentials file missing", broker.Config{URL: "nats://127.0.0.1:1", CredsFile: "/nonexistent/creds"}, "make the file readable"},
		{"nobody is told of", broker.Config{URL: "nats://127.0.0.1:1"}, "check nats.url, that the server runs"},
	}
	for _, tt := range tests {
		tt.cfg.Log = slog.New(slog.DiscardHandler)
		conn, err := broker.Connect(t.Context(), tt.cfg)
		if err == nil {
			closed(t, conn)
			t.Errorf("%s: connected", tt.name)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}
