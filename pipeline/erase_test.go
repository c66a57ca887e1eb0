package pipeline_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// keeping is an archive that says what it holds.
type keeping struct {
	*erasable
	sinks.Keeper // nil: what is not below is never called

	mu     sync.Mutex
	stones map[sinks.Key]sinks.Tombstone
}

func newKeeping() *keeping {
	return &keeping{erasable: &erasable{sink: &sink{name: "kept"}}, stones: map[sinks.Key]sinks.Tombstone{}}
}

var (
	_ sinks.Archiver = (*keeping)(nil)
	_ sinks.Keeper   = (*keeping)(nil)
)

func (k *keeping) Name() string                    { return k.erasable.Name() }
func (k *keeping) Check(ctx context.Context) error { return k.erasable.Check(ctx) }
func (k *keeping) Close(ctx context.Context) error { return k.erasable.Close(ctx) }

func (k *keeping) Erase(_ context.Context, key sinks.Key, reason string) (held sinks.Holding, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.stones[key]; !there {
		k.stones[key] = sinks.NewTombstone(reason)
	}
	return held, nil
}

func (k *keeping) Holds(_ context.Context, key sinks.Key) (held sinks.Holding, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if stone, there := k.stones[key]; there {
		held.Erased = &stone
	}
	return held, nil
}

// mark notes in the ledger that a token was erased.
func (b *bench) mark(token string) {
	b.t.Helper()
	if err := pipeline.MarkErased(b.t.Context(), b.js, sinks.KeyOf(result.Enhanced, token), sinks.NewTombstone("request 12")); err != nil {
		b.t.Fatal(err)
	}
}

// stored counts the events of a token that are on a stream.
func (b *bench) stored(token string) (n int) {
	b.t.Helper()
	err := event.Find(b.t.Context(), b.js, event.Tokens{token: {result.Enhanced}}, func(event.Stored) error { n++; return nil })
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// An event of a token that the ledger and a sink call erased ends without a pull, and is
// not left on its stream. A mark that no sink knows of, or of before the tombstones were
// taken away, holds nothing up.
func TestMarkedAsErased(t *testing.T) {
	b := newBench(t)
	kept := newKeeping()
	b.before = []sinks.Sink{kept}
	b.start()
	b.publish("T-0")
	b.idle() // there is a ledger
	if _, err := kept.Erase(t.Context(), sinks.KeyOf(result.Enhanced, "T-1"), "request 12"); err != nil {
		t.Fatal(err)
	}
	b.mark("T-1")
	b.mark("T-2")
	b.publish("T-1", "T-2")
	b.idle()
	if b.api.count("T-1") != 0 || b.record.has("T-1") || b.stored("T-1") != 0 {
		t.Errorf("the erased one: pulled %d times, %d on the stream", b.api.count("T-1"), b.stored("T-1"))
	}
	if !b.record.has("T-2") {
		t.Error("a mark that no sink confirms keeps a result away")
	}
}

// What is erased while it is in work becomes no dead letter.
func TestErasedInWork(t *testing.T) {
	b := newBench(t)
	kept := newKeeping()
	b.before = []sinks.Sink{kept}
	begun, erased := make(chan struct{}), make(chan struct{})
	b.api.answer = func(_ context.Context, token string, _ int) error {
		if token != "T-1" {
			return nil
		}
		close(begun)
		<-erased
		return &faceid.Error{Class: faceid.Permanent, Err: errors.New("unknown token")}
	}
	b.start()
	b.publish("T-0")
	b.idle()
	b.publish("T-1")
	<-begun
	found, unseen := pipeline.Locate(t.Context(), b.js, "T-1", []result.Product{result.Enhanced})
	if len(unseen) != 0 || len(found[0].Waiting) != 1 || !found[0].Waiting[0].Delivered {
		t.Errorf("%+v, %v", found, unseen)
	}
	b.until("its daemon says that it works on it", func() bool {
		found, _ := pipeline.Locate(t.Context(), b.js, "T-1", []result.Product{result.Enhanced})
		return len(found[0].InWork) == 1
	})
	if _, err := kept.Erase(t.Context(), sinks.KeyOf(result.Enhanced, "T-1"), "request 12"); err != nil {
		t.Fatal(err)
	}
	b.mark("T-1")
	close(erased)
	b.idle()
	if n := len(b.dead()); n != 0 || b.stored("T-1") != 0 {
		t.Errorf("%d dead letters, %d events are left", n, b.stored("T-1"))
	}
	if found, _ = pipeline.Locate(t.Context(), b.js, "T-1", []result.Product{result.Enhanced}); found[0].Erased == nil || found[0].Erased.Reason != "request 12" || len(found[0].Waiting) != 0 {
		t.Errorf("%+v", found)
	}
}

// A parked result is found with why it was parked, and status counts why others wait.
func TestLocateParkedAndPutOff(t *testing.T) {
	b := newBench(t)
	b.record.fail = func(token string, _ int) error {
		if token == "T-parked" {
			return errors.New("the database is away")
		}
		return nil
	}
	b.api.answer = func(_ context.Context, token string, _ int) error {
		if token == "T-open" {
			return &faceid.Error{Class: faceid.NotReady, Code: "FailedOperation.NotYet", Err: faceid.ErrNotFinished}
		}
		return nil
	}
	b.cfg.Retry.RedeliverFirst, b.cfg.Retry.RedeliverMax = 3e9, 3e9
	b.publish("T-parked", "T-open")
	b.start()
	locate := func(token string) pipeline.Whereabouts {
		found, unseen := pipeline.Locate(t.Context(), b.js, token, []result.Product{result.Enhanced})
		if len(unseen) != 0 {
			t.Fatal(unseen)
		}
		return found[0]
	}
	b.until("one is parked", func() bool { w := locate("T-parked"); return w.Parked != nil && w.Parked.Cause != nil })
	w := locate("T-parked")
	if w.Parked.Bytes == 0 || w.Parked.Since.IsZero() || w.Parked.Cause.At != "sink" || w.Parked.Cause.Sink != "records" || len(w.Done) != 1 || w.Done[0] != "media" {
		t.Errorf("%+v, %+v", w, w.Parked)
	}
	b.until("the other is counted", func() bool {
		s, err := pipeline.ReadStatus(t.Context(), b.js, []string{"main"})
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Waits) == 1 && s.Waits[0].Events == 1 && s.Waits[0].Class == "not_ready" && s.Waits[0].Code == "FailedOperation.NotYet"
	})
	if w := locate("T-open"); len(w.Waiting) != 1 || w.Waiting[0].Wait == nil || w.Waiting[0].Wait.Attempts == 0 {
		t.Errorf("%+v", w)
	}
	var kv jetstream.KeyValue
	kv, err := b.js.KeyValue(t.Context(), pipeline.LedgerBucket)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(t.Context(), "enhanced."+result.TokenHash(result.Enhanced, "T-open"))
	if err != nil || len(entry.Value()) > 512 {
		t.Errorf("the ledger's entry: %s, %v", entry.Value(), err)
	}
}
