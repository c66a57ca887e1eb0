//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// level is how far everything is.
type level struct {
	// events were stored by the stream, deliveries were made of them.
	events, deliveries uint64
	// waiting were not delivered yet, or not since they were last; held are with a
	// worker, or wait there for their next delivery.
	waiting uint64
	held    int
	rows    int64
	dead    uint64
	// consumers tells that all of the workers' consumers are there.
	consumers bool
}

// look asks NATS and PostgreSQL.
func (s *site) look(ctx context.Context) (level, error) {
	var l level
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, name := range []string{event.Stream, event.ParkedStream} {
		if err := l.add(bounded, s.js, name); err != nil {
			return l, err
		}
	}
	dead, err := s.js.Stream(bounded, event.DeadStream)
	if err != nil {
		return l, err
	}
	l.dead = dead.CachedInfo().State.Msgs
	db, err := pgx.Connect(bounded, s.database+"?sslmode=disable")
	if err != nil {
		return l, errors.New("PostgreSQL does not answer") // the error may hold the URL
	}
	defer func() { _ = db.Close(bounded) }()
	return l, db.QueryRow(bounded, "SELECT count(*) FROM results").Scan(&l.rows)
}

// add counts the durable consumers of a stream that may not be there.
func (l *level) add(ctx context.Context, js jetstream.JetStream, name string) error {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && name != event.Stream {
		return nil
	}
	if err != nil {
		return err
	}
	consumers := 0
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		if info.Config.Durable == "" {
			continue // somebody who looks, and whom a kill may have kept from tidying up
		}
		consumers++
		l.deliveries += info.Delivered.Consumer
		l.waiting += info.NumPending
		l.held += info.NumAckPending
	}
	if name == event.Stream {
		l.events = stream.CachedInfo().State.LastSeq
		l.consumers = consumers >= 2*len(ways)
	}
	return list.Err()
}

// drained tells that nothing is left to do.
func (s *site) drained(l level) bool {
	return l.consumers && l.waiting == 0 && l.held == 0 && l.rows >= int64(len(s.tokens)) && l.dead >= uint64(len(s.forgeries))
}

func (l level) String() string {
	return fmt.Sprintf("%d rows, %d dead, %d waiting, %d held, %d deliveries of %d events", l.rows, l.dead, l.waiting, l.held, l.deliveries, l.events)
}

const (
	progressEvery = 5 * time.Second
	drainPoll     = 500 * time.Millisecond
)

// progress prints how far everything is until stop is called, which waits for it.
func (s *site) progress(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleepUntil(ctx, time.Now().Add(progressEvery)) == nil {
			text := "the servers do not answer just now"
			if l, err := s.look(ctx); err == nil {
				text = l.String()
			}
			s.say("published %d of %d; %s; %d kills, %d cuts",
				s.publisher.tokens.Load(), len(s.tokens), text, s.kills.Load(), s.cuts())
		}
	}()
	return func() { cancel(); <-done }
}

// drain waits until nothing is left to do, and returns how far things came, and
// whether that is all of it. When the limit has passed, the audit says what is
// missing.
func (s *site) drain(ctx context.Context) (l level, done bool, err error) {
	end := time.Now().Add(s.Limit)
	for {
		now, err := s.look(ctx)
		if err == nil {
			l = now
			if s.drained(l) {
				return l, true, nil
			}
		}
		if time.Now().After(end) {
			return l, false, nil
		}
		if err := sleepUntil(ctx, time.Now().Add(drainPoll)); err != nil {
			return l, false, err
		}
	}
}
