package dir_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func Example() {
	ctx := context.Background()
	root, err := os.MkdirTemp("", "archive")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)

	cfg := &dir.Config{Path: root}
	sink, err := cfg.Open(ctx, sinks.Env{Name: "media", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer sink.Close(ctx)

	r := sinktest.Result(0) // in the daemon, results come from pipeline/faceid
	receipts, err := sink.(sinks.Archiver).Archive(ctx, r)
	if err != nil {
		panic(err)
	}
	fmt.Println(receipts[0].Location, receipts[0].Size)

	m, err := dir.Verify(ctx, root, r.Product, r.Token)
	fmt.Println(len(m.Assets), "assets, verified:", err == nil)
	// Output:
	// enhanced/cc/cccc7749e11480f4ef294dd8b17a3ca6/IdCardData.OcrFront.jpg 900
	// 5 assets, verified: true
}
