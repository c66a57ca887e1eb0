package sinktest_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

var (
	_ sinks.ArchiveKeeper = (*memorySink)(nil)
	_ sinks.RecordKeeper  = (*memorySink)(nil)
)

// enter locks the state of a token that is not erased.
func (s *memorySink) enter(ctx context.Context, state *tokenState) error {
	state.Lock()
	if state.erased {
		state.Unlock()
		if s.bug == "calls erased tokens permanent" {
			return sinks.Permanent(errors.New("erased"))
		}
		return sinks.ErrErased
	}
	if s.bug != "looks for the tombstone too early" {
		return nil
	}
	state.Unlock()
	s.checked.send()
	select {
	case <-s.erased.c:
		state.Lock()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *memorySink) Erase(ctx context.Context, key sinks.Key, reason string) (held sinks.Holding, err error) {
	if err := s.done(ctx); err != nil {
		return held, err
	}
	if s.bug == "looks for the tombstone too early" {
		<-s.checked.c
		defer s.erased.send()
	}
	if s.bug == "erases the neighbour" {
		for _, state := range s.tokens {
			if _, err := s.erase(ctx, state, reason); err != nil {
				return held, err
			}
		}
	}
	state := s.stateOf(key)
	if s.bug == "erases only what is there" && state.record == nil && !state.erased {
		return held, sinks.ErrNotFound
	}
	return s.erase(ctx, state, reason)
}

func (s *memorySink) erase(ctx context.Context, state *tokenState, reason string) (sinks.Holding, error) {
	state.Lock()
	defer state.Unlock()
	held := state.holding()
	if state.erased && s.bug == "takes a tombstone for the end" {
		return held, nil
	}
	known := state.record != nil || state.erased
	stone := sinks.NewTombstone(reason)
	if s.bug == "keeps a reason as it comes" {
		stone.Reason = reason
	}
	if held.Erased != nil && s.bug != "puts up a tombstone anew" {
		stone = *held.Erased
	}
	steps := []func(){
		func() { state.erased, state.stone = s.bug != "leaves no tombstone", stone },
		func() {
			if s.bug != "erases no manifest" {
				state.manifest = nil
			}
		},
		func() {
			if s.bug != "erases no objects" {
				clear(state.objects)
			}
		},
		func() {
			if s.bug != "erases no record" {
				state.record = nil
			}
			if s.bug != "keeps the person in its dump" {
				state.dump = nil
			}
			if s.bug == "counts erasures" {
				state.erasures++
			}
		},
		func() { s.tell(state, known) },
	}
	if s.bug == "removes before it puts the tombstone up" {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := s.step(ctx, step); err != nil {
			return sinks.Holding{}, err
		}
	}
	if s.bug == "looks at what was there when it is gone" {
		held = state.holding()
	}
	return held, nil
}

func (s *memorySink) Holds(ctx context.Context, key sinks.Key) (sinks.Holding, error) {
	if err := s.done(ctx); err != nil {
		return sinks.Holding{}, err
	}
	state := s.stateOf(key)
	state.Lock()
	defer state.Unlock()
	if s.bug == "holds nothing it says" {
		return sinks.Holding{}, nil
	}
	return state.holding(), nil
}

// holding is what the memory holds of a locked token.
func (t *tokenState) holding() (held sinks.Holding) {
	if t.record != nil {
		held.Records++
	}
	for _, object := range t.objects {
		held.Assets++
		held.Bytes += int64(len(object))
	}
	if t.erased {
		held.Erased = &sinks.Tombstone{At: t.stone.At, Reason: t.stone.Reason}
	}
	return held
}

// tell sends the message about an erasure.
func (s *memorySink) tell(state *tokenState, known bool) {
	m := sinktest.Message{ID: state.key.Hash + "-erased", Body: []byte("erased")}
	switch s.bug {
	case "numbers its erasures":
		m.ID = fmt.Sprint(m.ID, len(state.messages))
	case "names the token in erasures":
		m.Body = []byte("TOKEN-00000000-ABCD")
	case "does not tell of erasures":
		return
	case "tells of known tokens only":
		if !known {
			return
		}
	}
	state.messages = append(state.messages, m)
}

// whole returns the state of a token that is there, locked.
func (s *memorySink) whole(ctx context.Context, key sinks.Key) (*tokenState, error) {
	if err := s.done(ctx); err != nil {
		return nil, err
	}
	state := s.stateOf(key)
	state.Lock()
	switch {
	case state.record != nil:
		return state, nil
	case s.bug == "finds what is not there":
		state.record = &privacy.Record{}
		return state, nil
	}
	state.Unlock()
	return nil, sinks.ErrNotFound
}

func (s *memorySink) Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error] {
	begun := false
	return func(yield func(sinks.Key, error) bool) {
		if begun && s.bug == "lists once" {
			return
		}
		begun = true
		if err := s.done(ctx); err != nil && s.bug != "lists whatever its context says" {
			yield(sinks.Key{}, err)
			return
		}
		var keys []sinks.Key
		for _, state := range s.states() {
			listed := state.manifest != nil && !state.erased
			switch s.bug {
			case "lists erased tokens":
				listed = state.manifest != nil || state.erased
			case "lists what is not whole":
				listed = !state.erased
			}
			order := state.key.Compare(after)
			if listed && (order > 0 || order == 0 && s.bug == "lists the key it was given") {
				keys = append(keys, state.key)
			}
		}
		slices.SortFunc(keys, sinks.Key.Compare)
		if s.bug == "lists in any order" {
			slices.Reverse(keys)
		}
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

// states are those of all tokens.
func (s *memorySink) states() []*tokenState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.tokens))
}

