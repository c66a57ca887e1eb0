package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// holdsSomething tells whether a sink archives or records, so that there is
// something to erase.
func (h *handle) holdsSomething() bool { return h.isArchiver() || h.isRecorder() }

func keyOf(r *result.Result) sinks.Key { return sinks.KeyOf(r.Product, r.Token) }

// erase erases r's token and ends the check if the sink fails.
func (h *handle) erase(t testing.TB, r *result.Result) {
	t.Helper()
	if err := erase(t.Context(), h.Sink, r); err != nil {
		t.Fatalf("erase a token: %v", err)
	}
}

func erase(ctx context.Context, sink sinks.Sink, r *result.Result) error {
	return Erase(ctx, sink, keyOf(r))
}

// Erase erases a token from a sink that must be a sinks.Eraser.
func Erase(ctx context.Context, sink sinks.Sink, key sinks.Key) error {
	eraser, ok := sink.(sinks.Eraser)
	if !ok {
		return &violation{"the sink is no sinks.Eraser"}
	}
	_, err := eraser.Erase(ctx, key, eraseReason)
	return err
}

// eraseReason is why this package erases.
const eraseReason = "request 12, 当事人要求"

// erased: nothing of an erased token is left but a tombstone, which holds against
// redeliveries, also to a sink opened later; other tokens stay.
func erased(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Eraser); !ok || !h.holdsSomething() {
		return
	}
	r, neighbour := Archived(Result(0)), Archived(Result(2))
	h.must(t, r)
	before := g.holds(t, h, neighbour, h.must(t, neighbour))
	h.erase(t, r)
	g.gone(t, "after Erase", r)
	g.refused(t, "after Erase", h, r)
	state := g.tombstone(t, r)
	h.erase(t, r)
	same(t, "after Erase of an erased token", g.tombstone(t, r), state)

	unknown := Archived(Result(4))
	h.erase(t, unknown)
	g.refused(t, "after Erase of a token that nobody had delivered", h, unknown)

	if err := h.close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h = g.open(t, nil)
	for _, r := range []*result.Result{r, unknown} {
		g.refused(t, "after Erase, on a sink opened anew", h, r)
	}
	h.erase(t, r)
	same(t, "after Erase of an erased token on a sink opened anew", g.tombstone(t, r), state)
	same(t, "after Erase of other tokens", g.render(t, g.stored(t, neighbour)), before)
	g.holds(t, h, neighbour, h.must(t, neighbour))
}

// tombstone renders what is left of an erased token. Messages that were sent
// cannot be taken back.
func (g *rig) tombstone(t testing.TB, r *result.Result) string {
	t.Helper()
	s := g.stored(t, r)
	s.Messages = nil
	return g.render(t, s)
}

// gone ends the check unless the destination holds nothing of r but a tombstone.
func (g *rig) gone(t testing.TB, when string, r *result.Result) {
	t.Helper()
	s := g.stored(t, r)
	switch {
	case len(s.Objects) > 0:
		t.Fatalf("%s, there are objects of the token: %q", when, slices.Sorted(maps.Keys(s.Objects)))
	case s.Manifest != nil:
		t.Fatalf("%s, there is a manifest", when)
	case s.Record != nil:
		t.Fatalf("%s, there is a record", when)
	}
	for place, text := range map[string][]byte{"state": []byte(s.State), "dump": s.Dump} {
		if what := traces(text, r); what != "" {
			t.Fatalf("%s, %s is still in the %s of the destination", when, what, place)
		}
	}
}

// traces names what of r is in text.
func traces(text []byte, r *result.Result) string {
	if bytes.Contains(text, []byte(r.Token)) {
		return "the token"
	}
	seed := 0
	if _, err := fmt.Sscanf(r.Token, "TOKEN-%d-ABCD", &seed); err != nil {
		panic("sinktest: " + err.Error()) // erased tokens are this package's own
	}
	for i, secret := range Secrets(seed) {
		if bytes.Contains(text, []byte(secret)) {
			return "the person's " + secretFields[i]
		}
	}
	for i, a := range r.Assets {
		if a.Content == nil {
			continue
		}
		if b, err := readAll(a.Content); err == nil && len(b) > 0 && bytes.Contains(text, b[:min(len(b), 64)]) {
			return fmt.Sprintf("asset %d", i)
		}
	}
	return ""
}

