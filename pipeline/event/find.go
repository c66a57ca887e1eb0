package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Tokens are tokens that are looked for, each with the products that it may be of.
type Tokens map[string][]result.Product

// of returns the token that a stored body is about; false if it is none of t. The product
// is empty where a subject names none.
func (t Tokens) of(product result.Product, body []byte) (token string, ok bool) {
	if e, err := Decode(product, body); err == nil {
		return e.Token, slices.Contains(t[e.Token], product) || product == "" && t[e.Token] != nil
	}

	// What is no event may name a token all the same.
	for token, products := range t {
		if (product == "" || slices.Contains(products, product)) && bytes.Contains(body, []byte(strconv.Quote(token))) {
			return token, true
		}
	}
	return "", false
}

// Stored is an event that is on a stream: it waits, is in work, or is done.
type Stored struct {
	Token   string
	Product result.Product
	Account string
	Lane    Lane
	// Stream is its stream's name, Place where it stands there.
	Stream string
	Place  Place
	Past   Past
	// Event is zero if the body is no event.
	Event Event
}

// Find visits the stored events of some tokens, those of parked results too, oldest
// first within a stream. It disturbs nobody who takes events.
func Find(ctx context.Context, js jetstream.JetStream, tokens Tokens, visit func(Stored) error) error {
	err := Scan(ctx, js, Stream, 0, nil, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
		if found, ok := tokens.find(Stream, PlaceOf(meta), msg.Subject(), msg.Headers(), msg.Data()); ok {
			return visit(found)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eachParked(ctx, js, func(msg *jetstream.RawStreamMsg) error {
		if found, ok := tokens.find(ParkedStream, Place{msg.Sequence, msg.Time}, msg.Subject, msg.Header, msg.Data); ok {
			return visit(found)
		}
		return nil
	})
}

// find reads a message, if it is about one of the tokens.
func (t Tokens) find(stream string, at Place, subject string, header nats.Header, body []byte) (Stored, bool) {
	lane, account, product, _ := ParseSubject(subject)
	token, ok := t.of(product, body)
	if !ok {
		return Stored{}, false
	}

	found := Stored{
		Token: token, Product: product, Account: account, Lane: lane, Stream: stream, Place: at, Past: PastOf(at, header),
	}
	found.Event, _ = Decode(product, body) // zero if it is none
	return found, true
}

// eachParked visits the events of parked results, with one question to the server for
// each: a stream that is a work queue has no readers beside its workers.
func eachParked(ctx context.Context, js jetstream.JetStream, visit func(*jetstream.RawStreamMsg) error) error {
	stream, err := js.Stream(ctx, ParkedStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read stream %s: %w", ParkedStream, err)
	}

	for from := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stream %s: %w", ParkedStream, err)
		}
		if err := visit(msg); err != nil {
			return err
		}
		from = msg.Sequence + 1
	}
}

// FindDead visits the dead letters of some tokens, oldest first.
func FindDead(ctx context.Context, js jetstream.JetStream, tokens Tokens, visit func(token string, l DeadLetter) error) error {
	return ReadDeadLetters(ctx, js, func(l DeadLetter) error {
		_, _, product, _ := ParseSubject(l.Subject)
		if token, ok := tokens.of(product, l.Body); ok {
			return visit(token, l)
		}
		return nil
	})
}