func (s *memorySink) Reseal(ctx context.Context, key sinks.Key) (bool, error) {
	state, err := s.whole(ctx, key)
	if err != nil {
		return false, err
	}
	defer state.Unlock()
	rec, changed, err := s.resealed(state.record)
	if err != nil || !changed && s.bug != "reseals again and again" || s.bug == "reseals nothing" {
		return false, err
	}
	if s.bug == "removes the old form first" {
		if err := s.step(ctx, func() { state.record = nil }); err != nil {
			return false, err
		}
	}
	return true, s.step(ctx, func() { state.record = rec })
}

// resealed returns a copy of a record with its values sealed anew.
func (s *memorySink) resealed(rec *privacy.Record) (*privacy.Record, bool, error) {
	c := *rec
	c.Intention.Answers = slices.Clone(c.Intention.Answers)
	c.Attempts = slices.Clone(c.Attempts)
	var problem error
	some := false
	sinktest.Personal(&c, func(f privacy.Field, position int, stored *privacy.Stored) {
		if !privacy.IsSealed(stored.Value) || s.bug == "reseals a part" && f == privacy.Answer {
			return
		}
		ref := privacy.Ref{Product: c.Product, Token: c.Token, Field: f, Position: position}
		value, changed, err := s.env.Policy.Reseal(ref, stored.Value)
		problem = errors.Join(problem, err)
		stored.Value = value
		some = some || changed
	})
	return &c, some, problem
}

func (s *memorySink) KeyUse(ctx context.Context, key sinks.Key) (map[string]int, error) {
	state, err := s.whole(ctx, key)
	if err != nil {
		return nil, err
	}
	defer state.Unlock()
	use := s.env.Policy.KeyUse(state.record)
	if s.bug == "counts the active key" {
		fresh, _, err := s.resealed(state.record)
		if err != nil {
			return nil, err
		}
		use = s.env.Policy.KeyUse(fresh)
	}
	return use, nil
}