// refused ends the check unless the sink takes nothing of r any more, and knows
// nothing of it.
func (g *rig) refused(t testing.TB, when string, h *handle, r *result.Result) {
	t.Helper()
	calls := map[string]func() error{}
	if a, ok := h.Sink.(sinks.Archiver); ok {
		calls["Archive"] = func() error { _, err := a.Archive(t.Context(), r); return err }
	}
	if rec, ok := h.Sink.(sinks.Recorder); ok {
		calls["Record"] = func() error { return rec.Record(t.Context(), r) }
	}
	for name, call := range calls {
		err := call()
		if class, _ := sinks.ClassOf(err); !errors.Is(err, sinks.ErrErased) || class != sinks.ClassErased {
			t.Fatalf("%s, %s gives the error %v of the class %q, want sinks.ErrErased", when, name, err, class)
		}
	}
	g.gone(t, when+" and another delivery", r)
	h.unknown(t, when, r)
}

// unknown ends the check unless the sink says of r's token that it holds nothing.
func (h *handle) unknown(t testing.TB, when string, r *result.Result) {
	t.Helper()
	key := keyOf(r)
	calls := map[string]func() error{}
	if k, ok := h.Sink.(sinks.Keeper); ok {
		calls["Reseal"] = func() error { _, err := k.Reseal(t.Context(), key); return err }
		if slices.Contains(h.keys(t, sinks.Key{}), key) {
			t.Fatalf("%s, Keys lists the token", when)
		}
	}
	if a, ok := h.Sink.(sinks.ArchiveKeeper); ok {
		calls["Manifest"] = func() error { _, err := a.Manifest(t.Context(), key); return err }
		calls["OpenAsset"] = func() error {
			asset, err := a.OpenAsset(t.Context(), key, receiptOf(r.Assets[0]))
			if err == nil {
				_ = asset.Close()
			}
			return err
		}
	}
	if rec, ok := h.Sink.(sinks.RecordKeeper); ok {
		calls["Get"] = func() error { _, err := rec.Get(t.Context(), key); return err }
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, sinks.ErrNotFound) {
			t.Fatalf("%s, %s gives the error %v, want sinks.ErrNotFound", when, name, err)
		}
	}
}

// receiptOf is a receipt as this sink could have given it, but for the location.
func receiptOf(a result.Asset) sinks.Receipt {
	return sinks.Receipt{
		Sink: sinkName, Field: a.Field, Location: "elsewhere",
		Size: a.Digest.Size, SHA256: a.Digest.SHA256Hex(), CRC64: a.Digest.CRC64String(),
	}
}

// eraseWhileDelivering: deliveries that run while a token is erased may fail, and
// leave nothing behind.
func eraseWhileDelivering(t testing.TB, f Factory) {
	t.Helper()
	const rounds, calls, erasers = 4, 8, 2
	for round := range rounds {
		g := newRig(t, f)
		replicas := []*handle{g.open(t, nil), g.open(t, nil)}
		if _, ok := replicas[0].Sink.(sinks.Eraser); !ok || !replicas[0].holdsSomething() {
			return
		}
		r := small(round)
		if round%2 == 1 {
			replicas[0].must(t, r)
		}
		together(t, calls+erasers, func(i int) error {
			h := replicas[i%2]
			if i < erasers {
				return erase(t.Context(), h.Sink, r)
			}
			_, err := h.deliver(t.Context(), r)
			var v *violation
			if errors.As(err, &v) {
				return err
			}
			return nil
		})
		for _, h := range replicas {
			g.refused(t, "after Erase while others delivered", h, r)
		}
	}
}

