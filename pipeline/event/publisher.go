package event

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/textproto"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// traceHeaders are the W3C Trace Context fields that travel with an event, so
// that one trace covers the publisher and the worker. Baggage is not among them: who
// knows what is in it.
var traceHeaders = []string{"traceparent", "tracestate"}

// Publisher puts completion events on the stream. It may be used by several
// goroutines.
type Publisher struct{ js jetstream.JetStream }

// NewPublisher returns a Publisher on js.
func NewPublisher(js jetstream.JetStream) *Publisher { return &Publisher{js: js} }

// Publish stores one event and returns when the stream has it. duplicate is
// true when the stream already held an event of this token. Of header only the
// trace context is sent; it may be nil.
func (p *Publisher) Publish(ctx context.Context, lane Lane, account string, product result.Product, e Event, header nats.Header) (duplicate bool, err error) {
	msg, err := message(lane, account, product, e, header)
	if err != nil {
		return false, err
	}
	return p.publish(ctx, msg, MessageID(product, e.Token))
}

// PublishAgain is Publish for a token that shall be ingested once more, because
// what its event was given up for is mended or its result was lost: the stream
// takes it however soon it comes after the first one, and workers do all of it
// again.
func (p *Publisher) PublishAgain(ctx context.Context, lane Lane, account string, product result.Product, e Event, header nats.Header) error {
	msg, err := message(lane, account, product, e, header)
	if err != nil {
		return err
	}
	msg.Header.Set(headerAgain, "1")
	_, err = p.publish(ctx, msg, MessageID(product, e.Token)+":"+rand.Text())
	return err
}

func (p *Publisher) publish(ctx context.Context, msg *nats.Msg, id string) (duplicate bool, err error) {
	ack, err := p.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id))
	if err != nil {
		return false, fmt.Errorf("publish event: %w", err)
	}
	return ack.Duplicate, nil
}

func message(lane Lane, account string, product result.Product, e Event, header nats.Header) (*nats.Msg, error) {
	if err := CheckAccount(account); err != nil {
		return nil, err
	}
	if !product.Valid() {
		return nil, fmt.Errorf("unknown product %q, expected enhanced or eid", product)
	}
	if err := CheckToken(e.Token); err != nil {
		return nil, err
	}
	body, err := e.Encode()
	if err != nil {
		return nil, err
	}
	if len(body) > MaxBody {
		return nil, malformed("body of %d bytes, the limit is %d", len(body), MaxBody)
	}
	msg := nats.NewMsg(Subject(lane, account, product))
	msg.Data = body
	copyTrace(msg.Header, header)
	return msg, nil
}

// maxTraceHeader bounds what is copied of a trace header, in bytes: what the W3C asks
// everybody to pass on of a tracestate. A longer one is left out.
const maxTraceHeader = 512

// copyTrace copies the trace context. Publishers that treat the headers of NATS as
// those of HTTP write Traceparent.
func copyTrace(to, from nats.Header) {
	for _, name := range traceHeaders {
		if v := cmp.Or(from.Get(name), from.Get(textproto.CanonicalMIMEHeaderKey(name))); v != "" && len(v) <= maxTraceHeader {
			to.Set(name, v)
		}
	}
}
