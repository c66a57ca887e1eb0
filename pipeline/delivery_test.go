package pipeline_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// clock is a time that a test moves.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

var (
	expired = &faceid.Error{Class: faceid.Permanent, Code: "InvalidParameterValue.BizTokenExpired", Err: errors.New("the token expired")}
	arrears = &faceid.Error{Class: faceid.AccountTrouble, Code: "UnauthorizedOperation.Arrears", Err: errors.New("arrears")}
)

// parked waits until so many results are parked.
func (b *bench) parked(want int) {
	b.t.Helper()
	b.until(fmt.Sprintf("%d results are parked", want), func() bool {
		usage, err := b.parking.Usage(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		return usage.Results == want
	})
}

// A sink is down for longer than Tencent keeps a result: what was pulled meanwhile
// is delivered all the same, from parking.
func TestSinkDownForTheWholeRetention(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var now clock
	b.cfg.Now = now.now
	var up atomic.Bool
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("connection refused")
	}
	var tokens []string
	for i := range 20 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i))
	}
	b.publish(tokens...)
	b.start()
	b.parked(len(tokens))
	b.settled()
	b.halt()
	now.advance(80 * time.Hour)
	var asked atomic.Int64
	b.api.answer = func(context.Context, string, int) error {
		asked.Add(1)
		return expired
	}
	b.start()
	// A second event of a parked token costs no call either.
	b.raw("faceid.completed.main.enhanced", `{"token":"T-0","rule_id":"1"}`)
	b.settled()
	up.Store(true)
	b.until("all are recorded and told", func() bool {
		return !slices.ContainsFunc(tokens, func(token string) bool { return !b.notify.has(token) })
	})
	b.parked(0)
	if len(b.dead()) != 0 || asked.Load() != 0 {
		t.Errorf("%d dead letters, %d calls", len(b.dead()), asked.Load())
	}
	for _, token := range tokens {
		if b.api.count(token) != 1 || b.archive.count(token) != 1 {
			t.Errorf("%s: pulled %d times, archived %d times", token, b.api.count(token), b.archive.count(token))
		}
	}
	if got := b.record.seen["T-0"].Assets[0].Stored; len(got) != 1 || got[0].Location == "" {
		t.Errorf("the receipt was lost on the way: %+v", got)
	}
	// The second event of the parked token has its turn, too, before the worker stops.
	b.gone(event.ParkedStream)
}

// gone checks that a stream holds nothing any more.
func (b *bench) gone(name string) {
	b.t.Helper()
	b.until("stream "+name+" is empty", func() bool {
		stream, err := b.js.Stream(b.t.Context(), name)
		if err != nil {
			b.t.Fatal(err)
		}
		return stream.CachedInfo().State.Msgs == 0
	})
}

// The bytes that come from parking are those that went in.
func TestParkedBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var up atomic.Bool
	var bodies sync.Map
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("connection refused")
	}
	reader := &contentSink{sink: &sink{name: "reader"}, up: &up, bodies: &bodies}
	b.more = []sinks.Sink{reader}
	b.publish("T-1")
	b.start()
	b.parked(1)
	up.Store(true)
	b.parked(0)
	if body, _ := bodies.Load("T-1"); body != "\xff\xd8\xff\xe0T-1" {
		t.Errorf("got %q", body)
	}
}

// contentSink reads every asset.
type contentSink struct {
	*sink
	up     *atomic.Bool
	bodies *sync.Map
}

func (s *contentSink) Archive(_ context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if !s.up.Load() {
		return nil, errors.New("connection refused")
	}
	content, err := r.Assets[0].Content.Open()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(content)
	s.bodies.Store(r.Token, string(body))
	return []sinks.Receipt{{Sink: s.name, Field: r.Assets[0].Field}}, errors.Join(err, content.Close())
}

