package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

const (
	// maxAge is how long the letter of what is no event stays: as long as events do.
	maxAge = 7 * 24 * time.Hour
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
	// codePendingLimit is the server's for a MaxAckPending above that of the account or
	// the stream.
	codePendingLimit jetstream.ErrorCode = 10121
)

// EnsureStreams makes sure of the streams of events, parked events, dead letters and
// advisories, see streams.Ensure.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, replicas int) error {
	return streams.EnsureAll(ctx, js, []streams.Need{streams.AdvisoriesNeed(), streams.EventsNeed(), streams.ParkedNeed(), streams.DeadNeed()}, replicas)
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
	cfg := jetstream.ConsumerConfig{
		Durable:       name,
		Description:   fmt.Sprintf("Worker of account %s, %s events", account, lane),
		FilterSubject: LaneSubjects(account, lane),
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    most,
		MaxAckPending: maxAckPending,
		ReplayPolicy:  jetstream.ReplayInstantPolicy,
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, lane.Stream(), cfg)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codePendingLimit {
		cfg.MaxAckPending = 0 // as many as are allowed
		consumer, err = js.CreateOrUpdateConsumer(ctx, lane.Stream(), cfg)
	}
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

// DecodeAdvisory reads what the server published about a message of the given stream.
// Whoever may publish on the server's subjects can forge one: it is a hint, as events are.
func DecodeAdvisory(body []byte, stream string) (Advisory, error) {
	var a Advisory
	if err := json.Unmarshal(body, &a); err != nil || a.Sequence == 0 || a.Stream != stream {
		return Advisory{}, errors.New("not an advisory about an event")
	}
	return a, nil
}
