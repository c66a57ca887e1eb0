package parking_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// outside is a server as an operator would have one elsewhere, which can be stopped
// and started again.
type outside struct {
	t      *testing.T
	dir    string
	port   int
	server *server.Server
}

func startOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	o.start()
	t.Cleanup(o.stop)
	return o
}

func (o *outside) start() {
	o.t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: o.port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: o.dir,
	})
	must(o.t, err)
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		o.t.Fatal("the server does not start")
	}
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		o.t.Fatal("the server does not listen")
	}
	o.server, o.port = s, address.Port
}

func (o *outside) stop() {
	o.server.Shutdown()
	o.server.WaitForShutdown()
}

func (o *outside) url() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
}

func (o *outside) connect() *broker.Conn {
	o.t.Helper()
	conn, err := broker.Connect(o.t.Context(), broker.Config{URL: o.url(), Log: slog.New(slog.DiscardHandler)})
	must(o.t, err)
	o.t.Cleanup(func() { _ = conn.Close() }) // the server may be away
	return conn
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for limit := time.After(10 * time.Minute); !condition(); {
		select {
		case <-limit:
			t.Fatalf("not in time: %s", what)
		case <-poll.C:
		}
	}
}

// TestServerRestarts stops the server in the middle of a Take, which the spool's quota
// holds there.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	for name, backBefore := range map[string]bool{"it is back": true, "it is away": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := startOutside(t)
			conn := o.connect()
			y := newYardOn(t, conn.JS)
			y.spool = newSpool(t, 1<<20)
			ctx := t.Context()
			r := parkable(t, "T-1", 1, 4<<20)
			must(t, y.Park(ctx, r))

			oldest, err := y.spool.Begin(ctx) // only the oldest batch may exceed the quota
			must(t, err)
			b, err := y.spool.Begin(ctx)
			must(t, err)
			type taken struct {
				r   *result.Result
				err error
			}
			done := make(chan taken, 1)
			go func() {
				r, err := y.Take(ctx, r.Product, r.Token, b)
				done <- taken{r, err}
			}()
			until(t, "the spool is full", func() bool { return y.spool.Usage().Bytes > 1<<20-64<<10 })
			o.stop()
			until(t, "the connection is lost", func() bool { return !conn.NATS.IsConnected() })
			if backBefore {
				o.start()
				until(t, "the connection is back", conn.NATS.IsConnected)
			}
			must(t, oldest.Close())
			first := <-done
			if backBefore {
				must(t, first.err)
				same(t, r, first.r)
				must(t, b.Close())
				return
			}
			if first.err == nil || errors.Is(first.err, parking.ErrDamaged) || errors.Is(first.err, parking.ErrNotParked) {
				t.Errorf("the server is away: %v", first.err)
			}
			must(t, b.Close())
			if err := y.Park(ctx, r); err == nil {
				t.Error("parked on a server that is away")
			}
			o.start()
			until(t, "the connection is back", conn.NATS.IsConnected)
			again, err := y.Take(ctx, r.Product, r.Token, y.batch())
			must(t, err)
			same(t, r, again)
		})
	}
}

// TestMemory parks and takes a video of 64 MiB in a process of its own and looks at
// the most memory it had.
func TestMemory(t *testing.T) {
	t.Parallel()
	o := startOutside(t)
	folder := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMemoryProcess$")
	cmd.Env = append(os.Environ(), "PARKING_URL="+o.url(), "PARKING_FOLDER="+folder, "GOGC=50")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	peak, err := strconv.Atoi(strings.TrimSpace(read(t, filepath.Join(folder, "peak"))))
	must(t, err)
	t.Logf("64 MiB parked and taken, peak memory %d MiB", peak>>10)
	if peak > 64<<10 {
		t.Errorf("the process had %d KiB", peak)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// TestMemoryProcess is the other process of TestMemory; alone it does nothing.
func TestMemoryProcess(t *testing.T) {
	folder := os.Getenv("PARKING_FOLDER")
	if folder == "" {
		return
	}
	must(t, parkLarge(t.Context(), os.Getenv("PARKING_URL"), folder))
	for line := range strings.Lines(read(t, "/proc/self/status")) {
		if text, found := strings.CutPrefix(line, "VmHWM:"); found {
			must(t, os.WriteFile(filepath.Join(folder, "peak"), []byte(strings.Fields(text)[0]), 0o600))
			return
		}
	}
	t.Error("the kernel does not tell the peak")
}

func parkLarge(ctx context.Context, url, folder string) (err error) {
	conn, err := broker.Connect(ctx, broker.Config{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	keys, err := privacy.CreateKeyring(filepath.Join(folder, "keyring.json"))
	if err != nil {
		return err
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		return err
	}
	store, err := parking.Open(ctx, conn.JS, parking.Config{Replicas: 1, Quota: 2 * quota}, policy)
	if err != nil {
		return err
	}
	media, err := spool.Open(spool.Config{Dir: filepath.Join(folder, "spool"), MemoryLimit: 64 << 10, Quota: 2 * quota})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, media.Close()) }()
	batch, err := media.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, batch.Close()) }()
	w := batch.Create(ctx)
	block := make([]byte, 1<<20)
	_, _ = rand.Read(block)
	for range 64 {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	item, err := w.Finish()
	if err != nil {
		return err
	}
	r := &result.Result{Product: result.Enhanced, Token: "T-1", Assets: []result.Asset{{
		Field: "VideoData.LivenessVideo", Kind: result.Video, Content: item, Digest: item.Digest(),
	}}}
	if err := store.Park(ctx, r); err != nil {
		return err
	}
	got, err := store.Take(ctx, r.Product, r.Token, batch)
	if err == nil && got.Assets[0].Digest != item.Digest() {
		err = errors.New("other bytes")
	}
	return err
}
