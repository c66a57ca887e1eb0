package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// unfinishedFor is how long an event whose token is not finished is asked
// again: the two hours that a token lives at most (FACTS §4), and a margin for
// clocks that differ.
const unfinishedFor = 2*time.Hour + 15*time.Minute

// leastLife is how long an event is tried whatever it says of its age: its
// sender's clock or time zone may be wrong.
const leastLife = 15 * time.Minute

// later is the decision to have an event delivered again.
type later struct {
	// least is the shortest time to wait.
	least time.Duration
	// quiet says that nothing is wrong: the check is just not finished.
	quiet bool
	err   error
}

func (e *later) Error() string { return e.err.Error() }
func (e *later) Unwrap() error { return e.err }

// giveUp is the decision to make an event a dead letter.
type giveUp struct {
	reason event.Reason
	code   string
	err    error
}

func (e *giveUp) Error() string { return e.err.Error() }
func (e *giveUp) Unwrap() error { return e.err }

// process works on one delivery and settles it with the server. ctx ends when
// the worker is told to stop, work when what it holds must be dropped.
func (w *Worker) process(ctx, work context.Context, d *delivery) {
	defer w.release(d)
	release, ok := d.takeSlot(ctx)
	if !ok {
		w.handBack(d)
		return
	}
	defer release()
	began := time.Now()
	t, err := newTask(d)
	if err == nil {
		err = w.decide(t, w.guarded(func() error { return w.ingest(work, t) }))
	}
	w.settle(work, d, t, err, began)
}

// guarded turns a panic into an error: one poisonous answer must not take the
// other events of this process with it.
func (w *Worker) guarded(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			// The value of a panic may quote data; where it happened does not.
			w.log.Error("recovered from a panic", "stack", string(debug.Stack()))
			err = errors.New("the worker panicked on this event; the log has the stack")
		}
	}()
	return do()
}

// task is a delivery whose event was understood.
type task struct {
	*delivery
	meta    *jetstream.MsgMetadata
	product result.Product
	event   event.Event
}

// newTask reads the event of d. The error is a *giveUp; the task then holds
// what is known.
func newTask(d *delivery) (*task, error) {
	t := &task{delivery: d}
	meta, err := d.msg.Metadata()
	if err != nil {
		return t, &giveUp{reason: event.Malformed, err: fmt.Errorf("message without JetStream metadata: %w", err)}
	}
	t.meta = meta
	if _, _, t.product, err = event.ParseSubject(d.msg.Subject()); err != nil {
		return t, &giveUp{reason: event.Malformed, err: err}
	}
	if t.event, err = event.Decode(t.product, d.msg.Data()); err != nil {
		return t, &giveUp{reason: event.Malformed, err: err}
	}
	if t.product == result.Enhanced && t.event.RuleID == "" && d.account.Query.RuleID == "" {
		return t, &giveUp{reason: event.Malformed, err: errors.New("rule_id is missing, and the account has no default rule_id")}
	}
	return t, nil
}

// deadline is when the task's result is taken to be gone.
func (t *task) deadline() time.Time {
	return latest(t.event.Deadline(t.meta.Timestamp), t.meta.Timestamp.Add(leastLife))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (t *task) query() faceid.Query {
	q := t.account.Query
	q.Product, q.Token = t.product, t.event.Token
	switch {
	case t.product == result.EID:
		q.RuleID = ""
	case t.event.RuleID != "":
		q.RuleID = t.event.RuleID
	}
	return q
}

// again tells whether the task's event asks for all work to be done once more.
func (t *task) again() bool { return event.Again(t.msg.Headers()) }

var (
	// errKnown says that every sink had the result already: a second event of one
	// token, or a redelivery after an acknowledgement was lost.
	errKnown = errors.New("every sink has the result")
	// errErased says that the result was erased and must not come back.
	errErased = errors.New("the result was erased")
)

// ingest brings the task's result into every sink.
func (w *Worker) ingest(ctx context.Context, t *task) error {
	e, err := w.ledger.load(ctx, t)
	w.ledgerTrouble(err)
	if e.covers(w.stages.names()) {
		return errKnown
	}
	r, batch, err := w.pull(ctx, t)
	if err != nil {
		return err
	}
	defer func() {
		if err := batch.Close(); err != nil {
			w.troubles.note("spool", "cannot clear the spool", "error", err)
		}
	}()
	err = w.store(ctx, r, e)
	var storing sinkErrors
	if errors.As(err, &storing) && storing.erased() {
		if err := w.finishErasure(ctx, sinks.KeyOf(r.Product, r.Token)); err != nil {
			return fmt.Errorf("erase what was stored of an erased token: %w", err)
		}
		return errErased
	}
	if len(e.Done) > 0 {
		// Written with every try, done or not, so that the entry outlives the event.
		w.ledgerTrouble(w.ledger.save(context.WithoutCancel(ctx), t, e))
	}
	if err != nil {
		return err
	}
	w.count(r)
	return nil
}

// ledgerTrouble reports what is wrong with the ledger. It stops nothing.
func (w *Worker) ledgerTrouble(err error) {
	switch {
	case err == nil:
		w.troubles.over("ledger")
	case !errors.Is(err, context.Canceled):
		w.troubles.note("ledger", "the ledger cannot be used, work may be done twice", "error", err)
	}
}

// pull gets the result, with tries in place. The batch holds its media; the
// caller closes it.
func (w *Worker) pull(ctx context.Context, t *task) (r *result.Result, batch *spool.Batch, err error) {
	began := time.Now()
	defer func() { w.metrics.Stage("pull", time.Since(began)) }()
	err = w.cfg.Retry.try(ctx, func() error {
		r, batch, err = w.pullOnce(ctx, t)
		return err
	}, judgePull)
	if err != nil {
		return nil, nil, &pullError{class: faceid.ClassOf(err), err: err}
	}
	w.troubles.over(apiTrouble(t))
	return r, batch, nil
}

func (w *Worker) pullOnce(ctx context.Context, t *task) (r *result.Result, batch *spool.Batch, err error) {
	batch, err = w.spool.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if r == nil {
			_ = batch.Close()
		}
	}()
	r, err = t.account.Client.Get(ctx, t.query(), batch)
	w.metrics.Call(t.account.Name, string(t.product), callClass(err))
	return r, batch, err
}

