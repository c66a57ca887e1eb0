// Package pipeline turns completion events into stored results.
//
// A Worker takes events from JetStream, pulls each token's result from the
// FaceID API, hands it to the archive, record and notify sinks in that order,
// and acknowledges the event only when all of them have it. What fails is
// retried in place for seconds, then redelivered after minutes; a result that a
// sink does not take is parked meanwhile; what can never succeed becomes a dead
// letter. While the API refuses an account, none of its events is taken. Everything a
// Worker does may happen twice for one token (a crash, a late acknowledgement), so
// sinks are idempotent.
//
// Any number of Workers, in any number of processes, may share the streams.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Puller gets one result; *faceid.Client is one. Media of the result goes into
// batch. Errors say their class, see faceid.ClassOf.
type Puller interface {
	Get(ctx context.Context, q faceid.Query, batch *spool.Batch) (*result.Result, error)
}

// Account is one set of Tencent credentials, and how its results are asked for.
type Account struct {
	// Name is part of subjects and consumer names, see event.CheckAccount.
	Name string
	// Query is what every call of this account asks for; product, token and rule
	// come from the event, and RuleID here is the default.
	Query faceid.Query
	// Client calls the API with the account's credentials, within its rate.
	Client Puller
	// Share is told how many replicas share the account's rate, this one included;
	// nil means nobody is.
	Share func(replicas int)
}

