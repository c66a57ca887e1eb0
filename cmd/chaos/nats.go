//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

const (
	natsPackage = "github.com/nats-io/nats-server/v2"
	// resultsStream receives the messages of the nats sink.
	resultsStream = "RESULTS"
	// readyWait bounds the start of servers, and readyPoll is how often one looks.
	readyWait = time.Minute
	readyPoll = 50 * time.Millisecond
)

// natsNode is one nats-server in a process of its own.
type natsNode struct {
	*process
	name    string
	address string
}

// natsServers are one nats-server, or a cluster of three.
type natsServers struct {
	folder string
	nodes  []*natsNode
}

// startNATS starts servers that write as an owner is told to have them write.
func startNATS(ctx context.Context, binary, folder, logs string, nodes int) (_ *natsServers, err error) {
	s := &natsServers{folder: folder}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	ports, err := freePorts(ctx, 2*nodes)
	if err != nil {
		return nil, err
	}
	client, cluster := ports[:nodes], ports[nodes:]
	for i := range nodes {
		name := fmt.Sprintf("nats-%d", i)
		text := fmt.Sprintf("server_name: %s\nlisten: 127.0.0.1:%d\njetstream {store_dir: %q, sync_interval: always}\n",
			name, client[i], filepath.Join(folder, name))
		if nodes > 1 {
			text += clusterText(cluster, i)
		}
		file := filepath.Join(folder, name+".conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		p, err := keep(logs, name, binary, "-c", file)
		if err != nil {
			return nil, err
		}
		s.nodes = append(s.nodes, &natsNode{p, name, fmt.Sprintf("127.0.0.1:%d", client[i])})
	}
	return s, nil
}

// clusterText is the part of a node's configuration that makes it one of several.
// Clients are not told of other nodes' addresses, which would lead them past the
// proxies.
func clusterText(ports []int, node int) string {
	var routes []string
	for i, port := range ports {
		if i != node {
			routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
		}
	}
	return fmt.Sprintf("cluster {name: chaos, listen: \"127.0.0.1:%d\", no_advertise: true, routes: [%s]}\n", ports[node], strings.Join(routes, ", "))
}

// freePorts returns ports that nobody listens on.
func freePorts(ctx context.Context, n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // only now, so that all are different
		address, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			return nil, errors.New("not a TCP address")
		}
		ports[i] = address.Port
	}
	return ports, nil
}

func (s *natsServers) addresses() []string {
	list := make([]string, len(s.nodes))
	for i, n := range s.nodes {
		list[i] = n.address
	}
	return list
}

func (s *natsServers) stop() error {
	errs := make([]error, len(s.nodes))
	for i, n := range s.nodes {
		errs[i] = n.stop()
	}
	return errors.Join(errs...)
}

// restart has a node end by a signal; it comes back when the returned function is
// called.
func (s *natsServers) restart(node int, signal syscall.Signal) (up func()) {
	return s.nodes[node%len(s.nodes)].down(signal)
}

// natsURL makes one URL of addresses.
func natsURL(addresses []string) string { return "nats://" + strings.Join(addresses, ",nats://") }

// connectNATS returns a connection that is never given up.
func connectNATS(addresses []string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(natsURL(addresses), nats.Name("chaos"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(200*time.Millisecond), nats.ReconnectBufSize(-1), nats.Timeout(2*time.Second), nats.PingInterval(time.Second))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
	}
	return nc, js, err
}

// makeStreams waits for JetStream and makes what the daemon would make, and the
// stream that takes its messages.
func makeStreams(ctx context.Context, js jetstream.JetStream, replicas int) error {
	return until(ctx, readyWait, "JetStream answers", func(ctx context.Context) error {
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: resultsStream, Subjects: []string{"faceid.results.>"}, Storage: jetstream.FileStorage,
			Duplicates: time.Hour, Replicas: replicas,
		})
		return errors.Join(err, event.EnsureStreams(ctx, js, replicas))
	})
}

// leader returns the node that leads the stream of events.
func (s *natsServers) leader(ctx context.Context, js jetstream.JetStream) (int, error) {
	stream, err := js.Stream(ctx, event.Stream)
	if err != nil {
		return 0, err
	}
	if cluster := stream.CachedInfo().Cluster; cluster != nil {
		for i, n := range s.nodes {
			if n.name == cluster.Leader {
				return i, nil
			}
		}
	}
	return 0, errors.New("the stream of events has no leader")
}

// until tries something again and again until it succeeds, for a limited time.
func until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		err := try(bounded)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-bounded.Done():
			return fmt.Errorf("waited %s until %s: %w", limit, what, err)
		}
	}
}