// modes are the ways in which a step fails, in words.
var modes = map[faultMode]string{dieAt: "a crash", failAt: "an error", cancelAt: "a cancellation"}

// eraseAtEveryStep: a crash, an error or a cancellation at any step of Erase. What
// is left claims nothing that is not so, and another Erase finishes.
func eraseAtEveryStep(t testing.TB, f Factory) {
	t.Helper()
	r := small(0)
	for _, mode := range slices.Sorted(maps.Keys(modes)) {
		everyStep(t, func(n int) bool {
			g := newRig(t, f)
			h := g.open(t, nil)
			if _, ok := h.Sink.(sinks.Eraser); !ok || !h.holdsSomething() {
				return false
			}
			h.must(t, r)
			if err := h.close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			when := fmt.Sprintf("after %s at step %d of Erase", modes[mode], n)
			h, fired, steps := g.failing(t, n, mode, func(ctx context.Context, sink sinks.Sink) error {
				return erase(ctx, sink, r)
			})
			if steps == 0 {
				noFaultPoints(t)
			}
			left := g.stored(t, r)
			if err := g.honest(h, left, r, nil); err != nil {
				t.Fatalf("%s, what is left claims to be complete, but is not; put the tombstone up or take the manifest away first: %v", when, err)
			}
			h.erase(t, r)
			g.gone(t, when+" and another Erase", r)
			g.refused(t, when+" and another Erase", h, r)
			return fired
		})
	}
}

// failing opens a sink, makes the n-th step of do fail, and holds the error to its
// class. It returns a sink to go on with, which is another one after a crash,
// whether do came to that step, and how many there were.
func (g *rig) failing(t testing.TB, n int, mode faultMode, do func(context.Context, sinks.Sink) error) (h *handle, fired bool, steps int) {
	t.Helper()
	faults := &Faults{}
	h = g.open(t, faults)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	faults.arm(n, mode, cancel)
	err := do(ctx, h.Sink)
	if mode == dieAt {
		_ = h.close() // what the operating system does for a dead process
	}
	fired, steps = faults.disarm()
	class, _ := sinks.ClassOf(err)
	switch {
	case err == nil:
	case !fired:
		t.Fatalf("no step failed, but the call did: %v", err)
	case mode == cancelAt:
		wantCancelled(t, err)
	case mode == failAt && class != sinks.ClassTransient:
		t.Fatalf("the error of step %d has the class %q, want %q: %v", n, class, sinks.ClassTransient, err)
	case leaked(fmt.Append(nil, err)) != "" || strings.Contains(err.Error(), "TOKEN-"):
		t.Fatalf("the error of step %d holds a personal value or the token", n)
	}
	if mode == dieAt {
		h = g.open(t, nil)
	}
	return h, fired, steps
}

// eraseCancelled: an Erase whose context is done does nothing and says so.
func eraseCancelled(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Eraser); !ok {
		return
	}
	r := small(0)
	before := g.holds(t, h, r, h.must(t, r))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantCancelled(t, erase(ctx, h.Sink, r))
	same(t, "after an Erase that was cancelled before", g.render(t, g.stored(t, r)), before)
	g.holds(t, h, r, h.must(t, r))
}

