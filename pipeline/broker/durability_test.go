package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

// monitored runs a server with a monitoring endpoint, and returns its URL and that.
func monitored(t *testing.T, o *server.Options) (url, monitor string) {
	t.Helper()
	o.HTTPHost, o.HTTPPort = "127.0.0.1", server.RANDOM_PORT
	o.Host, o.Port, o.NoSigs, o.NoLog, o.JetStream, o.StoreDir = "127.0.0.1", server.RANDOM_PORT, true, true, true, t.TempDir()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	address := s.MonitorAddr()
	if address == nil {
		t.Fatal("the server has no monitoring endpoint")
	}
	return "nats://" + s.Addr().String(), "http://" + address.String()
}

func TestDurability(t *testing.T) {
	for _, tt := range []struct {
		name     string
		options  server.Options
		monitor  bool
		async    bool
		replicas int
		want     []string
	}{
		{"one server as it comes", server.Options{}, true, false, 1, []string{"one copy (R1) is kept of MADE:", "one copy will be kept of LATER (", "acknowledges before it syncs to disk"}},
		{"that syncs", server.Options{SyncAlways: true}, true, false, 3, []string{"one copy (R1) is kept of MADE:"}},
		{"unseen", server.Options{SyncAlways: true}, false, false, 3, []string{"one copy (R1) is kept of MADE:", "cannot be seen: give their monitoring endpoints as nats.monitor"}},
		{"asynchronous", server.Options{SyncAlways: true}, true, true, 3, []string{"one copy (R1) is kept of MADE:", "writes MADE (persist_mode async)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, monitor := monitored(t, &tt.options)
			conn, err := broker.Connect(t.Context(), broker.Config{URL: url, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, conn)
			cfg := jetstream.StreamConfig{Name: "MADE", Subjects: []string{"made"}}
			if tt.async {
				cfg.PersistMode = jetstream.AsyncPersistMode
			}
			if _, err := conn.JS.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			var monitors []string
			if tt.monitor {
				monitors = []string{monitor}
			}
			got, err := conn.Durability(t.Context(), monitors, tt.replicas, "MADE", "LATER")
			if err != nil || len(got) != len(tt.want) {
				t.Fatalf("%q, %v", got, err)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("%q, want %q", got[i], want)
				}
			}
		})
	}
}

// The embedded server is set up not to lose what it acknowledged: nothing to warn of.
// That it syncs, the endpoint of one with the same options says.
func TestEmbeddedIsDurable(t *testing.T) {
	conn, err := broker.Connect(t.Context(), broker.Config{URL: broker.Embedded, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, conn)
	if got, err := conn.Durability(t.Context(), nil, 1, "FACEID"); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	if !conn.SyncsAlways() {
		t.Error("the embedded server acknowledges before it syncs to disk")
	}
}

// A command that joins the embedded server of a daemon has nothing to warn of either.
func TestJoinedIsDurable(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	defer closed(t, first)
	if _, err := first.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "MADE", Subjects: []string{"made"}}); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	defer closed(t, second)
	if got, err := second.Durability(t.Context(), nil, 1, "MADE", "LATER"); err != nil || len(got) != 0 || second.Embedded() {
		t.Errorf("%q, %v", got, err)
	}
}

// aged stands before a server and has it say that it is of another version. It
// returns where it listens.
func aged(t *testing.T, address, version string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); work.Wait() })
	work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			work.Go(func() { age(client, address, version) })
		}
	})
	return "nats://" + listener.Addr().String()
}

// age serves one connection until either side ends it.
func age(client net.Conn, address, version string) {
	var sending sync.WaitGroup
	defer sending.Wait()
	defer client.Close()
	upstream, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer upstream.Close()
	sending.Go(func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.Close()
	})
	for lines := bufio.NewReader(upstream); ; {
		line, err := lines.ReadString('\n')
		line = strings.Replace(line, `"version":"`+server.VERSION+`"`, `"version":"`+version+`"`, 1)
		if _, writeErr := io.WriteString(client, line); err != nil || writeErr != nil {
			return
		}
	}
}

func TestOldServer(t *testing.T) {
	address := startServer(t, &server.Options{SyncAlways: true})
	for version, warned := range map[string]bool{"2.9.25": true, "2.10.29": true, "2.11.0": false, "2.15.2": false, "3.0.0": false} {
		conn, err := broker.Connect(t.Context(), broker.Config{URL: aged(t, address, version), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		got, err := conn.Durability(t.Context(), nil, 3)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.Join(got, "\n"), "server "+version+" cannot pause consumers") != warned {
			t.Errorf("%s: %q", version, got)
		}
		closed(t, conn)
	}
}

func TestStrangeMonitors(t *testing.T) {
	url, _ := monitored(t, &server.Options{SyncAlways: true})
	conn, err := broker.Connect(t.Context(), broker.Config{URL: url, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, conn)
	for answer, want := range map[string]string{"{}": "does not answer like nats-server", "<html>": "does not answer like nats-server", "404": "HTTP 404"} {
		strange := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if answer == "404" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = fmt.Fprint(w, answer)
		}))
		got, err := conn.Durability(t.Context(), []string{strange.URL}, 3)
		if err != nil || len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q: %q, %v", answer, got, err)
		}
		strange.Close()
	}
}
