package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// unfinishedFor is how long an event whose token is not finished is asked
	// again: the two hours that a token lives at most (FACTS §4), and a margin for
	// clocks that differ.
	unfinishedFor = 2*time.Hour + 15*time.Minute
	// renewAt is at which delivery of one message a worker that cannot end it puts the
	// event on the stream anew: retries end by time, never by the server's count.
	renewAt = 5
	// suspectAfter is how many deliveries of one message are above suspicion: one that
	// comes more often has ended the workers that took it, or they could not publish, or
	// it was held by workers that another one has ended; see suspect.
	suspectAfter = 10
	// crashLimit is how many messages in a row may come that often before the event is
	// given up.
	crashLimit = 3
	// apartLonger is how many times longer an event is kept apart the second time.
	apartLonger = 10
)

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

// decide says what becomes of a task that ended with err: nil, *later, *giveUp,
// *pausedError, one of the errors that ingest names, or context.Canceled if the
// worker was made to stop.
func (w *Worker) decide(t *task, err error) error {
	var paused *pausedError
	var decided *later
	switch {
	case err == nil, errors.Is(err, errKnown), errors.Is(err, errErased), errors.Is(err, errParked),
		errors.As(err, &paused), errors.As(err, &decided):
		return err
	}
	var pulling *pullError
	var storing sinkErrors
	switch {
	case errors.As(err, &pulling):
		return w.decidePull(t, pulling)
	case errors.As(err, &storing):
		return w.decideStore(t, storing)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return w.unlessExpired(t, "internal", &later{err: err})
}

func (w *Worker) decidePull(t *task, err *pullError) error {
	code := apiCode(err)
	again := &later{least: retryAfter(err), err: err}
	switch err.class {
	case faceid.Canceled:
		return context.Canceled
	case faceid.Permanent:
		if faceid.IsExpired(err) {
			return &giveUp{reason: event.Expired, code: code, err: err}
		}
		return &giveUp{reason: event.Rejected, code: code, err: err}
	case faceid.AccountTrouble:
		// Whether the result is gone only the API can say; see buryOverdue.
		return again
	case faceid.NotReady:
		again.quiet = true
		if w.cfg.Now().After(w.unfinishedUntil(t)) {
			return &giveUp{reason: event.Unfinished, code: code, err: err}
		}
	}
	return w.unlessExpired(t, code, again)
}

func (w *Worker) decideStore(t *task, err sinkErrors) error {
	class, after := err.class()
	switch class {
	case sinks.ClassCanceled:
		return context.Canceled
	case sinks.ClassPermanent:
		return &giveUp{reason: event.Refused, code: string(class), err: err}
	}
	again := &later{least: after, err: err}
	if t.lane == event.Parked {
		// Parked results have no deadline.
		return again
	}
	return w.unlessExpired(t, string(class), again)
}

// unlessExpired returns again, or gives the event up if its result is gone.
func (w *Worker) unlessExpired(t *task, code string, again *later) error {
	// What is parked has no deadline.
	if t.lane != event.Parked && w.cfg.Now().After(t.deadline()) {
		return &giveUp{reason: event.Expired, code: code, err: fmt.Errorf("the result was deleted by Tencent before it could be stored: %w", again.err)}
	}
	return again
}

// unfinishedUntil is when a token that is still not finished never will be.
func (w *Worker) unfinishedUntil(t *task) time.Time {
	made := t.event.IssuedAt
	if made.IsZero() || made.After(t.past.First) {
		made = t.past.First
	}
	return latest(made.Add(unfinishedFor), t.meta.Timestamp.Add(leastLife))
}

// settle tells the server what became of the task.
func (w *Worker) settle(work context.Context, t *task, err error, began time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), ackWait)
	defer cancel()
	var again *later
	var end *giveUp
	var paused *pausedError
	switch {
	case err == nil:
		if w.acknowledge(ctx, t.delivery, telemetry.Ingested) {
			w.metrics.Stage(ctx, "event_to_ack", time.Since(began))
			w.log.DebugContext(ctx, "ingested", t.attrs()...)
		}
	case errors.Is(err, errKnown):
		w.acknowledge(ctx, t.delivery, telemetry.Known)
	case errors.Is(err, errParked):
		w.acknowledge(ctx, t.delivery, telemetry.Parked)
	case errors.Is(err, errErased):
		if w.acknowledge(ctx, t.delivery, telemetry.Erased) {
			w.eraseEvent(ctx, t)
			w.log.InfoContext(ctx, "an event came of a result that was erased; nothing is stored", t.attrs()...)
		}
	case errors.As(err, &end):
		w.bury(ctx, t, end)
	case errors.As(err, &again):
		w.postpone(ctx, t, again)
	case errors.As(err, &paused):
		w.handBack(ctx, t, w.cfg.Retry.ProbeFirst)
	default:
		w.handBack(ctx, t, 0)
	}
}

