package pipeline_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// The server counts an event for a consumer a moment after it has confirmed it: an event
// is open in that moment, too. Who waits until nothing is open would go on too early.
func TestStatusOfWhatIsJustPublished(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	consumer, err := event.EnsureConsumer(t.Context(), b.js, "main", event.Live, time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	for i := range 300 {
		token := fmt.Sprintf("T-%d", i)
		b.publishEvent(event.Event{Token: token, RuleID: "1", IssuedAt: time.Now()})
		status, err := pipeline.ReadStatus(t.Context(), b.js, b.accounts)
		if err != nil {
			t.Fatal(err)
		}
		if lane := status.Lanes[0]; lane.Waiting != 1 || lane.OldestSeconds == nil {
			t.Fatalf("event %d was just published: %+v", i, lane)
		}

		msg, err := consumer.Next()
		if err == nil {
			err = msg.DoubleAck(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.noneHeld()
}

// An event of a product that there is not is a dead letter of its account, and not an
// event of an account that nobody configured as well.
func TestUnknownProductIsReportedOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.raw("faceid.completed.main.nfc", `{"token":"T-1"}`)
	b.raw("faceid.completed.other.nfc", `{"token":"T-2"}`)
	b.start()
	b.until("there is a dead letter", func() bool { return len(b.dead()) > 0 })

	status, err := pipeline.ReadStatus(t.Context(), b.js, b.accounts)
	want := map[string]uint64{"other": 1}
	if err != nil || !maps.Equal(status.Strangers, want) || status.Dead != 1 {
		t.Errorf("%v: %+v", err, status)
	}
	b.halt()
	if strings.Contains(b.log.String(), "account=faceid.completed.main.nfc") {
		t.Errorf("it is reported twice:\n%s", b.log.String())
	}
}
