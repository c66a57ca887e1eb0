package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// sinkName is the configured name of every sink under test.
const sinkName = "under-test"

// marks are in every personal value of this package's results, one or the other.
var marks = []string{"虚构·", "00000019000101"}

// rig is one destination, what sinks on it are given, and what they logged.
type rig struct {
	dest   Destination
	policy *privacy.Policy
	log    *logBuffer
}

// newRig gives sinks a policy that stores every value plainly, so that states
// can be compared byte for byte.
func newRig(t testing.TB, f Factory) *rig {
	t.Helper()
	return newRigWith(t, f, plainPolicy(t))
}

func newRigWith(t testing.TB, f Factory, policy *privacy.Policy) *rig {
	t.Helper()
	g := &rig{dest: f.New(t), policy: policy, log: &logBuffer{}}
	t.Cleanup(func() {
		if mark := leaked(g.log.Bytes()); mark != "" {
			t.Errorf("a personal value (%s…) is in the log", mark)
		}
	})
	return g
}

func plainPolicy(t testing.TB) *privacy.Policy {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	return policyWith(t, cfg, keyring(t)) // which sealed media needs
}

func defaultPolicy(t testing.TB) *privacy.Policy {
	t.Helper()
	return policyWith(t, privacy.DefaultConfig(), keyring(t))
}

func policyWith(t testing.TB, cfg privacy.Config, keys *privacy.Keyring) *privacy.Policy {
	t.Helper()
	policy, err := privacy.NewPolicy(cfg, keys)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func keyring(t testing.TB) *privacy.Keyring {
	t.Helper()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (g *rig) env() sinks.Env {
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return sinks.Env{Name: sinkName, Policy: g.policy, Log: log}
}

// handle is an open sink. Its methods may be called by several goroutines.
type handle struct {
	sinks.Sink
	close func() error
}

// open opens a sink on the destination; it is closed at the latest when the
// check is over.
func (g *rig) open(t testing.TB, faults *Faults) *handle {
	t.Helper()
	return hold(t, g.dest.Open(t, g.env(), faults))
}

// hold closes a sink once: when the caller does, or when the check is over.
func hold(t testing.TB, sink sinks.Sink) *handle {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	h := &handle{Sink: sink, close: sync.OnceValue(func() error { return sink.Close(ctx) })}
	t.Cleanup(func() { _ = h.close() })
	return h
}

// deliver calls whatever the sink is: archiver, recorder, notifier. It holds
// every call to what needs no look at the destination: r unchanged, receipts
// only without an error, no personal value in the error.
func (h *handle) deliver(ctx context.Context, r *result.Result) ([]result.Receipt, error) {
	before := clone(r)
	receipts, err := h.call(ctx, r)
	switch {
	case !reflect.DeepEqual(before, r):
		return nil, &violation{"the call changed the result it was given"}
	case err != nil && leaked([]byte(fmt.Sprintf("%v %+v", err, err))) != "":
		return nil, &violation{"the error holds a personal value"}
	}
	return receipts, err
}

func (h *handle) call(ctx context.Context, r *result.Result) (receipts []result.Receipt, err error) {
	if a, ok := h.Sink.(sinks.Archiver); ok {
		if receipts, err = a.Archive(ctx, r); err != nil {
			return nil, err
		}
	}
	if rec, ok := h.Sink.(sinks.Recorder); ok {
		if err := rec.Record(ctx, r); err != nil {
			return nil, err
		}
	}
	if n, ok := h.Sink.(sinks.Notifier); ok {
		if err := n.Notify(ctx, r); err != nil {
			return nil, err
		}
	}
	return receipts, nil
}

// violation is an error that no fault excuses.
type violation struct{ what string }

func (v *violation) Error() string { return v.what }

// must delivers r and ends the check if the sink fails.
func (h *handle) must(t testing.TB, r *result.Result) []result.Receipt {
	t.Helper()
	receipts, err := h.deliver(t.Context(), r)
	if err != nil {
		t.Fatalf("deliver a result: %v", err)
	}
	return receipts
}

// mayFail ends the check if err is a violation.
func mayFail(t testing.TB, err error) {
	t.Helper()
	var v *violation
	if errors.As(err, &v) {
		t.Fatal(v)
	}
}

func (h *handle) isArchiver() bool { _, ok := h.Sink.(sinks.Archiver); return ok }
func (h *handle) isRecorder() bool { _, ok := h.Sink.(sinks.Recorder); return ok }
func (h *handle) isNotifier() bool { _, ok := h.Sink.(sinks.Notifier); return ok }

// stored reads back what the destination holds of r's token.
func (g *rig) stored(t testing.TB, r *result.Result) Stored {
	t.Helper()
	return g.dest.Stored(t, r.Product, r.Token)
}

// holds ends the check unless the destination holds the whole of r. It returns
// what it holds, in a form to compare.
func (g *rig) holds(t testing.TB, h *handle, r *result.Result, receipts []result.Receipt) string {
	t.Helper()
	s := g.stored(t, r)
	if err := g.complete(h, r, s); err != nil {
		t.Fatal(err)
	}
	if h.isArchiver() {
		if err := fulfilled(r, receipts, s); err != nil {
			t.Fatal(err)
		}
		for _, receipt := range receipts {
			if receipt.Sink != sinkName {
				t.Fatalf("a receipt names the sink %q, want %q", receipt.Sink, sinkName)
			}
		}
	}
	return g.render(t, s)
}

// clone copies r as deep as a sink could change it.
func clone(r *result.Result) *result.Result {
	c := *r
	c.Verdict.LivenessTags = slices.Clone(r.Verdict.LivenessTags)
	c.Intention.Answers = slices.Clone(r.Intention.Answers)
	c.Intention.AnswerCodes = slices.Clone(r.Intention.AnswerCodes)
	c.Attempts = slices.Clone(r.Attempts)
	c.Warnings = slices.Clone(r.Warnings)
	c.Assets = slices.Clone(r.Assets)
	for i := range c.Assets {
		c.Assets[i].Stored = slices.Clone(r.Assets[i].Stored)
		if r.Assets[i].COS != nil {
			object := *r.Assets[i].COS
			c.Assets[i].COS = &object
		}
	}
	return &c
}

// leaked returns the mark of a personal value in b, or "".
func leaked(b []byte) string {
	for _, mark := range marks {
		if bytes.Contains(b, []byte(mark)) {
			return strings.TrimSuffix(mark, "·")
		}
	}
	return ""
}

// logBuffer is a log that several goroutines write to.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}
