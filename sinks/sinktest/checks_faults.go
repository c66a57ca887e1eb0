package sinktest

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// maxSteps ends the checks that try every step. A call of a small result that
// takes more is not one that these checks suit.
const maxSteps = 500

// small is a result with few steps: one asset of each sort.
func small(seed int) *result.Result {
	r := Result(seed)
	r.Assets = r.Assets[1:4]
	r.Attempts = r.Attempts[:2]
	return Archived(r)
}

// crash: the process dies before any step of a call; the next process finds all
// or nothing, and makes it whole.
func crash(t testing.TB, f Factory) {
	t.Helper()
	r := small(0)
	want := alone(t, f, r)
	everyStep(t, func(n int) bool {
		g := newRig(t, f)
		return crashAt(t, g, n, r, nil, want)
	})
}

// crashWhileReplacing: as crash, where another answer about the token is stored
// already. The destination never claims a mixture to be complete.
func crashWhileReplacing(t testing.TB, f Factory) {
	t.Helper()
	old := small(0)
	latest := changed(Result(0))
	latest.Assets = latest.Assets[1:]
	want := func() string {
		g := newRig(t, f)
		h := g.open(t, nil)
		h.must(t, old)
		return g.afterReplacing(t, h, latest)
	}()
	everyStep(t, func(n int) bool {
		g := newRig(t, f)
		h := g.open(t, nil)
		h.must(t, old)
		if err := h.close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		return crashAt(t, g, n, latest, old, want)
	})
}

// afterReplacing delivers r and returns the state without messages, of which
// those about the earlier answer stay sent.
func (g *rig) afterReplacing(t testing.TB, h *handle, r *result.Result) string {
	t.Helper()
	h.must(t, r)
	s := g.stored(t, r)
	if err := g.complete(h, r, s); err != nil {
		t.Fatal(err)
	}
	s.Messages = nil
	return g.render(t, s)
}

// crashAt crashes at the n-th step of delivering r, looks at what is left, and
// delivers r again. It returns false if the call took fewer steps.
func crashAt(t testing.TB, g *rig, n int, r, old *result.Result, want string) bool {
	t.Helper()
	faults := &Faults{}
	h := g.open(t, faults)
	faults.arm(n, dieAt, nil)
	_, err := h.deliver(t.Context(), r)
	mayFail(t, err)
	_ = h.close() // what the operating system does for a dead process
	fired, steps := faults.disarm()
	if !fired {
		if err != nil {
			t.Fatalf("no step failed, but the call did: %v", err)
		}
		return n == 1 && steps == 0 && noFaultPoints(t)
	}

	left := g.stored(t, r)
	left.Messages = nil
	if err := g.honest(h, left, r, old); err != nil {
		t.Fatalf("after a crash at step %d, the destination claims to be complete, but is not: %v", n, err)
	}
	h = g.open(t, nil)
	if old == nil {
		same(t, "after a crash and another call", g.holds(t, h, r, h.must(t, r)), want)
	} else {
		same(t, "after a crash while replacing and another call", g.afterReplacing(t, h, r), want)
	}
	return true
}

func noFaultPoints(t testing.TB) bool {
	t.Helper()
	t.Fatal("the call has no steps: the factory's Open must ask faults before each operation")
	return false
}

// honest tells whether what s claims to hold is all there: of r, or of what the
// destination held before, which may be nil. A crash may come between archive and
// record, so each is judged alone.
func (g *rig) honest(h *handle, s Stored, r, old *result.Result) error {
	archived, recorded := fulfilled(r, s.Manifest, s), g.recorded(r, s)
	if old != nil {
		if archived != nil && fulfilled(old, s.Manifest, s) == nil {
			archived = nil
		}
		if recorded != nil && g.recorded(old, s) == nil {
			recorded = nil
		}
	}
	if h.isArchiver() && s.Manifest != nil && archived != nil {
		return archived
	}
	if h.isRecorder() && s.Record != nil {
		return recorded
	}
	return nil
}

// everyStep calls try with 1, 2, … until it returns false.
func everyStep(t testing.TB, try func(n int) bool) {
	t.Helper()
	for n := 1; try(n); n++ {
		if n == maxSteps {
			t.Fatalf("a call takes more than %d steps", maxSteps)
		}
	}
}

// errorAtEveryStep: one operation fails and the process lives. The call passes
// or fails as transient; the same sink makes it whole when called again.
func errorAtEveryStep(t testing.TB, f Factory) {
	t.Helper()
	r := small(1)
	want := alone(t, f, r)
	everyStep(t, func(n int) bool {
		g := newRig(t, f)
		faults := &Faults{}
		h := g.open(t, faults)
		faults.arm(n, failAt, nil)
		_, err := h.deliver(t.Context(), r)
		mayFail(t, err)
		fired, _ := faults.disarm()
		if class, _ := sinks.ClassOf(err); err != nil && class != sinks.ClassTransient {
			t.Fatalf("the error of step %d has the class %q, want %q: %v", n, class, sinks.ClassTransient, err)
		}
		if err == nil {
			g.holds(t, h, r, h.must(t, r))
		}
		same(t, "after an error and another call", g.holds(t, h, r, h.must(t, r)), want)
		return fired
	})
}

