package main

import (
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsServer is a server of its own that may be away and come back.
type natsServer struct {
	t       *testing.T
	options server.Options
	running *server.Server
}

func newNATSServer(t *testing.T) *natsServer {
	n := &natsServer{t: t, options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	options := n.options
	s, err := server.NewServer(&options)
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		n.t.Fatal("the server does not start")
	}
	n.options.Port = options.Port
	n.running = s
}

func (n *natsServer) stop() {
	n.running.Shutdown()
	n.running.WaitForShutdown()
}

// A daemon waits for a NATS that is away when it starts or is given a new configuration,
// and a stop in the meantime is no failure.
func TestNATSIsAway(t *testing.T) {
	t.Parallel()
	nats := newNATSServer(t)
	s := newSite(t, "accounts:\n", "nats: {url: \""+nats.running.ClientURL()+"\"}\naccounts:\n", "slots: 16", "slots: 16, timeout: 1m")
	nats.stop()
	p := s.launch()
	p.says("NATS is not there yet, waiting for it")
	p.stop()
	p.says("faceid-ingest was stopped before it was running")

	p = s.launch()
	p.says("NATS is not there yet, waiting for it")
	nats.start()
	p.runs()
	checks := newChecks(2, 8<<10)
	s.publish(checks[:1])
	until(t, "the first event is settled", func() bool { return s.open() == 0 })

	nats.stop()
	p.says("lost the connection to NATS")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.says("the new configuration is in force")
	nats.start()
	s.publish(checks[1:])
	until(t, "the second event is settled", func() bool { return s.open() == 0 })
	p.stop()
	s.holdsExactly(checks)
}
