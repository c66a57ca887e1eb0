package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// A result that a sink does not take now is parked: sealed and stored in NATS, and
// its event moves to the lane of parked ones, where it has all the time it needs.
// The order is: result, ledger, event of the new lane, acknowledgement. A crash in
// between leaves the old event, which is delivered again and finds its way, and at
// worst a second event of the parked lane, which finds the work done.

const (
	// resultLife is how long Tencent keeps a result (FACTS §4).
	resultLife = 72 * time.Hour
	// parkingEvery is how often the use of the parking is looked at.
	parkingEvery = 5 * time.Second
)

// park parks r and tells whether it is safe there.
func (w *Worker) park(ctx context.Context, t *task, r *result.Result) bool {
	ctx, step := span.Start(ctx, "park")
	err := w.parking.Park(ctx, r)
	endStep(step, err)
	switch {
	case err == nil:
		w.troubles.over("park")
		w.metrics.Parked(t.account.Name)
		return true
	case errors.Is(err, parking.ErrFull):
		w.troubles.note(ctx, "park", "no room to park results while sinks are down (parking.quota): they are pulled again later", "error", err)
	case ctx.Err() == nil:
		w.troubles.note(ctx, "park", "cannot park results while sinks are down: they are pulled again later", "error", err)
	}
	return false
}

// forward moves the task's event to the lane of parked ones.
func (w *Worker) forward(ctx context.Context, t *task) error {
	past := t.past
	past.Attempts, past.Crashes, past.NotBefore = t.attempts(), 0, w.cfg.Now().Add(w.cfg.Retry.redelivery(1, 0, 0))
	id := "parked-" + strconv.FormatUint(t.meta.Sequence.Stream, 10) + "-" + strconv.FormatInt(t.meta.Timestamp.UnixNano(), 36)
	subject := event.Subject(event.Parked, t.account.Name, t.product)
	if err := w.publisher.Republish(ctx, subject, t.msg.Data(), t.msg.Headers(), past, id); err != nil {
		return fmt.Errorf("move an event to the lane of parked results: %w", err)
	}
	return errParked
}

// clearParked removes the parked result of a task that is done, if it has one.
func (w *Worker) clearParked(ctx context.Context, t *task, e *entry) error {
	if t.lane != event.Parked && !e.Parked {
		return nil
	}
	if err := w.parking.Drop(ctx, t.product, t.event.Token); err != nil {
		return fmt.Errorf("remove a parked result that is stored: %w", err)
	}
	return nil
}

// parkingUse is what was last seen of the parking's use.
type parkingUse struct {
	mu    sync.Mutex
	seen  time.Time
	usage parking.Usage
}

// watchParking keeps the metrics of parking fresh, and the parking free of what was cut
// off, until ctx is done.
func (w *Worker) watchParking(ctx context.Context) {
	for {
		w.parkingUsage(ctx)
		if err := w.parking.Sweep(ctx); err != nil {
			w.log.DebugContext(ctx, "cannot clear the parking of what was cut off", "error", err)
		}
		if sleep(ctx, 2*parkingEvery) != nil {
			return
		}
	}
}

// parkingUsage returns the use of the parking, a few seconds old at most; what
// cannot be read counts as it was.
func (w *Worker) parkingUsage(ctx context.Context) parking.Usage {
	u := &w.parkingUse
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := w.cfg.Now(); now.Sub(u.seen) > parkingEvery || now.Before(u.seen) {
		u.seen = now
		if usage, err := w.parking.Usage(ctx); err == nil {
			u.usage = usage
			w.metrics.Parking(usage.Results, usage.Bytes, usage.Quota)
		}
	}
	return u.usage
}

var errRoomFirst = errors.New("parking fills up while a sink is down, and this result has time: it is pulled later")

// waitsForRoom tells whether a result that has time should not be pulled now: a sink
// is down and the parking more than half full. What is left of it is for those that
// are deleted first: the fuller it is, the nearer a deadline must be.
func (w *Worker) waitsForRoom(ctx context.Context, t *task) bool {
	if !w.sinkDown() {
		return false
	}
	usage := w.parkingUsage(ctx)
	if usage.Quota <= 0 || 2*usage.Bytes < usage.Quota {
		return false
	}
	room := max(0, 1-float64(usage.Bytes)/float64(usage.Quota))
	return t.deadline().Sub(w.cfg.Now()) > time.Duration(2*room*float64(resultLife))
}
