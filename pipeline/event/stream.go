package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxAge is how long events stay: past the 72 hours of a result there must
	// be time to see why one was not ingested.
	maxAge = 7 * 24 * time.Hour
	// deadMaxAge is how long dead letters wait for somebody to look at them.
	deadMaxAge = 365 * 24 * time.Hour
	// duplicates is the window in which JetStream drops a second event of one
	// token: long enough for a publisher that tries again. Beyond it the sinks'
	// idempotence takes over.
	duplicates = 10 * time.Minute
	// minAge is the least that a stream must keep events for: a result lives
	// that long.
	minAge = 72 * time.Hour
	// maxAckPending does not bound the events of one consumer that are held or wait
	// out a delay: a bound would let events that wait keep new ones away. Workers
	// bound what they hold themselves.
	maxAckPending = -1
	// MaxDeliveries is how often one message of a result that is not parked is delivered
	// at most. Workers put an event on the stream anew long before (see
	// Publisher.Republish), so that only one that ends them before they can look at it
	// comes here; see AdvisoryStream. One that they cannot put anew, as the stream is full,
	// waits minutes each time, and so does not come so often within the stream's age,
	// unless its account is paused or its holders end. A parked one is delivered without end, for nobody would miss it.
	MaxDeliveries = 1000
	// reaperName is the durable consumer of AdvisoryStream.
	reaperName = "reaper"
	// advisoryPrefix is where a server publishes that a message was delivered as
	// often as it may be; the stream and the consumer follow.
	advisoryPrefix = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."
)

