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
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
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
	// nearestKept is how many events with the nearest deadlines a look remembers, of
	// those that a worker has seen and of the others. It counts no more than these.
	nearestKept = 10_000
	// expressAgain is how long an event that was worked on out of turn, in vain, waits
	// until that is done again.
	expressAgain = 10 * time.Minute
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
	place    event.Place
	deadline time.Time
	product  result.Product
	token    string
	// again is that of the event's past.
	again event.Place
	// delivered says that a worker has seen it: it holds it, or the event waits.
	delivered bool
	// express is what the ledger says of its token, as far as look has asked it.
	express *expressed
}

// message names one message; sequences alone begin again in a stream that is made anew.
type message struct {
	sequence  uint64
	published int64
}

func (o openEvent) message() message { return message{o.place.Sequence, o.place.Time.UnixNano()} }

// finished tells whether the event's work is done, by what the ledger says of its
// token: all sinks that are named have the result, or it is parked, or erased.
func (o openEvent) finished(e *entry, names []string) bool {
	return !e.outdated(o.again) && (e.Parked || e.Erased != nil || e.covers(names))
}

// scanLane visits the events of an account's lane that may be open: those behind
// the last one before which all are done. What is malformed is left out.
func scanLane(ctx context.Context, js jetstream.JetStream, account string, lane event.Lane, visit func(openEvent)) error {
	stream, err := js.Stream(ctx, lane.Stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", lane.Stream(), err)
	}

	consumer, err := stream.Consumer(ctx, event.ConsumerName(account, lane))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at consumer %s: %w", event.ConsumerName(account, lane), err)
	}

	info := consumer.CachedInfo()
	if info.NumPending == 0 && info.NumAckPending == 0 {
		if fresh, err := uncounted(ctx, stream, account, lane, info); err != nil || !fresh {
			return err
		}
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
	place := event.PlaceOf(meta)
	past := event.PastOf(place, msg.Headers())
	return openEvent{lane: lane, place: place, deadline: e.Deadline(past.First), product: product, token: e.Token, again: past.Again}, true
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
	slices.SortStableFunc(n.events, byDeadline)
	n.events = n.events[:min(len(n.events), nearestKept)]
}

func byDeadline(a, b openEvent) int {
	return cmp.Or(a.deadline.Compare(b.deadline), cmp.Compare(a.place.Sequence, b.place.Sequence))
}

// deadlines watches those of one account.
type deadlines struct {
	*Worker
	account *account
	// done are the events that are done, as the ledger said, but not behind the
	// acknowledgement floor.
	done      map[message]bool
	reminders reminders
}

// watchDeadlines looks at the open events of an account until ctx is done; work is the
// context of what it works on.
func (w *Worker) watchDeadlines(ctx, work context.Context, a *account) {
	d := &deadlines{Worker: w, account: a, done: map[message]bool{}, reminders: reminders{map[string]time.Time{}}}
	trouble := "deadlines/" + a.Name
	for ctx.Err() == nil {
		began := time.Now()
		open, err := d.look(ctx)
		next := time.Now().Add(min(max(scanShare*time.Since(began), scanLeast), scanMost))
		if err == nil {
			d.warn(open)
			err = d.hurry(ctx, work, open, next)
		}
		switch {
		case err == nil:
			w.troubles.over(trouble)
		case ctx.Err() == nil:
			w.troubles.note(ctx, trouble, "cannot look for results that will be deleted soon", "account", a.Name, "error", err)
		}
		if sleep(ctx, time.Until(next)) != nil {
			return
		}
	}
}