func (s *memorySink) Keyring(ctx context.Context) (privacy.Mark, error) {
	if err := s.done(ctx); err != nil {
		return privacy.Mark{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark, nil
}

func (s *memorySink) MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	if err := s.done(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := s.mark.Fingerprint
	if there != "" && there != mark.Fingerprint && there != instead && s.bug != "takes any keyring" {
		return sinks.ErrOtherKeyring
	}
	if s.bug != "forgets the keyring" {
		s.mark = mark
	}
	return nil
}

func (s *memorySink) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	state, err := s.whole(ctx, key)
	if err != nil {
		return nil, err
	}
	defer state.Unlock()
	manifest := slices.Clone(state.manifest)
	if s.bug == "reads back another manifest" {
		slices.Reverse(manifest)
	}
	return manifest, nil
}

func (s *memorySink) OpenAsset(ctx context.Context, key sinks.Key, receipt sinks.Receipt) (io.ReadCloser, error) {
	state, err := s.whole(ctx, key)
	if err != nil {
		return nil, err
	}
	defer state.Unlock()
	for location, b := range state.objects {
		if !strings.HasSuffix(location, "/"+receipt.Field) {
			continue
		}
		if s.bug == "reads back other bytes" {
			b = append([]byte("x"), b...)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if s.bug == "opens any receipt" {
		return io.NopCloser(strings.NewReader("something")), nil
	}
	return nil, sinks.ErrNotFound
}

func (s *memorySink) Get(ctx context.Context, key sinks.Key) (*privacy.Record, error) {
	state, err := s.whole(ctx, key)
	if err != nil {
		return nil, err
	}
	defer state.Unlock()
	rec := *state.record
	if s.bug == "reads back another record" {
		rec.Verdict.Code++
	}
	return &rec, nil
}

func (s *memorySink) List(ctx context.Context, filter sinks.Filter) iter.Seq2[sinks.Summary, error] {
	return func(yield func(sinks.Summary, error) bool) {
		if err := s.done(ctx); err != nil {
			yield(sinks.Summary{}, err)
			return
		}
		var found []*privacy.Record
		for _, state := range s.states() {
			if rec := state.record; rec != nil && s.lets(filter, rec) {
				found = append(found, rec)
			}
		}
		slices.SortFunc(found, func(a, b *privacy.Record) int { return cmp.Compare(b.FetchedAt.UnixNano(), a.FetchedAt.UnixNano()) })
		if s.bug == "lists the oldest first" {
			slices.Reverse(found)
		}
		if filter.Limit > 0 && s.bug != "ignores the limit" {
			found = found[:min(filter.Limit, len(found))]
		}
		for _, rec := range found {
			summary := summaryOf(rec)
			if s.bug == "lists values" {
				summary.Message = rec.Person.Name.Value
			}
			if !yield(summary, nil) {
				return
			}
		}
	}
}

// lets tells whether a filter lets a record through.
func (s *memorySink) lets(f sinks.Filter, rec *privacy.Record) bool {
	found := f.Index == "" || s.bug == "ignores the index"
	c := *rec
	sinktest.Personal(&c, func(field privacy.Field, _ int, stored *privacy.Stored) {
		found = found || field == f.IndexField && stored.Index == f.Index
	})
	before := rec.FetchedAt.Before(f.To) || s.bug == "takes To for in" && rec.FetchedAt.Equal(f.To)
	return found && !rec.FetchedAt.Before(f.From) && (f.To.IsZero() || before) &&
		(f.Account == "" || f.Account == rec.Account) && (f.Product == "" || f.Product == rec.Product) &&
		(f.RuleID == "" || f.RuleID == rec.RuleID) && (f.Passed == nil || *f.Passed == rec.Verdict.Passed) &&
		(f.Code == nil || *f.Code == rec.Verdict.Code || *f.Code != 0 && rec.Verdict.IntentionCode != nil && *f.Code == *rec.Verdict.IntentionCode)
}

func summaryOf(rec *privacy.Record) sinks.Summary {
	v := rec.Verdict
	return sinks.Summary{
		Product: rec.Product, Token: rec.Token, TokenHash: rec.TokenHash, Account: rec.Account, RuleID: rec.RuleID,
		FetchedAt: rec.FetchedAt, Passed: v.Passed, Code: v.Code, Message: v.Message, Similarity: v.Similarity,
		Intention: v.Intention, IntentionCode: v.IntentionCode, Assets: len(rec.Assets),
	}
}
