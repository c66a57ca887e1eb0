package sinktest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// bug is one way in which the sink in memory breaks its contract; "" is none.
type bug string

// memory is a destination that lives as long as the test.
type memory struct {
	bug bug

	mu     sync.Mutex
	tokens map[string]*tokenState
	calls  int
	down   bool
	// second is closed when two calls are under way.
	arrived int
	second  chan struct{}
	junk    int
	mark    privacy.Mark
	// vanished are keys of objects of FaceID that are not there.
	vanished map[string]bool
	// checked is done when a delivery has seen that its token is not erased,
	// erased when two calls of Erase are over.
	checked, erased signal
}

// signal is a channel that is closed after some calls of send.
type signal struct {
	mu   sync.Mutex
	left int
	c    chan struct{}
}

func newSignal(calls int) signal { return signal{left: calls, c: make(chan struct{})} }

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left == 0 {
		close(s.c)
	}
}

// tokenState is what the memory holds of a token.
type tokenState struct {
	sync.Mutex
	key      sinks.Key
	erased   bool
	stone    sinks.Tombstone
	erasures int
	dump     []byte
	objects  map[string][]byte
	manifest []result.Receipt
	record   *privacy.Record
	messages []sinktest.Message
}

func factory(b bug) sinktest.Factory {
	return sinktest.Factory{
		New: func(testing.TB) sinktest.Destination { return newMemory(b) },
		Troubles: []sinktest.Trouble{{
			Name: "down", Class: sinks.ClassTransient, Words: []string{"the memory is down"}, CheckFails: true,
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				m := newMemory(b)
				m.down = true
				return sinktest.Troubled{Sink: m.Open(t, env, nil), Heal: func() { m.down = b == "does not heal" }}
			},
		}},
	}
}

func newMemory(b bug) *memory {
	return &memory{
		bug: b, tokens: map[string]*tokenState{}, vanished: map[string]bool{}, second: make(chan struct{}),
		checked: newSignal(1), erased: newSignal(2),
	}
}

func (m *memory) Open(_ testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	if m.bug == "has no fault points" {
		faults = nil
	}
	if m.bug == "forgets tombstones" {
		for _, state := range m.tokens {
			state.erased = false
		}
	}
	return &memorySink{memory: m, env: env, faults: faults}
}

func (m *memory) Vanish(_ testing.TB, object result.COSObject) (back func()) {
	m.vanished[object.Key] = true
	return func() {
		m.vanished[object.Key] = m.bug == "never looks again for what is missing" && len(m.tokens) > 2
	}
}

func (m *memory) state(p result.Product, token string) *tokenState {
	return m.stateOf(sinks.KeyOf(p, token))
}

func (m *memory) stateOf(key sinks.Key) *tokenState {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := key.Hash
	if m.bug == "mixes tokens" {
		name = string(key.Product)
	}
	if m.tokens[name] == nil {
		m.tokens[name] = &tokenState{key: key, objects: map[string][]byte{}}
	}
	return m.tokens[name]
}

func (m *memory) Stored(_ testing.TB, p result.Product, token string) sinktest.Stored {
	s := m.state(p, token)
	s.Lock()
	defer s.Unlock()
	stored := sinktest.Stored{
		Objects: maps.Clone(s.objects), Manifest: slices.Clone(s.manifest), Record: s.record,
		Messages: slices.Clone(s.messages), State: fmt.Sprintln("erased:", s.erased, s.erasures), Dump: s.dump,
	}
	if !s.erased {
		stored.State = ""
	}
	if m.bug == "counts calls" && m.calls > 1 {
		stored.State = fmt.Sprint(m.calls)
	}
	if m.bug == "Check leaves something" {
		stored.State = fmt.Sprint(m.junk)
	}
	return stored
}

// memorySink is an archiver, recorder and notifier.
type memorySink struct {
	*memory
	env    sinks.Env
	faults *sinktest.Faults
}

func (s *memorySink) Name() string {
	if s.bug == "has another name" {
		return "memory"
	}
	return s.env.Name
}

func (s *memorySink) Close(context.Context) error {
	if s.bug == "complains about Close" {
		return errors.New("already closed")
	}
	return nil
}

func (s *memorySink) Check(ctx context.Context) error {
	if s.bug == "Check ignores its context" {
		ctx = context.WithoutCancel(ctx)
	}
	s.junk++
	if s.down && s.bug != "Check sees nothing" {
		return s.trouble()
	}
	return ctx.Err()
}

