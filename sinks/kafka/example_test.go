package kafka_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func Example() {
	ctx := context.Background()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "faceid-results"))
	if err != nil {
		panic(err)
	}
	defer cluster.Close()
	folder, err := os.MkdirTemp("", "kafka")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(folder, "keyring.json"))
	if err != nil {
		panic(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		panic(err)
	}

	cfg := &kafka.Config{Brokers: cluster.ListenAddrs(), Topic: "faceid-results"}
	sink, err := cfg.Open(ctx, sinks.Env{Name: "bus", Policy: policy, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer sink.Close(ctx)
	r := sinktest.Archived(sinktest.Result(0)) // in the daemon, results come from pipeline/faceid
	if err := sink.(sinks.Notifier).Notify(ctx, r); err != nil {
		panic(err)
	}

	consumer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("faceid-results"))
	if err != nil {
		panic(err)
	}
	defer consumer.Close()
	for _, record := range consumer.PollFetches(ctx).Records() {
		fmt.Println("key:", string(record.Key))
		for _, h := range record.Headers {
			fmt.Println(h.Key+":", string(h.Value))
		}
	}
	// Output:
	// key: cccc7749e11480f4ef294dd8b17a3ca6
	// content-type: application/cloudevents+json
	// message-id: cccc7749e11480f4ef294dd8b17a3ca6
}
