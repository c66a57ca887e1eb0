package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Whereabouts is where a token's event and result are on their way, as NATS knows it. What
// the sinks hold, only they can tell.
type Whereabouts struct {
	Product result.Product `json:"product"`
	// Waiting are its events that are not done, those in work included.
	Waiting []WaitingEvent `json:"waiting,omitempty"`
	// InWork are the daemons that work on it.
	InWork []WorkStatus `json:"in_work,omitempty"`
	// Parked is its parked result; nil if there is none.
	Parked *ParkedResult `json:"parked,omitempty"`
	// Dead are its dead letters, oldest first.
	Dead []event.DeadLetter `json:"-"`
	// Known says that the ledger knows the token.
	Known bool `json:"-"`
	// Done are the sinks that have the result, as the ledger says, in order.
	Done []string `json:"done,omitempty"`
	// Complete says that these were all there were.
	Complete bool `json:"complete,omitempty"`
	// Erased is when and why it was erased, as the ledger says; nil if it was not.
	Erased *sinks.Tombstone `json:"erased,omitempty"`
}

// IsNothing reports whether nothing is known of the token.
func (w Whereabouts) IsNothing() bool {
	return len(w.Waiting)+len(w.InWork)+len(w.Dead)+len(w.Done) == 0 && w.Parked == nil && w.Erased == nil
}

// WaitingEvent is an event that is not done.
type WaitingEvent struct {
	Account string     `json:"account"`
	Lane    event.Lane `json:"lane"`
	// Sequence is that of its message, see Lane.Stream.
	Sequence uint64 `json:"sequence"`
	// Published is when it was first published, Deadline when Tencent deletes the
	// result; zero for a parked one.
	Published time.Time `json:"published"`
	Deadline  time.Time `json:"deadline,omitzero"`
	// Delivered says that a daemon has seen it.
	Delivered bool `json:"delivered"`
	// Served says that there is a consumer for its account: else nobody takes it.
	Served bool `json:"served"`
	// Wait is why it waits and when it is tried again; nil if it was not postponed.
	Wait *Wait `json:"wait,omitempty"`
}

