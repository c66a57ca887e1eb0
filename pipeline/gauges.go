package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// gaugesEvery is how often the worker asks the server for what the gauges of queues
// show: a few requests for each account, however long the queues are.
const gaugesEvery = 10 * time.Second

// watchQueues keeps the gauges of queues, dead letters and replicas fresh until ctx is
// done.
func (w *Worker) watchQueues(ctx context.Context) {
	for {
		if err := w.showQueues(ctx); err == nil {
			w.troubles.over("queues")
		} else if ctx.Err() == nil {
			w.troubles.note(ctx, "queues", "cannot look at the queues: the metrics of backlog and dead letters are old", "error", err)
		}
		w.metrics.Replicas(w.peers.Count())
		if sleep(ctx, gaugesEvery) != nil {
			return
		}
	}
}

func (w *Worker) showQueues(ctx context.Context) error {
	dead, _, err := event.CountDeadLetters(ctx, w.js)
	if err != nil {
		return err
	}
	for _, a := range w.accounts {
		if err := w.showBacklog(ctx, a.Name); err != nil {
			return err
		}
		w.metrics.DeadStored(a.Name, dead[a.Name])
	}
	return nil
}

// showBacklog shows an account's open events.
func (w *Worker) showBacklog(ctx context.Context, account string) error {
	var oldest *time.Duration
	for _, name := range event.Lanes() {
		lane, err := readLane(ctx, w.js, account, name)
		if err != nil {
			return err
		}
		w.metrics.Backlog(account, string(name), lane.Waiting+uint64(max(0, lane.Held)))
		if lane.OldestSeconds == nil || !slices.Contains(pulledLanes, name) {
			continue
		}
		if age := time.Duration(*lane.OldestSeconds * float64(time.Second)); oldest == nil || age > *oldest {
			oldest = &age
		}
	}
	w.metrics.Oldest(account, oldest)
	return nil
}
