package natsmsg_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func Example() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "nats")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: folder, NoLog: true, NoSigs: true,
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(time.Minute) {
		panic("the server does not start")
	}
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(folder, "keyring.json"))
	if err != nil {
		panic(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		panic(err)
	}

	cfg := &natsmsg.Config{
		URL: s.ClientURL(), Subject: "faceid.results.{account}.{product}.{token_hash}", CreateStream: "FACEID_RESULTS",
	}
	sink, err := cfg.Open(ctx, sinks.Env{Name: "bus", Policy: policy, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer sink.Close(ctx)
	r := sinktest.Archived(sinktest.Result(0)) // in the daemon, results come from pipeline/faceid
	if err := sink.(sinks.Notifier).Notify(ctx, r); err != nil {
		panic(err)
	}

	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		panic(err)
	}
	consumer, err := js.OrderedConsumer(ctx, "FACEID_RESULTS", jetstream.OrderedConsumerConfig{})
	if err != nil {
		panic(err)
	}
	msg, err := consumer.Next()
	if err != nil {
		panic(err)
	}
	fmt.Println(msg.Subject())
	fmt.Println(msg.Headers().Get("Nats-Msg-Id"), msg.Headers().Get("Content-Type"))
	// Output:
	// faceid.results.main.enhanced.cccc7749e11480f4ef294dd8b17a3ca6
	// bus:cccc7749e11480f4ef294dd8b17a3ca6 application/cloudevents+json
}
