package sinktest

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// marksKeyring: a sink notes one keyring, for all who open its destination, and another
// one only in place of the one that is named.
func marksKeyring(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Keeper); !ok {
		return
	}
	h.notes(t, privacy.Mark{})

	keys, other := keyring(t), keyring(t)
	h.mark(t, markOf(t, keys), "")
	g.open(t, nil).notes(t, markOf(t, keys))

	rotate(t, keys)
	h.mark(t, markOf(t, keys), "")
	h.notes(t, markOf(t, keys))

	for _, instead := range []string{"", markOf(t, other).Fingerprint} {
		if err := h.keeper(t).MarkKeyring(t.Context(), markOf(t, other), instead); !errors.Is(err, sinks.ErrOtherKeyring) {
			t.Fatalf("MarkKeyring of another keyring gives the error %v, want sinks.ErrOtherKeyring", err)
		}
		h.notes(t, markOf(t, keys))
	}
	h.mark(t, markOf(t, other), markOf(t, keys).Fingerprint)
	h.notes(t, markOf(t, other))

	r := small(0)
	h.must(t, r)
	h.listsExactly(t, []sinks.Key{keyOf(r)})
	if _, err := h.keeper(t).Erase(t.Context(), keyOf(r), ""); err != nil {
		t.Fatalf("erase a token: %v", err)
	}
	g.open(t, nil).notes(t, markOf(t, other))
	h.markCancelled(t, markOf(t, other))
}

// marksOneKeyring: of keyrings that are noted at the same moment, one is.
func marksOneKeyring(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	if _, ok := g.open(t, nil).Sink.(sinks.Keeper); !ok {
		return
	}
	const rivals = 4
	handles, marks, errs := make([]*handle, rivals), make([]privacy.Mark, rivals), make([]error, rivals)
	for i := range rivals {
		handles[i], marks[i] = g.open(t, nil), markOf(t, keyring(t))
	}
	var wg sync.WaitGroup
	for i := range rivals {
		keeper := handles[i].keeper(t)
		wg.Go(func() { errs[i] = keeper.MarkKeyring(t.Context(), marks[i], "") })
	}
	wg.Wait()

	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case !errors.Is(err, sinks.ErrOtherKeyring):
			t.Fatalf("of %d first marks at once, number %d gives the error %v, and number %d was stored", rivals, i, err, won)
		}
	}
	if won < 0 {
		t.Fatalf("of several first marks at once, none was stored: %v", errs)
	}
	handles[0].notes(t, marks[won])
}

// countsKeyUse: KeyUse tells the keys by which values are sealed now, and nothing of
// values that are not.
func countsKeyUse(t testing.TB, f Factory) {
	t.Helper()
	plain := newRig(t, f)
	if _, ok := plain.open(t, nil).Sink.(sinks.Keeper); !ok {
		return
	}
	keys := keyring(t)
	g := newRigWith(t, f, policyWith(t, privacy.DefaultConfig(), keys))
	h := g.open(t, nil)
	r := Archived(Result(1))
	h.must(t, r)
	before := h.keyUse(t, r)
	old := rotate(t, keys)
	if h.isRecorder() && before[old] == 0 || len(before) > 1 {
		t.Fatalf("KeyUse is %v, want values under key %s", before, old)
	}

	if got := h.keyUse(t, r); !maps.Equal(got, before) {
		t.Fatalf("KeyUse after a rotation is %v, want %v", got, before)
	}
	if _, err := h.keeper(t).Reseal(t.Context(), keyOf(r)); err != nil {
		t.Fatalf("Reseal: %v", err)
	}
	after := h.keyUse(t, r)
	if fresh := rotate(t, keys); after[fresh] != before[old] || len(after) != len(before) {
		t.Fatalf("KeyUse after Reseal is %v, want %d values under key %s", after, before[old], fresh)
	}

	if _, err := h.keeper(t).KeyUse(t.Context(), keyOf(Result(6))); !errors.Is(err, sinks.ErrNotFound) {
		t.Fatalf("KeyUse of a token that is not there gives the error %v, want sinks.ErrNotFound", err)
	}
	h.erase(t, r)
	if _, err := h.keeper(t).KeyUse(t.Context(), keyOf(r)); !errors.Is(err, sinks.ErrNotFound) {
		t.Fatalf("KeyUse of an erased token gives the error %v, want sinks.ErrNotFound", err)
	}
}

func markOf(t testing.TB, keys *privacy.Keyring) privacy.Mark {
	t.Helper()
	mark, err := keys.Mark()
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// mark ends the check unless a mark is stored.
func (h *handle) mark(t testing.TB, mark privacy.Mark, instead string) {
	t.Helper()
	if err := h.keeper(t).MarkKeyring(t.Context(), mark, instead); err != nil {
		t.Fatalf("MarkKeyring: %v", err)
	}
}

// notes ends the check unless the sink notes a mark.
func (h *handle) notes(t testing.TB, want privacy.Mark) {
	t.Helper()
	got, err := h.keeper(t).Keyring(t.Context())
	if err != nil {
		t.Fatalf("Keyring: %v", err)
	}
	if got != want {
		t.Fatalf("Keyring says %+v, want %+v", got, want)
	}
}

func (h *handle) markCancelled(t testing.TB, mark privacy.Mark) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.keeper(t).Keyring(ctx)
	wantCancelled(t, err)
	wantCancelled(t, h.keeper(t).MarkKeyring(ctx, mark, ""))
}

func (h *handle) keyUse(t testing.TB, r *result.Result) map[string]int {
	t.Helper()
	use, err := h.keeper(t).KeyUse(t.Context(), keyOf(r))
	if err != nil {
		t.Fatalf("KeyUse: %v", err)
	}
	return use
}
