package pipeline_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A sink that does not take results is known without asking it, with why, until it takes
// one, or until nobody has tried it for long.
func TestSinkTroubles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var now clock
	b.cfg.Now = now.now
	var up atomic.Bool
	b.record.fail = func(string, int) error {
		if up.Load() {
			return nil
		}
		return errors.New("the disk is full")
	}
	b.publish("T-0")
	b.start()
	trouble := func() error { return b.worker.SinkTroubles()[b.record.Name()] }
	b.parked(1)
	if err := trouble(); err == nil || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(err.Error(), "has not taken results since") {
		t.Errorf("%v", err)
	}
	if err := b.worker.SinkTroubles()[b.archive.Name()]; err != nil {
		t.Errorf("the archive takes results: %v", err)
	}
	up.Store(true)
	b.until("it takes results", func() bool { now.advance(time.Minute); return b.notify.has("T-0") })
	b.until("that is known", func() bool { return trouble() == nil })
}