// What a sink refuses is kept, so that it can be retried when the sink is mended,
// whatever the API says by then.
func TestRefusedResultsCanBeRetried(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mended atomic.Bool
	b.record.fail = func(string, int) error {
		if mended.Load() {
			return nil
		}
		return sinks.Permanent(errors.New("too large for a row"))
	}
	b.publish("T-1")
	b.start()
	b.until("there is a dead letter", func() bool { return len(b.dead()) == 1 })
	b.api.answer = func(context.Context, string, int) error { return expired }
	retry := func() {
		t.Helper()
		if err := b.publisher.Retry(t.Context(), b.dead()[0]); err != nil {
			t.Fatal(err)
		}
	}
	retry()
	b.until("it is refused again", func() bool {
		letters := b.dead()
		return len(letters) == 1 && len(letters[0].History) == 1
	})
	if l := b.dead()[0]; l.History[0].Reason != event.Refused || l.Attempts < 2 {
		t.Errorf("the letter has lost its history: %+v", l)
	}
	mended.Store(true)
	retry()
	b.until("it is recorded", func() bool { return b.notify.has("T-1") })
	b.parked(0)
	if n := b.api.count("T-1"); n != 1 {
		t.Errorf("pulled %d times", n)
	}
}

// Even the ledger may have forgotten that a result is parked.
func TestParkedResultOfAForgottenToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mended atomic.Bool
	b.record.fail = func(string, int) error {
		if mended.Load() {
			return nil
		}
		return sinks.Permanent(errors.New("too large for a row"))
	}
	b.publish("T-1")
	b.start()
	b.until("there is a dead letter", func() bool { return len(b.dead()) == 1 })
	kv, err := b.js.KeyValue(t.Context(), pipeline.LedgerBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Purge(t.Context(), "enhanced."+result.TokenHash(result.Enhanced, "T-1")); err != nil {
		t.Fatal(err)
	}
	mended.Store(true)
	b.api.answer = func(context.Context, string, int) error { return expired }
	if err := b.publisher.Retry(t.Context(), b.dead()[0]); err != nil {
		t.Fatal(err)
	}
	b.until("it is recorded", func() bool { return b.notify.has("T-1") })
	b.parked(0)
}

// A parking that fills up leaves its room to the results that are deleted first.
func TestParkingFillsUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.parkingConfig.Quota = 64 << 10
	var up atomic.Bool
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("connection refused")
	}
	b.api.size = 8 << 10
	var tokens []string
	for i := range 40 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i))
	}
	b.publish(tokens...)
	b.start()
	b.until("parking is more than half full", func() bool {
		usage, err := b.parking.Usage(t.Context())
		return err == nil && 2*usage.Bytes > usage.Quota
	})
	b.until("the worker says so", func() bool { return strings.Contains(b.log.String(), "it is pulled later") })
	usage, err := b.parking.Usage(t.Context())
	if err != nil || usage.Bytes > usage.Quota {
		t.Errorf("%+v, %v", usage, err)
	}
	// An event whose result goes soon is pulled and parked all the same.
	b.publishEvent(event.Event{Token: "SOON", RuleID: "1", IssuedAt: time.Now().Add(-71 * time.Hour)})
	b.until("it is pulled", func() bool { return b.api.count("SOON") > 0 })
	up.Store(true)
	b.until("all are recorded and told", func() bool {
		return !slices.ContainsFunc(append(tokens, "SOON"), func(token string) bool { return !b.notify.has(token) })
	})
	b.parked(0)
}

