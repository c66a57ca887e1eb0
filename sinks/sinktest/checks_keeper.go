package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// keeper returns the sink, of which the check knows that it is one.
func (h *handle) keeper(t testing.TB) sinks.Keeper {
	t.Helper()
	keeper, ok := h.Sink.(sinks.Keeper)
	if !ok {
		t.Fatal("another sink opened on the destination is no sinks.Keeper")
	}
	return keeper
}

// keys collects what Keys lists.
func (h *handle) keys(t testing.TB, after sinks.Key) []sinks.Key {
	t.Helper()
	var all []sinks.Key
	for key, err := range h.keeper(t).Keys(t.Context(), after) {
		if err != nil {
			t.Fatalf("Keys: %v", err)
		}
		all = append(all, key)
	}
	return all
}

// listsKeys: Keys lists every token that is whole, once, in order, from any key on.
func listsKeys(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Keeper); !ok {
		return
	}
	if got := h.keys(t, sinks.Key{}); len(got) > 0 {
		t.Fatalf("Keys of an empty destination: %v", got)
	}
	var want []sinks.Key
	for seed := range 10 {
		r := small(seed)
		h.must(t, r)
		want = append(want, keyOf(r))
	}
	slices.SortFunc(want, sinks.Key.Compare)
	h.listsExactly(t, want)

	h.stops(t, want)
	wantCancelled(t, h.keysError(t))

	erased := want[3]
	if err := Erase(t.Context(), h.Sink, erased); err != nil {
		t.Fatalf("erase a token: %v", err)
	}
	h.listsExactly(t, slices.Delete(slices.Clone(want), 3, 4))
	// The list goes on behind a key that is not there.
	if got := h.keys(t, erased); !slices.Equal(got, want[4:]) {
		t.Fatalf("Keys after an erased key lists %v, want %v", got, want[4:])
	}
	g.notWhole(t, h)
}

// listsExactly ends the check unless Keys lists want, and from each key on what is
// behind it.
func (h *handle) listsExactly(t testing.TB, want []sinks.Key) {
	t.Helper()
	for i := range len(want) + 1 {
		after := sinks.Key{}
		if i > 0 {
			after = want[i-1]
		}
		if got := h.keys(t, after); !slices.Equal(got, want[i:]) {
			t.Fatalf("Keys after %v lists %v, want %v", after, got, want[i:])
		}
	}
	// A key with a product and no hash is before all of the product.
	first := slices.IndexFunc(want, func(k sinks.Key) bool { return k.Product == result.Enhanced })
	if got := h.keys(t, sinks.Key{Product: result.Enhanced}); first >= 0 && !slices.Equal(got, want[first:]) {
		t.Fatalf("Keys after the product enhanced without a hash lists %v, want %v", got, want[first:])
	}
}

// stops ends the check unless a list can be left, and begun again.
func (h *handle) stops(t testing.TB, want []sinks.Key) {
	t.Helper()
	list := h.keeper(t).Keys(t.Context(), sinks.Key{})
	for n := range 3 {
		var got []sinks.Key
		for key, err := range list {
			if err != nil {
				t.Fatalf("Keys: %v", err)
			}
			if got = append(got, key); len(got) > n {
				break
			}
		}
		if !slices.Equal(got, want[:n+1]) {
			t.Fatalf("the first keys are %v, want %v", got, want[:n+1])
		}
	}
}

// keysError returns the error that ends a list whose context is done.
func (h *handle) keysError(t testing.TB) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range h.keeper(t).Keys(ctx, sinks.Key{}) {
		if last != nil {
			t.Fatal("Keys goes on after an error")
		}
		last = err
	}
	return last
}

// notWhole ends the check if a token of which a crash left a part is listed.
func (g *rig) notWhole(t testing.TB, h *handle) {
	t.Helper()
	if !h.isArchiver() {
		return
	}
	r := small(11)
	r.Assets[1].Content = brokenContent{err: errors.New("released")}
	_, err := h.deliver(t.Context(), r)
	mayFail(t, err)
	if slices.Contains(h.keys(t, sinks.Key{}), keyOf(r)) {
		t.Fatal("Keys lists a token that has no manifest")
	}
}

