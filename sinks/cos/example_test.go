package cos_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"

	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
)

func ExampleConfig() {
	ctx := context.Background()
	server, err := costest.Start(ctx, costest.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = server.Close() }()
	server.AddCredential(costest.Credential{SecretID: "AKIDinvented", SecretKey: "invented"})
	server.CreateBucket("media-1250000000", "ap-guangzhou", costest.BucketOptions{})

	registered, _ := sinks.NewConfig("cos")
	cfg := registered.(*cos.Config)
	cfg.Bucket, cfg.Region = "media-1250000000", "ap-guangzhou"
	cfg.SecretID, cfg.SecretKey = "AKIDinvented", "invented"
	cfg.Seal = false            // it would need a keyring
	cfg.Endpoint = server.URL() // left out, it is the bucket's own host
	cfg.Seal = false            // there is no keyring here

	sink, err := cfg.Open(ctx, sinks.Env{Name: "media", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer func() { _ = sink.Close(ctx) }()
	r := sinktest.Result(0)
	r.Assets = r.Assets[:2]
	receipts, err := sink.(sinks.Archiver).Archive(ctx, r)
	if err != nil {
		panic(err)
	}
	for _, receipt := range receipts {
		fmt.Println(receipt.Size, receipt.Location)
	}
	// Output:
	// 900 cos://media-1250000000/2026-03-01/enhanced/cccc7749e11480f4ef294dd8b17a3ca6/IdCardData.OcrFront.jpg
	// 1200 cos://media-1250000000/2026-03-01/enhanced/cccc7749e11480f4ef294dd8b17a3ca6/BestFrame.BestFrame.png
}