// One account in arrears, with a thousand events: nobody else notices, hardly a
// call is made, and when it is paid all of them are ingested.
func TestAccountInArrears(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.accounts = []string{"main", "other"}
	b.cfg.Retry.ProbeFirst, b.cfg.Retry.ProbeMax = 100*time.Millisecond, time.Second
	var paid atomic.Bool
	var refused, early atomic.Int64
	b.api.answer = func(_ context.Context, token string, _ int) error {
		if !strings.HasPrefix(token, "ARREARS") || paid.Load() {
			return nil
		}
		refused.Add(1)
		return arrears
	}
	const waiting = 1000
	for i := range waiting {
		b.publish(fmt.Sprintf("ARREARS-%d", i))
	}
	other := func(token string) time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := b.publisher.Publish(t.Context(), event.Live, "other", result.Enhanced, event.Event{Token: token, RuleID: "1"}, nil); err != nil {
			t.Fatal(err)
		}
		b.until(token+" is ingested", func() bool { return b.notify.has(token) })
		return time.Since(began)
	}
	latency := func(name string) time.Duration {
		t.Helper()
		var all []time.Duration
		for i := range 50 {
			all = append(all, other(fmt.Sprintf("%s-%d", name, i)))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.start()
	b.until("the account is paused", func() bool { return b.isPaused("main") })
	notes, err := replica.Notes(t.Context(), b.js)
	if err != nil || len(notes) != 1 || notes[0].Account != "main" || notes[0].Code != arrears.Code || !strings.Contains(notes[0].Text, "arrears") {
		t.Errorf("others are told %+v, %v", notes, err)
	}
	during := latency("DURING")
	if n := b.notify.total("ARREARS"); n != 0 {
		t.Errorf("%d were ingested while the account was in arrears", n)
	}
	early.Store(refused.Load())
	paid.Store(true)
	b.until("all are ingested", func() bool { return b.notify.total("ARREARS") == waiting })
	b.until("the account is not paused any more", func() bool { return !b.isPaused("main") })
	after := latency("AFTER")
	t.Logf("the other account's median latency: %s while 1000 events waited, %s afterwards; %d refused calls", during.Round(10*time.Microsecond), after.Round(10*time.Microsecond), early.Load())
	// The slots' first calls, and probes.
	if n := early.Load(); n > 200 {
		t.Errorf("%d calls were made for an account that is in arrears", n)
	}
	if len(b.dead()) != 0 {
		t.Errorf("dead letters: %+v", b.dead())
	}
	if notes, err := replica.Notes(t.Context(), b.js); err != nil || len(notes) != 0 {
		t.Errorf("the note was not taken back: %+v, %v", notes, err)
	}
}

func (b *bench) isPaused(account string) bool {
	b.t.Helper()
	for _, lane := range []event.Lane{event.Live, event.Backfill} {
		consumer, err := b.js.Consumer(b.t.Context(), event.Stream, event.ConsumerName(account, lane))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if !consumer.CachedInfo().Paused {
			return false
		}
	}
	return true
}

// The worker that pauses an account stops: the consumers go on, and another worker
// takes over.
func TestPausedAccountOutlivesItsWorker(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var paid atomic.Bool
	b.api.answer = func(context.Context, string, int) error {
		if paid.Load() {
			return nil
		}
		return arrears
	}
	b.publish("T-1", "T-2")
	b.start()
	b.until("the account is paused", func() bool { return b.isPaused("main") })
	b.halt()
	if b.isPaused("main") {
		t.Error("a worker that stops leaves the account paused")
	}
	paid.Store(true)
	b.start()
	b.until("both are ingested", func() bool { return b.notify.has("T-1") && b.notify.has("T-2") })
}

// Retries end by time and not by a count, also past those that make an event suspicious.
func TestRetriesDoNotEndByCount(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const failures = 200
	b.cfg.Retry.InPlace = 0
	b.cfg.Retry.RedeliverFirst, b.cfg.Retry.RedeliverMax = time.Millisecond, time.Millisecond
	b.api.answer = func(_ context.Context, _ string, n int) error {
		if n <= failures {
			return &faceid.Error{Class: faceid.Transient, Err: errors.New("reset")}
		}
		return nil
	}
	b.publish("T-1")
	b.start()
	b.until("it is ingested", func() bool { return b.notify.has("T-1") })
	b.idle()
	if len(b.dead()) != 0 || b.api.count("T-1") != failures+1 {
		t.Errorf("pulled %d times, %d dead letters", b.api.count("T-1"), len(b.dead()))
	}
}

// noneHeld waits until no event is in work or waits.
func (b *bench) noneHeld() {
	b.t.Helper()
	b.until("no event is open", func() bool {
		status, err := pipeline.ReadStatus(b.t.Context(), b.js, b.accounts)
		if err != nil {
			b.t.Fatal(err)
		}
		return !slices.ContainsFunc(status.Lanes, func(l pipeline.LaneStatus) bool { return l.Held > 0 || l.Waiting > 0 })
	})
}

// crashing delivers the only event so often without a word about it, as workers that
// die of it do. All but the last are handed back, which is faster. A worker that is
// started waits for the last one's ack wait.
func (b *bench) crashing(deliveries int) {
	b.t.Helper()
	b.cfg.AckWait = time.Second
	consumer, err := event.EnsureConsumer(b.t.Context(), b.js, "main", event.Live, 20*time.Millisecond)
	if err != nil {
		b.t.Fatal(err)
	}
	for n := range deliveries {
		msg, err := consumer.Next()
		if err == nil && n < deliveries-1 {
			err = msg.Nak()
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// last returns the latest message of a stream, and the past of its event.
func (b *bench) last(name string) (*jetstream.RawStreamMsg, event.Past) {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	msg, err := stream.GetMsg(b.t.Context(), stream.CachedInfo().State.LastSeq)
	if err != nil {
		b.t.Fatal(err)
	}
	return msg, event.PastOf(event.Place{Sequence: msg.Sequence, Time: msg.Time}, msg.Header)
}

// limit bounds the messages of a stream; -1 lifts that.
func (b *bench) limit(name string, messages int64) {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs = messages
	if _, err := b.js.UpdateStream(b.t.Context(), cfg); err != nil {
		b.t.Fatal(err)
	}
}

// An event that ends worker after worker becomes a dead letter, and can be retried. It
// is not given up as long as the workers may have died of something else.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	const subject, body = "faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`
	for _, tt := range []struct {
		name       string
		deliveries int
	}{
		{"a worker lives long enough to see the count", 20},
		{"only the server sees it", event.MaxDeliveries},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.publish("T-1")
			b.crashing(tt.deliveries)
			b.start()
			b.until("it is tried once more", func() bool { return b.notify.has("T-1") })
			b.gone(event.AdvisoryStream)
			b.settled()
			b.halt()
			if len(b.dead()) != 0 {
				t.Errorf("given up at once: %+v", b.dead())
			}

			// The same for the third time in a row. What is left of the first is done.
			b = newBench(t)
			if err := b.publisher.Republish(t.Context(), subject, []byte(body), nil, event.Past{Attempts: 20, Crashes: 2}, "third"); err != nil {
				t.Fatal(err)
			}
			b.crashing(tt.deliveries)
			b.start()
			b.until("there is a dead letter", func() bool { return len(b.dead()) == 1 })
			l := b.dead()[0]
			if l.Reason != event.Crashed || l.Attempts < 20+uint64(tt.deliveries) || l.Subject != subject || b.api.count("T-1") != 0 {
				t.Errorf("got %+v, pulled %d times", l, b.api.count("T-1"))
			}
			b.gone(event.AdvisoryStream)
			if err := b.publisher.Retry(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			b.until("it is ingested", func() bool { return b.notify.has("T-1") })
			b.noneHeld()
		})
	}
}

// Events that have to wait while their stream takes no new ones are tried on, however
// often: nothing says that they ended a worker.
func TestRetriesWhileTheStreamIsFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.InPlace = 0
	var calls atomic.Int64
	var mended atomic.Bool
	b.api.answer = func(context.Context, string, int) error {
		calls.Add(1)
		if mended.Load() {
			return nil
		}
		return &faceid.Error{Class: faceid.Transient, Err: errors.New("reset")}
	}
	b.publish("T-1")
	b.limit(event.Stream, 1)
	b.start()
	b.until("it was tried more often than is above suspicion", func() bool { return calls.Load() > 50 })
	b.limit(event.Stream, -1)
	b.until("it is put on the stream anew, and nothing is said against it", func() bool {
		msg, past := b.last(event.Stream)
		return msg.Sequence > 2 && past.Crashes == 0
	})
	mended.Store(true)
	b.until("it is ingested", func() bool { return b.notify.has("T-1") })
	b.settled()
	if len(b.dead()) != 0 {
		t.Errorf("given up: %+v", b.dead())
	}
}

// The same for dead letters that cannot be stored: they say why the event was given up.
func TestDeadLettersWhileTheirStreamIsFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.InPlace = 0
	var calls atomic.Int64
	b.api.answer = func(_ context.Context, token string, _ int) error {
		if token == "T-1" {
			calls.Add(1)
		}
		return &faceid.Error{Class: faceid.Permanent, Code: "InvalidParameter", Err: errors.New("no such token")}
	}
	b.publish("T-0")
	b.start()
	b.until("the first letter is stored", func() bool { return len(b.dead()) == 1 })
	b.limit(event.DeadStream, 1)
	b.publish("T-1")
	b.until("it was tried more often than is above suspicion", func() bool { return calls.Load() > 50 })
	b.limit(event.DeadStream, -1)
	b.until("the second letter is stored", func() bool { return len(b.dead()) == 2 })
	if l := b.dead()[1]; l.Reason != event.Rejected || l.Attempts <= 50 {
		t.Errorf("%+v", l)
	}
	b.noneHeld()
}