// cancelledBefore: a call whose context is done does nothing and says so.
func cancelledBefore(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	r := small(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := h.deliver(ctx, r)
	mayFail(t, err)
	wantCancelled(t, err)
	s := g.stored(t, r)
	if s.Manifest != nil || s.Record != nil || len(s.Messages) > 0 {
		t.Fatal("a cancelled call stored something")
	}
	g.holds(t, h, r, h.must(t, r))
}

// cancelledAtEveryStep: the caller gives up in the middle. The call passes if it
// was nearly over, or says that it was cancelled; a repetition makes it whole.
func cancelledAtEveryStep(t testing.TB, f Factory) {
	t.Helper()
	r := small(1)
	want := alone(t, f, r)
	everyStep(t, func(n int) bool {
		g := newRig(t, f)
		faults := &Faults{}
		h := g.open(t, faults)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		faults.arm(n, cancelAt, cancel)
		receipts, err := h.deliver(ctx, r)
		mayFail(t, err)
		fired, _ := faults.disarm()
		if err != nil {
			wantCancelled(t, err)
		} else {
			g.holds(t, h, r, receipts)
		}
		same(t, "after a cancellation and another call", g.holds(t, h, r, h.must(t, r)), want)
		return fired
	})
}

func wantCancelled(t testing.TB, err error) {
	t.Helper()
	if class, _ := sinks.ClassOf(err); class != sinks.ClassCanceled {
		t.Fatalf("the error of a cancelled call has the class %q, want %q: %v", class, sinks.ClassCanceled, err)
	}
}

// cancelledWhileReading: a cancelled archiver stops reading a large asset.
func cancelledWhileReading(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if !h.isArchiver() {
		return
	}
	const size, after, grace = 8 << 20, 64 << 10, 1 << 20
	b := media(1, 1, size)
	r := Result(0)
	r.Assets = []result.Asset{inline("VideoData.LivenessVideo", result.Video, "video/mp4", b)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := &cancellingContent{content: content(b), after: after, cancel: cancel}
	r.Assets[0].Content = read
	_, err := h.deliver(ctx, r)
	mayFail(t, err)
	wantCancelled(t, err)
	if read.late > grace {
		t.Fatalf("after the cancellation the sink read %d more bytes", read.late)
	}
	r.Assets[0].Content = content(b)
	g.holds(t, h, r, h.must(t, r))
}

// cancellingContent cancels once some bytes are read, and counts those after.
type cancellingContent struct {
	content
	after  int
	cancel context.CancelFunc
	late   int
}

func (c *cancellingContent) Open() (io.ReadSeekCloser, error) {
	r, err := c.content.Open()
	return &cancellingReader{ReadSeekCloser: r, content: c}, err
}

type cancellingReader struct {
	io.ReadSeekCloser
	content *cancellingContent
	read    int
}

func (r *cancellingReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p[:min(len(p), 32<<10)])
	if r.read >= r.content.after {
		r.content.late += n
	}
	if r.read += n; r.read >= r.content.after {
		r.content.cancel()
	}
	return n, err
}

// errorClasses: every trouble has its class and its words, and ends.
func errorClasses(t testing.TB, f Factory) {
	t.Helper()
	noticed := false
	for _, trouble := range f.Troubles {
		noticed = noticed || trouble.CheckFails
		inTrouble(t, f, trouble)
	}
	if !noticed {
		t.Fatal("the factory offers no trouble that Check notices")
	}
}

func inTrouble(t testing.TB, f Factory, trouble Trouble) {
	t.Helper()
	g := newRig(t, f)
	r := small(0)
	troubled := trouble.Provoke(t, g.env(), r)
	h := hold(t, troubled.Sink)
	if checked := h.Check(t.Context()); (checked != nil) != trouble.CheckFails {
		t.Fatalf("%s: Check says %v", trouble.Name, checked)
	} else if checked != nil {
		says(t, trouble, checked)
	}
	_, err := h.deliver(t.Context(), r)
	mayFail(t, err)
	says(t, trouble, err)
	if class, _ := sinks.ClassOf(err); class != trouble.Class {
		t.Fatalf("%s: the class is %q, want %q: %v", trouble.Name, class, trouble.Class, err)
	}
	if troubled.Heal == nil {
		if trouble.Class != sinks.ClassPermanent {
			t.Fatalf("%s: the class is %q, but nothing heals it", trouble.Name, trouble.Class)
		}
		return
	}
	troubled.Heal()
	if err := h.Check(t.Context()); err != nil {
		t.Fatalf("%s is over, but Check says: %v", trouble.Name, err)
	}
	h.must(t, r)
}

func says(t testing.TB, trouble Trouble, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: the call passed", trouble.Name)
	}
	for _, word := range trouble.Words {
		if !strings.Contains(err.Error(), word) {
			t.Fatalf("%s: the error does not say %q: %v", trouble.Name, word, err)
		}
	}
}
