package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// absence says why no sink has a result of a token.
type absence struct {
	app   *app
	store *store

	// conn is opened for the first question about parked results, and connErr says why it
	// is not.
	conn    *broker.Conn
	connErr error
}

func (w *absence) close() {
	if w.conn != nil {
		closeQuietly(w.conn)
	}
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

	parked, err := w.isParked(ctx, token.keys(product))
	switch {
	case parked:
		return errors.New("it is only parked, until a sink takes it: look at \"faceid-ingest status\", and export it then")
	case err != nil:
		return fmt.Errorf("no sink has a result of this token; whether one is parked cannot be seen: %w", err)
	}
	return errors.New("no sink has a result of this token, and none is parked")
}

// erasedError says when and why a token was erased.
func erasedError(sink string, t sinks.Tombstone) error {
	return fmt.Errorf("it was erased %s, as sink %s says", tombstoneText(t), sink)
}

// isParked reports whether one of the keys is of a parked result.
func (w *absence) isParked(ctx context.Context, keys []sinks.Key) (bool, error) {
	if w.conn == nil && w.connErr == nil {
		w.conn, w.connErr = w.app.connect(ctx)
	}
	if w.connErr != nil {
		return false, w.connErr
	}

	for _, key := range keys {
		held, err := parking.Find(ctx, w.conn.JS, key)
		if held != nil || err != nil {
			return held != nil, err
		}
	}
	return false, nil
}