// What may end workers is kept apart from what was only held along with it, for a random
// time, which is short where the result goes soon.
func TestSuspectsAreKeptApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.Apart = 6 * time.Minute
	for _, left := range []time.Duration{70 * time.Hour, 20 * time.Minute} {
		began := time.Now()
		b.publishEvent(event.Event{Token: "T-" + left.String(), RuleID: "1", IssuedAt: began.Add(left - 72*time.Hour)})
		first, _ := b.last(event.Stream)
		b.crashing(12)
		b.start()
		b.until("it is put on the stream anew", func() bool { msg, _ := b.last(event.Stream); return msg.Sequence > first.Sequence })
		_, past := b.last(event.Stream)
		if most := min(b.cfg.Retry.Apart, left/4); past.Crashes != 1 || past.NotBefore.Before(began) || past.NotBefore.After(time.Now().Add(most)) {
			t.Errorf("%s left: %+v", left, past)
		}
		b.halt()
		stream, err := b.js.Stream(t.Context(), event.Stream)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A worker that can say what becomes of an event takes the suspicion from it at once.
func TestSuspicionEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.InPlace = 0
	var mended atomic.Bool
	b.api.answer = func(context.Context, string, int) error {
		if mended.Load() {
			return nil
		}
		return &faceid.Error{Class: faceid.Transient, Err: errors.New("reset")}
	}
	if err := b.publisher.Republish(t.Context(), "faceid.completed.main.enhanced", []byte(`{"token":"T-1","rule_id":"1"}`), nil, event.Past{First: time.Now(), Attempts: 22, Crashes: 2}, "third"); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.until("it is put on the stream anew", func() bool { msg, past := b.last(event.Stream); return msg.Sequence > 1 && past.Crashes == 0 })
	stream, err := b.js.Stream(t.Context(), event.Stream)
	if err != nil {
		t.Fatal(err)
	}
	second, err := stream.GetMsg(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if past := event.PastOf(event.Place{Sequence: 2, Time: second.Time}, second.Header); past.Attempts != 23 || past.Crashes != 0 {
		t.Errorf("after the first try: %+v", past)
	}
	mended.Store(true)
	b.until("it is ingested", func() bool { return b.notify.has("T-1") })
	b.noneHeld()
}

// An advisory that somebody made up moves nothing.
func TestForgedAdvisory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var paid atomic.Bool
	b.api.answer = func(context.Context, string, int) error {
		if paid.Load() {
			return nil
		}
		return arrears
	}
	b.publish("T-0")
	b.start()
	b.until("the account is paused", func() bool { return b.isPaused("main") })
	b.publish("T-1") // nobody is given it
	consumer := event.ConsumerName("main", event.Live)
	for _, forged := range []event.Advisory{
		{Stream: event.Stream, Consumer: consumer, Sequence: 2, Deliveries: event.MaxDeliveries},
		{Stream: event.Stream, Consumer: "nobody's", Sequence: 2, Deliveries: event.MaxDeliveries},
		{Stream: event.Stream, Consumer: consumer, Sequence: 7, Deliveries: event.MaxDeliveries},
		{Stream: event.DeadStream, Consumer: consumer, Sequence: 1, Deliveries: event.MaxDeliveries},
	} {
		body, err := json.Marshal(forged)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.js.Publish(t.Context(), "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."+event.Stream+"."+consumer, body); err != nil {
			t.Fatal(err)
		}
	}
	b.gone(event.AdvisoryStream)
	if msg, past := b.last(event.Stream); msg.Sequence != 2 || past.Crashes != 0 || len(b.dead()) != 0 {
		t.Errorf("the last message is %d, %+v; dead letters: %+v", msg.Sequence, past, b.dead())
	}
	paid.Store(true)
	b.until("both are ingested", func() bool { return b.notify.has("T-0") && b.notify.has("T-1") })
}

