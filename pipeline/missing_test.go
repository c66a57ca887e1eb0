package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// errAbsent is of an archive that does not find what FaceID should have put into COS.
var errAbsent = sinks.Waiting(errors.New("FaceID's object is not there"), 0)

// withoutAsset is an archive that could not have the assets of some tokens.
type withoutAsset struct {
	*sink
	gone func(token string) bool
}

func (s withoutAsset) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if err := s.take(ctx, r); err != nil {
		return nil, err
	}
	receipt := sinks.Receipt{Sink: s.name, Field: r.Assets[0].Field, Location: s.name + "/" + r.TokenHash(), Size: 1}
	if s.gone(r.Token) {
		receipt = sinks.Receipt{Sink: s.name, Field: r.Assets[0].Field, Size: -1, Missing: result.NotFound}
	}
	return []sinks.Receipt{receipt}, nil
}

// recorded returns the record of a token; nil if there is none.
func (b *bench) recorded(token string) *result.Result {
	b.record.mu.Lock()
	defer b.record.mu.Unlock()
	return b.record.seen[token]
}

// A result that waits for an asset is parked; the sink is up, others get in, and when the
// sink gives it up the record says what is missing.
func TestMissingAssetHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var gaveUp atomic.Bool
	absent := func(token string) bool { return strings.HasPrefix(token, "ABSENT") }
	cos := &sink{name: "cos", fail: func(token string, _ int) error {
		if absent(token) && !gaveUp.Load() {
			return errAbsent
		}
		return nil
	}}
	b.more = []sinks.Sink{withoutAsset{cos, absent}}

	var waiting []string
	for i := range 10 {
		waiting = append(waiting, fmt.Sprintf("ABSENT-%d", i))
	}
	b.publish(waiting...)
	b.start()
	b.parked(len(waiting))
	b.until("each was tried several times", func() bool { return cos.count("ABSENT-0") > 5 && cos.count("ABSENT-9") > 5 })
	if err := b.worker.SinkTroubles()["cos"]; err != nil {
		t.Errorf("the sink is in trouble: %v", err)
	}
	b.publish("WHOLE")
	b.until("another result gets in", func() bool { return b.notify.has("WHOLE") })
	if up, _ := value(b.scrape(), "sink_up", `sink="cos"`); up != 1 {
		t.Error("the sink is not up")
	}
	if n, _ := value(b.scrape(), "sink_errors_total", `class="waiting",sink="cos"`); n < 10 {
		t.Errorf("%g times it waited", n)
	}
	if b.recorded("ABSENT-0") != nil {
		t.Error("a result that has time is recorded without its asset")
	}

	gaveUp.Store(true)
	b.until("all are told of", func() bool { return b.notify.total("ABSENT") == len(waiting) })
	b.parked(0)
	for _, token := range waiting {
		r := b.recorded(token)
		// Another archive has the bytes, though nobody says how many.
		if want := []result.Missing{{Field: "BestFrame.BestFrame", Reason: result.NotFound}}; !slices.Equal(r.Missing, want) || len(r.Assets[0].Stored) != 1 {
			t.Errorf("%s: missing %v, stored %+v", token, r.Missing, r.Assets[0].Stored)
		}
		if b.api.count(token) != 1 {
			t.Errorf("%s was pulled %d times", token, b.api.count(token))
		}
	}
	if r := b.recorded("WHOLE"); len(r.Missing) != 0 || len(r.Assets[0].Stored) != 2 {
		t.Errorf("the whole result: missing %v, stored %+v", r.Missing, r.Assets[0].Stored)
	}
	if n, _ := value(b.scrape(), "missing_parts_total", `account="main",reason="not_found"`); n != 10 {
		t.Errorf("%g missing parts are counted", n)
	}
	if strings.Contains(b.log.String(), "does not take results") || !strings.Contains(b.log.String(), "does not find an asset") {
		t.Error("the log calls the sink down, or does not say what is missing")
	}
}