func callClass(err error) string {
	if err == nil {
		return "ok"
	}
	return string(faceid.ClassOf(err))
}

func judgePull(err error) again {
	class := faceid.ClassOf(err)
	return again{retry: class == faceid.Transient || class == faceid.Throttled}
}

// pullError says that a result could not be had from the API.
type pullError struct {
	class faceid.Class
	err   error
}

func (e *pullError) Error() string { return e.err.Error() }
func (e *pullError) Unwrap() error { return e.err }

func apiTrouble(t *task) string { return "api/" + t.account.Name }

// decide says what becomes of a task that ended with err: nil, *later, *giveUp,
// or context.Canceled if the worker was made to stop.
func (w *Worker) decide(t *task, err error) error {
	now := w.cfg.Now()
	deadline := t.deadline()
	var pulling *pullError
	var storing sinkErrors
	again := &later{err: err}
	code := "internal"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errKnown), errors.Is(err, errErased):
		return err
	case errors.As(err, &pulling):
		code = apiCode(err)
		switch pulling.class {
		case faceid.Canceled:
			return context.Canceled
		case faceid.Permanent:
			return &giveUp{reason: event.Rejected, code: code, err: err}
		case faceid.NotReady:
			again.quiet = true
			if now.After(w.unfinishedUntil(t)) {
				return &giveUp{reason: event.Unfinished, code: code, err: err}
			}
		}
	case errors.As(err, &storing):
		class, after := storing.class()
		code = string(class)
		switch class {
		case sinks.ClassCanceled:
			return context.Canceled
		case sinks.ClassPermanent:
			return &giveUp{reason: event.Refused, code: code, err: err}
		}
		again.least = after
	}
	if now.After(deadline) {
		return &giveUp{reason: event.Expired, code: code, err: fmt.Errorf("the result was deleted by Tencent before it could be stored: %w", err)}
	}
	return again
}

// unfinishedUntil is when a token that is still not finished never will be.
func (w *Worker) unfinishedUntil(t *task) time.Time {
	made := t.event.IssuedAt
	if made.IsZero() || made.After(t.meta.Timestamp) {
		made = t.meta.Timestamp
	}
	return latest(made.Add(unfinishedFor), t.meta.Timestamp.Add(leastLife))
}

func apiCode(err error) string {
	var api *faceid.Error
	if errors.As(err, &api) && api.Code != "" {
		return api.Code
	}
	return string(faceid.ClassOf(err))
}

func (w *Worker) count(r *result.Result) {
	w.metrics.Verdict(r.Account, string(r.Product), r.Verdict.Passed)
	for _, a := range r.Assets {
		w.metrics.Asset(string(a.Kind), a.Content != nil, a.Digest.Size)
	}
}