// A machine that is refused alone does not keep what is urgent from the others, to try
// the account with.
func TestUrgentEventsLeaveARefusedMachine(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.ProbeFirst, b.cfg.Retry.ProbeMax = time.Second, time.Hour
	healthy := b.api
	refused := &api{answer: func(context.Context, string, int) error {
		return &faceid.Error{Class: faceid.AccountTrouble, Code: "AuthFailure.SignatureExpire", Err: errors.New("clock")}
	}}
	b.start()
	defer b.stop()
	b.api = refused
	b.start()
	for i := range 50 {
		b.publishEvent(event.Event{Token: fmt.Sprintf("SOON-%d", i), RuleID: "1", IssuedAt: time.Now().Add(5*time.Hour - 72*time.Hour)})
	}
	b.until("all are ingested", func() bool { return b.notify.total("SOON") == 50 })
	t.Logf("the refused one tried %d of them, the other one %d", refused.total(), healthy.total())
}

// What is wrong with one machine stops that one, and the others do its work.
func TestTroubleOfOneMachine(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	wrongClock := &faceid.Error{Class: faceid.AccountTrouble, Code: "AuthFailure.SignatureExpire", Err: errors.New("clock")}
	refused := &api{answer: func(context.Context, string, int) error { return wrongClock }}
	healthy := b.api
	b.api = refused
	b.start()
	defer b.stop()
	notes := func() []replica.Note {
		t.Helper()
		list, err := replica.Notes(t.Context(), b.js)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	b.publish("T-0")
	b.until("one alone pauses the account", func() bool { return b.isPaused("main") && len(notes()) == 1 })
	b.api = healthy
	b.start()
	b.until("the newcomer is not paused along", func() bool { return !b.isPaused("main") })
	var tokens []string
	for i := range 50 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i+1))
	}
	b.publish(tokens...)
	b.until("the healthy one does all the work, that of the other's hands, too", func() bool { return b.notify.total("T-") == 1+len(tokens) })
	if b.isPaused("main") || len(b.dead()) != 0 {
		t.Errorf("paused for all: %t, dead letters: %+v", b.isPaused("main"), b.dead())
	}
}