// WorkStatus is a daemon that works on a token.
type WorkStatus struct {
	Replica string    `json:"replica"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
}

// ParkedResult is a parked result.
type ParkedResult struct {
	Since time.Time `json:"since"`
	Bytes int64     `json:"bytes"`
	// Cause is why it was parked; nil if the ledger does not know.
	Cause *Cause `json:"cause,omitempty"`
}

// Places where Locate looks.
const (
	PlaceLedger  = "the ledger"
	PlaceEvents  = "the streams of events"
	PlaceParking = "the parking"
	PlaceLetters = "the dead letters"
	PlaceDaemons = "the daemons"
)

// Unseen are the places that could not be looked at, and why.
type Unseen map[string]error

// Locate looks for a token of some products wherever NATS may know it. It disturbs nobody
// who takes events. What can be seen it returns, one for each product, in order.
func Locate(ctx context.Context, js jetstream.JetStream, token string, products []result.Product) ([]Whereabouts, Unseen) {
	l := &locating{js: js, token: token, unseen: Unseen{}}
	for _, p := range products {
		l.found = append(l.found, Whereabouts{Product: p})
		l.entries = append(l.entries, newEntry())
	}
	for _, look := range []struct {
		place string
		at    func(context.Context) error
	}{
		{PlaceLedger, l.ledger}, {PlaceLetters, l.letters}, {PlaceParking, l.parking}, {PlaceDaemons, l.daemons}, {PlaceEvents, l.events},
	} {
		if err := look.at(ctx); err != nil {
			l.unseen[look.place] = err
		}
	}
	return l.found, l.unseen
}

// locating is a look for one token.
type locating struct {
	js      jetstream.JetStream
	token   string
	found   []Whereabouts
	entries []*entry
	unseen  Unseen
}

// of returns what is found of a product; nil if it is not looked for.
func (l *locating) of(p result.Product) *Whereabouts {
	i := slices.IndexFunc(l.found, func(w Whereabouts) bool { return w.Product == p })
	if i < 0 {
		return nil
	}
	return &l.found[i]
}

func (l *locating) tokens() event.Tokens {
	tokens := event.Tokens{}
	for _, w := range l.found {
		tokens[l.token] = append(tokens[l.token], w.Product)
	}
	return tokens
}

func (l *locating) ledger(ctx context.Context) error {
	book, err := lookAtLedger(ctx, l.js)
	if book == nil || err != nil {
		return err
	}
	for i := range l.found {
		w := &l.found[i]
		e, err := book.read(ctx, ledgerKey(w.Product, l.token))
		if err != nil {
			return err
		}
		l.entries[i] = e
		w.Known, w.Complete, w.Erased = e.revision > 0, e.Complete, e.Erased
		for name := range e.Done {
			if _, sink, ok := strings.Cut(name, " "); ok && !slices.Contains(w.Done, sink) {
				w.Done = append(w.Done, sink)
			}
		}
		slices.Sort(w.Done)
	}
	return nil
}

func (l *locating) letters(ctx context.Context) error {
	return event.FindDead(ctx, l.js, l.tokens(), func(_ string, letter event.DeadLetter) error {
		w := l.of(letter.Product)
		if w == nil {
			w = &l.found[0] // its product cannot be read
		}
		w.Dead = append(w.Dead, letter)
		return nil
	})
}

func (l *locating) parking(ctx context.Context) error {
	for i := range l.found {
		w := &l.found[i]
		held, err := parking.Find(ctx, l.js, sinks.KeyOf(w.Product, l.token))
		if err != nil {
			return err
		}
		if held == nil {
			continue
		}
		w.Parked = &ParkedResult{Since: held.Since, Bytes: held.Bytes}
		if wait := l.entries[i].Wait; wait != nil {
			w.Parked.Cause = &wait.Cause
		}
	}
	return nil
}

func (l *locating) daemons(ctx context.Context) error {
	replicas, err := replica.List(ctx, l.js)
	if err != nil {
		return err
	}
	for i := range l.found {
		w := &l.found[i]
		hash := result.TokenHash(w.Product, l.token)
		for _, r := range replicas {
			for _, one := range r.Work {
				if one.TokenHash == hash {
					w.InWork = append(w.InWork, WorkStatus{Replica: r.ID, Host: r.Host, PID: r.PID, Since: one.Since})
				}
			}
		}
	}
	return nil
}

func (l *locating) events(ctx context.Context) error {
	return event.Find(ctx, l.js, l.tokens(), func(s event.Stored) error {
		i := slices.IndexFunc(l.found, func(w Whereabouts) bool { return w.Product == s.Product })
		if i < 0 {
			i = 0 // its product cannot be read
		}
		w, e := &l.found[i], l.entries[i]

		waiting := WaitingEvent{
			Account: s.Account, Lane: s.Lane, Sequence: s.Place.Sequence, Published: s.Past.First.UTC(), Wait: e.Wait,
		}
		if s.Lane != event.Parked {
			waiting.Deadline = s.Event.Deadline(s.Past.First).UTC()
		}
		done, err := l.progress(ctx, s, &waiting)
		if err != nil {
			return err
		}
		if !done && !l.ended(*w, e, s, waiting) {
			w.Waiting = append(w.Waiting, waiting)
		}
		return nil
	})
}

// progress looks how far the consumer of an event has come: done says that it is past it.
func (l *locating) progress(ctx context.Context, s event.Stored, waiting *WaitingEvent) (done bool, err error) {
	if s.Account == "" {
		return false, nil
	}
	consumer, err := l.js.Consumer(ctx, s.Stream, event.ConsumerName(s.Account, s.Lane))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at consumer %s: %w", event.ConsumerName(s.Account, s.Lane), err)
	}
	info := consumer.CachedInfo()
	waiting.Served, waiting.Delivered = true, s.Place.Sequence <= info.Delivered.Stream
	return s.Place.Sequence <= info.AckFloor.Stream, nil
}

// ended reports whether an event that was delivered is done, though events before it are
// not: its work is done or went another way. The server does not tell.
func (l *locating) ended(w Whereabouts, e *entry, s event.Stored, waiting WaitingEvent) bool {
	if !waiting.Delivered || s.Lane == event.Parked || e.outdated(s.Past.Again) {
		return false
	}
	letter := slices.ContainsFunc(w.Dead, func(l event.DeadLetter) bool { return l.StreamSequence == s.Place.Sequence })
	return letter || e.Complete || e.Parked || e.Erased != nil
}