func (s *memorySink) trouble() error {
	switch s.bug {
	case "says nothing helpful":
		return errors.New("failed")
	case "gives up for good":
		return sinks.Permanent(errors.New("the memory is down"))
	}
	return errors.New("the memory is down")
}

// step asks for a fault before a change, and makes it.
func (s *memorySink) step(ctx context.Context, change func()) error {
	if err := s.done(ctx); err != nil {
		return err
	}
	if err := s.faults.Step(); err != nil {
		if s.bug == "takes every error for final" {
			return sinks.Permanent(err)
		}
		return err
	}
	change()
	return nil
}

// done tells whether the caller has given up.
func (s *memorySink) done(ctx context.Context) error {
	switch {
	case ctx.Err() == nil:
		return nil
	case s.bug == "cannot be cancelled":
		return nil
	case s.bug == "calls cancellation an error":
		return errors.New("cannot go on")
	}
	return ctx.Err()
}

func (s *memorySink) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	if err := s.begin(ctx, r); err != nil {
		return nil, err
	}
	state := s.state(r.Product, r.Token)
	if err := s.enter(ctx, state); err != nil {
		return nil, err
	}
	defer state.Unlock()
	var receipts []sinks.Receipt
	for _, a := range r.Assets {
		receipts = append(receipts, s.receipt(r, a))
	}
	waiting, err := s.missing(r, receipts)
	if err != nil {
		return nil, err
	}
	if receipts == nil && s.bug != "has no empty manifest" {
		receipts = []sinks.Receipt{}
	}
	if waiting {
		if err := s.putObjects(ctx, state, r); err != nil {
			return nil, err
		}
		return nil, sinks.Waiting(errors.New("not there yet"), 0)
	}
	if err := s.write(ctx, state, r, receipts); err != nil {
		return nil, err
	}
	switch s.bug {
	case "reverses receipts":
		slices.Reverse(receipts)
	case "changes the result":
		r.Account = "changed"
	case "lies about digests":
		for i := range receipts {
			receipts[i].SHA256 = strings.Repeat("0", 64)
		}
	}
	return receipts, nil
}

// missing marks the receipts of objects that are not there, or reports that they may come.
func (s *memorySink) missing(r *result.Result, receipts []sinks.Receipt) (waiting bool, err error) {
	for i, a := range r.Assets {
		if a.COS == nil || !s.vanished[a.COS.Key] || s.bug == "keeps quiet about what is missing" && time.Since(r.FetchedAt) > time.Hour {
			continue
		}
		if s.bug == "fails for what is missing" {
			return false, errors.New("no such object")
		}
		if time.Since(r.FetchedAt) < time.Hour && s.bug != "gives up at once what is missing" || s.bug == "waits for ever for what is missing" {
			return true, nil
		}
		receipts[i] = sinks.Receipt{Sink: s.env.Name, Field: a.Field, Size: -1, Missing: result.NotFound}
	}
	return false, nil
}

func (s *memorySink) begin(ctx context.Context, r *result.Result) error {
	if s.down {
		if s.bug == "quotes values in errors" {
			return fmt.Errorf("the memory is down: %s", s.protected(r).Person.Name.Value)
		}
		return s.trouble()
	}
	if s.bug == "logs values" {
		s.env.Log.Info("archive", "name", s.protected(r).Person.Name.Value)
	}
	if s.bug == "takes one call at a time" {
		s.mu.Lock()
		s.arrived++
		first := s.arrived == 1
		s.mu.Unlock()
		if !first {
			select {
			case <-s.second:
			default:
				close(s.second)
			}
			return errors.New("busy")
		}
		<-s.second
	}
	return s.done(ctx)
}

func (s *memorySink) protected(r *result.Result) *privacy.Record {
	rec, err := s.env.Policy.Protect(r)
	if err != nil {
		panic(err)
	}
	return rec
}

func (s *memorySink) receipt(r *result.Result, a result.Asset) sinks.Receipt {
	receipt := sinks.Receipt{Sink: s.env.Name, Field: a.Field, Location: r.TokenHash() + "/" + a.Field}
	switch s.bug {
	case "tidies names":
		receipt.Location = r.TokenHash() + "/" + strings.NewReplacer("[", "_", "]", "", "/", "_", "-", "_").Replace(a.Field)
	case "names objects by time":
		receipt.Location = r.FetchedAt.String() + a.Field
	case "names objects by token":
		receipt.Location = r.Token + a.Field
	}
	if a.COS != nil {
		receipt.Location, receipt.Size = "cos://"+a.COS.Bucket+"/"+a.COS.Key, -1
		if s.bug == "loses assets in COS" {
			receipt.Location = ""
		}
		return receipt
	}
	receipt.Size, receipt.SHA256, receipt.CRC64 = a.Digest.Size, a.Digest.SHA256Hex(), a.Digest.CRC64String()
	return receipt
}

