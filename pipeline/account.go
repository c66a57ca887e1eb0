package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
)

// When the API refuses every call of an account (arrears, a bad secret, a clock
// that is wrong), nothing is to be had by trying its events one after the other.
// The worker that finds out fetches no more of the account's events and keeps one to try
// the account with. If the account itself is in trouble, or all replicas are refused, the
// account's consumers are paused for everybody; what may be wrong with one machine alone
// stops that one. The pause has an end, which is moved on as long as the trouble lasts:
// if this worker dies, the consumers go on by themselves and another worker finds out.

const (
	// pauseMargin is how much longer than until the next try the consumers pause.
	pauseMargin = 30 * time.Second
	// probeTurns is how often one event is tried before another has its turn: what
	// is wrong might be with this one.
	probeTurns = 40
	// aloneTurns is the same where other replicas are not refused: they may take the
	// event after two or three minutes.
	aloneTurns = 8
	// pauseWait bounds a request to pause or resume a consumer.
	pauseWait = 5 * time.Second
)

// account is an Account at work.
type account struct {
	Account
	// slots bounds the events in work of the lanes that pull.
	slots *slots
	pause pause
}

// pause keeps an account's events from being fetched and pulled by this process.
type pause struct {
	mu sync.Mutex
	// over is closed when the pause ends; nil while there is none.
	over chan struct{}
}

// claim begins a pause; false means that there is one.
func (p *pause) claim() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		return false
	}
	p.over = make(chan struct{})
	return true
}

func (p *pause) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.over = nil
}

func (p *pause) held() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over != nil
}

// wait returns when there is no pause; ctx ends the wait.
func (p *pause) wait(ctx context.Context) error {
	p.mu.Lock()
	over := p.over
	p.mu.Unlock()
	if over == nil {
		return ctx.Err()
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pausedError says that the account is paused; the event goes back as it was.
type pausedError struct{ account string }

func (e *pausedError) Error() string { return "account " + e.account + " is paused" }

// refusesAccount tells whether the API would refuse every call of the account.
func refusesAccount(err error) bool {
	var pulling *pullError
	return errors.As(err, &pulling) && pulling.class == faceid.AccountTrouble
}

// probe pauses the account of t and tries it with t until the API takes its calls
// again; refusal is what it said. Where that is done already it returns a
// *pausedError.
func (w *Worker) probe(ctx context.Context, t *task, refusal error) (fetched, error) {
	if !t.account.pause.claim() {
		return fetched{}, &pausedError{t.account.Name}
	}
	defer t.account.pause.end()
	since := w.cfg.Now()
	wait := w.cfg.Retry.ProbeFirst
	everybody := false
	defer func() { w.resumeAccount(ctx, t, everybody) }()
	for turn := range probeTurns {
		was := everybody
		everybody = w.pauseAccount(ctx, t, refusal, since, wait)
		if was && !everybody {
			w.resumeConsumers(ctx, t.account.Name)
		}
		if !everybody && turn >= aloneTurns {
			break
		}
		if err := sleep(ctx, wait); err != nil {
			// Stopping: another worker may do better, and if not, it finds out.
			return fetched{}, newPullError(err)
		}
		if !everybody && t.turn(w.cfg.Now()).priority == limit.Urgent {
			// Another worker may do better, and this event has no time to try the account
			// with.
			return fetched{}, &pausedError{t.account.Name}
		}
		wait = min(2*wait, w.cfg.Retry.ProbeMax)
		f, err := w.pullTries(ctx, t)
		if err == nil || !refusesAccount(err) {
			return f, err
		}
		refusal = err
	}
	return fetched{}, refusal
}

// pauseAccount tells why the account is paused, and stops its consumers until after the
// next try where that is everybody's trouble, which it returns.
func (w *Worker) pauseAccount(ctx context.Context, t *task, refusal error, since time.Time, wait time.Duration) (everybody bool) {
	name := t.account.Name
	w.metrics.AccountPaused(name, true)
	w.troubles.note(ctx, apiTrouble(t), fmt.Sprintf("the API refuses all calls of account %s: this daemon pulls none of its results", name),
		append(t.attrs(), "error", refusal, "code", apiCode(refusal))...)
	ctx, cancel := context.WithTimeout(ctx, pauseWait)
	defer cancel()
	until := w.serverTime(ctx).Add(wait + pauseMargin)
	note := replica.Note{Code: apiCode(refusal), Text: refusal.Error(), Since: since, Until: until}
	if err := w.peers.SetNote(ctx, name, note); err != nil {
		w.log.DebugContext(ctx, "cannot note that an account is paused", "account", name, "error", err)
	}
	now := w.cfg.Now().UTC().Truncate(time.Millisecond)
	w.ledgerTrouble(ctx, w.ledger.notePause(ctx, name, Hold{Cause: causeOf(refusal), First: since.UTC().Truncate(time.Millisecond), Last: now}))
	if !faceid.OfWholeAccount(refusal) && !w.peers.AllNoted(ctx, name) {
		return false
	}
	for _, lane := range pulledLanes {
		if _, err := w.js.PauseConsumer(ctx, lane.Stream(), event.ConsumerName(name, lane), until); err != nil && ctx.Err() == nil {
			w.troubles.note(ctx, "pause/"+name, "cannot pause the consumers of an account for all workers; this one waits by itself", "account", name, "error", err)
		}
	}
	return true
}

// serverTime returns the time by the server's clock, for this machine's may be what
// ails the account.
func (w *Worker) serverTime(ctx context.Context) time.Time {
	stream, err := w.js.Stream(ctx, event.Stream)
	if err != nil {
		return time.Now()
	}
	return stream.CachedInfo().TimeStamp
}

// resumeAccount ends what pauseAccount did. The account's consumers go on if everybody
// is set: else it was not this worker that stopped them.
func (w *Worker) resumeAccount(ctx context.Context, t *task, everybody bool) {
	name := t.account.Name
	w.metrics.AccountPaused(name, false)
	w.troubles.over("pause/" + name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pauseWait)
	defer cancel()
	if everybody {
		w.resumeConsumers(ctx, name)
	}
	if err := w.peers.ClearNote(ctx, name); err != nil {
		w.log.DebugContext(ctx, "cannot take back the note of a paused account", "account", name, "error", err)
	}
}

func (w *Worker) resumeConsumers(ctx context.Context, account string) {
	for _, lane := range pulledLanes {
		// What fails here ends by itself.
		if _, err := w.js.ResumeConsumer(ctx, lane.Stream(), event.ConsumerName(account, lane)); err != nil {
			w.log.DebugContext(ctx, "cannot resume a consumer", "account", account, "lane", lane, "error", err)
		}
	}
}

// pulledLanes are those whose results come from the API.
var pulledLanes = []event.Lane{event.Live, event.Backfill}
