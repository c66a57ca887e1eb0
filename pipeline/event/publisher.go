package event

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"time"

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
type Publisher struct {
	js jetstream.JetStream
	// blind is set once the server does not let this publisher read what it stored.
	blind atomic.Bool
}

// NewPublisher returns a Publisher on js.
func NewPublisher(js jetstream.JetStream) *Publisher { return &Publisher{js: js} }

// Publish stores one event and returns when the stream has it. duplicate is
// true when the stream already held the same event. Of header only the
// trace context is sent; it may be nil.
func (p *Publisher) Publish(ctx context.Context, lane Lane, account string, product result.Product, e Event, header nats.Header) (duplicate bool, err error) {
	msg, err := message(lane, account, product, e, header)
	if err != nil {
		return false, err
	}
	return p.publish(ctx, msg, contentID(msg))
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
	_, err = p.publish(ctx, msg, rand.Text())
	return err
}

// contentID returns the message id of an event: a digest of its subject and body, so
// that no event of another account, and no other event of this one, can suppress it.
func contentID(msg *nats.Msg) string {
	sum := sha256.New()
	_, _ = io.WriteString(sum, msg.Subject+"\n")
	_, _ = sum.Write(msg.Data)
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// publish stores msg and reports whether the stream had it already. The server calls a
// message a duplicate by its id alone, and whoever may publish can take an id in advance;
// so the stored message is compared, and where it is another one, or cannot be seen, msg
// is stored under an id that nobody can know. Two of one event do no harm: the ledger
// finds them.
func (p *Publisher) publish(ctx context.Context, msg *nats.Msg, id string, opts ...jetstream.PublishOpt) (duplicate bool, err error) {
	ack, err := p.js.PublishMsg(ctx, msg, append(opts, jetstream.WithMsgID(id))...)
	if err != nil {
		return false, fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	if !ack.Duplicate {
		return false, nil
	}
	if p.holds(ctx, ack, msg) {
		return true, nil
	}

	if _, err = p.js.PublishMsg(ctx, msg, append(opts, jetstream.WithMsgID(rand.Text()))...); err != nil {
		return false, fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	return false, nil
}

// lookWait bounds the look at a message that is said to be a duplicate: a server that
// does not allow it gives no answer.
const lookWait = 2 * time.Second

// holds reports whether the message that ack names is msg.
func (p *Publisher) holds(ctx context.Context, ack *jetstream.PubAck, msg *nats.Msg) bool {
	if p.blind.Load() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()

	stream, err := p.js.Stream(ctx, ack.Stream)
	if err != nil {
		p.blind.Store(true)
		return false
	}
	stored, err := stream.GetMsg(ctx, ack.Sequence)
	if err != nil {
		p.blind.Store(!errors.Is(err, jetstream.ErrMsgNotFound))
		return false
	}
	return stored.Subject == msg.Subject && bytes.Equal(stored.Data, msg.Data) &&
		maps.EqualFunc(meaning(stored.Header), meaning(msg.Header), slices.Equal)
}

// meaning returns those headers in which two messages of one event do not differ: each
// attempt to publish may be a trace of its own.
func meaning(h nats.Header) nats.Header {
	h = maps.Clone(h)
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return slices.Contains(traceHeaders, name) || strings.HasPrefix(name, "Nats-")
	})
	return h
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
