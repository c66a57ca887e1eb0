package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Cause says what an event waits for. It holds no personal data and is bounded, so that it
// may be kept and shown.
type Cause struct {
	// At is who did not do its part: "api", "sink", "parking" or "worker".
	At string `json:"at"`
	// Class is that of the error, see faceid.Class and sinks.Class.
	Class string `json:"class,omitempty"`
	// Code is the API's error code; empty if it said none.
	Code string `json:"code,omitempty"`
	// Sink is the first sink that does not have the result.
	Sink string `json:"sink,omitempty"`
}

// Wait is why an event waits, and until when.
type Wait struct {
	Cause
	// Attempts is how often the event was delivered.
	Attempts uint64 `json:"attempts"`
	// Last is when it was tried last, Next when it is tried again; zero if that depends
	// on how many others wait.
	Last time.Time `json:"last"`
	Next time.Time `json:"next,omitzero"`
	// Held is what it has waited for so far, what came first first: at most maxHeld causes,
	// of which the oldest are forgotten.
	Held []Hold `json:"held,omitempty"`
}

// maxHeld is how many causes an event remembers.
const maxHeld = 4

// Hold is something that held an event up.
type Hold struct {
	Cause
	// First is when it was first found, Last when it was found last.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// plain reports whether there is nothing in it that may not be shown: others may write to
// the ledger, too.
func (h Hold) plain() bool {
	for _, word := range []string{h.Class, h.Code, h.Sink} {
		if word != "" && !plainCode.MatchString(word) {
			return false
		}
	}
	return true
}

// String says it in words.
func (h Hold) String() string {
	class := ""
	if h.Class != "" {
		class = ", class " + h.Class
	}
	return fmt.Sprintf("%s%s, from %s to %s", h.Cause, class, h.First.UTC().Format(time.RFC3339), h.Last.UTC().Format(time.RFC3339))
}

// after returns a wait with what was waited for before it, which may be nil.
func (w Wait) after(before *Wait) *Wait {
	own := Hold{Cause: w.Cause, First: w.Last, Last: w.Last}
	if before != nil {
		for _, h := range before.Held {
			if h.Cause == own.Cause {
				own.First = h.First
				continue
			}
			w.Held = append(w.Held, h)
		}
	}
	w.Held = append(w.Held, own)
	w.Held = w.Held[max(0, len(w.Held)-maxHeld):]
	return &w
}

// heldUp says in words what held an event up that was published at the given time: what its token waited for, and why its account was
// paused. It is empty if nobody knows.
func (l *ledger) heldUp(ctx context.Context, account, key string, published time.Time) (string, error) {
	var held []Hold
	e, err := l.read(ctx, key)
	if e.Wait != nil {
		held = e.Wait.Held
	}
	pause, pauseErr := l.lastPause(ctx, account)
	known := slices.ContainsFunc(held, func(h Hold) bool { return h.Cause == pause.Cause })
	if !known && pause.Last.After(published) {
		held = append(slices.Clip(held), pause)
	}

	var texts []string
	for _, h := range held {
		if h.plain() {
			texts = append(texts, h.String())
		}
	}
	return strings.Join(texts, "; "), errors.Join(err, pauseErr)
}

// plainCode is what a code of the API looks like.
var plainCode = regexp.MustCompile(`^[A-Za-z0-9._-]{1,96}$`)

// causeOf reads why a task failed.
func causeOf(err error) Cause {
	var pulling *pullError
	var storing sinkErrors
	switch {
	case errors.Is(err, errRoomFirst):
		return Cause{At: "parking"}
	case errors.As(err, &pulling):
		c := Cause{At: "api", Class: string(pulling.class)}
		var api *faceid.Error
		if errors.As(err, &api) && api.Code != "" {
			c.Code = "other"
			if plainCode.MatchString(api.Code) {
				c.Code = api.Code
			}
		}
		return c
	case errors.As(err, &storing) && len(storing) > 0:
		return Cause{At: "sink", Class: string(storing[0].class), Sink: storing[0].sink}
	}
	return Cause{At: "worker"}
}

// apiWaits says of the API's classes why an event waits.
var apiWaits = map[faceid.Class]string{
	faceid.Transient:      "the API cannot be reached or fails",
	faceid.Throttled:      "the API takes no more calls for now",
	faceid.NotReady:       "the check is not finished",
	faceid.AccountTrouble: "the API refuses the account",
	faceid.RequestTrouble: "the API refuses what is asked for",
	faceid.TooLarge:       "the API does not send an answer so large",
}

// String says it in words.
func (c Cause) String() string {
	text := "a fault of the daemon; its log says more"
	switch c.At {
	case "api":
		text = cmp.Or(apiWaits[faceid.Class(c.Class)], "the API does not give the result")
	case "sink":
		text = fmt.Sprintf("sink %s does not take the result", c.Sink)
		if c.Class == string(sinks.ClassWaiting) {
			return fmt.Sprintf("sink %s does not find an asset where the answer says it is", c.Sink)
		}
	case "parking":
		text = "a sink is down, and what is left of parking.quota is for results that are deleted sooner"
	}
	if c.At == "sink" && c.Class != "" {
		text += " (" + c.Class + ")"
	}
	if c.Code != "" {
		text += " (" + c.Code + ")"
	}
	return strings.TrimSpace(text)
}
