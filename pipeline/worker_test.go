package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick are waits that tests can afford. The ack wait is none of them: on a busy machine
// a short one would pass, and events come a second time.
func quick() pipeline.Config {
	cfg := pipeline.DefaultConfig()
	cfg.Slots = 4
	cfg.ShutdownGrace = 10 * time.Second
	cfg.Retry = pipeline.Retry{
		InPlaceFirst: time.Millisecond, InPlaceMax: 2 * time.Millisecond, InPlace: 10 * time.Millisecond,
		RedeliverFirst: 10 * time.Millisecond, RedeliverMax: 20 * time.Millisecond,
		ProbeFirst: 5 * time.Millisecond, ProbeMax: 20 * time.Millisecond,
		Apart: 20 * time.Millisecond,
	}
	return cfg
}

// api is the edge to Tencent: a Puller whose answers a test chooses.
type api struct {
	mu    sync.Mutex
	calls map[string]int
	// answer says what becomes of the n-th call for a token; nil means a result.
	answer func(ctx context.Context, token string, n int) error
	// verdict is that of the results; zero is a failed check of no code.
	verdict func(token string) result.Verdict
	// varies gives every answer other bytes.
	varies bool
	// size is that of the medium, at least.
	size int
}

func (a *api) Get(ctx context.Context, q faceid.Query, batch *spool.Batch) (*result.Result, error) {
	a.mu.Lock()
	if a.calls == nil {
		a.calls = map[string]int{}
	}
	a.calls[q.Token]++
	n := a.calls[q.Token]
	a.mu.Unlock()
	if a.answer != nil {
		if err := a.answer(ctx, q.Token, n); err != nil {
			return nil, err
		}
	}
	w := batch.Create(ctx)
	body := "\xff\xd8\xff\xe0" + q.Token
	if a.varies {
		body += fmt.Sprint(n)
	}
	body += strings.Repeat("x", max(0, a.size-len(body)))
	if _, err := w.Write([]byte(body)); err != nil {
		return nil, err
	}
	item, err := w.Finish()
	if err != nil {
		return nil, err
	}
	var verdict result.Verdict
	if a.verdict != nil {
		verdict = a.verdict(q.Token)
	}
	return &result.Result{
		Product: q.Product, Account: "main", Token: q.Token, RuleID: q.RuleID, Verdict: verdict,
		Assets: []result.Asset{{Field: "BestFrame.BestFrame", Kind: result.Image, Content: item, Digest: item.Digest()}},
	}, nil
}

func (a *api) count(token string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[token]
}

// total is how many tokens it was asked for.
func (a *api) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.calls)
}

// sink is the edge to the owner's storage. It counts what it was given, and
// fails when fail says so.
type sink struct {
	name string
	fail func(token string, n int) error
	// early lets it record what no archive has yet.
	early bool

	mu    sync.Mutex
	calls map[string]int
	seen  map[string]*result.Result
}

func (s *sink) Name() string                { return s.name }
func (s *sink) Check(context.Context) error { return nil }
func (s *sink) Close(context.Context) error { return nil }

func (s *sink) take(ctx context.Context, r *result.Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls, s.seen = map[string]int{}, map[string]*result.Result{}
	}
	s.calls[r.Token]++
	if s.fail != nil {
		if err := s.fail(r.Token, s.calls[r.Token]); err != nil {
			return err
		}
	}
	s.seen[r.Token] = r
	return ctx.Err()
}

func (s *sink) count(token string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[token]
}

func (s *sink) has(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[token] != nil
}

// total is how many tokens with a prefix it has.
func (s *sink) total(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for token := range s.seen {
		if strings.HasPrefix(token, prefix) {
			n++
		}
	}
	return n
}

type archive struct{ *sink }

func (a archive) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if err := a.take(ctx, r); err != nil {
		return nil, err
	}
	receipts := make([]sinks.Receipt, len(r.Assets))
	for i, asset := range r.Assets {
		receipts[i] = sinks.Receipt{Sink: a.name, Field: asset.Field, Location: a.name + "/" + r.TokenHash(), Size: -1}
	}
	return receipts, nil
}

type record struct{ *sink }

func (s record) Record(ctx context.Context, r *result.Result) error {
	for _, a := range r.Assets {
		missing := slices.ContainsFunc(r.Missing, func(m result.Missing) bool { return m.Field == a.Field })
		if len(a.Stored) == 0 && !missing && !s.early {
			return sinks.Permanent(errors.New("recorded before it was archived"))
		}
	}
	return s.take(ctx, r)
}