// readsBack: what was stored comes back: the manifest as Archive's receipts, each
// asset's bytes, the record as the policy made it.
func readsBack(t testing.TB, f Factory) {
	t.Helper()
	for _, policy := range []*privacy.Policy{plainPolicy(t), defaultPolicy(t)} {
		g := newRigWith(t, f, policy)
		h := g.open(t, nil)
		if _, ok := h.Sink.(sinks.Keeper); !ok {
			return
		}
		h.unknown(t, "before a delivery", Archived(Result(0)))
		large := Archived(Result(3))
		large.Assets = append(large.Assets,
			inline("VideoData.LivenessVideo[0]", result.Video, "video/mp4", media(3, 9, 1<<20+5)),
			inline("IdCardData.Avatar", result.Image, "image/png", nil))
		for _, r := range []*result.Result{Archived(Result(0)), Archived(Result(1)), large} {
			receipts := h.must(t, r)
			if err := g.readable(t, h, r, receipts); err != nil {
				t.Fatal(err)
			}
		}
		h.unknown(t, "after deliveries of others", Archived(Result(6)))
		h.wrongReceipt(t, large)
	}
}

// readable tells whether all of r can be read back through the sink. Without
// receipts, those of the manifest are taken.
func (g *rig) readable(t testing.TB, h *handle, r *result.Result, receipts []result.Receipt) error {
	t.Helper()
	if a, ok := h.Sink.(sinks.ArchiveKeeper); ok {
		manifest, err := a.Manifest(t.Context(), keyOf(r))
		if err != nil {
			return fmt.Errorf("read the manifest: %w", err)
		}
		if receipts != nil && !reflect.DeepEqual(manifest, receipts) {
			return fmt.Errorf("what Manifest says differs from the receipts of Archive: %s", firstDifference(mustJSON(manifest), mustJSON(receipts)))
		}
		if len(manifest) != len(r.Assets) {
			return fmt.Errorf("what Manifest says has %d receipts for %d assets", len(manifest), len(r.Assets))
		}
		for i, asset := range r.Assets {
			if err := opens(t.Context(), a, keyOf(r), asset, manifest[i]); err != nil {
				return fmt.Errorf("open asset %d: %w", i, err)
			}
		}
	}
	if rec, ok := h.Sink.(sinks.RecordKeeper); ok {
		got, err := rec.Get(t.Context(), keyOf(r))
		if err != nil {
			return fmt.Errorf("what Get says: %w", err)
		}
		if err := g.recorded(r, Stored{Record: got}); err != nil {
			return fmt.Errorf("what Get says: %w", err)
		}
	}
	return nil
}

