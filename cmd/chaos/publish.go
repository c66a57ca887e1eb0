//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// publisher is the back end of an owner: it publishes events and tries again until
// the stream says that it has them.
type publisher struct {
	events    *event.Publisher
	js        jetstream.JetStream
	standIns  *standIns
	finishing sync.WaitGroup

	// tokens and events count what was published, retries what was not
	// acknowledged at once, dropped what the stream knew.
	tokens, published, retries, dropped atomic.Int64
}

func newPublisher(js jetstream.JetStream, s *standIns) *publisher {
	return &publisher{events: event.NewPublisher(js), js: js, standIns: s}
}

const (
	publishWait  = 2 * time.Second
	publishPause = 200 * time.Millisecond
)

// publish publishes everything at a steady rate. Where an outage delayed it, it
// catches up.
func (p *publisher) publish(ctx context.Context, tokens []*issued, forgeries []forged, perSecond int) error {
	defer p.finishing.Wait()
	began := time.Now()
	for i, t := range tokens {
		if err := sleepUntil(ctx, began.Add(time.Duration(i)*time.Second/time.Duration(perSecond))); err != nil {
			return err
		}
		if err := p.token(ctx, t); err != nil {
			return fmt.Errorf("publish token %d: %w", i, err)
		}
		if i%everyForged == everyForged-1 {
			if err := p.forgery(ctx, forgeries[i/everyForged], i); err != nil {
				return fmt.Errorf("publish forgery %d: %w", i/everyForged, err)
			}
		}
		p.tokens.Add(1)
	}
	return nil
}

// token publishes a token's event, and those that repeat it.
func (p *publisher) token(ctx context.Context, t *issued) error {
	if err := p.standIns.put(t); err != nil {
		return err
	}
	e := event.Event{Token: t.Token, RuleID: t.RuleID, IssuedAt: t.Made}
	first := func(ctx context.Context) error {
		known, err := p.events.Publish(ctx, t.lane, t.account, t.Product, e, nil)
		if known {
			p.dropped.Add(1)
		}
		return err
	}
	if err := p.insist(ctx, first); err != nil {
		return err
	}
	if t.finishAfter > 0 {
		p.finishing.Go(func() {
			_ = sleepUntil(ctx, time.Now().Add(t.finishAfter)) // where the run is cut off, it does not matter
			p.standIns.finish(t)
		})
	}
	if t.repeated {
		if err := p.insist(ctx, first); err != nil {
			return err
		}
	}
	if t.twice {
		if err := p.twice(ctx, t, e); err != nil {
			return err
		}
	}
	if t.again {
		return p.insist(ctx, func(ctx context.Context) error {
			return p.events.PublishAgain(ctx, t.lane, t.account, t.Product, e, nil)
		})
	}
	return nil
}

// twice publishes an event on the other lane, with an id that the stream does not
// know: two workers may have the token in their hands at once.
func (p *publisher) twice(ctx context.Context, t *issued, e event.Event) error {
	body, err := e.Encode()
	if err != nil {
		return err
	}
	lane := event.Backfill
	if t.lane == lane {
		lane = event.Live
	}
	return p.raw(ctx, event.Subject(lane, t.account, t.Product), body, "twice:"+t.Token)
}

func (p *publisher) forgery(ctx context.Context, f forged, i int) error {
	return p.raw(ctx, event.Subject(event.Live, f.account, f.product), []byte(f.body), fmt.Sprintf("forged:%d", i))
}

func (p *publisher) raw(ctx context.Context, subject string, body []byte, id string) error {
	msg := &nats.Msg{Subject: subject, Data: body}
	return p.insist(ctx, func(ctx context.Context) error {
		_, err := p.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id))
		return err
	})
}

// insist tries until the stream has acknowledged.
func (p *publisher) insist(ctx context.Context, send func(context.Context) error) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, publishWait)
		err := send(bounded)
		cancel()
		if err == nil {
			p.published.Add(1)
			return nil
		}
		var malformed *event.MalformedError
		if errors.As(err, &malformed) {
			return err
		}
		p.retries.Add(1)
		if sleepUntil(ctx, time.Now().Add(publishPause)) != nil {
			return err
		}
	}
}

// sleepUntil waits, unless ctx ends before.
func sleepUntil(ctx context.Context, when time.Time) error {
	timer := time.NewTimer(time.Until(when))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