// EnsureStreams creates the streams of events, parked events, dead letters and
// advisories where they are missing. A stream that exists is left as its owner made it, except that missing
// subjects are added and replicas raised, never lowered; one that would lose
// events (another retention than limits, storage in memory, an age below 72
// hours, old events dropped for new ones) is an error.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, replicas int) error {
	events := jetstream.StreamConfig{
		Name:        Stream,
		Description: "Completion events of FaceID tokens",
		Subjects:    []string{Live.prefix() + "*.*", Backfill.prefix() + "*.*"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		// A full stream refuses new events instead of dropping old ones: the
		// publisher can see it and try again.
		Discard:    jetstream.DiscardNew,
		MaxAge:     maxAge,
		Duplicates: duplicates,
		MaxMsgSize: 2 * MaxBody,
		Replicas:   replicas,
	}
	dead := jetstream.StreamConfig{
		Name:        DeadStream,
		Description: "FaceID events that were given up, with their reason",
		Subjects:    []string{deadPrefix + "*.*"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxAge:      deadMaxAge,
		AllowMsgTTL: true, // see buryBriefly
		Duplicates:  duplicates,
		Replicas:    replicas,
	}
	parked := jetstream.StreamConfig{
		Name:        ParkedStream,
		Description: "FaceID events whose results are parked until a sink takes them",
		Subjects:    []string{Parked.prefix() + "*.*"},
		// What is done must go by itself: these events have no age at which they do.
		Retention:  jetstream.WorkQueuePolicy,
		Storage:    jetstream.FileStorage,
		Discard:    jetstream.DiscardNew,
		Duplicates: duplicates,
		MaxMsgSize: 2 * MaxBody,
		Replicas:   replicas,
	}
	advisories := jetstream.StreamConfig{
		Name:        AdvisoryStream,
		Description: "What the server says of FaceID events that no worker survives",
		Subjects:    []string{advisoryPrefix + Stream + ".*"},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxAge:      maxAge,
		Replicas:    replicas,
	}
	return errors.Join(ensureStream(ctx, js, events), ensureStream(ctx, js, dead),
		ensureStream(ctx, js, parked), ensureStream(ctx, js, advisories))
}

func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	_, err := js.CreateStream(ctx, want)
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create stream %s: %w", want.Name, err)
	}
	stream, err := js.Stream(ctx, want.Name)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", want.Name, err)
	}
	have := stream.CachedInfo().Config
	if problem := losing(have, want); problem != "" {
		return fmt.Errorf("stream %s would lose events: %s; change it, or delete it and it is made anew", want.Name, problem)
	}
	if want.AllowMsgTTL && !have.AllowMsgTTL {
		// It can do without, see buryBriefly: its owner or the server may not have it.
		asked := have
		asked.AllowMsgTTL = true
		if _, err := js.UpdateStream(ctx, asked); err == nil {
			have = asked
		}
	}
	changed := have.Replicas < want.Replicas
	have.Replicas = max(have.Replicas, want.Replicas)
	for _, subject := range want.Subjects {
		if !slices.Contains(have.Subjects, subject) {
			have.Subjects = append(have.Subjects, subject)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if _, err := js.UpdateStream(ctx, have); err != nil {
		return fmt.Errorf("update stream %s: %w", want.Name, err)
	}
	return nil
}

// losing says how a stream would lose events, or returns "".
func losing(have, want jetstream.StreamConfig) string {
	bounded := have.MaxMsgs > 0 || have.MaxBytes > 0 || have.MaxMsgsPerSubject > 0
	switch {
	case have.Retention != want.Retention:
		return fmt.Sprintf("it has %s retention, and must have %s", have.Retention, strings.ToLower(want.Retention.String()))
	case have.Storage != jetstream.FileStorage:
		return fmt.Sprintf("it has %s storage, and must have files", have.Storage)
	case have.MaxAge > 0 && want.MaxAge == 0:
		return fmt.Sprintf("it keeps them for %s, and must without end", have.MaxAge)
	case have.MaxAge > 0 && have.MaxAge < minAge:
		return fmt.Sprintf("it keeps them for %s, and must for %s", have.MaxAge, minAge)
	case have.Discard == jetstream.DiscardOld && bounded:
		return "it has limits and discards old ones at them, and must discard new ones"
	}
	return ""
}

// EnsureConsumer creates or updates the durable pull consumer of an account's
// lane. ackWait is how long the server waits for a sign of life before it gives
// an event to another worker.
func EnsureConsumer(ctx context.Context, js jetstream.JetStream, account string, lane Lane, ackWait time.Duration) (jetstream.Consumer, error) {
	name := ConsumerName(account, lane)
	// The worker decides when to give up, by time left and not by a count.
	most := MaxDeliveries
	if lane == Parked {
		most = -1
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, lane.Stream(), jetstream.ConsumerConfig{
		Durable:       name,
		Description:   fmt.Sprintf("Worker of account %s, %s events", account, lane),
		FilterSubject: LaneSubjects(account, lane),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    most,
		MaxAckPending: maxAckPending,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", name, err)
	}
	return consumer, nil
}

// EnsureReaper creates the durable consumer of the advisories, which all workers
// share.
func EnsureReaper(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	consumer, err := js.CreateOrUpdateConsumer(ctx, AdvisoryStream, jetstream.ConsumerConfig{
		Durable:     reaperName,
		Description: "Makes dead letters of events that no worker survives",
		AckPolicy:   jetstream.AckExplicitPolicy,
		AckWait:     time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", reaperName, err)
	}
	return consumer, nil
}

// Advisory says that a message was delivered as often as it may be.
type Advisory struct {
	// Stream and Sequence are the message's, Consumer is who was given it.
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	Sequence uint64 `json:"stream_seq"`
	// Deliveries is how often it was delivered.
	Deliveries uint64 `json:"deliveries"`
}

// DecodeAdvisory reads what the server published. Whoever may publish on the
// server's subjects can forge one: it is a hint, as events are.
func DecodeAdvisory(body []byte) (Advisory, error) {
	var a Advisory
	if err := json.Unmarshal(body, &a); err != nil || a.Sequence == 0 || a.Stream != Stream {
		return Advisory{}, errors.New("not an advisory about an event")
	}
	return a, nil
}