// Backfill that waits in a worker until its deadline is near goes before live events.
func TestHeldBackfillBecomesUrgent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Slots = 1
	var now clock
	b.cfg.Now = now.now
	var mu sync.Mutex
	var order []string
	turn := make(chan struct{})
	b.api.answer = func(ctx context.Context, token string, _ int) error {
		mu.Lock()
		order = append(order, token)
		mu.Unlock()
		select {
		case <-turn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	pulled := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(order)
	}
	b.publish("LIVE-0")
	b.start()
	b.until("the slot is taken", func() bool { return pulled() == 1 })
	b.publish("LIVE-1")
	old := event.Event{Token: "OLD", RuleID: "1", IssuedAt: time.Now().Add(-3 * time.Hour)}
	if _, err := b.publisher.Publish(t.Context(), event.Backfill, "main", result.Enhanced, old, nil); err != nil {
		t.Fatal(err)
	}
	b.until("both wait for the slot", func() bool { return b.worker.Queued("main") == 2 })
	now.advance(66 * time.Hour)
	close(turn)
	b.until("all are ingested", func() bool { return b.notify.total("") == 3 })
	b.noneHeld()
	if order[1] != "OLD" {
		t.Errorf("pulled in the order %v", order)
	}
}

// The ledger remembers what a parked result is still needed for as long as it waits.
func TestLedgerOfParkedResultsIsKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var now clock
	b.cfg.Now = now.now
	b.cfg.Retry.ProbeFirst, b.cfg.Retry.ProbeMax = 100*time.Hour, 100*time.Hour
	var up atomic.Bool
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("connection refused")
	}
	b.publish("T-1", "T-2", "T-3")
	b.start()
	b.parked(3)
	b.settled()
	written := func() map[string]uint64 {
		t.Helper()
		kv, err := b.js.KeyValue(t.Context(), pipeline.LedgerBucket)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := kv.Keys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		revisions := map[string]uint64{}
		for _, key := range keys {
			entry, err := kv.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			revisions[key] = entry.Revision()
		}
		return revisions
	}
	before := written()
	tried := b.record.count("T-1") + b.record.count("T-2") + b.record.count("T-3")
	now.advance(25 * time.Hour)
	b.until("all entries are renewed", func() bool {
		for key, revision := range written() {
			if revision == before[key] {
				return false
			}
		}
		return true
	})
	if n := b.record.count("T-1") + b.record.count("T-2") + b.record.count("T-3"); n != tried {
		t.Errorf("the sink was tried %d times meanwhile", n-tried)
	}
	up.Store(true)
	now.advance(100 * time.Hour)
	b.idle()
}

