package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/crash"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// leastLife is how long an event is tried whatever it says of its age: its
// sender's clock or time zone may be wrong.
const leastLife = 15 * time.Minute

// process works on one delivery and settles it with the server. ctx ends when
// the worker is told to stop, work when what it holds must be dropped.
func (w *Worker) process(ctx, work context.Context, d *delivery) {
	defer w.release(d)
	t, err := newTask(d)
	if err == nil && w.cfg.Now().Before(t.past.NotBefore) {
		w.putOff(work, t)
		return
	}
	work, step := w.begin(work, t)
	defer step.End()
	w.noteUnread(work, t)
	if err == nil && w.suspect(work, t) {
		return
	}
	release, ok := d.slots.take(ctx, t.turn(w.cfg.Now()))
	if !ok {
		w.handBack(work, t, 0)
		return
	}
	defer release()
	defer w.working.begin(t, w.cfg.Now())()
	began := time.Now()
	if err == nil {
		err = w.decide(t, w.guarded(work, func() error { return w.ingest(work, t) }))
	}
	failTask(step, err)
	w.settle(work, t, err, began)
}

// noteUnread says once of an event which of its fields count as absent.
func (w *Worker) noteUnread(ctx context.Context, t *task) {
	if t.meta == nil || t.attempts() > 1 || len(t.event.Unread) == 0 {
		return
	}

	for _, field := range t.event.Unread {
		w.metrics.UnreadField("event", string(field))
	}
	w.log.WarnContext(ctx, "fields of an event cannot be read and count as absent", append(t.attrs(), "fields", t.event.Unread)...)
}

// guarded turns a panic into an error, so that one result cannot end the process.
// What the panic says may be of the result, so that only its place is logged.
func (w *Worker) guarded(ctx context.Context, do func() error) error {
	err := crash.Guard(do)
	if p, panicked := crash.Of(err); panicked {
		w.log.ErrorContext(ctx, "recovered from a panic", "stack", p.Stack)
		return errors.New("the worker panicked on this event; the log has the stack")
	}
	return err
}