type notify struct{ *sink }

func (s notify) Notify(ctx context.Context, r *result.Result) error { return s.take(ctx, r) }

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// bench is a worker with everything around it.
type bench struct {
	t         *testing.T
	cfg       pipeline.Config
	accounts  []string
	js        jetstream.JetStream
	publisher *event.Publisher
	spool     *spool.Spool
	policy    *privacy.Policy
	parking   *parking.Store
	api       *api
	archive   *sink
	record    *sink
	notify    *sink
	// before and more are sinks beside those three.
	before, more []sinks.Sink
	tracing      trace.TracerProvider
	metrics      *telemetry.Metrics
	log          lockedBuffer
	// worker is the last that was started. cancel tells it to stop, stop waits for that, too.
	worker *pipeline.Worker
	cancel context.CancelFunc
	stop   func()

	parkingConfig parking.Config
}

// startNATS starts a server and returns its URL. Unlike the embedded one it does not wait
// for the disk at every message: no test takes its power away.
func startNATS(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s.ClientURL()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	conn, err := broker.Connect(t.Context(), broker.Config{URL: startNATS(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	media, err := spool.Open(spool.Config{Dir: t.TempDir(), MemoryLimit: 1 << 20, Quota: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := privacy.CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{
		policy: policy, parkingConfig: parking.Config{Replicas: 1, Quota: 1 << 30},
		metrics: telemetry.New(),
		t:       t, cfg: quick(), accounts: []string{"main"}, js: conn.JS, publisher: event.NewPublisher(conn.JS), spool: media, api: &api{},
		archive: &sink{name: "media"}, record: &sink{name: "records"}, notify: &sink{name: "next"},
	}
	t.Cleanup(func() {
		b.halt()
		if err := errors.Join(media.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	if err := event.EnsureStreams(t.Context(), conn.JS, 1); err != nil {
		t.Fatal(err)
	}
	return b
}

// start runs a worker until halt or the end of the test.
func (b *bench) start() {
	b.t.Helper()
	var accounts []pipeline.Account
	for _, name := range b.accounts {
		accounts = append(accounts, pipeline.Account{Name: name, Client: b.api})
	}
	var err error
	if b.parking, err = parking.Open(b.t.Context(), b.js, b.parkingConfig, b.policy); err != nil {
		b.t.Fatal(err)
	}
	w, err := pipeline.New(b.cfg, pipeline.Deps{
		JetStream: b.js,
		Parking:   b.parking,
		Accounts:  accounts,
		Sinks:     slices.Concat(b.before, []sinks.Sink{archive{b.archive}, record{b.record}, notify{b.notify}}, b.more),
		Spool:     b.spool,
		Metrics:   b.metrics,
		Tracing:   b.tracing,
		Log:       slog.New(telemetry.WithTrace(slog.NewTextHandler(&b.log, nil))),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.worker, b.cancel = w, cancel
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run returned %v", err)
		}
		if used := b.spool.Usage(); used.Batches != 0 || used.Bytes != 0 {
			b.t.Errorf("the spool still holds %+v", used)
		}
	})
}

func (b *bench) halt() {
	if b.stop != nil {
		b.stop()
	}
}

func (b *bench) publish(tokens ...string) {
	b.t.Helper()
	for _, token := range tokens {
		b.publishEvent(event.Event{Token: token, RuleID: "1"})
	}
}

func (b *bench) publishEvent(e event.Event) {
	b.t.Helper()
	if _, err := b.publisher.Publish(b.t.Context(), event.Live, "main", result.Enhanced, e, nil); err != nil {
		b.t.Fatal(err)
	}
}

// raw publishes a body that is not an event.
func (b *bench) raw(subject, body string) {
	b.t.Helper()
	if _, err := b.js.Publish(b.t.Context(), subject, []byte(body)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Minute)
	defer cancel()
	for {
		began := time.Now()
		if ok() {
			return
		}
		// To look must not keep what is waited for from the processor.
		pause := time.NewTimer(max(2*time.Millisecond, 4*time.Since(began)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			b.t.Fatalf("never: %s", what)
		}
	}
}

// idle waits until every event published so far is settled, those of parked results
// too.
func (b *bench) idle() {
	b.t.Helper()
	b.settled()
	b.gone(event.ParkedStream)
}

// settled waits until every event published so far is ingested, parked or dead.
func (b *bench) settled() {
	b.t.Helper()
	stream, err := b.js.Stream(b.t.Context(), event.Stream)
	if err != nil {
		b.t.Fatal(err)
	}
	last := stream.CachedInfo().State.LastSeq
	b.until("all events are settled", func() bool {
		consumer, err := stream.Consumer(b.t.Context(), event.ConsumerName("main", event.Live))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false
		}
		if err != nil {
			b.t.Fatal(err)
		}
		return consumer.CachedInfo().AckFloor.Stream >= last
	})
}

// requests returns how many requests for live events are open at the server.
func (b *bench) requests() int {
	b.t.Helper()
	consumer, err := b.js.Consumer(b.t.Context(), event.Stream, event.ConsumerName("main", event.Live))
	if err != nil {
		b.t.Fatal(err)
	}
	return consumer.CachedInfo().NumWaiting
}

func (b *bench) dead() []event.DeadLetter {
	b.t.Helper()
	var letters []event.DeadLetter
	err := event.ReadDeadLetters(b.t.Context(), b.js, func(l event.DeadLetter) error {
		letters = append(letters, l)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return letters
}

func TestEveryEventReachesEverySinkOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var tokens []string
	for i := range 50 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i))
	}
	b.publish(tokens...)
	b.start()
	b.idle()
	for _, token := range tokens {
		if b.api.count(token) != 1 || b.archive.count(token) != 1 || b.record.count(token) != 1 || b.notify.count(token) != 1 {
			t.Errorf("%s: pulled %d, archived %d, recorded %d, notified %d times", token,
				b.api.count(token), b.archive.count(token), b.record.count(token), b.notify.count(token))
		}
	}
	b.halt()
	r := b.record.seen["T-0"]
	if got := r.Assets[0].Stored; len(got) != 1 || got[0].Sink != "media" {
		t.Errorf("the record sink saw receipts %v", got)
	}
}

func TestFaultsThatPass(t *testing.T) {
	t.Parallel()
	transient := &faceid.Error{Class: faceid.Transient, Err: errors.New("reset")}
	tests := []struct {
		name string
		set  func(b *bench)
	}{
		{"the API is down for longer than tries in place last", func(b *bench) {
			b.api.answer = func(_ context.Context, _ string, n int) error {
				if n < 60 {
					return transient
				}
				return nil
			}
		}},
		{"the check is not finished yet", func(b *bench) {
			b.api.answer = func(_ context.Context, _ string, n int) error {
				if n < 4 {
					return &faceid.Error{Class: faceid.NotReady, Err: faceid.ErrNotFinished}
				}
				return nil
			}
		}},
		{"the account is in arrears for a while", func(b *bench) {
			b.api.answer = func(_ context.Context, _ string, n int) error {
				if n < 4 {
					return &faceid.Error{Class: faceid.AccountTrouble, Code: "UnauthorizedOperation.Arrears", Err: errors.New("arrears")}
				}
				return nil
			}
		}},
		{"the answer makes the worker panic once", func(b *bench) {
			b.api.answer = func(_ context.Context, _ string, n int) error {
				if n == 1 {
					panic("SECRET")
				}
				return nil
			}
		}},
		{"the record sink is down for longer than tries in place last", func(b *bench) {
			b.record.fail = func(_ string, n int) error {
				if n < 60 {
					return errors.New("connection refused")
				}
				return nil
			}
		}},
		{"the notify sink is throttled", func(b *bench) {
			b.notify.fail = func(_ string, n int) error {
				if n == 1 {
					return sinks.Throttled(errors.New("429"), time.Millisecond)
				}
				return nil
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			tt.set(b)
			b.publish("T-1")
			b.start()
			b.until("the event is ingested", func() bool { return b.notify.has("T-1") })
			b.idle()
			if letters := b.dead(); len(letters) != 0 {
				t.Errorf("dead letters: %+v", letters)
			}
			if strings.Contains(b.log.String(), "SECRET") {
				t.Error("the log holds the value of a panic")
			}
		})
	}
}

// A sink that fails is tried again alone: what the others did is not repeated
// while tries in place last.
func TestOneSinksFaultDoesNotRepeatAnothers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retry.InPlace = 20 * time.Second
	b.record.fail = func(_ string, n int) error {
		if n < 5 {
			return errors.New("locked")
		}
		return nil
	}
	b.publish("T-1")
	b.start()
	b.idle()
	if b.archive.count("T-1") != 1 || b.record.count("T-1") != 5 || b.notify.count("T-1") != 1 {
		t.Errorf("archived %d, recorded %d, notified %d times", b.archive.count("T-1"), b.record.count("T-1"), b.notify.count("T-1"))
	}
}

// The same over redeliveries: the ledger remembers what was done, and with which
// receipts.
func TestLedgerSparesSinksOverRedeliveries(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.notify.fail = func(_ string, n int) error {
		if n < 20 {
			return errors.New("no route")
		}
		return nil
	}
	b.publish("T-1")
	b.start()
	b.idle()
	if b.archive.count("T-1") != 1 || b.record.count("T-1") != 1 || b.notify.count("T-1") != 20 || b.api.count("T-1") != 1 {
		t.Errorf("pulled %d, archived %d, recorded %d, notified %d times",
			b.api.count("T-1"), b.archive.count("T-1"), b.record.count("T-1"), b.notify.count("T-1"))
	}
	if stored := b.notify.seen["T-1"].Assets[0].Stored; len(stored) != 1 || stored[0].Location == "" {
		t.Errorf("the receipt is lost: %+v", stored)
	}
}

// An answer that differs from the one sinks were given before is for all of them.
func TestLedgerForgetsAnotherAnswer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.api.varies = true
	b.cfg.Retry.InPlace = 0
	b.parkingConfig.Quota = 1 // nothing fits, so that the API is asked again
	b.record.fail = func(string, int) error {
		if b.api.count("T-1") < 3 {
			return errors.New("locked")
		}
		return nil
	}
	b.publish("T-1")
	b.start()
	b.idle()
	if b.archive.count("T-1") != 3 {
		t.Errorf("archived %d times for 3 different answers", b.archive.count("T-1"))
	}
}

// A second event of a token costs nothing, unless it asks for all of it again.
func TestKnownTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("T-1")
	b.start()
	b.idle()
	b.raw("faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`)
	b.idle()
	if n := b.api.count("T-1"); n != 1 {
		t.Errorf("pulled %d times", n)
	}
	again := func() {
		t.Helper()
		if err := b.publisher.PublishAgain(t.Context(), event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, nil); err != nil {
			t.Fatal(err)
		}
		b.idle()
	}
	again()
	if b.api.count("T-1") != 2 || b.archive.count("T-1") != 2 || b.notify.count("T-1") != 2 {
		t.Errorf("asked for again: pulled %d times", b.api.count("T-1"))
	}
	// Also of a stream that was lost and made anew, whose numbers begin again.
	if err := b.js.DeleteStream(t.Context(), event.Stream); err != nil {
		t.Fatal(err)
	}
	b.halt()
	if err := event.EnsureStreams(t.Context(), b.js, 1); err != nil {
		t.Fatal(err)
	}
	b.start()
	again()
	if b.api.count("T-1") != 3 || b.archive.count("T-1") != 3 {
		t.Errorf("asked for again in a new stream: pulled %d times", b.api.count("T-1"))
	}
	// Somebody else's entry is no reason to do nothing.
	kv, err := b.js.KeyValue(t.Context(), pipeline.LedgerBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "enhanced."+result.TokenHash(result.Enhanced, "T-1"), "{}"); err != nil {
		t.Fatal(err)
	}
	b.raw("faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`)
	b.idle()
	if b.api.count("T-1") != 4 {
		t.Errorf("beside a damaged entry: pulled %d times", b.api.count("T-1"))
	}
	// And neither is that of a configuration with fewer sinks.
	b.halt()
	later := &sink{name: "later"}
	b.more = []sinks.Sink{archive{later}}
	b.start()
	b.raw("faceid.completed.main.enhanced", `{"token":"T-1","rule_id":"1"}`)
	b.idle()
	if later.count("T-1") != 1 || b.archive.count("T-1") != 4 || b.record.count("T-1") != 5 {
		t.Errorf("a new archive: it has %d, the old one %d, the record was written %d times", later.count("T-1"), b.archive.count("T-1"), b.record.count("T-1"))
	}
	if stored := b.record.seen["T-1"].Assets[0].Stored; len(stored) != 2 {
		t.Errorf("the record knows %d places", len(stored))
	}
}

// erasable is an archive that can erase.
type erasable struct {
	*sink
	failures int
	erased   []sinks.Key
}

func (e *erasable) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	return archive{e.sink}.Archive(ctx, r)
}

var _ sinks.Eraser = (*erasable)(nil)

func (e *erasable) Erase(_ context.Context, key sinks.Key, _ string) (sinks.Holding, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failures > 0 {
		e.failures--
		return sinks.Holding{}, errors.New("locked")
	}
	e.erased = append(e.erased, key)
	return sinks.Holding{Assets: 1}, nil
}

// An erased token ends its event, and later stages never see it.
func TestErasedTokens(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	// The erasure has not reached a first archive yet, and fails there once.
	first := &erasable{sink: &sink{name: "first"}, failures: 1}
	b.before = []sinks.Sink{first}
	b.archive.fail = func(string, int) error { return fmt.Errorf("archive: %w", sinks.ErrErased) }
	b.publish("T-1")
	b.start()
	b.idle()
	if first.count("T-1") != 2 || len(first.erased) != 1 || first.erased[0] != sinks.KeyOf(result.Enhanced, "T-1") {
		t.Errorf("what was stored a moment before is not erased: %d deliveries, %v", first.count("T-1"), first.erased)
	}
	if b.archive.count("T-1") != 2 || b.record.count("T-1") != 0 || len(b.dead()) != 0 {
		t.Errorf("archived %d, recorded %d times, %d dead", b.archive.count("T-1"), b.record.count("T-1"), len(b.dead()))
	}
}

// inTwentyMinutes is a clock by which an event just published is old enough to
// be given up.
func inTwentyMinutes() time.Time { return time.Now().Add(20 * time.Minute) }

// The clock or time zone of who published an event may be wrong.
func TestNoEventIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]*faceid.Error{
		"not finished": {Class: faceid.NotReady, Err: faceid.ErrNotFinished},
		"down":         {Class: faceid.Transient, Err: errors.New("down")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.api.answer = func(_ context.Context, _ string, n int) error {
				if n < 12 {
					return err
				}
				return nil
			}
			b.publishEvent(event.Event{Token: "T-1", RuleID: "1", IssuedAt: time.Now().Add(-1000 * time.Hour)})
			b.start()
			b.noneHeld()
			if !b.record.has("T-1") || len(b.dead()) != 0 {
				t.Errorf("recorded: %v, dead: %v", b.record.has("T-1"), b.dead())
			}
		})
	}
}

// One account whose calls hang holds nobody else, and a backfill that hangs
// leaves room for live events.
func TestSlotsAreNotShared(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hang := make(chan struct{})
	var hanging atomic.Int64
	b.api.answer = func(ctx context.Context, token string, _ int) error {
		if !strings.HasPrefix(token, "HANG") {
			return nil
		}
		hanging.Add(1)
		select {
		case <-hang:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.cfg.Slots = 4
	b.accounts = []string{"main", "other"}
	for i := range 20 {
		for account, lane := range map[string]event.Lane{"main": event.Live, "other": event.Backfill} {
			e := event.Event{Token: fmt.Sprintf("HANG-%s-%d", account, i), RuleID: "1"}
			if _, err := b.publisher.Publish(t.Context(), lane, account, result.Enhanced, e, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.start()
	b.until("all slots are taken", func() bool { return hanging.Load() == 4+3 })
	if _, err := b.publisher.Publish(t.Context(), event.Live, "other", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	b.until("the other account's live event is ingested", func() bool { return b.record.has("T-1") })
	close(hang)
}

// An event of an account that nobody has is not lost without a word.
func TestStrangersAreTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.raw("faceid.completed.mian.enhanced", `{"token":"T-1"}`)
	b.raw("faceid.parked.gone.enhanced", `{"token":"T-1"}`)
	b.start()
	b.until("the stranger is told", func() bool {
		return strings.Contains(b.log.String(), "nobody takes the events of an account that is not configured") && strings.Contains(b.log.String(), "account=mian events=1")
	})
	status, err := pipeline.ReadStatus(t.Context(), b.js, []string{"main"})
	if err != nil || status.Strangers["mian"] != 1 || status.Strangers["gone"] != 1 || len(status.Strangers) != 2 {
		t.Errorf("%+v, %v", status, err)
	}
}

// Somebody deletes the consumer under a running worker.
func TestDeletedConsumerIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish("T-1")
	b.start()
	b.until("an event is ingested", func() bool { return b.record.has("T-1") })
	if err := b.js.DeleteConsumer(t.Context(), event.Stream, event.ConsumerName("main", event.Live)); err != nil {
		t.Fatal(err)
	}
	b.publish("T-2")
	b.until("the next event is ingested", func() bool { return b.record.has("T-2") })
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	past := time.Now().Add(-100 * time.Hour)
	tests := []struct {
		name   string
		set    func(b *bench)
		reason event.Reason
		code   string
		detail string
	}{
		{"not JSON", func(b *bench) { b.raw("faceid.completed.main.enhanced", "SECRET") }, event.Malformed, "", "not a JSON object"},
		{"unknown product", func(b *bench) { b.raw("faceid.completed.main.nfc", `{"token":"T-1"}`) }, event.Malformed, "", "the subject is not"},
		{"no rule", func(b *bench) { b.publishEvent(event.Event{Token: "T-1"}) }, event.Malformed, "", "rule_id is missing"},
		{"token the API does not know", func(b *bench) {
			b.api.answer = func(context.Context, string, int) error {
				return &faceid.Error{Class: faceid.Permanent, Code: "InvalidParameterValue.BizTokenIllegal", Err: errors.New("unknown token")}
			}
			b.publish("T-1")
		}, event.Rejected, "InvalidParameterValue.BizTokenIllegal", "unknown token"},
		{"never finished", func(b *bench) {
			b.api.answer = func(context.Context, string, int) error {
				return &faceid.Error{Class: faceid.NotReady, Err: faceid.ErrNotFinished}
			}
			b.publishEvent(event.Event{Token: "T-1", RuleID: "1", IssuedAt: time.Now().Add(-3 * time.Hour)})
			b.cfg.Now = inTwentyMinutes
		}, event.Unfinished, "not_ready", "not finished"},
		{"too late", func(b *bench) {
			b.api.answer = func(context.Context, string, int) error {
				return &faceid.Error{Class: faceid.Transient, Code: "InternalError", Err: errors.New("down")}
			}
			b.publishEvent(event.Event{Token: "T-1", RuleID: "1", IssuedAt: past})
			b.cfg.Now = inTwentyMinutes
		}, event.Expired, "InternalError", "deleted by Tencent"},
		{"a sink refuses it", func(b *bench) {
			b.record.fail = func(string, int) error { return sinks.Permanent(errors.New("too large for a row")) }
			b.publish("T-1")
		}, event.Refused, "permanent", "sink records: too large for a row"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			tt.set(b)
			b.start()
			b.until("there is a dead letter", func() bool { return len(b.dead()) > 0 })
			b.idle()
			letters := b.dead()
			l := letters[0]
			if len(letters) != 1 || l.Reason != tt.reason || l.Code != tt.code || !strings.Contains(l.Detail, tt.detail) || l.Account != "main" {
				t.Errorf("got %+v", letters)
			}
			if l.Attempts != 1 || l.StreamSequence == 0 || l.First.IsZero() || l.Last.Before(l.First) || !strings.HasPrefix(l.Subject, "faceid.completed.main.") {
				t.Errorf("history: %+v", l)
			}
			if strings.Contains(b.log.String(), "SECRET") || strings.Contains(l.Detail, "SECRET") {
				t.Error("the body got into the log or the detail")
			}
		})
	}
}

// An old event whose result is still there is ingested: only a failed last try
// makes a dead letter.
func TestPastTheDeadlineThereIsOneLastTry(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publishEvent(event.Event{Token: "T-1", RuleID: "1", IssuedAt: time.Now().Add(-100 * time.Hour)})
	b.start()
	b.idle()
	if !b.record.has("T-1") || len(b.dead()) != 0 {
		t.Errorf("recorded: %v, dead: %v", b.record.has("T-1"), b.dead())
	}
}

// What takes longer than the ack wait is not delivered to somebody else.
func TestHeartbeatsKeepSlowEvents(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	release := make(chan struct{})
	b.api.answer = func(ctx context.Context, _ string, _ int) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return &faceid.Error{Class: faceid.Canceled, Err: ctx.Err()}
		}
	}
	b.cfg.Slots, b.cfg.AckWait = 1, 5*time.Second
	b.publish("T-1", "T-2") // one in work, one fetched ahead
	b.start()
	b.until("the first event is in work", func() bool { return b.api.count("T-1")+b.api.count("T-2") == 1 })
	began := time.Now()
	b.until("three ack waits are over", func() bool { return time.Since(began) > 3*b.cfg.AckWait })
	close(release)
	b.idle()
	if b.api.count("T-1") != 1 || b.api.count("T-2") != 1 {
		t.Errorf("pulled %d and %d times", b.api.count("T-1"), b.api.count("T-2"))
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	t.Run("lets events in work finish", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		entered, release := make(chan struct{}), make(chan struct{})
		b.api.answer = func(ctx context.Context, _ string, _ int) error {
			close(entered)
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		b.publish("T-1")
		b.start()
		<-entered

		b.cancel()
		b.until("the worker asks for no more events", func() bool { return b.requests() == 0 })
		close(release)
		b.halt()

		if !b.notify.has("T-1") {
			t.Error("the event in work was dropped")
		}
		b.idle()
	})
	t.Run("hands back what does not finish", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.cfg.Slots, b.cfg.AckWait = 1, time.Hour // what is not handed back would be missed
		b.cfg.ShutdownGrace = 10 * time.Millisecond
		entered := make(chan struct{}, 10)
		b.api.answer = func(ctx context.Context, _ string, _ int) error {
			entered <- struct{}{}
			<-ctx.Done()
			return &faceid.Error{Class: faceid.Canceled, Err: ctx.Err()}
		}
		b.publish("T-1", "T-2", "T-3")
		b.start()
		<-entered
		b.halt()
		b.api.answer = nil
		b.start()
		b.idle()
		for _, token := range []string{"T-1", "T-2", "T-3"} {
			if !b.notify.has(token) {
				t.Errorf("%s was lost", token)
			}
		}
	})
}

// A fault of a sink that hits a thousand events makes a few lines, not thousands.
func TestTroubleIsLoggedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var calls atomic.Int64
	b.record.fail = func(string, int) error {
		if calls.Add(1) <= 100 {
			return errors.New("no space left on device")
		}
		return nil
	}
	var tokens []string
	for i := range 100 {
		tokens = append(tokens, fmt.Sprintf("T-%d", i))
	}
	b.publish(tokens...)
	b.start()
	b.idle()
	b.halt()
	log := b.log.String()
	if n := strings.Count(log, "no space left on device"); n < 1 || n > 40 {
		t.Errorf("%d lines about one trouble", n)
	}
	if !strings.Contains(log, "works again: sink records") {
		t.Error("the end of the trouble is not logged")
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	status := func() pipeline.Status {
		s, err := pipeline.ReadStatus(t.Context(), b.js, []string{"main"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	b.publish("T-1", "T-2")
	if s := status(); s.Events != 2 || s.Lanes[0].Waiting != 2 || s.Lanes[1].Waiting != 0 {
		t.Errorf("before a worker ran: %+v", s)
	}
	release := make(chan struct{})
	b.api.answer = func(_ context.Context, token string, _ int) error {
		<-release
		if token == "T-2" {
			return &faceid.Error{Class: faceid.Permanent, Err: errors.New("unknown token")}
		}
		return nil
	}
	b.start()
	b.until("both are held", func() bool { return status().Lanes[0].Held == 2 })
	if oldest := status().Lanes[0].OldestSeconds; oldest == nil || *oldest < 0 {
		t.Errorf("oldest: %v", oldest)
	}
	close(release)
	b.idle()
	if s := status(); s.Dead != 1 || s.DeadByReason["main"]["rejected"] != 1 || s.Lanes[0].Held != 0 || s.Lanes[0].OldestSeconds != nil {
		t.Errorf("at the end: %+v", s)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, deps := range map[string]pipeline.Deps{
		"no sink keeps anything": {Sinks: []sinks.Sink{notify{b.notify}}},
		"neither archives":       {Sinks: []sinks.Sink{b.archive}},
	} {
		deps.Log = slog.New(slog.DiscardHandler)
		if _, err := pipeline.New(quick(), deps); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
	cfg := quick()
	cfg.Slots = 0
	if _, err := pipeline.New(cfg, pipeline.Deps{}); err == nil {
		t.Error("took a worker without slots")
	}
}
