// Package verify reads again what sinks hold, and says what is wrong with it.
//
// In go open sinks; out come a Summary and a Problem for everything that is
// missing, damaged or contradicts another sink. Archives are read whole: the
// digests of every asset are computed anew and compared with the manifest, and the
// manifest with what each record sink says of it. Records are compared with the
// manifests they point to, and their sealed values are checked, without anybody
// seeing them. Nothing is changed.
//
// A run goes through sinks in the order they are given, and through each in the
// order of Keeper.Keys. It can be cut off at any time and taken up again where it
// was (Position), and it can look at a part of all tokens, the same ones in every
// sink. What may go wrong besides: a sink cannot be read, which ends the run with
// an error and a Position before that.
package verify

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"

	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Kind says what is wrong. The set is closed.
type Kind string

const (
	// MissingObject means that an asset which a manifest or record lists is gone.
	MissingObject Kind = "missing_object"
	// Damaged means that an asset has other bytes than its digest says, or is not
	// authentic, or that a manifest cannot be read.
	Damaged Kind = "damaged"
	// MissingManifest means that a record tells of assets in an archive that has
	// no manifest of the token.
	MissingManifest Kind = "missing_manifest"
	// MissingRecord means that a record sink has nothing of a token that an archive
	// holds.
	MissingRecord Kind = "missing_record"
	// Differs means that a record says something else of an asset than the manifest.
	Differs Kind = "differs"
	// Unopenable means that a sealed value was altered, or its key is gone.
	Unopenable Kind = "unopenable"
)

// Problem is one thing that is wrong. It holds no personal data.
type Problem struct {
	Kind Kind `json:"problem"`
	// Sink is the one to look at.
	Sink      string         `json:"sink"`
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
	// Field is the asset or personal value; empty where it is about the whole.
	Field string `json:"field,omitempty"`
	// Detail says it in words.
	Detail string `json:"detail"`
}

// Summary counts what a run looked at.
type Summary struct {
	// Tokens counts a token once, in however many of the sinks it is.
	Tokens int64 `json:"tokens"`
	// Assets were read whole, Bytes in total.
	Assets int64 `json:"assets"`
	Bytes  int64 `json:"bytes"`
	// Referred are assets that an archive only points to and cannot read.
	Referred int64 `json:"referred"`
	// Missing are assets that archives list as missing since they were archived.
	Missing  int64 `json:"missing"`
	Problems int64 `json:"problems"`
}

// Position is where a run has got to: everything up to After in Sink is done, and
// all sinks before it. The zero value is the beginning.
type Position struct {
	Sink    string    `json:"sink"`
	After   sinks.Key `json:"after"`
	Summary Summary   `json:"summary"`
}

// Config says how a run works.
type Config struct {
	// Sample is which part of the tokens is looked at, above 0 and at most 1. It is
	// chosen by token hash, so that a token is looked at in all sinks or in none.
	Sample float64
	// Parallel is how many tokens are looked at at once, 1 or more.
	Parallel int
	// Policy checks sealed values.
	Policy *privacy.Policy
	// Against are the sinks that those which are gone through are compared with,
	// usually all.
	Against []sinks.Sink
	// Report is told of every problem, by one goroutine at a time; an error from it
	// ends the run.
	Report func(Problem) error
	// Progress is told of the position from time to time, by one goroutine at a
	// time; an error from it ends the run.
	Progress func(Position) error
}

// batch is how many tokens are done between two positions.
const batch = 64

// Run goes through the sinks from a position on. It returns what was looked at,
// with what the position already counted. A cancelled run returns ctx's error.
func Run(ctx context.Context, cfg Config, all []sinks.Sink, from Position) (Summary, error) {
	if cfg.Sample <= 0 || cfg.Sample > 1 || cfg.Parallel < 1 {
		return from.Summary, fmt.Errorf("verify a part of the tokens above 0 and up to 1, at least one at once; not %g, %d", cfg.Sample, cfg.Parallel)
	}
	r := &run{cfg: cfg, at: from}
	for _, sink := range cfg.Against {
		if a, ok := sink.(sinks.ArchiveKeeper); ok {
			r.archives = append(r.archives, a)
		}
		if rec, ok := sink.(sinks.RecordKeeper); ok {
			r.records = append(r.records, rec)
		}
	}
	var before []sinks.Keeper
	skip := from.Sink != ""
	for _, sink := range all {
		keeper, ok := sink.(sinks.Keeper)
		if !ok {
			continue
		}
		if skip && sink.Name() != from.Sink {
			before = append(before, keeper)
			continue
		}
		if !skip {
			r.at.Sink, r.at.After = sink.Name(), sinks.Key{}
		}
		skip = false
		if err := r.sink(ctx, keeper, before); err != nil {
			return r.at.Summary, err
		}
		before = append(before, keeper)
	}
	if skip {
		return from.Summary, fmt.Errorf("there is no sink %q any more: begin anew", from.Sink)
	}
	return r.at.Summary, nil
}

