// Package sinks states what a destination of results must do, and keeps the
// registry of the kinds of destination there are.
//
// There are three kinds: an Archiver keeps assets, a Recorder keeps results, a
// Notifier tells others afterwards. The pipeline calls them in that order and
// only then acknowledges the event. Retry, rate limit, tracing and dry-run are
// decorators around a sink, not code inside it. Every sink passes the suite in
// sinks/sinktest.
package sinks

import (
	"context"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Receipt is what an Archiver says it stored for one asset.
type Receipt = result.Receipt

// Sink is what all destinations share. All methods may be called by several
// goroutines at once, except Close, which is called once, last.
type Sink interface {
	// Name returns the configured name: unique in a process, and a metric label.
	Name() string
	// Check tells whether the sink could take a result now: reachable, and its
	// credentials and permissions right. It writes nothing that outlives it. The
	// error says in words what is wrong and what to do.
	Check(ctx context.Context) error
	// Close flushes and releases what the sink holds.
	Close(ctx context.Context) error
}

// Archiver keeps the assets of a result.
type Archiver interface {
	Sink
	// Archive stores every asset of r and then, last, a manifest that lists
	// them, so that a manifest means complete. It returns one receipt per asset,
	// in the order of r.Assets. An asset that is nowhere to be had costs itself and
	// not the result: for a while the error is of ClassWaiting, then the manifest and
	// its receipt say that it is missing and why, and a later call looks for it again.
	// Archive is idempotent per product and token:
	// repeating it, at the same time or after a crash at any point, leaves the
	// same state as doing it once. It does not change r.
	//
	// The error says its class, see ClassOf.
	Archive(ctx context.Context, r *result.Result) ([]Receipt, error)
}

// Recorder keeps the result itself as rows or documents.
type Recorder interface {
	Sink
	// Record stores r, whose assets already carry their receipts (Asset.Stored),
	// all of it or nothing. It is idempotent per product and token: a repeated
	// call replaces what is there. It does not change r.
	//
	// The error says its class, see ClassOf.
	Record(ctx context.Context, r *result.Result) error
}

// Notifier tells somebody else that a result is stored.
type Notifier interface {
	Sink
	// Notify sends one message about r. Repeating it sends a message that the
	// receiver can recognise as the same one by its id. It does not change r.
	//
	// The error says its class, see ClassOf.
	Notify(ctx context.Context, r *result.Result) error
}
