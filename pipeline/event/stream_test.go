package event_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect starts a server for one test, with the streams in place.
func connect(t *testing.T) (context.Context, jetstream.JetStream) {
	t.Helper()
	conn, err := broker.Connect(t.Context(), broker.Config{URL: broker.Embedded, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := event.EnsureStreams(t.Context(), conn.JS, 1); err != nil {
		t.Fatal(err)
	}
	return t.Context(), conn.JS
}

func TestPublishAndConsume(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	e := event.Event{Token: "T-1", RuleID: "1"}
	header := nats.Header{"Traceparent": {"ignored: header names are exact"}, "traceparent": {"00-aa-bb-01"}, "Cookie": {"no"}}
	for i, want := range []bool{false, true} {
		duplicate, err := p.Publish(ctx, event.Live, "main", result.Enhanced, e, header)
		if err != nil || duplicate != want {
			t.Fatalf("publish %d: duplicate %v, %v", i, duplicate, err)
		}
	}
	consumer, err := event.EnsureConsumer(ctx, js, "main", event.Live, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := msg.Headers().Get("traceparent"); got != "00-aa-bb-01" {
		t.Errorf("traceparent is %q", got)
	}
	if msg.Headers().Get("Cookie") != "" {
		t.Error("a header that is not of the trace context travelled")
	}
	if msg.Subject() != "faceid.completed.main.enhanced" {
		t.Errorf("subject %s", msg.Subject())
	}
	if err := msg.DoubleAck(ctx); err != nil {
		t.Error(err)
	}
}

func TestPublishRefuses(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	tests := []struct {
		name, account string
		product       result.Product
		token         string
	}{
		{"no token", "main", result.EID, ""},
		{"token with a line break", "main", result.EID, "a\nb"},
		{"wildcard account", "*", result.EID, "T"},
		{"account with a dot", "a.b", result.EID, "T"},
		{"unknown product", "main", "nfc", "T"},
	}
	for _, tt := range tests {
		if _, err := p.Publish(ctx, event.Live, tt.account, tt.product, event.Event{Token: tt.token}, nil); err == nil {
			t.Errorf("%s: published", tt.name)
		}
	}
}

func TestEnsureStreamsAgain(t *testing.T) {
	ctx, js := connect(t)
	stream, err := js.Stream(ctx, event.Stream)
	if err != nil {
		t.Fatal(err)
	}
	owners := stream.CachedInfo().Config
	owners.MaxAge = 30 * 24 * time.Hour
	owners.Subjects = []string{"faceid.completed.*.*", "other.>"}
	if _, err := js.UpdateStream(ctx, owners); err != nil {
		t.Fatal(err)
	}
	if err := event.EnsureStreams(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.Config.MaxAge != owners.MaxAge {
		t.Errorf("the owner's max age was changed to %s", info.Config.MaxAge)
	}
	if got := strings.Join(info.Config.Subjects, " "); got != "faceid.completed.*.* other.> faceid.backfill.*.*" {
		t.Errorf("subjects are %s", got)
	}
}

func TestEnsureStreamsRefusesLossyStream(t *testing.T) {
	ctx, js := connect(t)
	for want, cfg := range map[string]jetstream.StreamConfig{
		"it has Memory storage":                {Storage: jetstream.MemoryStorage},
		"it has WorkQueue retention":           {Retention: jetstream.WorkQueuePolicy},
		"keeps them for 1h0m0s, and must for":  {MaxAge: time.Hour},
		"discards old ones at them":            {MaxMsgs: 1000},
		"and must discard new ones; change it": {MaxBytes: 1 << 20},
	} {
		if err := js.DeleteStream(ctx, event.Stream); err != nil {
			t.Fatal(err)
		}
		cfg.Name, cfg.Subjects = event.Stream, []string{"faceid.completed.*.*"}
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		if err := event.EnsureStreams(ctx, js, 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	first := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	want := event.DeadLetter{
		Account: "main", Reason: event.Malformed, Code: "a\r\nb", Detail: "line one\nline two",
		Attempts: 3, First: first, Last: first.Add(time.Hour),
		Subject: "faceid.completed.main.eid", StreamSequence: 42, Body: []byte{0xff, 0x00, '{'},
	}
	for range 2 {
		if err := p.Bury(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	other := want
	other.Account, other.Reason, other.StreamSequence = "second", event.Expired, 43
	if err := p.Bury(ctx, other); err != nil {
		t.Fatal(err)
	}

	var got []event.DeadLetter
	err := event.ReadDeadLetters(ctx, js, func(l event.DeadLetter) error {
		got = append(got, l)
		return nil
	})
	if err != nil || len(got) != 2 {
		t.Fatalf("%d letters, %v", len(got), err)
	}
	l := got[0]
	if l.Account != "main" || l.Reason != event.Malformed || l.Code != "a  b" || l.Detail != "line one line two" ||
		l.Attempts != 3 || !l.First.Equal(want.First) || !l.Last.Equal(want.Last) ||
		l.Subject != want.Subject || l.StreamSequence != 42 || string(l.Body) != string(want.Body) {
		t.Errorf("got %+v", l)
	}
	one, err := event.GetDeadLetter(ctx, js, got[1].Sequence)
	if err != nil || one.Account != "second" || one.Reason != event.Expired {
		t.Errorf("got %+v, %v", one, err)
	}
	if _, err := event.GetDeadLetter(ctx, js, 999); !errors.Is(err, event.ErrNoDeadLetter) {
		t.Errorf("got %v", err)
	}
	counts, all, err := event.CountDeadLetters(ctx, js)
	if err != nil || all != 2 || counts["main"]["malformed"] != 1 || counts["second"]["expired"] != 1 {
		t.Errorf("counts %v, %d, %v", counts, all, err)
	}
	stop := errors.New("enough")
	if err := event.ReadDeadLetters(ctx, js, func(event.DeadLetter) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
