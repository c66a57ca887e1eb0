package event_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// count returns how many messages a stream has.
func count(t *testing.T, js jetstream.JetStream, stream string) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// An event suppresses itself, and nothing but itself.
func TestOnlyTheSameEventIsADuplicate(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	e := event.Event{Token: "T-1", RuleID: "1"}
	for _, step := range []struct {
		name    string
		lane    event.Lane
		account string
		product result.Product
		e       event.Event
		want    bool
	}{
		{"first", event.Live, "main", result.Enhanced, e, false},
		{"again", event.Live, "main", result.Enhanced, e, true},
		{"another account", event.Live, "other", result.Enhanced, e, false},
		{"another lane", event.Backfill, "main", result.Enhanced, e, false},
		{"another product", event.Live, "main", result.EID, e, false},
		{"another rule", event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "2"}, false},
		{"the other account again", event.Live, "other", result.Enhanced, e, true},
	} {
		duplicate, err := p.Publish(ctx, step.lane, step.account, step.product, step.e, nil)
		if err != nil || duplicate != step.want {
			t.Errorf("%s: duplicate %v, %v", step.name, duplicate, err)
		}
	}
}

// Whoever may publish can take the id of an event before it comes.
func TestForgedMessageID(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	e := event.Event{Token: "T-1", RuleID: "1"}
	if _, err := p.Publish(ctx, event.Live, "main", result.Enhanced, e, nil); err != nil {
		t.Fatal(err)
	}
	consumer, err := event.EnsureConsumer(ctx, js, "main", event.Live, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	id := msg.Headers().Get(nats.MsgIdHdr)

	// The stream forgets its messages and ids; the stranger is first this time.
	if err := js.DeleteStream(ctx, event.Stream); err != nil {
		t.Fatal(err)
	}
	if err := event.EnsureStreams(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "faceid.completed.main.enhanced", []byte(`{"token":"OTHER"}`), jetstream.WithMsgID(id)); err != nil {
		t.Fatal(err)
	}
	if duplicate, err := p.Publish(ctx, event.Live, "main", result.Enhanced, e, nil); err != nil || duplicate {
		t.Errorf("duplicate %v, %v", duplicate, err)
	}
	if n := count(t, js, event.Stream); n != 2 {
		t.Errorf("the stream has %d messages, the stranger's and the event are 2", n)
	}
}

// A dead letter is not lost for an id that somebody took, and its event is not when it
// is retried.
func TestForgedIDsOfDeadLetters(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	letter := event.DeadLetter{
		Account: "main", Reason: event.Expired, First: at, Last: at,
		Subject: "faceid.completed.main.eid", StreamSequence: 42, Body: []byte(`{"token":"T-1"}`),
	}
	if err := p.Bury(ctx, letter); err != nil {
		t.Fatal(err)
	}
	stored, err := event.GetDeadLetter(ctx, js, 1)
	if err != nil {
		t.Fatal(err)
	}
	dead, err := js.Stream(ctx, event.DeadStream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := dead.GetMsg(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}

	// A letter with the same id that says something else does not stand for the true one.
	forged := letter
	forged.StreamSequence = 43
	if _, err := js.Publish(ctx, msg.Subject, []byte("other"), jetstream.WithMsgID("faceid.completed.main.eid-43-"+msg.Header.Get(nats.MsgIdHdr)[len("faceid.completed.main.eid-42-"):])); err != nil {
		t.Fatal(err)
	}
	if err := p.Bury(ctx, forged); err != nil {
		t.Fatal(err)
	}
	if n := count(t, js, event.DeadStream); n != 3 {
		t.Errorf("%d letters, want the true ones and the forged one: 3", n)
	}

	if err := p.Retry(ctx, stored); err != nil {
		t.Fatal(err)
	}
	if n := count(t, js, event.Stream); n != 1 {
		t.Errorf("%d events after the retry of one", n)
	}
}

// A publisher needs no right but to publish: what it may not look at is stored again
// rather than believed.
func TestPublisherWithoutOtherRights(t *testing.T) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{
			{Username: "owner", Password: "owner"},
			{Username: "publisher", Password: "publisher", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"faceid.completed.main.*"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	as := func(user string) jetstream.JetStream {
		conn, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, user), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	owner := as("owner")
	if err := event.EnsureStreams(t.Context(), owner, 1); err != nil {
		t.Fatal(err)
	}

	p := event.NewPublisher(as("publisher"))
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := p.Publish(ctx, event.Live, "main", result.EID, event.Event{Token: "T-1"}, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	if n := count(t, owner, event.Stream); n != 3 {
		t.Errorf("the stream has %d messages: an event that cannot be seen was taken for stored", n)
	}
}