// An event that asks for all to be done once more is open until that is done, whatever
// was done before.
func TestDeadlineOfAnAgainEvent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("T-1")
	b.start()
	b.settled()
	var mended atomic.Bool
	b.api.answer = func(context.Context, string, int) error {
		if mended.Load() {
			return nil
		}
		return &faceid.Error{Class: faceid.Transient, Err: errors.New("reset")}
	}
	again := event.Event{Token: "T-1", RuleID: "1", IssuedAt: time.Now().Add(5*time.Hour - 72*time.Hour)}
	if err := b.publisher.PublishAgain(t.Context(), event.Live, "main", result.Enhanced, again, nil); err != nil {
		t.Fatal(err)
	}
	b.until("it was tried", func() bool { return b.api.count("T-1") > 1 })
	status, err := pipeline.ReadStatus(t.Context(), b.js, b.accounts)
	if err != nil || len(status.Deadlines) != 1 || status.Deadlines[0].Token != "T-1" {
		t.Errorf("%+v, %v", status.Deadlines, err)
	}
	b.halt()
	b.start()
	b.until("it is warned of", func() bool { return strings.Contains(b.log.String(), "deleted by Tencent within 6h") })
	mended.Store(true)
	b.until("it is ingested again", func() bool { return b.notify.count("T-1") == 2 })
	b.settled()
}

