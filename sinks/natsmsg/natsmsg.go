// Package natsmsg publishes a message about each result to NATS JetStream.
//
// In goes a result that is stored; out goes one JetStream message whose body is the
// message of package notice, on a subject made from a template, with the headers
//
//	Nats-Msg-Id:  the sink's name and the message's id, the same each time it is sent
//	Content-Type: application/cloudevents+json
//
// The sink returns when a stream has acknowledged the message. Within its duplicate
// window the stream drops whatever comes with an id that it has had, even if the
// answer about the token has changed; a consumer drops later repetitions by the
// event's own id.
//
// The template may hold {account}, {product} and {token_hash}, each as a whole part
// of the subject between dots. An account or product that cannot be such a part (no
// configured one is like that) is replaced by a hash of it.
//
// Some stream must take the subject; which one, with what limits and replicas, is
// for the owner of the NATS to say. Where create_stream names one, the sink makes it
// when it finds that no stream takes its subject: on file, one replica, kept for
// seven days, with a duplicate window of an hour. A stream that is there is never
// changed.
//
// Without url the process's own connection is used, which is the embedded server
// by default; with url the sink has a connection of its own.
//
// Messages stay in the stream until its limits drop them, so Erase takes them away:
// with a subject that ends in {token_hash} it purges the token's messages from every
// stream that takes them, and then tells the consumers by a message of another type
// (see package notice), with "_" in place of the account, which it does not know.
// Without {token_hash} at the end there is no way to find the token's messages; that
// is why fields, which put personal values into messages, demand such a subject.
// Mirrors, and streams that copy from others, are out of reach: erase there too.
//
// Rights of the user: to publish on the subjects and to subscribe to _INBOX.>; for
// Check and Erase to publish on $JS.API.STREAM.NAMES; for Erase with {token_hash} on
// $JS.API.STREAM.INFO.<stream> and $JS.API.STREAM.PURGE.<stream>; for create_stream
// on $JS.API.STREAM.CREATE.<stream>.
//
// What may go wrong: a message larger than the server or the stream takes is
// permanent. All else is transient, since its owner can mend it: no connection, no
// stream for the subject, a full stream, a missing right. The errors say which in
// words.
package natsmsg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

const (
	// answerWait bounds the wait for one answer of the server.
	answerWait = 5 * time.Second
	// streamAge and streamDuplicates are those of a stream that the sink makes.
	streamAge        = 7 * 24 * time.Hour
	streamDuplicates = time.Hour
)

// Sink publishes messages. All methods but Close may be called by several
// goroutines at once.
type Sink struct {
	name    string
	policy  *privacy.Policy
	fields  notice.Fields
	subject template
	// createStream is the name of the stream to make; empty means none.
	createStream string
	// server says in errors which server this is about.
	server string
	// nats and js are nil where the process has no connection.
	nats *nats.Conn
	js   jetstream.JetStream
	// publish sends one message; tests put faults before it.
	publish func(context.Context, *nats.Msg) error
	// closed is closed when the sink's own connection is; nil without one.
	closed chan struct{}
	// lost is why that connection could not be made or was lost at last.
	lost atomic.Pointer[error]
}

var (
	_ sinks.Notifier = (*Sink)(nil)
	_ sinks.Eraser   = (*Sink)(nil)
)

// Open implements sinks.Config. A server that cannot be reached is no error: the
// sink goes on trying.
func (c *Config) Open(_ context.Context, env sinks.Env) (sinks.Sink, error) {
	return c.open(env, answerWait)
}

func (c *Config) open(env sinks.Env, wait time.Duration) (*Sink, error) {
	subject, problem := parseTemplate(c.Subject)
	if problem != "" {
		return nil, fmt.Errorf("natsmsg: subject %s", problem)
	}
	s := &Sink{
		name: env.Name, policy: env.Policy, fields: c.Fields, subject: subject,
		createStream: c.CreateStream, server: "the daemon's NATS", nats: env.NATS,
	}
	if c.URL != "" {
		if err := s.connect(c, env.Log); err != nil {
			return nil, err
		}
	}
	if s.nats == nil {
		return s, nil
	}
	js, err := jetstream.New(s.nats, jetstream.WithDefaultTimeout(wait))
	if err != nil {
		return nil, fmt.Errorf("natsmsg: open JetStream: %w", err)
	}
	s.js, s.publish = js, s.publishMsg
	return s, nil
}

