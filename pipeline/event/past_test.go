package event_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// What a publisher may have forged is bounded, and never makes an event younger.
func TestPastOf(t *testing.T) {
	published := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return published.Add(d).Format(time.RFC3339Nano) }
	for _, tt := range []struct {
		name   string
		header nats.Header
		want   event.Past
	}{
		{"none", nil, event.Past{First: published}},
		{"real", nats.Header{"Faceid-First-Time": {at(-time.Hour)}, "Faceid-Attempts": {"15"}, "Faceid-Not-Before": {at(time.Minute)}},
			event.Past{First: published.Add(-time.Hour), Attempts: 15, NotBefore: published.Add(time.Minute)}},
		{"from the future", nats.Header{"Faceid-First-Time": {at(time.Hour)}, "Faceid-Not-Before": {at(2 * time.Hour)}}, event.Past{First: published}},
		{"again", nats.Header{"Faceid-Again": {"1"}}, event.Past{First: published, Again: event.Place{Sequence: 9, Time: published}}},
		{"again, not for the first time", nats.Header{"Faceid-Again": {"7 " + at(-time.Hour)}}, event.Past{First: published, Again: event.Place{Sequence: 7, Time: published.Add(-time.Hour)}}},
		{"again from the future", nats.Header{"Faceid-Again": {"7 " + at(time.Hour)}}, event.Past{First: published, Again: event.Place{Sequence: 9, Time: published}}},
		{"too many", nats.Header{"Faceid-Attempts": {"18446744073709551615"}}, event.Past{First: published, Attempts: 1_000_000}},
		{"nonsense", nats.Header{"Faceid-First-Time": {"yesterday"}, "Faceid-Attempts": {"-1"}, "Faceid-Not-Before": {"soon"}, "Faceid-History": {"{}"}}, event.Past{First: published}},
	} {
		if got := event.PastOf(event.Place{Sequence: 9, Time: published}, tt.header); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// An event that is put on a stream again has its past with it.
func TestRepublish(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	first := time.Now().Add(-time.Hour).UTC()
	var history []event.Burial
	for i := range 40 {
		history = append(history, event.Burial{Time: first, Reason: event.Refused, Code: strings.Repeat("c", 30), Attempts: uint64(i)})
	}
	asked := event.Place{Sequence: 1000, Time: first.Add(time.Minute)} // of another stream, or of this one before it was made anew
	past := event.Past{Crashes: 2, First: first, Again: asked, Attempts: 7, NotBefore: time.Now().Add(time.Minute).UTC(), History: history}
	header := nats.Header{"traceparent": {"00-aa-bb-01"}, "tracestate": {strings.Repeat("x", 513)}, "Cookie": {"no"}}
	for range 2 {
		if err := p.Republish(ctx, "faceid.completed.main.eid", []byte(`{"token":"T"}`), header, past, "id-1"); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := js.Stream(ctx, event.Stream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(ctx, 1)
	if err != nil || stream.CachedInfo().State.Msgs != 1 {
		t.Fatalf("%d messages, %v", stream.CachedInfo().State.Msgs, err)
	}
	got := event.PastOf(event.Place{Sequence: msg.Sequence, Time: msg.Time}, msg.Header)
	if !got.First.Equal(past.First) || got.Attempts != 7 || !got.NotBefore.Equal(past.NotBefore) || got.Again != asked ||
		msg.Header.Get("traceparent") == "" || msg.Header.Get("tracestate") != "" || msg.Header.Get("Cookie") != "" || got.Crashes != past.Crashes {
		t.Errorf("%+v", got)
	}
	if n := len(got.History); n != 16 || got.History[n-1].Attempts != 39 {
		t.Errorf("%d burials are left, the last of %d attempts", n, got.History[n-1].Attempts)
	}
}

func TestRetry(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	first := time.Now().Add(-time.Hour).UTC()
	bury := func(subject string) event.DeadLetter {
		t.Helper()
		letter := event.DeadLetter{
			Account: "main", Reason: event.Expired, Code: "InternalError", Attempts: 3, First: first, Last: first.Add(time.Minute),
			Subject: subject, StreamSequence: 9, Body: []byte(`{"token":"T"}`), History: []event.Burial{{Time: first, Reason: event.Crashed, Attempts: 30}},
		}
		if err := p.Bury(ctx, letter); err != nil {
			t.Fatal(err)
		}
		var last event.DeadLetter
		if err := event.ReadDeadLetters(ctx, js, func(l event.DeadLetter) error { last = l; return nil }); err != nil {
			t.Fatal(err)
		}
		return last
	}
	for subject, want := range map[string]string{
		"faceid.completed.main.eid": "faceid.completed.main.eid", "faceid.backfill.main.enhanced": "faceid.backfill.main.enhanced",
		"faceid.parked.main.eid": "faceid.completed.main.eid",
	} {
		letter := bury(subject)
		if err := p.Retry(ctx, letter); err != nil {
			t.Fatal(err)
		}
		// As after a crash between the two steps: nothing comes twice.
		if err := p.Retry(ctx, letter); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(ctx, event.Stream)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := stream.GetLastMsgForSubject(ctx, want)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		past := event.PastOf(event.Place{Sequence: msg.Sequence, Time: msg.Time}, msg.Header)
		if string(msg.Data) != `{"token":"T"}` || past.Attempts != 3 || len(past.History) != 2 || past.History[1].Reason != event.Expired || !past.First.Equal(first) {
			t.Errorf("%s: %s, %+v", subject, msg.Data, past)
		}
	}
	stream, err := js.Stream(ctx, event.Stream)
	if err != nil || stream.CachedInfo().State.Msgs != 3 {
		t.Errorf("%d events for 3 letters, %v", stream.CachedInfo().State.Msgs, err)
	}
	if err := p.Retry(ctx, bury("other.subject")); !errors.Is(err, event.ErrNotRetryable) {
		t.Errorf("got %v", err)
	}
	if _, n, err := event.CountDeadLetters(ctx, js); err != nil || n != 1 {
		t.Errorf("%d letters are left, %v", n, err)
	}
}

// A letter that a stranger made up shows as what it is, and moves no cursor.
func TestForgedLetter(t *testing.T) {
	ctx, js := connect(t)
	msg := nats.NewMsg("faceid.dead.main.rejected")
	for _, name := range []string{"Faceid-Reason", "Faceid-Code", "Faceid-Detail", "Faceid-Subject"} {
		msg.Header.Set(name, "a\x1b[2J\u009bb")
	}
	msg.Header.Set("Faceid-Attempts", "-1")
	msg.Header.Set("Faceid-First-Time", "never")
	if _, err := js.PublishMsg(ctx, msg); err != nil {
		t.Fatal(err)
	}
	l, err := event.GetDeadLetter(ctx, js, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(l.Reason), l.Code, l.Detail, l.Subject} {
		if text != "a [2J b" {
			t.Errorf("%q", text)
		}
	}
	if l.Attempts != 0 || !l.First.IsZero() || l.History != nil {
		t.Errorf("%+v", l)
	}
	if err := event.NewPublisher(js).Retry(ctx, l); !errors.Is(err, event.ErrNotRetryable) {
		t.Errorf("got %v", err)
	}
}

// What is behind the last message that a scan saw is removed while it reads: it ends.
func TestScanOfAShrinkingStream(t *testing.T) {
	ctx, js := connect(t)
	const all, left = 700, 450
	for i := range all {
		if _, err := js.PublishAsync("faceid.dead.main.expired", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	stream, err := js.Stream(ctx, event.DeadStream)
	if err != nil {
		t.Fatal(err)
	}
	visited := 0
	err = event.ReadDeadLetters(ctx, js, func(event.DeadLetter) error {
		if visited++; visited > 1 {
			return nil
		}
		for sequence := uint64(left + 1); sequence <= all; sequence++ {
			if err := event.Remove(ctx, stream, sequence); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || visited < left {
		t.Errorf("visited %d, %v", visited, err)
	}
}

func FuzzPastOf(f *testing.F) {
	f.Add("2026-11-26T07:00:00Z", "7", "2026-11-26T08:01:00Z", `[{"time":"2026-11-26T07:00:00Z","reason":"expired","attempts":3}]`, "7 2026-11-26T07:00:00Z")
	f.Add("", "", "", `[{"reason":"made up"},{"reason":"crashed","code":"a\r\nb"}]`, "1")
	published := time.Date(2026, 11, 26, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, first, attempts, notBefore, history, again string) {
		p := event.PastOf(event.Place{Sequence: 9, Time: published}, nats.Header{"Faceid-Again": {again}, "Faceid-First-Time": {first}, "Faceid-Attempts": {attempts}, "Faceid-Not-Before": {notBefore}, "Faceid-History": {history}})
		if p.First.After(published) || p.Again.Time.After(published) || (p.Again == event.Place{}) != (again == "") || p.Attempts > 1_000_000 || p.NotBefore.After(published.Add(time.Hour)) || len(p.History) > 16 {
			t.Errorf("%+v", p)
		}
		for _, b := range p.History {
			if strings.ContainsFunc(b.Code, unicode.IsControl) {
				t.Errorf("a code with control characters: %q", b.Code)
			}
		}
		if _, err := json.Marshal(p); err != nil && p.First.Year() > 0 && p.First.Year() < 9999 {
			t.Error(err)
		}
	})
}