// What one archive could not have and another has is not missing.
func TestMissingInOneArchive(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.more = []sinks.Sink{
		withoutAsset{&sink{name: "cos"}, func(string) bool { return true }},
		withoutAsset{&sink{name: "other"}, func(token string) bool { return token == "NOWHERE" }},
	}
	b.publish("HERE", "NOWHERE")
	b.start()
	b.until("both are told of", func() bool { return b.notify.has("HERE") && b.notify.has("NOWHERE") })
	if r := b.recorded("HERE"); len(r.Missing) != 0 || len(r.Assets[0].Stored) != 2 {
		t.Errorf("missing %v, stored %+v", r.Missing, r.Assets[0].Stored)
	}
	if r := b.recorded("NOWHERE"); len(r.Missing) != 1 || len(r.Assets[0].Stored) != 1 {
		t.Errorf("missing %v, stored %+v", r.Missing, r.Assets[0].Stored)
	}
}

// An event that asks for another ingestion finds what was missing.
func TestMissingIsFoundAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var back atomic.Bool
	b.more = []sinks.Sink{withoutAsset{&sink{name: "cos"}, func(string) bool { return !back.Load() }}}
	b.publish("T-1")
	b.start()
	b.until("it is recorded without", func() bool { return b.notify.has("T-1") })
	b.settled()

	back.Store(true)
	if err := b.publisher.PublishAgain(t.Context(), event.Live, "main", result.Enhanced, event.Event{Token: "T-1", RuleID: "1"}, nil); err != nil {
		t.Fatal(err)
	}
	b.until("it is recorded with", func() bool { return len(b.recorded("T-1").Missing) == 0 })
}

// However an archive holds a result up, its record is there when the deadline nears, and
// is told again where things are when the archive has them.
func TestRecordsWaitForNoArchiveForEver(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"down":      errors.New("the bucket is gone"),
		"throttled": sinks.Throttled(errors.New("slower"), time.Millisecond),
		"waiting":   errAbsent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.record.early = true
			var now clock
			b.cfg.Now = now.now
			var up atomic.Bool
			b.archive.fail = func(string, int) error {
				if up.Load() {
					return nil
				}
				return failure
			}
			b.publish("EARLY", "LATE")
			b.start()
			b.parked(2)
			b.until("it was tried again", func() bool { return b.archive.count("EARLY") > 2 })
			if b.recorded("EARLY") != nil {
				t.Error("a result that has time is recorded before it is archived")
			}

			now.advance(65 * time.Hour)
			b.until("both are recorded", func() bool { return b.recorded("EARLY") != nil && b.recorded("LATE") != nil })
			if b.notify.has("EARLY") {
				t.Error("others are told of what is not archived")
			}
			b.parked(2)

			now.advance(200 * time.Hour) // long after its deadline
			up.Store(true)
			b.until("both are told of", func() bool { return b.notify.has("EARLY") && b.notify.has("LATE") })
			b.parked(0)
			if r := b.recorded("EARLY"); len(r.Assets[0].Stored) != 1 || b.record.count("EARLY") != 2 || b.api.count("EARLY") != 1 {
				t.Errorf("stored %+v, recorded %d times, pulled %d times", r.Assets[0].Stored, b.record.count("EARLY"), b.api.count("EARLY"))
			}
			if len(b.dead()) != 0 {
				t.Errorf("dead letters: %+v", b.dead())
			}
		})
	}
}

// Where nothing can be parked, the record is there all the same.
func TestRecordsWithoutParking(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.record.early = true
	b.parkingConfig.Quota = 1
	b.archive.fail = func(string, int) error { return errors.New("the bucket is gone") }
	b.publishEvent(event.Event{Token: "SOON", RuleID: "1", IssuedAt: time.Now().Add(-70 * time.Hour)})
	b.start()
	b.until("it is recorded", func() bool { return b.recorded("SOON") != nil })
}