// write puts the assets and then the manifest. The state is locked.
func (s *memorySink) write(ctx context.Context, state *tokenState, r *result.Result, receipts []sinks.Receipt) error {
	putManifest := func() error { return s.step(ctx, func() { state.manifest = slices.Clone(receipts) }) }
	if s.bug == "writes the manifest first" {
		if err := putManifest(); err != nil {
			return err
		}
	}
	if s.bug != "leaves its leftovers" {
		maps.DeleteFunc(state.objects, func(name string, _ []byte) bool { return strings.HasPrefix(name, "incoming-") })
	}
	if slices.Equal(state.manifest, receipts) && state.manifest != nil && s.bug != "writes the manifest first" {
		return nil
	}
	if state.manifest != nil && s.bug != "keeps an outdated manifest" && s.bug != "writes the manifest first" {
		if err := s.step(ctx, func() { state.manifest = nil }); err != nil {
			return err
		}
	}
	if err := s.putObjects(ctx, state, r); err != nil {
		return err
	}
	return putManifest()
}

func (s *memorySink) putObjects(ctx context.Context, state *tokenState, r *result.Result) error {
	for _, a := range r.Assets {
		if a.Content == nil {
			continue
		}
		b, err := s.read(ctx, a)
		if err != nil {
			return err
		}
		if err := s.put(ctx, state, s.receipt(r, a).Location, b); err != nil {
			return err
		}
	}
	return nil
}

func (s *memorySink) put(ctx context.Context, state *tokenState, location string, b []byte) error {
	if len(b) == 0 && s.bug == "loses empty assets" {
		return nil
	}
	s.mu.Lock()
	incoming := fmt.Sprintf("incoming-%d", s.calls)
	s.mu.Unlock()
	if err := s.step(ctx, func() { state.objects[incoming] = b }); err != nil {
		return err
	}
	return s.step(ctx, func() {
		delete(state.objects, incoming)
		state.objects[location] = b
	})
}

func (s *memorySink) read(ctx context.Context, a result.Asset) ([]byte, error) {
	r, err := a.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []byte
	for buf := make([]byte, 64<<10); ; {
		if s.bug != "reads on" {
			if err := s.done(ctx); err != nil {
				return nil, err
			}
		}
		n, err := r.Read(buf)
		all = append(all, buf[:n]...)
		if s.bug == "cuts large assets" && len(all) > 1<<20 {
			return all, nil
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if sha256.Sum256(all) != a.Digest.SHA256 && s.bug != "believes what it reads" {
		return nil, errors.New("the bytes are not those of the digest")
	}
	return all, nil
}

func (s *memorySink) Record(ctx context.Context, r *result.Result) error {
	rec := s.protected(r)
	state := s.state(r.Product, r.Token)
	if err := s.enter(ctx, state); err != nil {
		return err
	}
	defer state.Unlock()
	if s.bug == "keeps the person in its dump" {
		state.dump = fmt.Append(nil, rec.Person.Name.Value)
	}
	switch s.bug {
	case "adds to old rows":
		if state.record != nil && len(state.record.Attempts) > len(rec.Attempts) {
			rec.Attempts = state.record.Attempts
		}
	case "writes half a record":
		half := *rec
		half.Attempts = nil
		if err := s.step(ctx, func() { state.record = &half }); err != nil {
			return err
		}
	case "puts sealed values elsewhere":
		rec.Person.Mobile, rec.Person.Extra = rec.Person.Extra, rec.Person.Mobile
	case "stores values in the clear":
		rec.RequestID = "虚构·name"
	case "loses the record":
		return nil
	}
	return s.step(ctx, func() { state.record = rec })
}

func (s *memorySink) Notify(ctx context.Context, r *result.Result) error {
	state := s.state(r.Product, r.Token)
	state.Lock()
	defer state.Unlock()
	m := sinktest.Message{ID: r.TokenHash(), Body: fmt.Append(nil, r.Verdict.Passed, r.Verdict.Code)}
	switch s.bug {
	case "numbers its messages":
		m.ID = fmt.Sprint(len(state.messages))
	case "sends different bodies":
		m.Body = fmt.Append(nil, len(state.messages))
	case "sends nothing":
		return nil
	}
	return s.step(ctx, func() { state.messages = append(state.messages, m) })
}
