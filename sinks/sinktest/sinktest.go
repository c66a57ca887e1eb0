// Package sinktest is the suite that every sink passes: sinks.Archiver,
// sinks.Recorder and sinks.Notifier alike.
//
// A sink's test describes itself in a Factory and calls Run. The suite delivers
// invented results, reads back what the destination then holds, and compares:
// after repetition, from many goroutines, after a crash or an error between any
// two steps, after cancellation, with hostile values and awkward sizes. It also
// holds the sink to its error classes and searches everything that it stored,
// logged and said for personal values.
//
// What a sink can do beyond the least is held to sinks/keeper.go: a sinks.Eraser
// to Erase, a sinks.Keeper to Holds, Keys, Reseal and what it notes of the keyring, and
// those that read back to giving back what they were given. The steps of Erase and
// Reseal fail, too, by way of the Faults that Destination.Open is given. An archive that
// looks at what FaceID put into COS is held to what it does when that is not there, if its
// Destination is a Vanisher.
//
// The package is for tests only. Its results (see Result) may be used by other
// packages' tests too: the persons in them are invented and their values can be
// searched for (see Secrets).
package sinktest

import (
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Factory describes the sink under test.
type Factory struct {
	// New returns an empty destination of its own: a folder, a database, a bucket.
	New func(t testing.TB) Destination
	// Troubles are the ways in which calls fail, at least one of which the
	// sink's Check must notice too.
	Troubles []Trouble
}

// Destination is one place that sinks under test store into. What it needs is
// released by t.Cleanup.
type Destination interface {
	// Open opens a sink of the given environment on the destination. It is
	// called several times, as a restarted process or a second replica would.
	//
	// faults must be asked before every operation that changes what the
	// destination holds (see Faults.Step); nil faults always let it pass.
	Open(t testing.TB, env sinks.Env, faults *Faults) sinks.Sink
	// Stored reads back what the destination holds of one token, by means of its
	// own rather than those of an open sink where that is possible.
	Stored(t testing.TB, p result.Product, token string) Stored
}

// Stored is what a destination holds of one token.
type Stored struct {
	// Objects are all files or objects of the token by their location, as
	// receipts name it, with their whole content; the content of a sealed one is
	// opened, with the policy that Open was given, if it opens. What a crash left
	// behind belongs here too, since it must be gone in the end. The tombstone of
	// an erased token does not: it belongs to State.
	Objects map[string][]byte
	// Manifest is what the token's manifest lists, in its order: for each asset
	// the field, location, size and digests. It is nil while there is no manifest.
	Manifest []result.Receipt
	// Record is the result as a Recorder holds it; nil if it has none.
	Record *privacy.Record
	// Messages are what a Notifier has sent about the token, repetitions
	// included.
	Messages []Message
	// State is whatever else must not change when a call is repeated, such as a
	// dump of the token's rows. Sealed values in it may differ.
	State string
	// Dump is the destination as raw as it can be had, such as a database file
	// or a listing. It is searched for personal values and never compared.
	Dump []byte
}

// Message is one message of a Notifier.
type Message struct {
	// ID is what tells a receiver that two messages are the same one.
	ID   string
	Body []byte
}

// Trouble is one way in which a call of the sink fails.
type Trouble struct {
	Name string
	// Provoke opens a sink in trouble. It may change r, which the suite is about
	// to deliver, where the trouble is in the result.
	Provoke func(t testing.TB, env sinks.Env, r *result.Result) Troubled
	// Class is the class of the error that delivering r gives.
	Class sinks.Class
	// Words must all be in the error: what is wrong, where, and what to do.
	Words []string
	// CheckFails says that Check notices, with the same words.
	CheckFails bool
}

// Troubled is a sink in trouble.
type Troubled struct {
	Sink sinks.Sink
	// Heal ends the trouble, after which the same call on the same sink must
	// pass. Nil where nothing can be done, which only suits a permanent error.
	Heal func()
}

// Run runs the whole suite.
func Run(t *testing.T, f Factory) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.run(t, f) })
	}
}

// check is one property that every sink has.
type check struct {
	name string
	run  func(t testing.TB, f Factory)
}

// checks is the suite.
var checks = []check{
	{"Idempotent", idempotent},
	{"IdempotentSealed", idempotentSealed},
	{"Redelivered", redelivered},
	{"Replaced", replaced},
	{"ConcurrentOneToken", concurrentOneToken},
	{"ConcurrentReplicas", concurrentReplicas},
	{"ConcurrentTokens", concurrentTokens},
	{"Crash", crash},
	{"CrashWhileReplacing", crashWhileReplacing},
	{"ErrorAtEveryStep", errorAtEveryStep},
	{"CancelledBefore", cancelledBefore},
	{"CancelledAtEveryStep", cancelledAtEveryStep},
	{"CancelledWhileReading", cancelledWhileReading},
	{"ErrorClasses", errorClasses},
	{"LargeAsset", largeAsset},
	{"EmptyAsset", emptyAsset},
	{"NoAssets", noAssets},
	{"OnlyCOSAssets", onlyCOSAssets},
	{"MissingAsset", missingAsset},
	{"WrongContent", wrongContent},
	{"HostileValues", hostileValues},
	{"NoPersonalData", noPersonalData},
	{"Erased", erased},
	{"EraseWhileDelivering", eraseWhileDelivering},
	{"EraseAtEveryStep", eraseAtEveryStep},
	{"EraseCancelledBefore", eraseCancelled},
	{"EraseNotified", eraseNotified},
	{"EraseReports", eraseReports},
	{"Keys", listsKeys},
	{"ReadBack", readsBack},
	{"Resealed", resealed},
	{"ResealAtEveryStep", resealAtEveryStep},
	{"Keyring", marksKeyring},
	{"KeyringOnce", marksOneKeyring},
	{"KeyUse", countsKeyUse},
	{"List", lists},
	{"Check", checkHealthy},
	{"Close", closes},
}
