package event_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// person is what must not outlive an event.
const person = "王测试"

// What a sender puts beside what this program reads is in no dead letter.
func TestLettersHoldNoExtra(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	data := `{"token":"T-1","rule_id":"1","extra":{"name":"` + person + `"}}`
	for i, test := range []struct{ body, want string }{
		{`{"token":"T-1","rule_id":"1"}`, `{"token":"T-1","rule_id":"1"}`},
		{` {"BizToken": "T-1", "issued_at": "2026-11-24T08:30:00Z"}`, ` {"BizToken": "T-1", "issued_at": "2026-11-24T08:30:00Z"}`},
		{data, `{"token":"T-1","rule_id":"1"}`},
		{`{"token":"T-1","name":"` + person + `"}`, `{"token":"T-1"}`},
		{`{"data":` + strconv.Quote(data) + `}`, `{"token":"T-1","rule_id":"1"}`},
		{`{"token":"T-1","rule_id":"` + strings.Repeat(person, 9) + `"}`, `{"token":"T-1"}`},
		{`{"specversion":"1.0","data":` + data + `}`, `{"token":"T-1","rule_id":"1"}`},
		{`{"specversion":"1.0","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(data)) + `"}`, `{"token":"T-1","rule_id":"1"}`},
	} {
		letter := event.DeadLetter{
			Account: "main", Reason: event.Rejected, Subject: "faceid.completed.main.enhanced", StreamSequence: uint64(i + 1), Body: []byte(test.body),
		}
		if err := p.Bury(ctx, letter); err != nil {
			t.Fatal(err)
		}
		got, err := event.GetDeadLetter(ctx, js, uint64(i+1))
		if err != nil || string(got.Body) != test.want || got.Token != "T-1" || got.Product != result.Enhanced {
			t.Errorf("of %s the letter holds %s of %q %s, %v", test.body, got.Body, got.Token, got.Product, err)
		}
	}
}

// The letter of what is no event lives as long as the event, or has no body.
func TestLettersOfWhatIsNoEvent(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	body := []byte(`{"name":"` + person + `"}`)
	bury := func(sequence uint64) *jetstream.RawStreamMsg {
		t.Helper()
		letter := event.DeadLetter{
			Account: "main", Reason: event.Malformed, Subject: "faceid.completed.main.enhanced", StreamSequence: sequence, Body: body,
		}
		if err := p.Bury(ctx, letter); err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(ctx, event.DeadStream)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := stream.GetMsg(ctx, stream.CachedInfo().State.LastSeq)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	if msg := bury(1); msg.Header.Get(jetstream.MsgTTLHeader) != (7*24*time.Hour).String() || !bytes.Equal(msg.Data, body) {
		t.Errorf("it lives for %q and holds %s", msg.Header.Get(jetstream.MsgTTLHeader), msg.Data)
	}

	// Somebody's own stream, which has no such lives.
	if err := js.DeleteStream(ctx, event.DeadStream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: event.DeadStream, Subjects: []string{"faceid.dead.*.*"}, Discard: jetstream.DiscardNew}); err != nil {
		t.Fatal(err)
	}
	if msg := bury(2); len(msg.Data) > 0 {
		t.Errorf("it lives without end and holds %s", msg.Data)
	}
	if err := event.EnsureStreams(ctx, js, 1); err != nil {
		t.Fatal(err)
	}
	if msg := bury(3); len(msg.Data) == 0 || msg.Header.Get(jetstream.MsgTTLHeader) == "" {
		t.Errorf("after the stream was brought up: it lives for %q and holds %s", msg.Header.Get(jetstream.MsgTTLHeader), msg.Data)
	}
}

// Events and letters of a token are found wherever they are and whatever form they have,
// and those of others are not.
func TestFindAndErase(t *testing.T) {
	ctx, js := connect(t)
	p := event.NewPublisher(js)
	other := event.Event{Token: "T-10", RuleID: "1"}
	for _, lane := range event.Lanes() {
		if _, err := p.Publish(ctx, lane, "main", result.Enhanced, event.Event{Token: fmt.Sprint("T-", lane), RuleID: "1"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{`{"specversion":"1.0","data":{"token":"T-1","extra":{"name":"` + person + `"}}}`, `{"token":"T-1",`} {
		if _, err := js.Publish(ctx, "faceid.completed.stranger.enhanced", []byte(body)); err != nil {
			t.Fatal(err)
		}
		if err := p.Bury(ctx, event.DeadLetter{Account: "main", Reason: event.Malformed, Subject: "faceid.completed.main.enhanced", StreamSequence: uint64(len(body)), Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.Publish(ctx, "faceid.completed.main.nothing", []byte(`{"token":"T-1"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(ctx, event.Live, "main", result.Enhanced, other, nil); err != nil {
		t.Fatal(err)
	}

	tokens := event.Tokens{"T-1": {result.Enhanced}, "T-live": {result.Enhanced, result.EID}, "T-parked": {result.Enhanced}, "T-backfill": {result.EID}}
	var found []string
	err := event.Find(ctx, js, tokens, func(s event.Stored) error {
		found = append(found, fmt.Sprintf("%s of %q on %s at %d", s.Token, s.Account, s.Stream, s.Place.Sequence))
		stream, err := js.Stream(ctx, s.Stream)
		if err != nil {
			return err
		}
		return event.Erase(ctx, stream, s.Place.Sequence)
	})
	want := []string{
		`T-live of "main" on FACEID at 1`, `T-1 of "stranger" on FACEID at 3`, `T-1 of "stranger" on FACEID at 4`, `T-1 of "" on FACEID at 5`,
		`T-parked of "main" on FACEID_PARKED at 1`,
	}
	if got := strings.Join(found, "\n"); err != nil || got != strings.Join(want, "\n") {
		t.Errorf("found %s, %v", got, err)
	}
	if again := event.Find(ctx, js, tokens, func(s event.Stored) error { return fmt.Errorf("%+v is still there", s) }); again != nil {
		t.Error(again)
	}

	dead := 0
	if err := event.FindDead(ctx, js, tokens, func(token string, l event.DeadLetter) error {
		dead++
		if token != "T-1" {
			t.Errorf("the letter of %s: %+v", token, l)
		}
		return p.Drop(ctx, l)
	}); err != nil || dead != 2 {
		t.Errorf("%d letters, %v", dead, err)
	}
	stream, err := js.Stream(ctx, event.Stream)
	if err != nil || stream.CachedInfo().State.Msgs != 2 {
		t.Errorf("what is of others is gone: %+v, %v", stream.CachedInfo().State, err)
	}
	if err := event.Erase(ctx, stream, 1); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}
