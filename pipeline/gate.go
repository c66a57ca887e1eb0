package pipeline

import (
	"fmt"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// gateShuts is how many results a sink fails in a row, with all tries in place,
// before it counts as down. One alone may be that result's fault.
const gateShuts = 3

// gate keeps results from a sink that is down, so that each does not spend its
// slot on finding that out again. One result at a time is let through to see
// whether the sink is back. Its methods may be called concurrently.
type gate struct {
	now   func() time.Time
	retry Retry

	mu       sync.Mutex
	failures int
	// since is when the first of the failures was; latest is when the last one was, class
	// its class and why what it said.
	since, latest time.Time
	class         sinks.Class
	why           string
	// next is when the sink is tried again while it is down, wait the time between.
	next    time.Time
	wait    time.Duration
	probing bool
}

// pass is what enter says.
type pass int

const (
	// passFree lets a result through, with tries in place.
	passFree pass = iota
	// passProbe lets one through, for one try.
	passProbe
	// passNone lets none through.
	passNone
)

// enter asks to call the sink. Whoever is let through calls leave.
func (g *gate) enter() pass {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failures < gateShuts:
		return passFree
	case g.probing || g.now().Before(g.next):
		return passNone
	}
	g.probing = true
	return passProbe
}

// leave tells how the call ended: err is nil if it succeeded. class and after are those
// of err: after is how long the sink wants to be left alone.
func (g *gate) leave(p pass, class sinks.Class, after time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p == passProbe {
		g.probing = false
	}
	switch class {
	case sinks.ClassTransient, sinks.ClassThrottled:
		if g.failures == 0 {
			g.since, g.wait = g.now(), g.retry.ProbeFirst
		}
		g.failures++
		g.class, g.latest = class, g.now()
		if err != nil {
			g.why = err.Error()
		}
		g.next = g.now().Add(max(after, g.wait))
		if p == passProbe {
			g.wait = min(2*g.wait, g.retry.ProbeMax)
		}
	case sinks.ClassCanceled:
	default:
		// A refusal of one result is an answer, too.
		g.failures = 0
	}
}

// state returns what others are told: a sink is up while the last result that was
// tried got in.
func (g *gate) state() replica.Sink {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == 0 {
		return replica.Sink{Up: true}
	}
	return replica.Sink{Since: g.since, Class: string(g.class)}
}

// untried is how long a sink that took no result counts as down though nobody tried it
// again: an event that waits is tried sooner.
const untried = 20 * time.Minute

// trouble returns why the sink does not take results, or nil. It is nil, too, if there
// was no result to try it with for a long time: then the sink's own check says more.
func (g *gate) trouble() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == 0 || g.now().Sub(g.latest) > untried {
		return nil
	}
	return fmt.Errorf("has not taken results since %s: %s", g.since.UTC().Format(time.RFC3339), g.why)
}

// shut tells whether a call would not be let through now.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failures >= gateShuts && (g.probing || g.now().Before(g.next))
}

// errDown is the error of a call that was not let through.
func (g *gate) errDown() error {
	s := g.state()
	return fmt.Errorf("has not taken results since %s", s.Since.UTC().Format(time.RFC3339))
}

// SinkTroubles returns, by name, why each sink does not take the results that it was last
// given: nil for one that does. It asks nobody.
func (w *Worker) SinkTroubles() map[string]error {
	all := make(map[string]error, len(w.gates))
	for name, g := range w.gates {
		all[name] = g.trouble()
	}
	return all
}

// sinkDown tells whether results are kept away from a sink. One that may be tried is
// not down: a result has to be there to try it.
func (w *Worker) sinkDown() bool {
	for _, g := range w.gates {
		if g.shut() {
			return true
		}
	}
	return false
}
