package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// Status is the state of the queues, as the server knows it.
type Status struct {
	// Events and Dead are how many events and dead letters are stored.
	Events uint64 `json:"events"`
	Dead   uint64 `json:"dead"`
	// DeadByReason counts dead letters by account and reason.
	DeadByReason map[string]map[string]uint64 `json:"dead_by_reason"`
	Lanes        []LaneStatus                 `json:"lanes"`
	// Strangers counts the stored events of accounts that are not configured, by
	// account: nobody will ever take them.
	Strangers map[string]uint64 `json:"strangers"`
}

// LaneStatus is the state of one account's lane.
type LaneStatus struct {
	Account string     `json:"account"`
	Lane    event.Lane `json:"lane"`
	// Waiting are events that no worker has seen yet.
	Waiting uint64 `json:"waiting"`
	// Held are events in work, or waiting to be delivered again.
	Held int `json:"held"`
	// Redelivered are those of them that were delivered more than once.
	Redelivered int `json:"redelivered"`
	// OldestSeconds is the age of the oldest event that is not done; nil if all
	// are.
	OldestSeconds *float64 `json:"oldest_seconds"`
}

// ReadStatus asks the server for the state of the given accounts. Streams that
// do not exist yet count as empty.
func ReadStatus(ctx context.Context, js jetstream.JetStream, accounts []string) (Status, error) {
	s := Status{DeadByReason: map[string]map[string]uint64{}, Lanes: []LaneStatus{}, Strangers: map[string]uint64{}}
	stream, err := js.Stream(ctx, event.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("look at stream %s: %w", event.Stream, err)
	}
	s.Events = stream.CachedInfo().State.Msgs
	if s.DeadByReason, s.Dead, err = event.CountDeadLetters(ctx, js); err != nil {
		return s, err
	}
	if s.Strangers, err = readStrangers(ctx, stream, accounts); err != nil {
		return s, err
	}
	for _, account := range accounts {
		for _, name := range event.Lanes() {
			lane, err := readLane(ctx, stream, account, name)
			if err != nil {
				return s, err
			}
			s.Lanes = append(s.Lanes, lane)
		}
	}
	return s, nil
}

// strangersEvery is how often the worker looks for strangers.
const strangersEvery = 10 * time.Minute

// watchStrangers warns of events that nobody takes, at the start and from time
// to time, until ctx is done.
func (w *Worker) watchStrangers(ctx context.Context) {
	names := make([]string, len(w.accounts))
	for i, a := range w.accounts {
		names[i] = a.Name
	}
	for {
		if stream, err := w.js.Stream(ctx, event.Stream); err == nil {
			strangers, err := readStrangers(ctx, stream, names)
			if err != nil {
				w.log.Debug("cannot look for events of accounts that are not configured", "error", err)
			}
			total := uint64(0)
			for account, n := range strangers {
				total += n
				w.log.Warn("nobody takes the events of an account that is not configured", "account", account, "events", n)
			}
			w.metrics.Strangers(total)
		}
		if pause(ctx, strangersEvery) != nil {
			return
		}
	}
}

// readStrangers counts the stored events of accounts that are not among those
// given: a typing error of a publisher, or an account that was removed.
func readStrangers(ctx context.Context, stream jetstream.Stream, accounts []string) (map[string]uint64, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, fmt.Errorf("look at the subjects of stream %s: %w", event.Stream, err)
	}
	strangers := map[string]uint64{}
	for subject, n := range info.State.Subjects {
		_, account, _, err := event.ParseSubject(subject)
		if err != nil {
			account = subject
		}
		if !slices.Contains(accounts, account) {
			strangers[account] += n
		}
	}
	return strangers, nil
}

func readLane(ctx context.Context, stream jetstream.Stream, account string, name event.Lane) (LaneStatus, error) {
	lane := LaneStatus{Account: account, Lane: name}
	consumer, err := stream.Consumer(ctx, event.ConsumerName(account, name))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		// No worker has run for this account yet: all of its events wait.
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(event.LaneSubjects(account, name)))
		if err != nil {
			return lane, fmt.Errorf("look at stream %s: %w", event.Stream, err)
		}
		for _, n := range info.State.Subjects {
			lane.Waiting += n
		}
		return lane, nil
	}
	if err != nil {
		return lane, fmt.Errorf("look at consumer %s: %w", event.ConsumerName(account, name), err)
	}
	info := consumer.CachedInfo()
	lane.Waiting, lane.Held, lane.Redelivered = info.NumPending, info.NumAckPending, info.NumRedelivered
	if lane.Waiting == 0 && lane.Held == 0 {
		return lane, nil
	}
	// Everything up to the ack floor is done, so the oldest open event is the
	// next one of this lane after it.
	oldest, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return lane, nil
	}
	if err != nil {
		return lane, fmt.Errorf("look at the oldest event of account %s: %w", account, err)
	}
	age := time.Since(oldest.Time).Seconds()
	lane.OldestSeconds = &age
	return lane, nil
}
