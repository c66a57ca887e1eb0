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
	// since is when the first of the failures was, class is that of the latest.
	since time.Time
	class sinks.Class
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

// leave tells how the call ended: class is "" if it succeeded. after is how long
// the sink wants to be left alone.
func (g *gate) leave(p pass, class sinks.Class, after time.Duration) {
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
		g.class = class
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
