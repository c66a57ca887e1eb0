package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// A stream is read in the order of publication, which is nearly that of deadlines
// for live events and any order for a backfill. So the worker looks through all that
// is open, from time to time: it warns of what is near its deadline, and works on
// what is nearest out of turn.

const (
	// scanLeast and scanMost bound the time between two looks; in between it is
	// scanShare times what the last look took.
	scanLeast = 30 * time.Second
	scanMost  = 10 * time.Minute
	scanShare = 20
	// nearestKept is how many open events of a lane a look remembers, the nearest
	// deadlines. What it counts is never more than this.
	nearestKept = 10_000
	// remindEvery is how often a warning is repeated.
	remindEvery = time.Hour
	// lastShare is the part of its time in the stream, the last one, in which an event
	// is given up if its result is gone and nobody could try it, as the API refuses
	// its account.
	lastShare = 8
)

// dueWithin are the times before a deadline at which the worker warns, and what the
// metric calls them.
var dueWithin = []struct {
	label string
	left  time.Duration
}{{"1h", time.Hour}, {"6h", 6 * time.Hour}, {"24h", 24 * time.Hour}}

// openEvent is an event that may not be done.
type openEvent struct {
	lane     event.Lane
	sequence uint64
	// published is when the message was stored, by the server's clock.
	published time.Time
	deadline  time.Time
	product   result.Product
	token     string
	// delivered says that a worker has seen it: it holds it, or the event waits.
	delivered bool
}

// scanLane visits the events of an account's lane that may be open: those behind
// the last one before which all are done. What is malformed is left out.
func scanLane(ctx context.Context, js jetstream.JetStream, account string, lane event.Lane, visit func(openEvent)) error {
	consumer, err := js.Consumer(ctx, lane.Stream(), event.ConsumerName(account, lane))
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at consumer %s: %w", event.ConsumerName(account, lane), err)
	}
	info := consumer.CachedInfo()
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return nil
	}
	return event.Scan(ctx, js, lane.Stream(), info.AckFloor.Stream+1, []string{event.LaneSubjects(account, lane)}, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
		if one, ok := readOpen(msg, meta, lane); ok {
			one.delivered = meta.Sequence.Stream <= info.Delivered.Stream
			visit(one)
		}
		return nil
	})
}

func readOpen(msg jetstream.Msg, meta *jetstream.MsgMetadata, lane event.Lane) (openEvent, bool) {
	_, _, product, err := event.ParseSubject(msg.Subject())
	if err != nil {
		return openEvent{}, false
	}
	e, err := event.Decode(product, msg.Data())
	if err != nil {
		return openEvent{}, false
	}
	first := event.PastOf(meta.Timestamp, msg.Headers()).First
	return openEvent{lane: lane, sequence: meta.Sequence.Stream, published: meta.Timestamp, deadline: e.Deadline(first), product: product, token: e.Token}, true
}

// nearest keeps the events with the nearest deadlines.
type nearest struct{ events []openEvent }

func (n *nearest) add(one openEvent) {
	n.events = append(n.events, one)
	if len(n.events) >= 2*nearestKept {
		n.cut()
	}
}

// cut sorts what there is and drops the latest.
func (n *nearest) cut() {
	slices.SortStableFunc(n.events, func(a, b openEvent) int {
		return cmp.Or(a.deadline.Compare(b.deadline), cmp.Compare(a.sequence, b.sequence))
	})
	n.events = n.events[:min(len(n.events), nearestKept)]
}

// deadlines is what a worker remembers between two looks.
type deadlines struct {
	// done are the events behind the acknowledgement floor that are done, as the
	// ledger said, by account.
	done map[string]map[uint64]bool
	// warned is when the worker last warned, by account and time left.
	warned map[string]time.Time
}

// watchDeadlines looks at the open events of all accounts until ctx is done; work
// is the context of what it works on.
func (w *Worker) watchDeadlines(ctx, work context.Context) {
	seen := deadlines{done: map[string]map[uint64]bool{}, warned: map[string]time.Time{}}
	for {
		began := time.Now()
		for _, a := range w.accounts {
			open, err := w.lookAt(ctx, a, &seen)
			if err == nil {
				w.warn(a, open, &seen)
				err = w.hurry(ctx, work, a, open)
			}
			switch {
			case err == nil:
				w.troubles.over("deadlines")
			case ctx.Err() == nil:
				w.troubles.note(ctx, "deadlines", "cannot look for results that will be deleted soon", "account", a.Name, "error", err)
			}
		}
		if sleep(ctx, min(max(scanShare*time.Since(began), scanLeast), scanMost)) != nil {
			return
		}
	}
}

// lookAt returns the open events of an account that are nearest their deadline, as
// far as that is less than the longest of dueWithin away, and at least one.
func (w *Worker) lookAt(ctx context.Context, a *account, seen *deadlines) ([]openEvent, error) {
	var near nearest
	for _, lane := range pulledLanes {
		if err := scanLane(ctx, w.js, a.Name, lane, near.add); err != nil {
			return nil, err
		}
	}
	near.cut()
	known, now := map[uint64]bool{}, w.cfg.Now()
	var open []openEvent
	for _, one := range near.events {
		if len(open) > 0 && one.deadline.Sub(now) > dueWithin[len(dueWithin)-1].left {
			break
		}
		done := seen.done[a.Name][one.sequence]
		if !done && one.delivered {
			e, err := w.ledger.read(ctx, ledgerKey(one.product, one.token))
			if err != nil {
				return nil, err
			}
			done = e.Parked || e.covers(w.stages.names())
		}
		if done {
			known[one.sequence] = true
			continue
		}
		open = append(open, one)
	}
	seen.done[a.Name] = known
	return open, nil
}

