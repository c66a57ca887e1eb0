package pipeline

import (
	"context"
	"errors"
	"fmt"
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
	s := Status{DeadByReason: map[string]map[string]uint64{}, Lanes: []LaneStatus{}}
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
