package sinktest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Vanisher is a Destination whose sinks look at the objects that FaceID put into COS.
// One whose sinks only note where such an object should be is none.
type Vanisher interface {
	// Vanish has FaceID's object not be there, until back is called.
	Vanish(t testing.TB, object result.COSObject) (back func())
}

// missingAsset: an object that is not where the answer says is waited for, without the
// sink being down; then it costs itself alone, is named with the reason, and is archived
// by a later call that finds it.
func missingAsset(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	places, ok := g.dest.(Vanisher)
	if !ok || !h.isArchiver() {
		return
	}

	// Even seeds are of one product, with different tokens.
	fresh, old, other := Archived(Result(0)), Archived(Result(2)), Archived(Result(4))
	fresh.FetchedAt = time.Now().UTC()
	lost := slices.IndexFunc(fresh.Assets, func(a result.Asset) bool { return a.COS != nil })

	back := places.Vanish(t, *fresh.Assets[lost].COS)
	for range 4 { // more than make a sink count as down
		waits(t, g, h, fresh)
	}
	g.holds(t, h, other, h.must(t, other))
	back()
	g.holds(t, h, fresh, h.must(t, fresh))

	back = places.Vanish(t, *old.Assets[lost].COS)
	once := g.holdsWithout(t, h, old, lost)
	same(t, "after another call while the object is missing", g.holdsWithout(t, h, old, lost), once)
	if err := h.Check(t.Context()); err != nil {
		t.Fatalf("Check minds a missing object: %v", err)
	}
	back()
	g.holds(t, h, old, h.must(t, old))
}

// waits delivers a result of which an object is not there yet.
func waits(t testing.TB, g *rig, h *handle, r *result.Result) {
	t.Helper()
	_, err := h.deliver(t.Context(), r)
	mayFail(t, err)
	class, after := sinks.ClassOf(err)
	if class != sinks.ClassWaiting {
		t.Fatalf("a result whose object may still come has the class %q, want %q: %v", class, sinks.ClassWaiting, err)
	}
	if after < 0 || after > time.Hour {
		t.Fatalf("a missing object is looked for after %s", after)
	}

	s := g.stored(t, r)
	if s.Manifest != nil || s.Record != nil {
		t.Fatal("a result that waits for an object is complete")
	}
	if len(s.Objects) == 0 {
		t.Fatal("a missing object holds up the assets that are there")
	}
}

// holdsWithout delivers r, of which the object of the asset lost is given up, and ends the
// check unless all else is there. It returns the state.
func (g *rig) holdsWithout(t testing.TB, h *handle, r *result.Result, lost int) string {
	t.Helper()
	receipts := h.must(t, r)
	s := g.stored(t, r)
	for what, list := range map[string][]result.Receipt{"the receipts": receipts, "the manifest": s.Manifest} {
		if len(list) != len(r.Assets) {
			t.Fatalf("%s are %d, want %d", what, len(list), len(r.Assets))
		}
		one := list[lost]
		if one.Field != r.Assets[lost].Field || one.Missing != result.NotFound || one.Location != "" || one.SHA256 != "" {
			t.Fatalf("%s say of a missing asset %+v", what, one)
		}
		rest := *r
		rest.Assets = slices.Delete(slices.Clone(r.Assets), lost, lost+1)
		if err := fulfilled(&rest, slices.Delete(slices.Clone(list), lost, lost+1), s); err != nil {
			t.Fatalf("%s, but for what is missing: %v", what, err)
		}
	}
	g.readsMissing(t, h, r, receipts[lost])
	return g.render(t, s)
}

// readsMissing reads back what is missing.
func (g *rig) readsMissing(t testing.TB, h *handle, r *result.Result, lost result.Receipt) {
	t.Helper()
	keeper, ok := h.Sink.(sinks.ArchiveKeeper)
	if !ok {
		return
	}
	key := sinks.KeyOf(r.Product, r.Token)
	receipts, err := keeper.Manifest(context.WithoutCancel(t.Context()), key)
	if err != nil || !slices.Contains(receipts, lost) {
		t.Fatalf("the manifest does not list what is missing: %v, %v", receipts, err)
	}
	content, err := keeper.OpenAsset(t.Context(), key, lost)
	if err == nil {
		_ = content.Close()
	}
	if !errors.Is(err, sinks.ErrNotFound) {
		t.Fatalf("what is missing can be opened: %v, want sinks.ErrNotFound", err)
	}
}