// opens tells whether an asset comes back as it was given. Whether one in COS can
// be read is the sink's affair.
func opens(ctx context.Context, a sinks.ArchiveKeeper, key sinks.Key, asset result.Asset, receipt sinks.Receipt) error {
	got, err := readFully(a.OpenAsset(ctx, key, receipt))
	if asset.Content == nil {
		if err != nil && !errors.Is(err, sinks.ErrNotFound) {
			return fmt.Errorf("it is in COS; want its bytes or sinks.ErrNotFound: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	want, err := readAll(asset.Content)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes which differ from the %d that Archive was given", len(got), len(want))
	}
	return err
}

// wrongReceipt ends the check if a receipt of something else opens an asset.
func (h *handle) wrongReceipt(t testing.TB, r *result.Result) {
	t.Helper()
	a, ok := h.Sink.(sinks.ArchiveKeeper)
	if !ok {
		return
	}
	manifest, err := a.Manifest(t.Context(), keyOf(r))
	if err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	another := manifest[0]
	another.Field, another.Location = "IdCardData.OcrBack", "../../etc/passwd"
	if _, err := readFully(a.OpenAsset(t.Context(), keyOf(r), another)); err == nil {
		t.Fatal("OpenAsset with a receipt that is in no manifest gives something")
	}
	if _, err := readFully(a.OpenAsset(t.Context(), keyOf(Result(6)), manifest[0])); !errors.Is(err, sinks.ErrNotFound) {
		t.Fatalf("OpenAsset with the receipt of another token gives the error %v, want sinks.ErrNotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = readFully(a.OpenAsset(ctx, keyOf(r), manifest[0]))
	wantCancelled(t, err)
}

// resealed: after the keyring is rotated and everything sealed anew, the old key
// can go, and all opens and can be delivered again.
func resealed(t testing.TB, f Factory) {
	t.Helper()
	keys := keyring(t)
	g := newRigWith(t, f, policyWith(t, privacy.DefaultConfig(), keys))
	h := g.open(t, nil)
	keeper, ok := h.Sink.(sinks.Keeper)
	if !ok {
		return
	}
	results := []*result.Result{Archived(Result(0)), Archived(Result(1)), Archived(Result(2))}
	for _, r := range results {
		h.must(t, r)
		if changed, err := keeper.Reseal(t.Context(), keyOf(r)); changed || err != nil {
			t.Fatalf("Reseal of what is sealed under the active key gives %v, %v, want false, nil", changed, err)
		}
	}
	erased := Archived(Result(4))
	h.must(t, erased)
	h.erase(t, erased)
	old := rotate(t, keys)
	for _, r := range results {
		if err := g.readable(t, h, r, nil); err != nil {
			t.Fatalf("after a rotation: %v", err)
		}
	}
	for _, key := range h.keys(t, sinks.Key{}) {
		changed, err := keeper.Reseal(t.Context(), key)
		if err != nil {
			t.Fatalf("Reseal: %v", err)
		}
		if !changed && h.isRecorder() {
			t.Fatal("Reseal after a rotation changed nothing, though sealed values were recorded")
		}
	}
	for _, key := range h.keys(t, sinks.Key{}) {
		if changed, err := keeper.Reseal(t.Context(), key); changed || err != nil {
			t.Fatalf("Reseal of what was resealed gives %v, %v, want false, nil", changed, err)
		}
	}
	h.unknown(t, "after a reseal", erased)
	h.unknown(t, "after a reseal", Archived(Result(6)))
	remove(t, keys, old)
	for _, r := range results {
		if err := g.readable(t, h, r, nil); err != nil {
			t.Fatalf("after Reseal and the removal of the old key: %v", err)
		}
		if err := g.complete(h, r, g.stored(t, r)); err != nil {
			t.Fatalf("after Reseal and the removal of the old key: %v", err)
		}
		g.holds(t, h, r, h.must(t, r))
	}
	wantCancelled(t, func() error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := keeper.Reseal(ctx, keyOf(results[0]))
		return err
	}())
}

// rotate rotates a keyring and returns the id of the key that was active.
func rotate(t testing.TB, keys *privacy.Keyring) (old string) {
	t.Helper()
	list := keys.List()
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	return list[len(list)-1].ID
}

func remove(t testing.TB, keys *privacy.Keyring, id string) {
	t.Helper()
	if err := keys.Remove(id); err != nil {
		t.Fatal(err)
	}
}

// resealAtEveryStep: a crash, an error or a cancellation at any step of Reseal.
// Everything can be read, and another Reseal finishes, after which the old key can
// go.
func resealAtEveryStep(t testing.TB, f Factory) {
	t.Helper()
	r := small(0)
	for _, mode := range slices.Sorted(maps.Keys(modes)) {
		everyStep(t, func(n int) bool {
			keys := keyring(t)
			g := newRigWith(t, f, policyWith(t, privacy.DefaultConfig(), keys))
			h := g.open(t, nil)
			if _, ok := h.Sink.(sinks.Keeper); !ok {
				return false
			}
			receipts := h.must(t, r)
			if err := h.close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			old := rotate(t, keys)
			return g.resealFailing(t, n, mode, r, receipts, func() { remove(t, keys, old) })
		})
	}
}

// resealFailing makes the n-th step of Reseal fail, if there is one.
func (g *rig) resealFailing(t testing.TB, n int, mode faultMode, r *result.Result, receipts []result.Receipt, removeOld func()) (more bool) {
	t.Helper()
	when := fmt.Sprintf("after %s at step %d of Reseal", modes[mode], n)
	changed := false
	h, fired, steps := g.failing(t, n, mode, func(ctx context.Context, sink sinks.Sink) (err error) {
		changed, err = (&handle{Sink: sink}).keeper(t).Reseal(ctx, keyOf(r))
		return err
	})
	if changed && steps == 0 {
		noFaultPoints(t)
	}
	if err := g.readable(t, h, r, receipts); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if _, err := h.keeper(t).Reseal(t.Context(), keyOf(r)); err != nil {
		t.Fatalf("%s, another Reseal: %v", when, err)
	}
	removeOld()
	if err := g.readable(t, h, r, receipts); err != nil {
		t.Fatalf("%s, another Reseal and the removal of the old key: %v", when, err)
	}
	if err := g.complete(h, r, g.stored(t, r)); err != nil {
		t.Fatalf("%s, another Reseal and the removal of the old key: %v", when, err)
	}
	if changed, err := h.keeper(t).Reseal(t.Context(), keyOf(r)); changed || err != nil {
		t.Fatalf("%s and another, a third Reseal gives %v, %v, want false, nil", when, changed, err)
	}
	return fired
}
