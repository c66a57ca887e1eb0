package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

const (
	// fetchWait is how long one request for events stays open. It is not cut short
	// when the worker stops, for what the server has sent by then would be nobody's
	// until the ack wait is over.
	fetchWait = 2 * time.Second
	// fetchPause is the wait after a request that failed.
	fetchPause = time.Second
	// ackWait bounds one acknowledgement's round trip.
	ackWait = 10 * time.Second
)

// lane fetches the events of one account and lane.
type lane struct {
	worker   *Worker
	account  *account
	name     event.Lane
	consumer jetstream.Consumer
	// slots bounds the events in work: of the account's lanes that pull together, and
	// of that of parked results.
	slots *slots
	// room bounds the events of this lane that are held: those in work and as
	// many fetched ahead. A lane that has nothing to do takes none from others.
	room chan struct{}
}

// open makes sure of the lane's consumer.
func (l *lane) open(ctx context.Context) (err error) {
	bounded, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	consumer, err := event.EnsureConsumer(bounded, l.worker.js, l.account.Name, l.name, l.worker.cfg.AckWait)
	if err == nil {
		l.consumer = consumer
	}
	return err
}

// fetch takes events as long as ctx lasts and starts a goroutine for each; work
// is the context of those.
func (l *lane) fetch(ctx, work context.Context, inWork *sync.WaitGroup) error {
	trouble := "fetch/" + l.account.Name + "/" + string(l.name)
	for {
		if l.name != event.Parked {
			if err := l.account.pause.wait(ctx); err != nil {
				return err
			}
		}
		n, err := l.takeRoom(ctx)
		if err != nil {
			return err
		}
		taken, err := l.fetchOnce(ctx, n, func(d *delivery) {
			inWork.Go(func() {
				defer func() { <-l.room }()
				l.worker.process(ctx, work, d)
			})
		})
		for range n - taken {
			<-l.room
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			l.worker.troubles.over(trouble)
			continue
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return fmt.Errorf("fetch events of account %s: %w", l.account.Name, err)
		}
		l.worker.troubles.note(ctx, trouble, "cannot fetch events, trying again", "account", l.account.Name, "lane", l.name, "error", err)
		// Somebody may have deleted the consumer; if it is the server that is
		// away, this fails, too.
		if err := l.open(ctx); err != nil {
			l.worker.log.DebugContext(ctx, "cannot look at the consumer", "account", l.account.Name, "lane", l.name, "error", err)
		}
		if err := sleep(ctx, fetchPause); err != nil {
			return err
		}
	}
}

// takeRoom waits for room for one event and takes what there is.
func (l *lane) takeRoom(ctx context.Context) (int, error) {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for n := 1; ; n++ {
		select {
		case l.room <- struct{}{}:
		default:
			return n, nil
		}
	}
}

// fetchOnce asks for up to n events and gives each to start as it arrives, those too
// that come when the worker has been told to stop. It returns how many came.
func (l *lane) fetchOnce(ctx context.Context, n int, start func(*delivery)) (taken int, err error) {
	request, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWait)
	defer cancel()
	batch, err := l.consumer.Fetch(n, jetstream.FetchContext(request))
	if err != nil {
		return 0, ignoreTimeout(err)
	}
	for msg := range batch.Messages() {
		taken++
		d := &delivery{msg: msg, account: l.account, lane: l.name, slots: l.slots}
		l.worker.hold(d)
		start(d)
	}
	return taken, ignoreTimeout(batch.Error())
}

// ignoreTimeout drops the errors that say that no event came in time.
func ignoreTimeout(err error) error {
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// delivery is one event in this worker's hands.
type delivery struct {
	msg     jetstream.Msg
	account *account
	lane    event.Lane
	// slots are where the delivery needs a place to be worked on.
	slots *slots
	// outOfTurn says that it is no delivery of the server's, see express.
	outOfTurn bool
}

// held are the deliveries whose holder must show signs of life.
type held struct {
	mu  sync.Mutex
	set map[*delivery]struct{}
}

func (w *Worker) hold(d *delivery) {
	w.held.mu.Lock()
	if w.held.set == nil {
		w.held.set = map[*delivery]struct{}{}
	}
	w.held.set[d] = struct{}{}
	w.held.mu.Unlock()
	w.metrics.Held(1)
}

func (w *Worker) release(d *delivery) {
	w.held.mu.Lock()
	delete(w.held.set, d)
	w.held.mu.Unlock()
	w.metrics.Held(-1)
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.set)
}

// beat tells the server every interval that what is held is still in work. A
// sign that cannot be sent is not worth a word: the fetch loop reports a lost
// connection, and a redelivery does no harm.
func (h *held) beat(every time.Duration, stop <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		h.mu.Lock()
		for d := range h.set {
			_ = d.msg.InProgress()
		}
		h.mu.Unlock()
	}
}
