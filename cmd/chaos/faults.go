//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"sync"
	"time"
)

// fault is one thing that goes wrong at a time, for a while.
type fault struct {
	at, length time.Duration
	// kind names it in counts, detail says what else was drawn.
	kind, detail string
	// target is what it happens to: no two faults happen to one target at once.
	target string
	// begin makes it happen; end makes it be over, and is not nil.
	begin func(context.Context) (end func(context.Context) error, err error)
}

func (f fault) String() string {
	text := fmt.Sprintf("%7.2fs  %-28s", f.at.Seconds(), f.kind)
	if f.length > 0 {
		text += fmt.Sprintf("  for %.2fs", f.length.Seconds())
	}
	if f.detail != "" {
		text += "  " + f.detail
	}
	return text
}

// kind is a fault that has not been given its time yet. draw chooses what is left
// to chance.
type kind struct {
	name string
	// shortest and longest bound how long it lasts; both are 0 for a moment.
	shortest, longest time.Duration
	draw              func(*rand.Rand) drawn
}

// drawn is what chance chose of a kind.
type drawn struct {
	target, detail string
	begin          func(context.Context) (func(context.Context) error, error)
}

// momentary makes a begin of something that is over at once.
func momentary(do func()) func(context.Context) (func(context.Context) error, error) {
	return func(context.Context) (func(context.Context) error, error) {
		do()
		return func(context.Context) error { return nil }, nil
	}
}

// lasting makes a begin of something that is ended by a function.
func lasting(do func() (end func())) func(context.Context) (func(context.Context) error, error) {
	return func(context.Context) (func(context.Context) error, error) {
		end := do()
		return func(context.Context) error { end(); return nil }, nil
	}
}

// plan says how faults are spread over time.
type plan struct {
	// span is how long new faults begin; they are all over soon after.
	span time.Duration
	// gap is the mean time between two that begin.
	gap time.Duration
	// pace stretches or shortens how long they last.
	pace float64
	// every are those that come at a fixed interval, besides.
	every map[time.Duration]kind
}

// schedule draws a plan's faults from one source of chance: the same source gives
// the same schedule. Kinds are dealt like cards: all of them come before one comes
// again.
func schedule(random *rand.Rand, p plan, kinds []kind) []fault {
	var list []fault
	busy := map[string]time.Duration{}
	add := func(k kind, at time.Duration) {
		d := k.draw(random)
		length := time.Duration(0)
		if k.longest > 0 {
			length = time.Duration(float64(k.shortest+time.Duration(random.Int63n(int64(k.longest-k.shortest)+1))) * p.pace)
		}
		at = max(at, busy[d.target])
		busy[d.target] = at + length + settleTime
		list = append(list, fault{at: at, length: length, kind: k.name, detail: d.detail, target: d.target, begin: d.begin})
	}
	for _, interval := range slices.SortedFunc(keys(p.every), cmp.Compare) {
		for at := interval; at < p.span; at += interval {
			add(p.every[interval], at)
		}
	}
	var deck []int
	for at := p.gap; at < p.span; at += p.gap/2 + time.Duration(random.Int63n(int64(p.gap)+1)) {
		if len(deck) == 0 {
			deck = random.Perm(len(kinds))
		}
		add(kinds[deck[0]], at)
		deck = deck[1:]
	}
	slices.SortStableFunc(list, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return list
}

// settleTime is left between two faults of one target.
const settleTime = 100 * time.Millisecond

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// storm makes a schedule happen, and counts.
type storm struct {
	// tell is told of each fault when it begins, by one goroutine at a time.
	tell func(fault)

	mu     sync.Mutex
	counts map[string]int
	errs   []error
}

// blow makes faults happen at their times and returns when all are over.
func (s *storm) blow(ctx context.Context, faults []fault) error {
	began := time.Now()
	var going sync.WaitGroup
	for _, f := range faults {
		if sleepUntil(ctx, began.Add(f.at)) != nil {
			break
		}
		going.Go(func() { s.happen(ctx, f) })
	}
	going.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// happen makes one fault happen, and be over also where the run is cut off.
func (s *storm) happen(ctx context.Context, f fault) {
	s.mu.Lock()
	s.counts[f.kind]++
	s.tell(f)
	s.mu.Unlock()
	end, err := f.begin(ctx)
	if err == nil {
		_ = sleepUntil(ctx, time.Now().Add(f.length)) // the end comes in any case
		err = end(context.WithoutCancel(ctx))
	}
	if err != nil && ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errs = append(s.errs, fmt.Errorf("%s: %w", f.kind, err))
	}
}