// run is one run.
type run struct {
	cfg      Config
	archives []sinks.ArchiveKeeper
	records  []sinks.RecordKeeper
	// counted go through the sinks that are done, beside the one that is gone through,
	// to know which of its tokens have been counted.
	counted []*keyWalk
	// at is up to where all is done.
	at Position
}

// keyWalk goes through the keys of a sink in their order.
type keyWalk struct {
	name string
	next func() (sinks.Key, error, bool)
	stop func()
	// at is the latest key that was seen.
	at sinks.Key
}

func walk(ctx context.Context, keeper sinks.Keeper, after sinks.Key) *keyWalk {
	next, stop := iter.Pull2(keeper.Keys(ctx, after))
	return &keyWalk{name: keeper.Name(), next: next, stop: stop}
}

// has reports whether the sink has a key, which must not be before those asked for
// already.
func (w *keyWalk) has(key sinks.Key) (bool, error) {
	for w.at.Compare(key) < 0 {
		at, err, ok := w.next()
		if err != nil {
			return false, fmt.Errorf("list sink %s: %w", w.name, err)
		}
		if !ok {
			return false, nil
		}
		w.at = at
	}
	return w.at == key, nil
}

// isNew reports whether a key is in none of the sinks that are done.
func (r *run) isNew(key sinks.Key) (bool, error) {
	isNew := true
	for _, w := range r.counted {
		known, err := w.has(key)
		if err != nil {
			return false, err
		}
		isNew = isNew && !known
	}
	return isNew, nil
}

// sink goes through one sink in batches; those before it are done.
func (r *run) sink(ctx context.Context, keeper sinks.Keeper, before []sinks.Keeper) error {
	r.counted = nil
	for _, one := range before {
		walk := walk(ctx, one, r.at.After)
		defer walk.stop()
		r.counted = append(r.counted, walk)
	}

	keys := make([]sinks.Key, 0, batch)
	for key, err := range keeper.Keys(ctx, r.at.After) {
		if err != nil {
			return fmt.Errorf("list sink %s: %w", keeper.Name(), err)
		}
		if !sampled(key, r.cfg.Sample) {
			continue
		}
		if keys = append(keys, key); len(keys) < batch {
			continue
		}
		if err := r.batch(ctx, keeper, keys); err != nil {
			return err
		}
		keys = keys[:0]
	}
	return r.batch(ctx, keeper, keys)
}

// sampled tells whether a key is in the sample. Hashes are spread evenly.
func sampled(key sinks.Key, part float64) bool {
	if part >= 1 {
		return true
	}
	raw, err := hex.DecodeString(key.Hash[:min(8, len(key.Hash))])
	return err != nil || len(raw) < 4 || float64(binary.BigEndian.Uint32(raw)) < part*math.MaxUint32
}

// finding is what looking at one token gave.
type finding struct {
	summary  Summary
	problems []Problem
	// later is what is looked for once more.
	later []doubt
}

// batch looks at tokens in parallel and reports in their order.
func (r *run) batch(ctx context.Context, keeper sinks.Keeper, keys []sinks.Key) error {
	if len(keys) == 0 {
		return nil
	}
	findings := make([]finding, len(keys))
	for i, key := range keys {
		isNew, err := r.isNew(key)
		if err != nil {
			return err
		}
		if isNew {
			findings[i].summary.Tokens++
		}
	}

	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(r.cfg.Parallel)
	for i, key := range keys {
		group.Go(func() error {
			f := &findings[i]
			if a, ok := keeper.(sinks.ArchiveKeeper); ok {
				if err := r.archive(groupCtx, a, key, f); err != nil {
					return fmt.Errorf("verify sink %s: %w", keeper.Name(), err)
				}
			}
			if rec, ok := keeper.(sinks.RecordKeeper); ok {
				if err := r.record(groupCtx, rec, key, f); err != nil {
					return fmt.Errorf("verify sink %s: %w", keeper.Name(), err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	for i := range findings {
		f := &findings[i]
		for _, d := range f.later {
			if err := d.settle(ctx, keys[i], f); err != nil {
				return fmt.Errorf("verify sink %s: %w", keeper.Name(), err)
			}
		}
		for _, p := range f.problems {
			if err := r.cfg.Report(p); err != nil {
				return err
			}
		}
		r.at.Summary.add(*f)
	}
	r.at.After = keys[len(keys)-1]
	return r.cfg.Progress(r.at)
}

func (s *Summary) add(f finding) {
	s.Tokens += f.summary.Tokens
	s.Assets += f.summary.Assets
	s.Bytes += f.summary.Bytes
	s.Referred += f.summary.Referred
	s.Missing += f.summary.Missing
	s.Problems += int64(len(f.problems))
}

func (f *finding) problem(kind Kind, sink string, key sinks.Key, field, format string, args ...any) {
	f.problems = append(f.problems, Problem{kind, sink, key.Product, key.Hash, field, fmt.Sprintf(format, args...)})
}

// erasedMeanwhile tells whether a token that was listed is gone by now.
func erasedMeanwhile(err error) bool { return errors.Is(err, sinks.ErrNotFound) }