// acknowledge ends an event for good, and tells whether the server says so: only a
// confirmed acknowledgement is one. Without it the event comes again, and the
// ledger or the sinks find that they have it.
func (w *Worker) acknowledge(ctx context.Context, d *delivery, o telemetry.Outcome) bool {
	acking, step := span.Start(ctx, "ack")
	err := d.msg.DoubleAck(acking)
	endStep(step, err)
	if err != nil {
		w.troubles.note(ctx, "ack", "cannot acknowledge events; they will come again", "error", err)
		return false
	}
	w.troubles.over("ack")
	w.outcome(ctx, d, o)
	return true
}

// eraseEvent takes the event of an erased token off its stream, which would keep what its
// sender put in until it ages. A parked one goes with its acknowledgement.
func (w *Worker) eraseEvent(ctx context.Context, t *task) {
	if t.meta == nil || t.lane == event.Parked {
		return
	}
	stream, err := w.js.Stream(ctx, t.meta.Stream)
	if err == nil {
		err = event.Erase(ctx, stream, t.meta.Sequence.Stream)
	}
	if err != nil {
		w.troubles.note(ctx, "erase", "cannot take events of erased tokens off their stream; they go when they are as old as its max age", "error", err)
		return
	}
	w.troubles.over("erase")
}

// outcome counts what became of a delivery, whose span is that of ctx.
func (w *Worker) outcome(ctx context.Context, d *delivery, o telemetry.Outcome) {
	trace.SpanFromContext(ctx).SetAttributes(span.Outcome.String(string(o)))
	w.metrics.Event(d.account.Name, string(d.lane), o)
}

// leastNak makes a hand-back one with a delay: the server writes down when such an
// event is due. One without is forgotten if the server stops, too, as the embedded one
// does, and then the whole ack wait has to pass.
const leastNak = time.Millisecond

// handBack gives an event to whoever fetches next, after the given time.
func (w *Worker) handBack(ctx context.Context, t *task, wait time.Duration) {
	w.outcome(ctx, t.delivery, telemetry.HandedBack)
	past := t.past
	past.NotBefore = w.cfg.Now().Add(wait)
	if !t.often() || !w.renew(ctx, t, past) {
		_ = t.msg.NakWithDelay(max(wait, leastNak))
	}
}

// often tells whether the event is to be put on its stream anew.
func (t *task) often() bool { return t.meta != nil && t.meta.NumDelivered >= renewAt }

// mostPutOff bounds how long an event that came before its time waits: this machine's
// clock may be wrong.
const mostPutOff = time.Hour

// putOff has an event that came before its time delivered again at that.
func (w *Worker) putOff(ctx context.Context, t *task) {
	if !t.often() || !w.renew(ctx, t, t.past) {
		_ = t.msg.NakWithDelay(min(max(leastNak, t.past.NotBefore.Sub(w.cfg.Now())), mostPutOff))
	}
	w.outcome(ctx, t.delivery, telemetry.Retried)
}

// postpone has the event delivered again later. The wait ends at the deadline,
// so that the last try is made when the result may just be there.
func (w *Worker) postpone(ctx context.Context, t *task, again *later) {
	wait := w.cfg.Retry.redelivery(t.attempts(), w.cfg.Now().Sub(t.past.First), again.least)
	if t.lane == event.Parked {
		wait = w.cfg.Retry.ofParked(w.parkingUsage(ctx).Results, again.least)
	} else if left := t.deadline().Sub(w.cfg.Now()); wait > left {
		wait = max(left, again.least, time.Second)
	}
	w.comeAgain(ctx, t, wait)
	w.noteWait(ctx, t, again, wait)
	if again.quiet {
		w.log.DebugContext(ctx, "an event waits for its time", append(t.attrs(), "error", again.err, "wait", wait)...)
		return
	}
	w.complain(ctx, t, again.err, wait)
}