// settle tells the server what became of the delivery.
func (w *Worker) settle(work context.Context, d *delivery, t *task, err error, began time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), ackWait)
	defer cancel()
	var again *later
	var end *giveUp
	switch {
	case err == nil:
		if w.acknowledge(ctx, d, telemetry.Ingested) {
			w.metrics.Stage("event_to_ack", time.Since(began))
			w.log.Debug("ingested", t.attrs()...)
		}
	case errors.Is(err, errKnown):
		w.acknowledge(ctx, d, telemetry.Known)
	case errors.Is(err, errErased):
		if w.acknowledge(ctx, d, telemetry.Erased) {
			w.log.Info("an event came of a result that was erased; nothing is stored", t.attrs()...)
		}
	case errors.As(err, &end):
		w.bury(ctx, t, end)
	case errors.As(err, &again):
		w.postpone(t, again)
	default:
		w.handBack(d)
	}
}

// acknowledge ends an event for good, and tells whether the server says so: only a
// confirmed acknowledgement is one. Without it the event comes again, and the
// ledger or the sinks find that they have it.
func (w *Worker) acknowledge(ctx context.Context, d *delivery, o telemetry.Outcome) bool {
	if err := d.msg.DoubleAck(ctx); err != nil {
		w.troubles.note("ack", "cannot acknowledge events; they will come again", "error", err)
		return false
	}
	w.troubles.over("ack")
	w.outcome(d, o)
	return true
}

func (w *Worker) outcome(d *delivery, o telemetry.Outcome) {
	w.metrics.Event(d.account.Name, string(d.lane), o)
}

// handBack gives an event to whoever fetches next.
func (w *Worker) handBack(d *delivery) {
	_ = d.msg.Nak()
	w.outcome(d, telemetry.HandedBack)
}

// postpone has the event delivered again later. The wait ends at the deadline,
// so that the last try is made when the result may just be there.
func (w *Worker) postpone(t *task, again *later) {
	wait := w.cfg.Retry.redelivery(t.meta.NumDelivered, again.least)
	if left := t.deadline().Sub(w.cfg.Now()); wait > left {
		wait = max(left, again.least, time.Second)
	}
	_ = t.msg.NakWithDelay(wait)
	w.outcome(t.delivery, telemetry.Retried)
	if again.quiet {
		w.log.Debug("the check is not finished, asking again later", append(t.attrs(), "wait", wait)...)
		return
	}
	w.report(t, again.err, wait)
}

// report logs why an event has to wait, once per trouble and not per event.
func (w *Worker) report(t *task, err error, wait time.Duration) {
	attrs := append(t.attrs(), "error", err, "wait", wait.Round(time.Second))
	var storing sinkErrors
	var pulling *pullError
	switch {
	case errors.As(err, &storing):
		for _, one := range storing {
			w.troubles.note("sink/"+one.sink, fmt.Sprintf("sink %s does not take results, events wait", one.sink), append(attrs, "class", one.class)...)
		}
	case errors.As(err, &pulling):
		w.troubles.note(apiTrouble(t), fmt.Sprintf("cannot pull results of account %s, events wait", t.account.Name), append(attrs, "class", pulling.class)...)
	default:
		w.troubles.note("worker", "an event failed and waits", attrs...)
	}
}

// bury makes the event a dead letter. If that fails, the event comes again: a
// letter is stored before its event is ended.
func (w *Worker) bury(ctx context.Context, t *task, end *giveUp) {
	letter := event.DeadLetter{
		Account: t.account.Name,
		Reason:  end.reason,
		Code:    end.code,
		Detail:  end.Error(),
		Last:    w.cfg.Now(),
		Subject: t.msg.Subject(),
		Body:    t.msg.Data(),
		Trace:   t.msg.Headers(),
	}
	if t.meta != nil {
		letter.Attempts = t.meta.NumDelivered
		letter.First = t.meta.Timestamp
		letter.StreamSequence = t.meta.Sequence.Stream
	}
	if err := w.publisher.Bury(ctx, letter); err != nil {
		_ = t.msg.NakWithDelay(w.cfg.Retry.RedeliverFirst)
		w.outcome(t.delivery, telemetry.Retried)
		w.troubles.note("bury", "cannot store dead letters; their events will come again", "error", err)
		return
	}
	w.troubles.over("bury")
	_ = t.msg.TermWithReason(string(end.reason))
	w.outcome(t.delivery, telemetry.Buried)
	w.metrics.Dead(t.account.Name, string(end.reason))
	w.log.Warn("gave an event up; it is a dead letter now", append(t.attrs(), "reason", end.reason, "code", end.code, "error", end.err)...)
}

func (t *task) attrs() []any {
	attrs := []any{"account", t.account.Name, "lane", t.lane, "product", t.product, "token", t.event.Token}
	if t.meta != nil {
		attrs = append(attrs, "attempt", t.meta.NumDelivered)
	}
	return attrs
}
