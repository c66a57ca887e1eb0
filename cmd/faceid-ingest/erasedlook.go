package main

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// erasedLook says of tokens that are published again that they were erased. Whoever
// publishes need not be allowed to look: what cannot be asked is said once, and no more
// asked.
type erasedLook struct {
	app *app
	js  jetstream.JetStream
	// store has the sinks that can tell; nil if none can be opened.
	store *store
	// blind are the places that cannot be asked.
	blind map[string]bool
}

// lookForErased opens the sinks, as far as they open.
func (a *app) lookForErased(ctx context.Context, js jetstream.JetStream) *erasedLook {
	l := &erasedLook{app: a, js: js, blind: map[string]bool{}}
	s, closed, err := a.openToLook(ctx)
	if err != nil {
		l.cannot("the sinks", err)
		return l
	}
	for name, err := range closed {
		l.cannot("sink "+name, err)
	}
	l.store = s
	return l
}

func (l *erasedLook) close() {
	if l.store != nil {
		_ = l.store.close() // only read
	}
}

// cannot says once that a place cannot be asked.
func (l *erasedLook) cannot(place string, err error) {
	if !l.blind[place] {
		l.blind[place] = true
		_, _ = fmt.Fprintf(l.app.stderr, "whether a token was erased could not be looked up in %s: %v\n", place, err)
	}
}

// warn says of a token that was erased what becomes of its event.
func (l *erasedLook) warn(ctx context.Context, key sinks.Key, token string) {
	if stone := l.find(ctx, key); stone != nil {
		_, _ = fmt.Fprintf(l.app.stderr, "%s was erased %s: its event ends as erased, and nothing is stored\n", token, tombstoneText(*stone))
	}
}

// find returns the token's tombstone; nil if none was found.
func (l *erasedLook) find(ctx context.Context, key sinks.Key) *sinks.Tombstone {
	if l.store != nil {
		for _, sink := range l.store.sinks {
			keeper, ok := sink.(sinks.Keeper)
			if !ok || l.blind["sink "+sink.Name()] {
				continue
			}
			held, err := keeper.Holds(ctx, key)
			if err != nil {
				l.cannot("sink "+sink.Name(), err)
			} else if held.Erased != nil {
				return held.Erased
			}
		}
	}
	if l.blind[pipeline.PlaceLedger] {
		return nil
	}
	stone, err := pipeline.ReadErased(ctx, l.js, key)
	if err != nil {
		l.cannot(pipeline.PlaceLedger, err)
	}
	return stone
}