// noteWait notes in the ledger why an event waits. What waits for a sink that everybody
// knows to be down is noted already.
func (w *Worker) noteWait(ctx context.Context, t *task, again *later, wait time.Duration) {
	if t.lane == event.Parked && again.quiet {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackWait)
	defer cancel()
	now := w.cfg.Now().UTC().Truncate(time.Millisecond)
	w.ledgerTrouble(ctx, w.ledger.postponed(ctx, t, Wait{Cause: causeOf(again), Attempts: t.attempts(), Last: now, Next: now.Add(wait)}))
}

// comeAgain has an event of which the worker knows what to say delivered again after the
// given time: so it has not ended the worker.
func (w *Worker) comeAgain(ctx context.Context, t *task, wait time.Duration) {
	past := t.past
	past.NotBefore, past.Crashes = w.cfg.Now().Add(wait), 0
	if renew := t.often() || t.past.Crashes > 0; !renew || !w.renew(ctx, t, past) {
		_ = t.msg.NakWithDelay(wait)
	}
	w.outcome(ctx, t.delivery, telemetry.Retried)
}

// renew puts an event on its stream anew, with the given past, and ends the old message;
// see renewAt. It returns false if the event is left as it is.
func (w *Worker) renew(ctx context.Context, t *task, past event.Past) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ackWait)
	defer cancel()
	past.Attempts = t.attempts()
	id := renewalID(t.meta.Stream, t.meta.Sequence.Stream, t.meta.Timestamp)
	if err := w.publisher.Republish(ctx, t.msg.Subject(), t.msg.Data(), t.msg.Headers(), past, id); err != nil {
		w.troubles.note(ctx, "renew", "cannot put events on the stream anew; they will come again", "error", err)
		return false
	}
	w.troubles.over("renew")
	// If this is lost, the event is there twice: the later one finds the work of the other
	// in the ledger.
	_ = t.msg.DoubleAck(ctx)
	return true
}

// renewalID is the message id of an event that is put on a stream anew: two workers who
// do that with one message store one.
func renewalID(stream string, sequence uint64, published time.Time) string {
	return "again-" + stream + "-" + strconv.FormatUint(sequence, 10) + "-" + strconv.FormatInt(published.UnixNano(), 36)
}

// apart returns when an event that may be what ends the workers is delivered again: at a
// random time, so that those which were only held along with it come without it. The
// second time in a row it is a longer one. An event whose result goes soon, at the given
// time, does not wait long; zero means that it has time.
func (w *Worker) apart(crashes uint64, deadline time.Time) time.Time {
	now, most := w.cfg.Now(), w.cfg.Retry.Apart
	if crashes > 1 {
		most *= apartLonger
	}
	if !deadline.IsZero() {
		most = min(most, max(deadline.Sub(now)/4, w.cfg.Retry.RedeliverFirst))
	}
	return now.Add(rand.N(most + 1))
}

// suspect looks at an event before anything is done with it: one that comes too often
// is put on its stream anew, and given up the third time in a row, for it may be what
// ends the workers. It tells whether the event is settled.
func (w *Worker) suspect(ctx context.Context, t *task) bool {
	if t.meta.NumDelivered <= suspectAfter {
		return false
	}
	past := t.past
	past.Crashes++
	deadline := t.deadline()
	if t.lane == event.Parked {
		deadline = time.Time{}
	}
	past.NotBefore = w.apart(past.Crashes, deadline)
	if past.Crashes < crashLimit {
		if !w.renew(ctx, t, past) {
			return false
		}
		w.outcome(ctx, t.delivery, telemetry.Retried)
		return true
	}
	if known, err := w.ledger.load(ctx, t); err != nil || known.covers(w.stages.names()) {
		// Only its acknowledgements were lost, or nobody can tell.
		return false
	}
	w.settle(ctx, t, crashed(t.attempts()), time.Time{})
	return true
}