// task is a delivery whose event was understood.
type task struct {
	*delivery
	meta    *jetstream.MsgMetadata
	past    event.Past
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
	t.meta, t.past = meta, event.PastOf(event.PlaceOf(meta), d.msg.Headers())
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
	return latest(t.event.Deadline(t.past.First), t.meta.Timestamp.Add(leastLife))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// attempts is how often the event was delivered, in all of its messages.
func (t *task) attempts() uint64 { return t.past.Attempts + t.meta.NumDelivered }

// turn says when the task is to be worked on, beside others of its account. What
// was not understood needs no API and goes with the live events.
func (t *task) turn(now time.Time) turn {
	if t.meta == nil || t.event.Token == "" {
		return turn{priority: limit.Live}
	}
	own := turn{priority: limit.Live, deadline: t.deadline()}
	switch {
	case t.lane == event.Parked:
		// Nothing presses: the result is safe.
	case own.deadline.Sub(now) < urgentBefore:
		own.priority = limit.Urgent
	case t.lane == event.Backfill:
		own.priority = limit.Backfill
	}
	return own
}

func (t *task) query(now time.Time) faceid.Query {
	q := t.account.Query
	q.Product, q.Token, q.Priority = t.product, t.event.Token, t.turn(now).priority
	q.Last = q.Priority == limit.Urgent
	switch {
	case t.product == result.EID:
		q.RuleID = ""
	case t.event.RuleID != "":
		q.RuleID = t.event.RuleID
	}
	return q
}

func (t *task) key() sinks.Key { return sinks.KeyOf(t.product, t.event.Token) }

func (t *task) attrs() []any {
	attrs := []any{"account", t.account.Name, "lane", t.lane, "product", t.product, "token", t.event.Token}
	if t.meta != nil {
		attrs = append(attrs, "attempt", t.attempts())
	}
	return attrs
}

var (
	// errKnown says that every sink had the result already: a second event of one
	// token, or a redelivery after an acknowledgement was lost.
	errKnown = errors.New("every sink has the result")
	// errErased says that the result was erased and must not come back.
	errErased = errors.New("the result was erased")
	// errParked says that the result is parked, and that an event on the lane of
	// parked ones will bring it to the sinks.
	errParked = errors.New("the result is parked")
)

// ingest brings the task's result into every sink, or into parking.
func (w *Worker) ingest(ctx context.Context, t *task) error {
	e, err := w.ledger.load(ctx, t)
	w.ledgerTrouble(ctx, err)
	if e.Erased != nil {
		gone, err := w.isErased(ctx, t.key())
		if err != nil {
			return fmt.Errorf("the ledger says that the token was erased: %w", err)
		}
		if gone {
			return w.eraseAgain(ctx, t)
		}
		e.Erased = nil
	}

	switch {
	case e.covers(w.stages.names()):
		if err := w.clearParked(ctx, t, e); err != nil {
			return err
		}
		return errKnown
	case e.Parked && t.lane != event.Parked:
		return w.forward(ctx, t)
	case t.lane == event.Parked && w.blocked(t, e):
		w.ledgerTrouble(ctx, w.ledger.keepFresh(ctx, t, e, w.stages.names(), w.cfg.Now()))
		return &later{quiet: true, err: errors.New("the sinks that miss the result are down")}
	}
	f, err := w.fetch(ctx, t)
	if err != nil {
		return err
	}
	defer func() {
		if err := f.batch.Close(); err != nil {
			w.troubles.note(ctx, "spool", "cannot clear the spool", "error", err)
		}
	}()
	return w.keep(ctx, t, f, e)
}

// keep brings what was fetched into the sinks. What they do not take now is parked,
// so that the API is not needed again.
func (w *Worker) keep(ctx context.Context, t *task, f fetched, e *entry) error {
	err := w.store(ctx, t, f.result, e)
	var storing sinkErrors
	if errors.As(err, &storing) && storing.erased() {
		return w.eraseAgain(ctx, t)
	}
	parked := f.parked
	if err != nil && !parked && ctx.Err() == nil {
		parked = w.park(ctx, t, f.result)
	}
	e.Parked = parked && err != nil
	if e.Parked {
		e.Wait = Wait{Cause: causeOf(err), Attempts: t.attempts(), Last: w.cfg.Now().UTC().Truncate(time.Millisecond)}.after(e.Wait)
	}
	if len(e.Done) > 0 || e.Parked {
		// Written with every try, done or not, so that the entry outlives the event.
		w.ledgerTrouble(ctx, w.ledger.save(context.WithoutCancel(ctx), t, e, w.stages.names()))
	}
	if e.Erased != nil {
		// That was while this was worked on. Sinks that cannot be asked now will say.
		if gone, _ := w.isErased(ctx, t.key()); gone {
			return w.eraseAgain(ctx, t)
		}
	}
	switch {
	case err == nil:
		w.count(ctx, t, f.result)
		e.Parked = f.parked
		return w.clearParked(ctx, t, e)
	case parked && t.lane != event.Parked && isDelay(err):
		w.complain(ctx, t, err, 0)
		return w.forward(ctx, t)
	}
	return err
}

// isDelay tells whether sinks may take the result later.
func isDelay(err error) bool {
	var storing sinkErrors
	if !errors.As(err, &storing) {
		return false
	}
	class, _ := storing.class()
	return class == sinks.ClassTransient
}

// ledgerTrouble reports what is wrong with the ledger. It stops nothing.
func (w *Worker) ledgerTrouble(ctx context.Context, err error) {
	switch {
	case err == nil:
		w.troubles.over("ledger")
	case !errors.Is(err, context.Canceled):
		w.troubles.note(ctx, "ledger", "the ledger cannot be used, work may be done twice", "error", err)
	}
}

// count counts an ingested result, and says what of it is not as it should be.
func (w *Worker) count(ctx context.Context, t *task, r *result.Result) {
	w.metrics.Verdict(r.Account, string(r.Product), r.Verdict.Passed, faceid.VerdictLabel(r.Verdict))
	if r.Verdict.Unreadable {
		w.log.ErrorContext(ctx, "the outcome of a check cannot be read; it is stored as not passed, with the answer as it came", append(t.attrs(), "fields", r.Unread)...)
	}
	for _, field := range r.Unread {
		w.metrics.UnreadField("answer", field)
	}
	for _, m := range r.Missing {
		w.metrics.MissingPart(r.Account, string(m.Reason))
		w.log.WarnContext(ctx, "a result is stored without a part that the check has", append(t.attrs(), "field", m.Field, "reason", m.Reason)...)
	}
	for _, a := range r.Assets {
		w.metrics.Asset(string(a.Kind), a.Content != nil, a.Digest.Size)
	}
}
