package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// absence says why no sink has a result of a token.
type absence struct {
	app   *app
	store *store

	// parked are the results that wait for a sink; they are asked for once, and
	// parkedErr says why they cannot be.
	asked     bool
	parked    []sinks.Key
	parkedErr error
}

// of says it in words: the token was erased, it is only parked, or nobody knows it.
func (w *absence) of(ctx context.Context, token namedToken, product string) error {
	for _, key := range token.keys(product) {
		for _, sink := range w.store.sinks {
			keeper, ok := sink.(sinks.Keeper)
			if !ok {
				continue
			}
			held, err := keeper.Holds(ctx, key)
			if err != nil {
				return fmt.Errorf("look for its tombstone in sink %s: %w", sink.Name(), err)
			}
			if held.Erased != nil {
				return erasedError(sink.Name(), *held.Erased)
			}
		}
	}

	w.askParking(ctx)
	for _, key := range token.keys(product) {
		if slices.Contains(w.parked, key) {
			return errors.New("it is only parked, until a sink takes it: look at \"faceid-ingest status\", and export it then")
		}
	}
	if w.parkedErr != nil {
		return fmt.Errorf("no sink has a result of this token; whether one is parked cannot be seen: %w", w.parkedErr)
	}
	return errors.New("no sink has a result of this token, and none is parked")
}

// erasedError says when and why a token was erased.
func erasedError(sink string, t sinks.Tombstone) error {
	return fmt.Errorf("it was erased %s, as sink %s says", tombstoneText(t), sink)
}

// askParking lists what is parked.
func (w *absence) askParking(ctx context.Context) {
	if w.asked {
		return
	}
	w.asked = true
	conn, err := w.app.connect(ctx)
	if err != nil {
		w.parkedErr = err
		return
	}
	defer closeQuietly(conn)

	store, err := openParking(ctx, w.store.cfg, conn.JS, w.store.policy)
	if err == nil {
		w.parked, err = store.Keys(ctx)
	}
	w.parkedErr = err
}