// warn shows and logs what is near its deadline.
func (w *Worker) warn(a *account, open []openEvent, seen *deadlines) {
	now := w.cfg.Now()
	if len(open) > 0 {
		w.metrics.Deadline(a.Name, open[0].deadline.Sub(now))
	} else {
		w.metrics.NoDeadline(a.Name)
	}
	logged := false
	for _, due := range dueWithin {
		count := 0
		for count < len(open) && open[count].deadline.Sub(now) < due.left {
			count++
		}
		w.metrics.Due(a.Name, due.label, count)
		key := a.Name + "/" + due.label
		if count == 0 {
			delete(seen.warned, key)
			continue
		}
		// The shorter time says it all.
		if last, warned := seen.warned[key]; !logged && (!warned || now.Sub(last) >= remindEvery) {
			w.log.Warn("results that are not stored will be deleted by Tencent within "+due.label,
				"account", a.Name, "events", count, "nearest", open[0].deadline.UTC().Format(time.RFC3339), "token", open[0].token)
			logged = true
			seen.warned[key] = now
		}
	}
}

// hurry does what one replica alone should do about events near their deadline. A
// second one does no harm.
func (w *Worker) hurry(ctx, work context.Context, a *account, open []openEvent) error {
	if len(open) == 0 || !w.peers.Leads() {
		return nil
	}
	stream, err := w.js.Stream(ctx, event.Stream)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", event.Stream, err)
	}
	// The server's clock, by which the stream drops events: ours may be wrong.
	now, life := stream.CachedInfo().TimeStamp, stream.CachedInfo().Config.MaxAge
	for _, one := range open {
		if life > 0 && now.After(one.deadline) && now.Sub(one.published) > life-life/lastShare {
			if err := w.buryOverdue(ctx, stream, a, one); err != nil {
				return err
			}
		}
	}
	w.express(ctx, work, stream, a, open)
	return nil
}

// buryOverdue gives up an event whose result is gone, before its stream drops it
// without a word.
func (w *Worker) buryOverdue(ctx context.Context, stream jetstream.Stream, a *account, one openEvent) error {
	raw, err := stream.GetMsg(ctx, one.sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read an event that is overdue: %w", err)
	}
	letter := w.storedLetter(raw, a.Name)
	letter.Reason, letter.Code = event.Expired, "overdue"
	letter.Detail = "the result could not be pulled before Tencent deleted it, and the event was about to be dropped by its stream"
	return w.buryStored(ctx, stream, letter)
}

// express works on events near their deadline that lie so deep in a backlog that
// their turn may come too late. What succeeds is known when its message is
// delivered, what fails is tried then.
func (w *Worker) express(ctx, work context.Context, stream jetstream.Stream, a *account, open []openEvent) {
	var group sync.WaitGroup
	defer group.Wait()
	places := make(chan struct{}, w.cfg.Slots)
	now := w.cfg.Now()
	for _, one := range open {
		left := one.deadline.Sub(now)
		if left >= urgentBefore || ctx.Err() != nil || a.pause.held() {
			return
		}
		if one.delivered || left < 0 {
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		group.Go(func() {
			defer func() { <-places }()
			w.expressOne(ctx, work, stream, a, one)
		})
	}
}

func (w *Worker) expressOne(ctx, work context.Context, stream jetstream.Stream, a *account, one openEvent) {
	raw, err := stream.GetMsg(ctx, one.sequence)
	if err != nil {
		w.log.DebugContext(ctx, "cannot read an event out of turn", "account", a.Name, "sequence", one.sequence, "error", err)
		return
	}
	t, err := newTask(&delivery{msg: storedMsg{raw: raw, stream: event.Stream}, account: a, lane: one.lane, slots: a.slots, outOfTurn: true})
	if err != nil || w.cfg.Now().Before(t.past.NotBefore) {
		return
	}
	release, ok := t.slots.take(ctx, t.turn(w.cfg.Now()))
	if !ok {
		return
	}
	defer release()
	work, step := w.begin(work, t)
	defer step.End()
	err = w.guarded(work, func() error { return w.ingest(work, t) })
	w.log.DebugContext(work, "worked on an event out of turn, for its deadline is near", append(t.attrs(), "error", err)...)
}

// storedMsg is an event read from its stream, without a delivery: it cannot be
// acknowledged, and need not.
type storedMsg struct {
	jetstream.Msg // nil: what is not below is never called
	raw           *jetstream.RawStreamMsg
	stream        string
}

func (m storedMsg) Data() []byte         { return m.raw.Data }
func (m storedMsg) Headers() nats.Header { return m.raw.Header }
func (m storedMsg) Subject() string      { return m.raw.Subject }
func (m storedMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{
		Sequence: jetstream.SequencePair{Stream: m.raw.Sequence}, NumDelivered: 1, Timestamp: m.raw.Time, Stream: m.stream,
	}, nil
}
