package sinktest

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// goroutines is how many callers the concurrent checks have.
const goroutines = 16

// idempotent: five calls leave what one left, on the same sink and on one opened
// later.
func idempotent(t testing.TB, f Factory) {
	t.Helper()
	repeat(t, newRig(t, f))
}

// idempotentSealed: as idempotent, but for the nonces of sealed values; and
// these open in their places.
func idempotentSealed(t testing.TB, f Factory) {
	t.Helper()
	repeat(t, newRigWith(t, f, defaultPolicy(t)))
}

func repeat(t testing.TB, g *rig) {
	t.Helper()
	for seed := range 2 {
		r := Archived(Result(seed))
		h := g.open(t, nil)
		if s := g.render(t, g.stored(t, r)); s != g.render(t, Stored{State: ""}) {
			t.Fatalf("an empty destination holds something of the token: %.300s", s)
		}
		once := g.holds(t, h, r, h.must(t, r))
		for range 4 {
			h.must(t, r)
		}
		same(t, "after five calls", g.holds(t, h, r, h.must(t, r)), once)
		if err := h.close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		h = g.open(t, nil)
		same(t, "after a call on a sink opened anew", g.holds(t, h, r, h.must(t, r)), once)
	}
}

// redelivered: a token that is fetched again has another request id and time.
// That must not touch its objects, and the record is the latest.
func redelivered(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	first := Archived(Result(0))
	h.must(t, first)
	before := g.stored(t, first)

	again := clone(first)
	again.RequestID = "11111111-1111-4111-8111-111111111111"
	again.FetchedAt = first.FetchedAt.Add(25 * time.Hour)
	h.must(t, again)
	after := g.stored(t, again)
	if err := g.complete(h, again, after); err != nil {
		t.Fatal(err)
	}
	same(t, "after another fetch of the same result",
		g.render(t, Stored{Objects: after.Objects, Manifest: after.Manifest}),
		g.render(t, Stored{Objects: before.Objects, Manifest: before.Manifest}))
}

// replaced: a token whose answer has changed, with fewer parts and other bytes,
// ends as if only the latest answer had been.
func replaced(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	h.must(t, Archived(Result(0)))
	latest := changed(Result(0))
	receipts := h.must(t, latest)
	s := g.stored(t, latest)
	if err := g.complete(h, latest, s); err != nil {
		t.Fatal(err)
	}
	if h.isArchiver() {
		if err := fulfilled(latest, receipts, s); err != nil {
			t.Fatal(err)
		}
	}
	// Rows left over from the longer answer would show here.
	elsewhere := newRig(t, f)
	h2 := elsewhere.open(t, nil)
	h2.must(t, latest)
	want := elsewhere.stored(t, latest)
	same(t, "after a shorter answer",
		g.render(t, Stored{Record: s.Record, State: s.State}),
		g.render(t, Stored{Record: want.Record, State: want.State}))
}

// changed returns another answer about r's token: one asset with other bytes,
// the others as they were but for the last, which is gone, and less of the rest.
func changed(r *result.Result) *result.Result {
	c := clone(r)
	c.Verdict.Passed, c.Verdict.Code, c.Verdict.LivenessTags = false, -4006, nil
	c.Attempts = c.Attempts[:1]
	c.Warnings = nil
	c.Intention = result.Intention{}
	c.Assets = c.Assets[:len(c.Assets)-1]
	c.Assets[1] = inline(c.Assets[1].Field, result.Image, c.Assets[1].ContentType, media(77, 7, 1500))
	return Archived(c)
}

// concurrentOneToken: one token from many goroutines at once.
func concurrentOneToken(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	r := Archived(Result(0))
	h := g.open(t, nil)
	together(t, goroutines, func(int) error { _, err := h.deliver(t.Context(), r); return err })
	got := g.holds(t, h, r, h.must(t, r))
	same(t, "after concurrent calls", got, alone(t, f, r))
}

// concurrentReplicas: one token from several sinks on one destination, as when
// an event is redelivered to another replica while the first still works.
func concurrentReplicas(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	r := Archived(Result(1))
	replicas := make([]*handle, 4)
	for i := range replicas {
		replicas[i] = g.open(t, nil)
	}
	together(t, goroutines, func(i int) error {
		_, err := replicas[i%len(replicas)].deliver(t.Context(), r)
		return err
	})
	got := g.holds(t, replicas[0], r, replicas[0].must(t, r))
	same(t, "after concurrent calls of replicas", got, alone(t, f, r))
}

// concurrentTokens: different tokens at once do not touch each other.
func concurrentTokens(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	receipts := make([][]result.Receipt, goroutines)
	results := make([]*result.Result, goroutines)
	for i := range results {
		results[i] = Archived(Result(i))
	}
	together(t, goroutines, func(i int) (err error) {
		receipts[i], err = h.deliver(t.Context(), results[i])
		return err
	})
	for i, r := range results {
		g.holds(t, h, r, receipts[i])
	}
}

// alone returns the state that one undisturbed call leaves.
func alone(t testing.TB, f Factory, r *result.Result) string {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	return g.holds(t, h, r, h.must(t, r))
}

// together calls do from n goroutines that start at the same time.
func together(t testing.TB, n int, do func(i int) error) {
	t.Helper()
	start := make(chan struct{})
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = do(i)
		})
	}
	close(start)
	wg.Wait()
	failed := map[string]bool{}
	for _, err := range errs {
		if err != nil {
			failed[err.Error()] = true
		}
	}
	if len(failed) > 0 {
		t.Fatalf("concurrent calls failed: %q", slices.Sorted(maps.Keys(failed)))
	}
}
