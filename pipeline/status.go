package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
)

// Status is the state of the queues and of those who work on them, as NATS knows it.
type Status struct {
	// Events and Dead are how many events and dead letters are stored.
	Events uint64 `json:"events"`
	Dead   uint64 `json:"dead"`
	// DeadByReason counts dead letters by account and reason.
	DeadByReason map[string]map[string]uint64 `json:"dead_by_reason"`
	Lanes        []LaneStatus                 `json:"lanes"`
	// Deadlines are the nearest ones, one per account with an open event.
	Deadlines []DeadlineStatus `json:"deadlines"`
	// Waits is why the held events wait that were tried, one line for each account and
	// cause, the most frequent first.
	Waits []WaitStatus `json:"waits"`
	// Paused are the accounts whose calls the API refuses.
	Paused []PausedStatus `json:"paused"`
	Parked ParkedStatus   `json:"parked"`
	// Replicas are the daemons that run.
	Replicas []ReplicaStatus `json:"replicas"`
	// SinksDown are the sinks that some replica cannot reach.
	SinksDown []SinkDownStatus `json:"sinks_down"`
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
	// Redelivered are those of them that were delivered more than once: they were tried
	// and wait for another try, or their holder ended.
	Redelivered int `json:"redelivered"`
	// OldestSeconds is the age of the oldest event that is not done; nil if all
	// are.
	OldestSeconds *float64 `json:"oldest_seconds"`
}

// WaitStatus is how many events of an account wait for the same cause.
type WaitStatus struct {
	Account string `json:"account"`
	Cause
	// Text is the cause in words.
	Text   string `json:"text"`
	Events int    `json:"events"`
	// Of says of how many held events, the oldest ones, this was counted.
	Of int `json:"of"`
}

// DeadlineStatus is the event of an account whose result is deleted first.
type DeadlineStatus struct {
	Account     string    `json:"account"`
	Deadline    time.Time `json:"deadline"`
	LeftSeconds float64   `json:"left_seconds"`
	Token       string    `json:"token"`
}

// PausedStatus is an account whose events wait because the API refuses a replica's
// calls.
type PausedStatus struct {
	Account string `json:"account"`
	// Replica is the daemon that found out.
	Replica string `json:"replica"`
	// Code and Text are what the API said.
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Since time.Time `json:"since"`
}

// ParkedStatus is how many results wait for a sink, and how much room they take.
type ParkedStatus struct {
	Results int   `json:"results"`
	Bytes   int64 `json:"bytes"`
	// Quota is parking.quota; 0 if no daemon has noted it.
	Quota int64 `json:"quota"`
	// Reserved says that the server has set the quota aside. Else it had not so much
	// room, and may be full before the quota is.
	Reserved bool `json:"reserved"`
}

