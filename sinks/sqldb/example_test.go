package sqldb_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// Results are recorded, found by a person's ID number although that is sealed, and
// erased.
func ExampleSink() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "example-")
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

	// For a server it would be &sqldb.Postgres{URL: …} or &sqldb.MySQL{DSN: …}.
	config := &sqldb.SQLite{Path: filepath.Join(folder, "faceid.db")}
	opened, err := config.Open(ctx, sinks.Env{Name: "records", Policy: policy, Log: slog.Default()})
	if err != nil {
		panic(err)
	}
	defer opened.Close(ctx)
	records := opened.(sinks.RecordKeeper)

	check := sinktest.Result(1) // an invented person
	if err := records.Record(ctx, check); err != nil {
		panic(err)
	}
	find := func(number string) {
		index := policy.Index(privacy.IDCard, result.NewSensitive(number))
		for summary, err := range records.List(ctx, sinks.Filter{Index: index, IndexField: privacy.IDCard}) {
			fmt.Println("found", summary.Token, summary.Passed, err)
		}
	}
	find("000000 19000101 0001")
	if err := sinktest.Erase(ctx, records, sinks.KeyOf(check.Product, check.Token)); err != nil {
		panic(err)
	}
	find("000000190001010001")
	fmt.Println(records.Record(ctx, check))
	// Output:
	// found TOKEN-00000001-ABCD true <nil>
	// record a result: the result was erased
}
