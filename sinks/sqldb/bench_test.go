package sqldb_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// inFlight is how many results are recorded at once.
const inFlight = 64

// BenchmarkRecord records sealed results with 64 in flight, and inserts the rows of
// as many others, 64 results in a transaction, with plain multi-row statements: no
// look for earlier rows, tombstones or duplicates, and the sealing is done before.
// The ratio of the two is what all that Record promises leaves of the database's
// speed.
func BenchmarkRecord(b *testing.B) {
	for _, s := range systems {
		b.Run(s.name, func(b *testing.B) { benchmarkRecord(b, s) })
	}
}

func benchmarkRecord(b *testing.B, s system) {
	plain, grouped := newDatabase(b, s).open(b, env(b)), newDatabase(b, s)
	var transactions atomic.Int64
	sink, err := sqldb.OpenWith(b.Context(), grouped.cfg, env(b), stepping(func(_ context.Context, what string) error {
		if what == "committed" {
			transactions.Add(1)
		}
		return nil
	}))
	must(b, err)
	defer func() { must(b, sink.Close(b.Context())) }()
	transactions.Store(0)
	var plainTook, took time.Duration
	// They take turns, so that a disk that is slow for a while is so for both.
	const turn = 8 * inFlight
	for first := 0; first < b.N; first += turn {
		results := make([]*result.Result, min(turn, b.N-first))
		for i := range results {
			results[i] = sinktest.Archived(sinktest.Result(first + i))
		}
		var rows []sqldb.Rows
		for group := range slices.Chunk(results, inFlight) {
			all, err := sqldb.RowsOf(b.Context(), plain, group)
			must(b, err)
			rows = append(rows, all)
		}
		began := time.Now()
		for _, all := range rows {
			must(b, sqldb.InsertPlain(b.Context(), plain, all))
		}
		plainTook += time.Since(began)
		began = time.Now()
		recordAll(b, sink.(*sqldb.Sink), results)
		took += time.Since(began)
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/op")
	b.ReportMetric(float64(b.N)/took.Seconds(), "results/s")
	b.ReportMetric(float64(b.N)/plainTook.Seconds(), "plain/s")
	b.ReportMetric(plainTook.Seconds()/took.Seconds(), "ratio")
	b.ReportMetric(float64(b.N)/float64(transactions.Load()), "results/transaction")
}

// recordAll records results, a number of them at a time.
func recordAll(b *testing.B, sink *sqldb.Sink, results []*result.Result) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(results)); i = next.Add(1) - 1 {
				if err := sink.Record(b.Context(), results[i]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