// crashed is the decision about an event that no worker survives.
func crashed(deliveries uint64) *giveUp {
	return &giveUp{reason: event.Crashed, code: "max_deliveries",
		err: fmt.Errorf("delivered %d times, and no worker said what became of it: each ended or lost its connection", deliveries)}
}

// complain logs why an event has to wait, once per trouble and not per event.
func (w *Worker) complain(ctx context.Context, t *task, err error, wait time.Duration) {
	attrs := append(t.attrs(), "error", err)
	if wait > 0 {
		attrs = append(attrs, "wait", wait.Round(time.Second))
	}
	var storing sinkErrors
	var pulling *pullError
	switch {
	case errors.As(err, &storing):
		for _, one := range storing {
			if one.class == sinks.ClassWaiting {
				w.troubles.note(ctx, "waiting/"+one.sink, fmt.Sprintf("sink %s does not find an asset where the answer says it is; its result is parked or waits", one.sink), attrs...)
				continue
			}
			w.troubles.note(ctx, "sink/"+one.sink, fmt.Sprintf("sink %s does not take results, they are parked or wait", one.sink), append(attrs, "class", one.class)...)
		}
	case errors.As(err, &pulling):
		w.troubles.note(ctx, apiTrouble(t), fmt.Sprintf("cannot pull results of account %s, events wait", t.account.Name), append(attrs, "class", pulling.class)...)
	default:
		w.troubles.note(ctx, "worker", "an event failed and waits", attrs...)
	}
}

// heldUp returns the end of the detail of an expired event's letter: what held it up until
// it was too late.
func (w *Worker) heldUp(ctx context.Context, account string, product result.Product, token string, published time.Time) string {
	text, err := w.ledger.heldUp(ctx, account, ledgerKey(product, token), published)
	w.ledgerTrouble(ctx, err)
	if text == "" {
		return ""
	}
	return "; before that, " + text
}

// bury makes the event a dead letter. If that fails, the event comes again: a
// letter is stored before its event is ended.
func (w *Worker) bury(ctx context.Context, t *task, end *giveUp) {
	if w.erasedMeanwhile(ctx, t) {
		w.settle(ctx, t, errErased, time.Time{})
		return
	}

	letter := event.DeadLetter{
		Account: t.account.Name,
		Reason:  end.reason,
		Code:    end.code,
		Detail:  end.Error(),
		Last:    w.cfg.Now(),
		Subject: t.msg.Subject(),
		Body:    t.msg.Data(),
		Trace:   t.msg.Headers(),
		Again:   t.past.Again,
		First:   t.past.First,
		History: t.past.History,
	}
	if end.reason == event.Expired {
		letter.Detail += w.heldUp(ctx, t.account.Name, t.product, t.event.Token, t.past.First)
	}
	wait := w.cfg.Retry.RedeliverFirst
	if t.meta != nil {
		letter.Attempts = t.attempts()
		letter.StreamSequence = t.meta.Sequence.Stream
		wait = w.cfg.Retry.redelivery(t.attempts(), w.cfg.Now().Sub(t.past.First), 0)
	}
	burying, step := span.Start(ctx, "bury")
	err := w.publisher.Bury(burying, letter)
	endStep(step, err)
	if err != nil {
		if end.reason == event.Crashed {
			// It was not worked on, and is as suspicious as before.
			_ = t.msg.NakWithDelay(wait)
			w.outcome(ctx, t.delivery, telemetry.Retried)
		} else {
			w.comeAgain(ctx, t, wait)
		}
		w.troubles.note(ctx, "bury", "cannot store dead letters; their events will come again", "error", err)
		return
	}
	w.troubles.over("bury")
	_ = t.msg.TermWithReason(string(end.reason))
	w.outcome(ctx, t.delivery, telemetry.Buried)
	w.metrics.Dead(t.account.Name, string(end.reason))
	w.log.WarnContext(ctx, "gave an event up; it is a dead letter now", append(t.attrs(), "reason", end.reason, "code", end.code, "error", end.err)...)
}