// look returns the account's open events that are nearest their deadline, as far as
// that is less than the longest of dueWithin away, and at least one.
func (d *deadlines) look(ctx context.Context) ([]openEvent, error) {
	// What was delivered may be done, and there may be much of it while one event
	// before it waits: it must not take the places of what nobody has seen.
	var seen, unseen nearest
	done := map[message]bool{}
	for _, lane := range pulledLanes {
		err := scanLane(ctx, d.js, d.account.Name, lane, func(one openEvent) {
			switch {
			case d.done[one.message()]:
				done[one.message()] = true
			case one.delivered:
				seen.add(one)
			default:
				unseen.add(one)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	d.done = done
	seen.cut()
	unseen.cut()
	near := slices.Concat(seen.events, unseen.events)
	slices.SortStableFunc(near, byDeadline)
	return d.stillOpen(ctx, near)
}

// stillOpen returns those of near, in the order of deadlines, that are not done, as far
// as look wants them.
func (d *deadlines) stillOpen(ctx context.Context, near []openEvent) (open []openEvent, err error) {
	now := d.cfg.Now()
	for _, one := range near {
		left := one.deadline.Sub(now)
		if len(open) > 0 && left > dueWithin[len(dueWithin)-1].left {
			break
		}
		// What is not delivered may have been worked on out of turn, or be known.
		if one.delivered || left < urgentBefore {
			e, err := d.ledger.read(ctx, ledgerKey(one.product, one.token))
			if err != nil {
				return nil, err
			}
			if one.finished(e, d.stages.names()) {
				d.done[one.message()] = true
				continue
			}
			one.express = e.Express
		}
		open = append(open, one)
	}
	return open, nil
}

// warn shows and logs what is near its deadline.
func (d *deadlines) warn(open []openEvent) {
	now, account := d.cfg.Now(), d.account.Name
	if len(open) > 0 {
		d.metrics.Deadline(account, open[0].deadline.Sub(now))
	} else {
		d.metrics.NoDeadline(account)
	}
	for _, due := range dueWithin {
		d.metrics.Due(account, due.label, countWithin(open, now, due.left))
	}

	for _, r := range d.reminders.of(now, open) {
		d.log.Warn(r.text, "account", account, "events", r.events,
			"nearest", r.nearest.deadline.UTC().Format(time.RFC3339), "token", r.nearest.token)
	}
}

// hurry does what one replica alone should do about events near their deadline, until the
// next look is due. A second one does no harm.
func (d *deadlines) hurry(ctx, work context.Context, open []openEvent, next time.Time) error {
	if len(open) == 0 || !d.peers.Leads(ctx, d.account.Name) {
		return nil
	}
	stream, err := d.js.Stream(ctx, event.Stream)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", event.Stream, err)
	}
	// The server's clock, by which the stream drops events: ours may be wrong.
	now, life := stream.CachedInfo().TimeStamp, stream.CachedInfo().Config.MaxAge
	for _, one := range open {
		if life > 0 && now.After(one.deadline) && now.Sub(one.place.Time) > life-life/lastShare {
			if err := d.buryOverdue(ctx, stream, one); err != nil {
				return err
			}
		}
	}
	d.express(ctx, work, stream, open, next)
	return nil
}

// buryOverdue gives up an event whose result is gone, before its stream drops it
// without a word.
func (d *deadlines) buryOverdue(ctx context.Context, stream jetstream.Stream, one openEvent) error {
	raw, err := stream.GetMsg(ctx, one.place.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read an event that is overdue: %w", err)
	}
	letter := d.storedLetter(raw, d.account.Name)
	letter.Reason, letter.Code = event.Expired, "overdue"
	letter.Detail = "the result could not be pulled before Tencent deleted it, and the event was about to be dropped by its stream" +
		d.heldUp(ctx, d.account.Name, one.product, one.token, letter.First)
	return d.buryStored(ctx, stream, letter)
}

// express works on events near their deadline that lie so deep in a backlog that
// their turn may come too late. What succeeds is known when its message is
// delivered, what fails is tried then. It begins with none after the given time, nor when
// the account is refused.
func (d *deadlines) express(ctx, work context.Context, stream jetstream.Stream, open []openEvent, until time.Time) {
	ctx, stop := context.WithDeadline(ctx, until)
	defer stop()
	var group sync.WaitGroup
	defer group.Wait() // before stop
	places := make(chan struct{}, d.cfg.Slots)
	for _, one := range open {
		now := d.cfg.Now()
		left := one.deadline.Sub(now)
		if left >= urgentBefore || d.account.pause.held() {
			return
		}
		if one.delivered || left < 0 || one.express.rests(now) {
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		group.Go(func() {
			defer func() { <-places }()
			var paused *pausedError
			if err := d.expressOne(ctx, work, stream, one); errors.As(err, &paused) {
				stop()
			}
		})
	}
}

// expressOne works on one event unless that may be what ends workers; ctx bounds the wait
// for its place. The error is why it failed.
func (d *deadlines) expressOne(ctx, work context.Context, stream jetstream.Stream, one openEvent) error {
	raw, err := stream.GetMsg(ctx, one.place.Sequence)
	if err != nil {
		d.log.DebugContext(ctx, "cannot read an event out of turn", "account", d.account.Name, "sequence", one.place.Sequence, "error", err)
		return err
	}
	t, err := newTask(&delivery{msg: storedMsg{raw: raw, stream: streams.NameIn(d.js, event.Stream)}, account: d.account, lane: one.lane, slots: d.account.slots, outOfTurn: true})
	if err != nil || t.past.Crashes > 0 || d.cfg.Now().Before(t.past.NotBefore) {
		return err
	}
	release, ok := t.slots.take(ctx, t.turn(d.cfg.Now()))
	if !ok {
		return ctx.Err()
	}
	defer release()
	defer d.working.begin(t, d.cfg.Now())()
	begun, err := d.ledger.express(work, t, d.cfg.Now())
	d.ledgerTrouble(work, err)
	if !begun {
		return err
	}
	work, step := d.begin(work, t)
	defer step.End()
	err = d.guarded(work, func() error { return d.ingest(work, t) })
	d.ledgerTrouble(work, d.ledger.survived(context.WithoutCancel(work), t))
	d.log.DebugContext(work, "worked on an event out of turn, for its deadline is near", append(t.attrs(), "error", err)...)
	return err
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