// ReplicaStatus is one daemon.
type ReplicaStatus struct {
	ID       string    `json:"id"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Accounts []string  `json:"accounts"`
}

// SinkDownStatus is a sink that a replica cannot reach.
type SinkDownStatus struct {
	Sink    string    `json:"sink"`
	Replica string    `json:"replica"`
	Since   time.Time `json:"since"`
	// Class is that of the last error.
	Class string `json:"class"`
}

// ReadStatus asks the server for the state of the given accounts. What does not
// exist yet counts as empty.
func ReadStatus(ctx context.Context, js jetstream.JetStream, accounts []string) (Status, error) {
	s := Status{
		DeadByReason: map[string]map[string]uint64{}, Strangers: map[string]uint64{}, Lanes: []LaneStatus{},
		Waits: []WaitStatus{}, Deadlines: []DeadlineStatus{}, Paused: []PausedStatus{}, Replicas: []ReplicaStatus{}, SinksDown: []SinkDownStatus{},
	}
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
	if s.Strangers, err = readStrangers(ctx, js, accounts); err != nil {
		return s, err
	}
	for _, account := range accounts {
		for _, name := range event.Lanes() {
			lane, err := readLane(ctx, js, account, name)
			if err != nil {
				return s, err
			}
			s.Lanes = append(s.Lanes, lane)
		}
		if err := s.readOpen(ctx, js, account); err != nil {
			return s, err
		}
	}
	usage, err := parking.ReadUsage(ctx, js)
	if err != nil {
		return s, err
	}
	s.Parked = ParkedStatus{Results: usage.Results, Bytes: usage.Bytes, Quota: usage.Quota, Reserved: usage.Reserved}
	return s, s.readReplicas(ctx, js)
}

// readReplicas adds what the daemons say of themselves.
func (s *Status) readReplicas(ctx context.Context, js jetstream.JetStream) error {
	notes, err := replica.Notes(ctx, js)
	if err != nil {
		return err
	}
	for _, n := range notes {
		s.Paused = append(s.Paused, PausedStatus{Account: n.Account, Replica: n.Replica, Code: n.Code, Text: n.Text, Since: n.Since})
	}
	replicas, err := replica.List(ctx, js)
	if err != nil {
		return err
	}
	for _, r := range replicas {
		s.Replicas = append(s.Replicas, ReplicaStatus{ID: r.ID, Host: r.Host, PID: r.PID, Version: r.Version, Started: r.Started, Accounts: r.Accounts})
		for _, name := range slices.Sorted(maps.Keys(r.Sinks)) {
			if sink := r.Sinks[name]; !sink.Up {
				s.SinksDown = append(s.SinksDown, SinkDownStatus{Sink: name, Replica: r.ID, Since: sink.Since, Class: sink.Class})
			}
		}
	}
	return nil
}

// readOpen adds an account's nearest deadline, and why its events wait.
func (s *Status) readOpen(ctx context.Context, js jetstream.JetStream, account string) error {
	var near nearest
	var held []openEvent
	for _, lane := range pulledLanes {
		err := scanLane(ctx, js, account, lane, func(one openEvent) {
			near.add(one)
			if one.delivered && len(held) < waitsLooked {
				held = append(held, one)
			}
		})
		if err != nil {
			return err
		}
	}
	near.cut()
	l, err := lookAtLedger(ctx, js)
	if l == nil || err != nil {
		return err
	}
	s.readDeadline(ctx, l, account, near.events)
	return s.readWaits(ctx, l, account, held)
}

// readDeadline adds the nearest deadline of those that are not met.
func (s *Status) readDeadline(ctx context.Context, l *ledger, account string, near []openEvent) {
	for _, one := range near {
		if one.delivered || time.Until(one.deadline) < urgentBefore {
			e, err := l.read(ctx, ledgerKey(one.product, one.token))
			if err == nil && !e.outdated(one.again) && (e.Complete || e.Parked || e.Erased != nil) {
				continue
			}
		}
		s.Deadlines = append(s.Deadlines, DeadlineStatus{
			Account: account, Deadline: one.deadline, LeftSeconds: time.Until(one.deadline).Seconds(), Token: one.token,
		})
		return
	}
}

const (
	// waitsLooked is of how many events of an account the ledger is asked why they wait:
	// the oldest ones.
	waitsLooked = 1000
	// waitsAtOnce is of how many at the same time.
	waitsAtOnce = 16
)

// readWaits counts why events wait that were delivered.
func (s *Status) readWaits(ctx context.Context, l *ledger, account string, held []openEvent) error {
	var mu sync.Mutex
	counts := map[Cause]int{}
	open := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(waitsAtOnce)
	for _, one := range held {
		group.Go(func() error {
			e, err := l.read(ctx, ledgerKey(one.product, one.token))
			if err != nil && e.revision == 0 {
				return err
			}
			if !e.outdated(one.again) && (e.Complete || e.Parked || e.Erased != nil) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			open++
			if e.Wait != nil {
				counts[e.Wait.Cause]++
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("look why events of account %s wait: %w", account, err)
	}

	list := make([]WaitStatus, 0, len(counts))
	for cause, n := range counts {
		list = append(list, WaitStatus{Account: account, Cause: cause, Text: cause.String(), Events: n, Of: open})
	}
	slices.SortFunc(list, func(a, b WaitStatus) int { return cmp.Or(b.Events-a.Events, strings.Compare(a.Text, b.Text)) })
	s.Waits = append(s.Waits, list...)
	return nil
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
		strangers, err := readStrangers(ctx, w.js, names)
		if err != nil && ctx.Err() == nil {
			w.log.Debug("cannot look for events of accounts that are not configured", "error", err)
		}
		total := uint64(0)
		for account, n := range strangers {
			total += n
			w.log.Warn("nobody takes the events of an account that is not configured", "account", account, "events", n)
		}
		if err == nil {
			w.metrics.Strangers(total)
		}
		if sleep(ctx, strangersEvery) != nil {
			return
		}
	}
}

// readStrangers counts the stored events, those of parked results too, of accounts that
// are not among those given: a typing error of a publisher, or an account that was
// removed.
func readStrangers(ctx context.Context, js jetstream.JetStream, accounts []string) (map[string]uint64, error) {
	strangers := map[string]uint64{}
	for _, name := range []string{event.Stream, event.ParkedStream} {
		stream, err := js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at stream %s: %w", name, err)
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return nil, fmt.Errorf("look at the subjects of stream %s: %w", name, err)
		}
		for subject, n := range info.State.Subjects {
			// An event of another product than there are is taken, and becomes a dead
			// letter, which is reported.
			account, ok := event.SubjectAccount(subject)
			if !ok {
				account = subject
			}
			if !slices.Contains(accounts, account) {
				strangers[account] += n
			}
		}
	}
	return strangers, nil
}

// uncounted reports whether a stream has an event of a lane that its consumer, as it was
// before, does not know of: the server counts an event for the consumers a moment after it
// has confirmed it. Without this look an event that is put on its stream anew would seem
// to be done in that moment.
func uncounted(ctx context.Context, stream jetstream.Stream, account string, name event.Lane, before *jetstream.ConsumerInfo) (bool, error) {
	last, err := stream.GetLastMsgForSubject(ctx, event.LaneSubjects(account, name))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the last event of account %s: %w", account, err)
	}
	return last.Sequence > before.Delivered.Stream, nil
}

func readLane(ctx context.Context, js jetstream.JetStream, account string, name event.Lane) (LaneStatus, error) {
	lane := LaneStatus{Account: account, Lane: name}
	stream, err := js.Stream(ctx, name.Stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return lane, nil
	}
	if err != nil {
		return lane, fmt.Errorf("look at stream %s: %w", name.Stream(), err)
	}
	consumer, err := stream.Consumer(ctx, event.ConsumerName(account, name))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		// No worker has run for this account yet: all of its events wait.
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(event.LaneSubjects(account, name)))
		if err != nil {
			return lane, fmt.Errorf("look at stream %s: %w", name.Stream(), err)
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
		fresh, err := uncounted(ctx, stream, account, name, info)
		if err != nil || !fresh {
			return lane, err
		}
		lane.Waiting = 1
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
