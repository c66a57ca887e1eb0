package pipeline

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Retry says how long to wait between tries. A try that fails is repeated in
// place for seconds, because most faults are over by then; after that the event
// goes back to JetStream and comes again after minutes, so that it holds no
// slot meanwhile.
type Retry struct {
	// InPlaceFirst is the upper bound of the first wait in place; it doubles up
	// to InPlaceMax.
	InPlaceFirst, InPlaceMax time.Duration
	// InPlace bounds all tries in place of one step together.
	InPlace time.Duration
	// RedeliverFirst is the wait before the first redelivery; it doubles up to
	// RedeliverMax.
	RedeliverFirst, RedeliverMax time.Duration
	// ProbeFirst is the wait before an account that the API refuses, or a sink that
	// is down, is tried again; it doubles up to ProbeMax.
	ProbeFirst, ProbeMax time.Duration
	// Apart bounds how long an event waits that may be what ends the workers, at most six
	// minutes; the second time in a row it is ten times as much. The wait is drawn at
	// random, so that others which were only held by the same workers come at other times.
	Apart time.Duration
}

// DefaultRetry returns waits that suit an API with a limit of 100 calls per
// second and results that live three days.
func DefaultRetry() Retry {
	return Retry{
		InPlaceFirst: 200 * time.Millisecond, InPlaceMax: 5 * time.Second, InPlace: 15 * time.Second,
		RedeliverFirst: 15 * time.Second, RedeliverMax: 15 * time.Minute,
		ProbeFirst: 2 * time.Second, ProbeMax: 30 * time.Second,
		Apart: time.Minute,
	}
}

// try calls op until it succeeds, judge says that trying again at once is
// futile, the time for tries in place is used up, or ctx is done. It returns
// op's last error, or ctx's.
func (r Retry) try(ctx context.Context, op func() error, judge func(error) again) error {
	wait := &fullJitter{retry: r}
	return backoff.Retry(func() error {
		err := op()
		if err == nil {
			return nil
		}
		j := judge(err)
		if !j.retry || j.least > r.InPlaceMax {
			return backoff.Permanent(err)
		}
		wait.least = j.least
		return err
	}, backoff.WithContext(wait, ctx))
}

// again says whether to try once more in place, and how long to wait at least.
type again struct {
	retry bool
	least time.Duration
}

// fullJitter is a backoff.BackOff whose waits are spread evenly between nothing
// and a bound that doubles, so that many failing tries do not come back at one
// moment.
type fullJitter struct {
	retry   Retry
	bound   time.Duration
	least   time.Duration
	started time.Time
}

// Reset begins again with the first wait.
func (j *fullJitter) Reset() {
	j.bound = j.retry.InPlaceFirst
	j.started = time.Now()
}

// NextBackOff returns the next wait, or backoff.Stop when the time is used up.
func (j *fullJitter) NextBackOff() time.Duration {
	wait := max(j.least, rand.N(j.bound+1))
	j.bound = min(2*j.bound, j.retry.InPlaceMax)
	if time.Since(j.started)+wait > j.retry.InPlace {
		return backoff.Stop
	}
	return wait
}

// redelivery returns how long an event of the given age that was delivered the given
// number of times waits for its next delivery: at least least, and doubling otherwise,
// but no more than a quarter of its age, for deliveries to workers that died count,
// too. The upper half of it is random.
func (r Retry) redelivery(delivered uint64, age, least time.Duration) time.Duration {
	wait := r.RedeliverFirst
	for i := uint64(1); i < delivered && wait < r.RedeliverMax; i++ {
		wait *= 2
	}
	wait = min(wait, r.RedeliverMax, max(age/4, r.RedeliverFirst))
	return max(least, upperHalf(wait))
}

// parkedPace bounds how often the events of parked results are looked at, all
// together, per second.
const parkedPace = 100

// ofParked returns how long an event of one of so many parked results waits for its
// next delivery: as short as the pace lets it, for the sink may be back by then.
func (r Retry) ofParked(results int, least time.Duration) time.Duration {
	wait := time.Duration(results) * time.Second / parkedPace
	return max(least, upperHalf(min(max(wait, r.RedeliverFirst), r.RedeliverMax)))
}

// upperHalf returns a random time of the upper half of d.
func upperHalf(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