// Config says how a Worker works. DefaultConfig holds what is not set here.
type Config struct {
	// Slots is how many events of one account are worked on at once, 1 or more;
	// backfill takes at most three quarters of them, and parked results a quarter
	// more. As many again are fetched ahead per account and lane, and worked on in
	// the order of their deadlines. Slots are not shared between accounts, so that
	// one whose calls hang holds nobody else.
	Slots int
	// AckWait is how long the server waits for a sign of life from the holder of
	// an event before it gives it to another worker; signs go out three times as
	// often. At least a second.
	AckWait time.Duration
	// ShutdownGrace is how long events in work may finish after the Worker was
	// told to stop; what is not done by then is handed back.
	ShutdownGrace time.Duration
	// Retry says how long to wait between tries.
	Retry Retry
	// Replicas is how many servers of a cluster keep the ledger, if the Worker has
	// to make it; 1 to 5.
	Replicas int
	// Version is what the other replicas and the status command see of the program's.
	Version string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultConfig returns what suits most.
func DefaultConfig() Config {
	return Config{Replicas: 1, Slots: 32, AckWait: time.Minute, ShutdownGrace: 30 * time.Second, Retry: DefaultRetry()}
}

// Deps are what a Worker works with; all are needed that do not say otherwise.
type Deps struct {
	JetStream jetstream.JetStream
	Accounts  []Account
	// Sinks are called in this order within each stage.
	Sinks   []sinks.Sink
	Spool   *spool.Spool
	Parking *parking.Store
	Metrics *telemetry.Metrics
	// Tracing makes the spans of events; nil means that there are none.
	Tracing trace.TracerProvider
	// Keyring says what this process seals with, for other replicas and the status of
	// keys to see; nil where nobody looks.
	Keyring func() privacy.Mark
	Log     *slog.Logger
}

// Worker moves events from JetStream to the sinks.
type Worker struct {
	cfg       Config
	js        jetstream.JetStream
	publisher *event.Publisher
	accounts  []*account
	stages    stages
	gates     map[string]*gate
	spool     *spool.Spool
	parking   *parking.Store
	keyring   func() privacy.Mark
	metrics   *telemetry.Metrics
	tracer    trace.Tracer
	log       *slog.Logger
	troubles  *troubles

	// What is opened by Run.
	ledger     *ledger
	advisories jetstream.Consumer
	peers      *replica.Member

	// opened is closed when the lanes are open.
	opened chan struct{}

	started    time.Time
	held       held
	working    working
	parkingUse parkingUse
}

// New returns a Worker that is not running yet.
func New(cfg Config, deps Deps) (*Worker, error) {
	if cfg.Slots < 1 || cfg.AckWait < time.Second {
		return nil, fmt.Errorf("a worker needs at least one slot and an ack wait of a second, not %d and %s", cfg.Slots, cfg.AckWait)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if deps.Tracing == nil {
		deps.Tracing = noop.NewTracerProvider()
	}
	stages, err := sortStages(deps.Sinks)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg:       cfg,
		js:        deps.JetStream,
		publisher: event.NewPublisher(deps.JetStream),
		stages:    stages,
		gates:     map[string]*gate{},
		spool:     deps.Spool,
		parking:   deps.Parking,
		keyring:   deps.Keyring,
		metrics:   deps.Metrics,
		tracer:    deps.Tracing.Tracer(span.Scope),
		log:       deps.Log,
		troubles:  newTroubles(deps.Log, cfg.Now),
		opened:    make(chan struct{}),
	}
	for _, s := range deps.Sinks {
		deps.Metrics.ServeSink(s.Name())
		deps.Metrics.SinkUp(s.Name(), true)
		w.gates[s.Name()] = &gate{now: cfg.Now, retry: cfg.Retry}
	}
	for _, a := range deps.Accounts {
		deps.Metrics.ServeAccount(a.Name)
		deps.Metrics.AccountPaused(a.Name, false)
		w.accounts = append(w.accounts, &account{Account: a, slots: newSlots(cfg.Slots, max(1, cfg.Slots*3/4), cfg.Now)})
	}
	return w, nil
}

// Run works until ctx is done: then it fetches no more, lets the events in work
// finish for Config.ShutdownGrace, hands the rest back to JetStream and returns
// nil. While the server is away it waits for it; it returns an error if the server
// refuses what it needs. It is called once.
func (w *Worker) Run(ctx context.Context) error {
	w.started = w.cfg.Now()
	defer w.leave(ctx)
	lanes, err := w.openPatiently(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	close(w.opened)
	work, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()

	var inWork, watching sync.WaitGroup
	fetching, fetchCtx := errgroup.WithContext(ctx)
	for _, l := range lanes {
		fetching.Go(func() error { return l.fetch(fetchCtx, work, &inWork) })
	}
	watching.Go(func() { w.watchStrangers(fetchCtx) })
	for _, a := range w.accounts {
		watching.Go(func() { w.watchDeadlines(fetchCtx, work, a) })
	}
	watching.Go(func() { w.watchParking(fetchCtx) })
	watching.Go(func() { w.watchQueues(fetchCtx) })
	watching.Go(func() { w.reap(fetchCtx, w.advisories) })
	beating := make(chan struct{})
	stopBeat := make(chan struct{})
	go func() {
		defer close(beating)
		w.held.beat(w.cfg.AckWait/3, stopBeat)
	}()

	err = fetching.Wait()
	w.drain(&inWork, &watching, kill)
	close(stopBeat)
	<-beating
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Opened is closed when the Worker has begun to fetch events.
func (w *Worker) Opened() <-chan struct{} { return w.opened }

// Fetching returns why events are not fetched now: those of all lanes before it is open,
// else those of some. It asks nobody.
func (w *Worker) Fetching() error {
	select {
	case <-w.opened:
	default:
		return errors.New("events are not fetched yet")
	}
	return w.troubles.ongoing("fetch/")
}

// leave has the other replicas take this one's share at once. Those who are not told
// find out.
func (w *Worker) leave(ctx context.Context) {
	if w.peers == nil {
		return
	}
	if err := w.peers.Close(context.WithoutCancel(ctx)); err != nil {
		w.log.Debug("cannot tell the other replicas that this one leaves", "error", err)
	}
}

// openPatiently is open that waits while the server is away: a worker that takes over
// from another one must not end the process for that.
func (w *Worker) openPatiently(ctx context.Context) ([]*lane, error) {
	for {
		lanes, err := w.open(ctx)
		switch {
		case err == nil:
			w.troubles.over("open")
			return lanes, nil
		case ctx.Err() != nil || !broker.IsAway(err):
			return nil, err
		}
		w.troubles.note(ctx, "open", "cannot begin, NATS is away or not ready; trying again", "error", err)
		if err := sleep(ctx, fetchPause); err != nil {
			return nil, err
		}
	}
}

// open makes sure of what the Worker keeps in JetStream. After an error it may be called
// again.
func (w *Worker) open(ctx context.Context) (lanes []*lane, err error) {
	bounded, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	if w.ledger, err = openLedger(bounded, w.js, w.cfg.Replicas); err != nil {
		return nil, err
	}
	if w.advisories, err = event.EnsureReaper(bounded, w.js); err != nil {
		return nil, err
	}
	if w.peers == nil {
		if w.peers, err = replica.Join(bounded, w.js, replica.Config{Replicas: w.cfg.Replicas, Report: w.report, Changed: w.share, Log: w.log}); err != nil {
			return nil, err
		}
	}
	return w.openLanes(ctx)
}

// share passes on how many replicas serve an account.
func (w *Worker) share(name string, replicas int) {
	for _, a := range w.accounts {
		if a.Name == name && a.Share != nil {
			a.Share(replicas)
		}
	}
}

// report is what the other replicas and the status command see of this one.
func (w *Worker) report() replica.Report {
	host, _ := os.Hostname() // only for people to see
	r := replica.Report{Host: host, PID: os.Getpid(), Version: w.cfg.Version, Started: w.started, Sinks: map[string]replica.Sink{}, Work: w.working.list()}
	for _, a := range w.accounts {
		r.Accounts = append(r.Accounts, a.Name)
	}
	for name, g := range w.gates {
		r.Sinks[name] = g.state()
	}
	if w.keyring != nil {
		r.Keyring = w.keyring()
	}
	return r
}

// openLanes makes sure of the streams and of a consumer per account and lane.
func (w *Worker) openLanes(ctx context.Context) ([]*lane, error) {
	var lanes []*lane
	for _, a := range w.accounts {
		// Parked results need no API, and must not hold those that do.
		parked := newSlots(max(1, w.cfg.Slots/parkedShare), 0, w.cfg.Now)
		for _, name := range event.Lanes() {
			l := &lane{worker: w, account: a, name: name, slots: a.slots, room: make(chan struct{}, 2*w.cfg.Slots)}
			if name == event.Parked {
				l.slots = parked
			}
			if err := l.open(ctx); err != nil {
				return nil, err
			}
			lanes = append(lanes, l)
		}
	}
	return lanes, nil
}

// parkedShare is how many times fewer slots than the others the lane of parked
// results has: they come on top, and none of them is in a hurry.
const parkedShare = 4

// drain waits for the events in work and for the watchers, and after the grace
// period makes them stop where they are.
func (w *Worker) drain(inWork, watching *sync.WaitGroup, kill context.CancelFunc) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		inWork.Wait()
		watching.Wait()
	}()
	grace := time.NewTimer(w.cfg.ShutdownGrace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		w.log.Warn("events in work did not finish in time and are handed back", "grace", w.cfg.ShutdownGrace, "events", w.held.count())
		kill()
		<-done
	}
}