// connect opens a connection of the sink's own.
func (s *Sink) connect(c *Config, log *slog.Logger) error {
	s.server, s.closed = c.URL, make(chan struct{})
	options, err := c.options(log)
	if err != nil {
		return err
	}
	options = append(options,
		nats.Name("faceid-ingest sink "+s.name),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { s.lost.Store(&err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				s.lost.Store(&err)
				log.Warn("lost the connection to NATS, reconnecting", "error", wire.Closed(err))
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(s.closed) }),
	)
	if s.nats, err = nats.Connect(c.URL, options...); err != nil {
		return fmt.Errorf("natsmsg: connect to %s: %w", s.server, wire.Closed(err))
	}
	return nil
}

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink. Nothing is on the way any more, since Notify and
// Erase wait for the stream.
func (s *Sink) Close(context.Context) error {
	if s.closed != nil {
		s.nats.Close()
		<-s.closed
	}
	return nil
}

// Check implements sinks.Sink: it asks which streams take the subject. Whether the
// user may publish is known only when it does.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	streams, err := s.streams(ctx, s.subject.all())
	switch {
	case err != nil:
		return s.explain(ctx, apiNames, err)
	case len(streams) == 0 && s.createStream == "":
		return s.explain(ctx, s.subject.all(), jetstream.ErrNoStreamResponse)
	}
	return nil
}

// ready tells whether a call makes sense at all.
func (s *Sink) ready(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.nats == nil:
		return errors.New("natsmsg: this command has no connection to the daemon's NATS: set url, or let the daemon do it")
	case !s.nats.IsConnected():
		return s.disconnected()
	}
	return nil
}

// Notify implements sinks.Notifier. It returns when a stream has the message.
func (s *Sink) Notify(ctx context.Context, r *result.Result) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	m, err := notice.OfResult(s.policy, r, s.fields)
	if err != nil {
		return err
	}
	msg := newMsg(s.subject.of(r.Account, r.Product, m.TokenHash), m)
	// Another sink may publish other messages of the token into the same stream.
	msg.Header.Set(nats.MsgIdHdr, s.name+":"+m.ID)
	return s.send(ctx, msg)
}

// Erase implements sinks.Eraser: it purges the token's messages where the subject
// tells them, and then tells the consumers.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, _ string) (sinks.Holding, error) {
	if err := s.ready(ctx); err != nil {
		return sinks.Holding{}, err
	}
	m, err := notice.OfErasure(key)
	if err != nil {
		return sinks.Holding{}, err
	}
	if s.subject.tellsToken() {
		if err := s.purge(ctx, s.subject.ofToken(key)); err != nil {
			return sinks.Holding{}, err
		}
	}
	// Without Nats-Msg-Id: the last Erase purged its message, so that a repeated one
	// must not be taken for it. Consumers know a repetition by the event's id.
	return sinks.Holding{}, s.send(ctx, newMsg(s.subject.of(nobody, key.Product, key.Hash), m))
}

func newMsg(subject string, m notice.Message) *nats.Msg {
	msg := nats.NewMsg(subject)
	msg.Data = m.Body
	msg.Header.Set("Content-Type", notice.ContentType)
	return msg
}

// send publishes a message, and makes the stream for it if it may and must.
func (s *Sink) send(ctx context.Context, msg *nats.Msg) error {
	err := s.publish(ctx, msg)
	if errors.Is(err, jetstream.ErrNoStreamResponse) && s.createStream != "" {
		if err := s.makeStream(ctx); err != nil {
			return err
		}
		err = s.publish(ctx, msg)
	}
	if err != nil {
		return s.explain(ctx, msg.Subject, err)
	}
	return nil
}

func (s *Sink) publishMsg(ctx context.Context, msg *nats.Msg) error {
	_, err := s.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	return err
}

func (s *Sink) makeStream(ctx context.Context) error {
	_, err := s.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: s.createStream, Subjects: []string{s.subject.all()}, Description: "results that faceid-ingest has stored",
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Replicas: 1,
		MaxAge: streamAge, Duplicates: streamDuplicates,
	})
	if err != nil {
		return s.explain(ctx, apiCreate+s.createStream, err)
	}
	return nil
}

// streams returns the names of the streams that take a subject.
func (s *Sink) streams(ctx context.Context, subject string) ([]string, error) {
	var names []string
	lister := s.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
	for name := range lister.Name() {
		names = append(names, name)
	}
	return names, lister.Err()
}

// purge takes all messages of a subject away, wherever they are.
func (s *Sink) purge(ctx context.Context, subject string) error {
	names, err := s.streams(ctx, subject)
	if err != nil {
		return s.explain(ctx, apiNames, err)
	}
	for _, name := range names {
		stream, err := s.js.Stream(ctx, name)
		if err != nil {
			return s.explain(ctx, apiInfo+name, err)
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return s.explain(ctx, apiPurge+name, err)
		}
	}
	return nil
}
