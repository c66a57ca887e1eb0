// Package limit keeps the calls of one account within its rate.
//
// A Limiter is given the account's requests per second and how many replicas share
// them; whoever wants to call waits for its turn, the more urgent first. When the API
// throttles nevertheless, because others use the account, too, the rate falls at once
// and climbs back slowly. Nothing can go wrong but that a caller's context ends while
// it waits.
package limit

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Priority says who goes first.
type Priority int

// The priorities, the first before all others.
const (
	// Urgent calls are for results that are deleted soon.
	Urgent Priority = iota
	// Live calls are for checks that were finished just now.
	Live
	// Backfill calls fetch old results.
	Backfill
	priorities int = iota
)

const (
	// headroom is the part of the account's rate that is used: requests that leave
	// evenly spaced arrive in little bunches.
	headroom = 0.97
	// fall is what is left of the rate when the API throttles, and fallEvery how long
	// the answers to calls that were under way already change nothing more.
	fall      = 0.5
	fallEvery = time.Second
	// climb is the part of the full rate that is won back per second without a
	// refusal: half a minute from a half to all.
	climb = 1.0 / 60
	// floor is the part of the full rate below which refusals do not push.
	floor = 1.0 / 64
	// longest bounds how long an API can have an account wait.
	longest = time.Hour
	// lookEvery is how often the time until the next place is reckoned anew, because
	// the rate climbs meanwhile; idle is how often when nobody waits.
	lookEvery = time.Second
	idle      = time.Hour
)

// ErrClosed is returned by Wait after Close.
var ErrClosed = errors.New("the limiter is closed")

// Limiter spaces the calls of one account in one process. Its methods may be called
// concurrently.
type Limiter struct {
	full   float64
	bucket *rate.Limiter
	// stop is closed to end run, done when it has ended.
	stop, done chan struct{}
	// wake is sent to when somebody begins to wait, or the share changes.
	wake chan struct{}

	mu     sync.Mutex
	queues [priorities][]*waiter
	// part is how much of its share is used, 0 to 1, as of at.
	part float64
	at   time.Time
	// fell is when the rate last fell, until when nothing goes out at all.
	fell, until time.Time
	replicas    int
	throttles   uint64
}

type waiter struct{ turn chan struct{} }

// New returns a limiter for an account that may send perSecond requests per second,
// more than 0, with all of it for this process until Share says otherwise. Close ends
// it.
func New(perSecond float64) *Limiter {
	l := &Limiter{
		full: perSecond * headroom, stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		part: 1, at: time.Now(), replicas: 1,
		// One at a time: what was not used in one second must not go out in the next.
		bucket: rate.NewLimiter(rate.Limit(perSecond*headroom), 1),
	}
	go l.run()
	return l
}

// Close ends the limiter and every wait.
func (l *Limiter) Close() {
	close(l.stop)
	<-l.done
}

// Wait returns when the caller may send one request, with ctx's error, or with
// ErrClosed.
func (l *Limiter) Wait(ctx context.Context, p Priority) error {
	w := &waiter{make(chan struct{})}
	l.mu.Lock()
	l.queues[p] = append(l.queues[p], w)
	l.mu.Unlock()
	l.look()
	var err error
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-l.done:
		err = ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queues[p], w); i >= 0 {
		l.queues[p] = slices.Delete(l.queues[p], i, i+1)
	} else {
		// Its turn came just then: the next one has it.
		l.next()
	}
	return err
}

// look has run look again at who may go.
func (l *Limiter) look() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run lets one after the other go.
func (l *Limiter) run() {
	defer close(l.done)
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		timer.Reset(l.release())
		select {
		case <-timer.C:
		case <-l.wake:
		case <-l.stop:
			return
		}
	}
}

// release lets those go who may, and returns when to look again. A place is taken from
// the bucket only in the moment somebody goes: so a change of the rate or a refusal
// counts for who waits already, and who gives up takes no place along.
func (l *Limiter) release() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.waiting() {
		l.adjust()
		now := time.Now()
		if d := max(l.until.Sub(now), l.missing(now)); d > 0 {
			return min(d, lookEvery)
		}
		l.bucket.AllowN(now, 1)
		l.next()
	}
	return idle
}

func (l *Limiter) waiting() bool {
	return slices.ContainsFunc(l.queues[:], func(q []*waiter) bool { return len(q) > 0 })
}

// missing is how long it takes at the rate of now until the bucket has a place.
func (l *Limiter) missing(now time.Time) time.Duration {
	seconds := (1 - l.bucket.TokensAt(now)) / l.current()
	return time.Duration(math.Ceil(seconds * float64(time.Second)))
}

// next lets the first one go, if there is one.
func (l *Limiter) next() {
	for p := range l.queues {
		if len(l.queues[p]) > 0 {
			close(l.queues[p][0].turn)
			l.queues[p] = l.queues[p][1:]
			return
		}
	}
}

// adjust climbs for the time that has passed and sets the bucket's rate; l.mu is
// held.
func (l *Limiter) adjust() {
	now := time.Now()
	l.part = min(1, l.part+climb*now.Sub(l.at).Seconds())
	l.at = now
	l.bucket.SetLimit(rate.Limit(l.current()))
}

func (l *Limiter) current() float64 { return l.full * l.part / float64(l.replicas) }

// Throttled says that the API refused a call for its number: the rate falls by half,
// and nothing goes out for the time that the API asked for, if it did.
func (l *Limiter) Throttled(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.throttles++
	l.adjust()
	now := time.Now()
	if until := now.Add(min(after, longest)); until.After(l.until) {
		l.until = until
	}
	if now.Sub(l.fell) < fallEvery {
		return
	}
	l.fell = now
	l.part = max(floor, l.part*fall)
	l.adjust()
}

// Share says how many replicas use the account, this one included: each takes an
// equal part of the rate.
func (l *Limiter) Share(replicas int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust()
	l.replicas = max(1, replicas)
	l.adjust()
	l.look()
}

// State is what a limiter does now.
type State struct {
	// Limit is the account's rate, of all replicas together.
	Limit float64
	// Rate is how many requests per second this process may send now.
	Rate float64
	// Throttles is how many calls the API has refused for their number.
	Throttles uint64
}

// State returns what the limiter does now.
func (l *Limiter) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust()
	return State{Limit: l.full / headroom, Rate: l.current(), Throttles: l.throttles}
}
