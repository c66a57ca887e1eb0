package pipeline_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// held says what a server holds, and what became of it: a line for each stream and
// consumer.
func held(t *testing.T, js jetstream.JetStream) string {
	t.Helper()
	var text strings.Builder
	streams := js.ListStreams(t.Context())
	for info := range streams.Info() {
		_, _ = fmt.Fprintf(&text, "%s: %d messages, first %d, last %d, %d deleted\n",
			info.Config.Name, info.State.Msgs, info.State.FirstSeq, info.State.LastSeq, info.State.NumDeleted)
		stream, err := js.Stream(t.Context(), info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		consumers := stream.ListConsumers(t.Context())
		for c := range consumers.Info() {
			_, _ = fmt.Fprintf(&text, "%s > %s: %d waiting, %d held, delivered %d, paused %v\n",
				info.Config.Name, c.Name, c.NumPending, c.NumAckPending, c.Delivered.Consumer, c.Paused)
		}
		if err := consumers.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := streams.Err(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// To try the rights changes nothing: no event is taken or removed, nothing that is parked
// is purged, and no consumer is paused or resumed.
func TestTryingRightsChangesNothing(t *testing.T) {
	t.Parallel()
	conn, err := broker.Connect(t.Context(), broker.Config{URL: startNATS(t), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := event.EnsureStreams(t.Context(), conn.JS, 1); err != nil {
		t.Fatal(err)
	}
	if err := pipeline.EnsureConsumers(t.Context(), conn.JS, []string{"main"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	fill(t.Context(), t, conn.JS)

	before := held(t, conn.JS)
	for range 3 {
		if err := conn.Lacks(t.Context(), pipeline.Rights(conn.JS, []string{"main"})); err != nil {
			t.Fatal(err)
		}
	}
	if after := held(t, conn.JS); after != before || !strings.Contains(before, "paused true") {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// fill puts something into every stream, and pauses a consumer.
func fill(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	publisher := event.NewPublisher(js)
	for _, lane := range event.Lanes() {
		for _, token := range []string{"T-1", "T-2"} {
			if _, err := publisher.Publish(ctx, lane, "main", result.Enhanced, event.Event{Token: token, RuleID: "1"}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := publisher.Bury(ctx, event.DeadLetter{
		Account: "main", Reason: event.Expired, Subject: "faceid.completed.main.enhanced", StreamSequence: 1, Body: []byte(`{"token":"T-3"}`),
	}); err != nil {
		t.Fatal(err)
	}

	bucket, err := js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "FACEID_PARKED"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutBytes(ctx, "a-result", make([]byte, 300<<10)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"FACEID_LEDGER", "FACEID_STATE", "FACEID_KEYRING"} {
		kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.PutString(ctx, "a-key", "a value"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := js.PauseConsumer(ctx, event.Stream, event.ConsumerName("main", event.Backfill), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
}
