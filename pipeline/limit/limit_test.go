package limit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// callers are goroutines that call as often as a limiter lets them.
type callers struct {
	group sync.WaitGroup
	mu    sync.Mutex
	calls []time.Time
}

// start runs n callers until ctx is done.
func (c *callers) start(ctx context.Context, l *limit.Limiter, n int, p limit.Priority) {
	for range n {
		c.group.Go(func() {
			for l.Wait(ctx, p) == nil {
				c.mu.Lock()
				c.calls = append(c.calls, time.Now())
				c.mu.Unlock()
			}
		})
	}
}

// peak is the most calls within any second.
func (c *callers) peak() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortFunc(c.calls, time.Time.Compare)
	most, first := 0, 0
	for i, at := range c.calls {
		for at.Sub(c.calls[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func (c *callers) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.calls)
}

// In no second more than the account's rate, after idle times too, and hardly less
// when there is enough to do; shared by any number of replicas.
func TestRate(t *testing.T) {
	for _, replicas := range []int{1, 4, 7} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var all callers
				var limiters []*limit.Limiter
				for range replicas {
					l := limit.New(100)
					l.Share(replicas)
					limiters = append(limiters, l)
				}
				time.Sleep(time.Hour) // of the bubble: an idle time that must not add up
				began := time.Now()
				for _, l := range limiters {
					all.start(ctx, l, 16, limit.Live)
				}
				time.Sleep(time.Minute)
				took := time.Since(began).Seconds()
				cancel()
				all.group.Wait()
				for _, l := range limiters {
					l.Close()
				}
				if peak, rate := all.peak(), float64(all.count())/took; peak > 105 || rate < 95 {
					t.Errorf("%d calls in one second, %.1f on average", peak, rate)
				}
			})
		})
	}
}

// Whatever happens to the number of replicas and the API, in no second are there more
// calls than the rate and one.
func TestNeverMore(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		perSecond := rapid.IntRange(1, 200).Draw(r, "rate")
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 20).Draw(r, "steps")
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			l := limit.New(float64(perSecond))
			var all callers
			all.start(ctx, l, 8, limit.Live)
			for _, step := range steps {
				switch {
				case step < 3:
					l.Throttled(time.Duration(step) * 100 * time.Millisecond)
				case step < 7:
					l.Share(step - 2)
				}
				time.Sleep(time.Duration(step) * 300 * time.Millisecond)
			}
			cancel()
			all.group.Wait()
			l.Close()
			if peak := all.peak(); peak > perSecond+1 {
				r.Fatalf("%d calls in one second at a rate of %d", peak, perSecond)
			}
		})
	})
}

func TestPriorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(10)
		defer l.Close()
		var mu sync.Mutex
		var order []string
		var group sync.WaitGroup
		wait := func(name string, p limit.Priority) {
			group.Go(func() {
				if err := l.Wait(t.Context(), p); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			})
			synctest.Wait()
		}
		wait("first", limit.Backfill) // there is a place free
		for i, p := range []limit.Priority{limit.Backfill, limit.Live, limit.Backfill, limit.Urgent, limit.Live} {
			wait(fmt.Sprintf("%d-%d", p, i), p)
		}
		group.Wait()
		if got := fmt.Sprint(order); got != "[first 0-3 1-1 1-4 2-0 2-2]" {
			t.Errorf("the order is %s", got)
		}
	})
}

// The rate falls at once, once for refusals that come together, and climbs back.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(100)
		defer l.Close()
		full := l.State().Rate
		for range 20 {
			l.Throttled(0)
		}
		if got := l.State(); got.Rate != full/2 || got.Throttles != 20 {
			t.Errorf("after a bunch of refusals: %+v of %.1f", got, full)
		}
		time.Sleep(2 * time.Second)
		l.Throttled(0)
		if got := l.State().Rate; got > full*0.28 || got < full*0.25 {
			t.Errorf("after another refusal: %.1f of %.1f", got, full)
		}
		time.Sleep(time.Minute)
		if got := l.State().Rate; got != full {
			t.Errorf("a minute later: %.1f of %.1f", got, full)
		}
		for range 100 {
			l.Throttled(0)
			time.Sleep(time.Second)
		}
		if got := l.State().Rate; got < full/100 {
			t.Errorf("it falls to %.3f", got)
		}
	})
}

// Nothing goes out before the time that the API asked for, but no API can have an
// account wait for ever.
func TestThrottledForATime(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, 1000 * time.Hour: time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(100)
			defer l.Close()
			began := time.Now()
			l.Throttled(after)
			l.Throttled(time.Second)
			if err := l.Wait(t.Context(), limit.Urgent); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited < want || waited > want+time.Second {
				t.Errorf("waited %s, want %s", waited, want)
			}
		})
	}
}

// Who waits already is held back by a refusal, too.
func TestThrottledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(1)
		defer l.Close()
		began := time.Now()
		for range 2 {
			time.AfterFunc(500*time.Millisecond, func() { l.Throttled(30 * time.Second) })
			if err := l.Wait(t.Context(), limit.Urgent); err != nil {
				t.Fatal(err)
			}
		}
		if waited := time.Since(began); waited < 30*time.Second || waited > 32*time.Second {
			t.Errorf("the second call left after %s", waited)
		}
	})
}

// A change of the share counts for who waits already, and so does the climb.
func TestRateChangesWhileWaiting(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after func(*limit.Limiter)
		most          time.Duration
	}{
		"the others leave": {func(l *limit.Limiter) { l.Share(100) }, func(l *limit.Limiter) { l.Share(1) }, 2100 * time.Millisecond},
		"others come":      {func(*limit.Limiter) {}, func(l *limit.Limiter) { l.Share(2) }, 2100 * time.Millisecond},
		"it climbs": {func(l *limit.Limiter) {
			for range 10 {
				l.Throttled(0)
				time.Sleep(time.Second)
			}
		}, func(*limit.Limiter) {}, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limit.New(1)
				defer l.Close()
				tt.before(l)
				if err := l.Wait(t.Context(), limit.Live); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				time.AfterFunc(time.Second, func() { tt.after(l) })
				if err := l.Wait(t.Context(), limit.Live); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(began); waited > tt.most {
					t.Errorf("waited %s, want at most %s", waited, tt.most)
				}
			})
		})
	}
}

// Who gives up takes no place along: the next one need not wait for another.
func TestGivingUpLosesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(1)
		defer l.Close()
		if err := l.Wait(t.Context(), limit.Live); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		defer cancel()
		if err := l.Wait(ctx, limit.Live); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		began := time.Now()
		if err := l.Wait(t.Context(), limit.Backfill); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("a place was free, and it took %s", waited)
		}
	})
}

func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(1)
		if err := l.Wait(t.Context(), limit.Live); err != nil {
			t.Fatal(err)
		}
		reason := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- l.Wait(ctx, limit.Live) }()
		synctest.Wait()
		cancel(reason)
		if err := <-gone; !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
		go func() { gone <- l.Wait(t.Context(), limit.Live) }()
		synctest.Wait()
		l.Close()
		if err := <-gone; !errors.Is(err, limit.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}