// eraseNotified: a notifier tells its receivers of an Erase, in a message that
// they can tell from that about the result, and recognise when it comes again.
func eraseNotified(t testing.TB, f Factory) {
	t.Helper()
	g := newRigWith(t, f, defaultPolicy(t))
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Eraser); !ok || !h.isNotifier() {
		return
	}
	r, unknown := Archived(Result(0)), Archived(Result(4))
	h.must(t, r)
	stored := ids(g.stored(t, r).Messages)
	h.erase(t, r)
	h.erase(t, r)
	all := g.stored(t, r).Messages
	if n := len(ids(all)); n != len(stored)+1 {
		t.Fatalf("after Notify and two Erase there are messages of %d ids about the token, want %d: one for the result, one for its erasure (Destination.Stored shows both)", n, len(stored)+1)
	}
	h.erase(t, unknown)
	all = append(all, g.stored(t, unknown).Messages...)
	if n := len(ids(all)); n != len(stored)+2 {
		t.Fatal("Erase of a token that nobody had delivered sends no message of its own")
	}
	bodies := map[string][]byte{}
	for _, m := range all {
		if stored[m.ID] {
			continue
		}
		if first, repeated := bodies[m.ID]; repeated && !bytes.Equal(first, m.Body) {
			t.Fatal("two messages about one erasure have different bodies")
		}
		bodies[m.ID] = m.Body
		for _, r := range []*result.Result{r, unknown} {
			if what := traces(slices.Concat([]byte(m.ID), m.Body), r); what != "" {
				t.Fatalf("%s is in the message about an erasure", what)
			}
		}
	}
}

// eraseReports: a sink says what it holds of a token, what Erase took away, and when
// and why that was, also when it is opened later and when others give another reason.
func eraseReports(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if _, ok := h.Sink.(sinks.Keeper); !ok || !h.holdsSomething() {
		return
	}
	r, unknown := Archived(Result(0)), Archived(Result(4))
	if held := h.holds(t, r); !held.IsEmpty() || held.Erased != nil {
		t.Fatalf("before anything is delivered, Holds says %+v", held)
	}

	h.must(t, r)
	state := g.render(t, g.stored(t, r))
	held := h.holds(t, r)
	if held.Records == 0 || held.Erased != nil || h.isArchiver() && (held.Assets == 0 || held.Bytes == 0) {
		t.Fatalf("of a token that was delivered, Holds says %+v", held)
	}
	same(t, "after Holds", g.render(t, g.stored(t, r)), state)

	began := time.Now().Add(-time.Second)
	if gone := h.erases(t, r, eraseReason); gone != held {
		t.Fatalf("Erase says that %+v was there, Holds said %+v", gone, held)
	}
	if gone := h.erases(t, unknown, "…\n"+strings.Repeat("很", 1000)); !gone.IsEmpty() || gone.Erased != nil {
		t.Fatalf("Erase of a token that nobody had delivered says that %+v was there", gone)
	}
	if err := h.close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	h = g.open(t, nil)

	for what, held := range map[string]sinks.Holding{"Holds": h.holds(t, r), "another Erase": h.erases(t, r, "another"), "Holds after that": h.holds(t, r)} {
		switch {
		case !held.IsEmpty() || held.Erased == nil:
			t.Fatalf("of an erased token, %s says %+v", what, held)
		case held.Erased.Reason != eraseReason || held.Erased.At.Before(began) || held.Erased.At.After(time.Now().Add(time.Second)):
			t.Fatalf("of a token erased just now because of %q, %s says %+v", eraseReason, what, *held.Erased)
		}
	}
	if held := h.holds(t, unknown); held.Erased == nil || !strings.HasPrefix(held.Erased.Reason, "…") || strings.Contains(held.Erased.Reason, "\n") {
		t.Fatalf("of a token that was erased for a long reason, Holds says %+v", held)
	}
}

// holds asks a sink what it holds of r, and ends the check if it cannot say.
func (h *handle) holds(t testing.TB, r *result.Result) sinks.Holding {
	t.Helper()
	held, err := h.keeper(t).Holds(t.Context(), keyOf(r))
	if err != nil {
		t.Fatalf("ask what a sink holds: %v", err)
	}
	return held
}

// erases erases r's token and returns what the sink says was there.
func (h *handle) erases(t testing.TB, r *result.Result, reason string) sinks.Holding {
	t.Helper()
	held, err := h.keeper(t).Erase(t.Context(), keyOf(r), reason)
	if err != nil {
		t.Fatalf("erase a token: %v", err)
	}
	return held
}

// readFully reads an asset to its end.
func readFully(asset io.ReadCloser, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(asset)
	return b, errors.Join(err, asset.Close())
}