// An event that asks for all to be done once more and is put on the stream anew, of which
// both messages are left: that is done once.
func TestAgainIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("T-1")
	b.start()
	b.settled()
	b.halt()
	if err := b.publisher.PublishAgain(t.Context(), event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	msg, past := b.last(event.Stream)
	if past.Again.Sequence != msg.Sequence {
		t.Errorf("%+v", past)
	}
	b.start()
	b.settled()
	if err := b.publisher.Republish(t.Context(), msg.Subject, msg.Data, msg.Header, past, "anew"); err != nil {
		t.Fatal(err)
	}
	b.settled()
	if n := b.notify.count("T-1"); n != 2 {
		t.Errorf("told %d times", n)
	}
}

// The server's clock is set back: an event that asks for all to be done once more is not
// taken for an earlier one.
func TestAgainAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("T-1")
	b.start()
	b.settled()
	kv, err := b.js.KeyValue(t.Context(), pipeline.LedgerBucket)
	if err != nil {
		t.Fatal(err)
	}
	key := "enhanced." + result.TokenHash(result.Enhanced, "T-1")
	stored, err := kv.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	var entry map[string]any
	if err := json.Unmarshal(stored.Value(), &entry); err != nil {
		t.Fatal(err)
	}
	entry["published"] = time.Now().Add(time.Hour)
	text, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), key, text); err != nil {
		t.Fatal(err)
	}
	if err := b.publisher.PublishAgain(t.Context(), event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	b.until("it is ingested again", func() bool { return b.notify.count("T-1") == 2 })
	b.settled()
}

// With a backlog, what is deleted first is pulled first, wherever it lies.
func TestNearestDeadlineFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Slots = 1
	var mu sync.Mutex
	var order []string
	looked := make(chan struct{})
	b.api.answer = func(ctx context.Context, token string, _ int) error {
		mu.Lock()
		order = append(order, token)
		mu.Unlock()
		select {
		case <-looked:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	const backlog = 300
	for i := range backlog {
		b.publish(fmt.Sprintf("T-%d", i))
	}
	for i, left := range []time.Duration{5 * time.Hour, 3 * time.Hour, 4 * time.Hour} {
		b.publishEvent(event.Event{Token: fmt.Sprintf("SOON-%d", i), RuleID: "1", IssuedAt: time.Now().Add(left - 72*time.Hour)})
	}
	b.start()
	// However long the worker takes to find out what is deleted first.
	b.until("one is in work, the next one waits, and one of those that are deleted first", func() bool { return b.worker.Queued("main") == 2 })
	close(looked)
	b.until("all are ingested", func() bool { return b.notify.total("") == backlog+3 })
	b.idle()
	mu.Lock()
	defer mu.Unlock()
	var places []int
	for _, token := range []string{"SOON-1", "SOON-2", "SOON-0"} {
		places = append(places, slices.Index(order, token))
	}
	if !slices.IsSorted(places) || places[2] > backlog/2 {
		t.Errorf("pulled at places %v of %d", places, len(order))
	}
	if len(order) != backlog+3 {
		t.Errorf("pulled %d times for %d events", len(order), backlog+3)
	}
	for _, want := range []string{"deleted by Tencent within 6h", "events=3", "token=SOON-1"} {
		if !strings.Contains(b.log.String(), want) {
			t.Errorf("the log does not warn: %q is missing", want)
		}
	}
}

// Two workers on one stream share the work and do nothing twice.
func TestTwoWorkers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var tokens []string
	for i := range 200 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i))
	}
	b.start()
	first := b.stop
	b.start()
	defer first()
	b.publish(tokens...)
	b.idle()
	for _, token := range tokens {
		if b.api.count(token) != 1 || b.notify.count(token) != 1 {
			t.Errorf("%s: pulled %d times, told %d times", token, b.api.count(token), b.notify.count(token))
		}
	}
}

// The sum of what two events of one token did at the same time is in the ledger.
func TestTwoEventsOfOneTokenAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for range 8 {
		b.raw("faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`)
	}
	b.start()
	b.idle()
	calls := b.api.count("T-1")
	b.raw("faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`)
	b.idle()
	if b.api.count("T-1") != calls {
		t.Error("the ledger does not know what was done")
	}
}
