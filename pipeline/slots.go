package pipeline

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
)

// urgentBefore is how long before its deadline an event goes before all others.
const urgentBefore = 6 * time.Hour

// turn says who gets the next slot: live events before backfill, and among them the
// nearer deadline. So what is urgent goes first, also if it came to be so while it
// waited.
type turn struct {
	priority limit.Priority
	deadline time.Time
}

// slots bounds the events of an account that are worked on at once, and gives
// places to those that wait by their turn.
type slots struct {
	// backfill is how many of the places backfill may have.
	backfill int
	now      func() time.Time

	mu           sync.Mutex
	free         int
	inBackfill   int
	live, behind waiters // behind are the waiters of backfill
}

func newSlots(all, backfill int, now func() time.Time) *slots {
	return &slots{free: all, backfill: backfill, now: now}
}

// take waits for a place; the caller calls release when it is done with it. It
// returns false if ctx ends before.
func (s *slots) take(ctx context.Context, t turn) (release func(), ok bool) {
	w := &waiter{turn: t, given: make(chan struct{})}
	s.mu.Lock()
	heap.Push(s.queue(t), w)
	s.give()
	s.mu.Unlock()
	select {
	case <-w.given:
	case <-ctx.Done():
		s.mu.Lock()
		waiting := w.place >= 0
		if waiting {
			heap.Remove(s.queue(w.turn), w.place)
		}
		s.mu.Unlock()
		if waiting {
			return nil, false
		}
	}
	return func() { s.put(w.turn) }, true
}

func (s *slots) queue(t turn) *waiters {
	if t.priority == limit.Backfill {
		return &s.behind
	}
	return &s.live
}

func (s *slots) put(t turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if t.priority == limit.Backfill {
		s.inBackfill--
	}
	s.give()
}

// give hands out free places; s.mu is held.
func (s *slots) give() {
	s.promote()
	for s.free > 0 {
		queue := &s.live
		if queue.Len() == 0 {
			if queue = &s.behind; queue.Len() == 0 || s.inBackfill >= s.backfill {
				return
			}
			s.inBackfill++
		}
		s.free--
		if w, ok := heap.Pop(queue).(*waiter); ok {
			close(w.given)
		}
	}
}

// promote moves the waiters of backfill that have become urgent to the others; s.mu is
// held.
func (s *slots) promote() {
	now := s.now()
	for s.behind.Len() > 0 && s.behind[0].turn.deadline.Sub(now) < urgentBefore {
		if w, ok := heap.Pop(&s.behind).(*waiter); ok {
			w.turn.priority = limit.Urgent
			heap.Push(&s.live, w)
		}
	}
}

// waiter is one who waits for a place.
type waiter struct {
	turn  turn
	given chan struct{}
	// place is the index in its queue, or -1 once it is out of it.
	place int
}

// waiters is a heap, the next one first.
type waiters []*waiter

func (q waiters) Len() int           { return len(q) }
func (q waiters) Less(i, j int) bool { return q[i].turn.deadline.Before(q[j].turn.deadline) }
func (q waiters) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push adds one at the end, as container/heap wants it.
func (q *waiters) Push(x any) {
	if w, ok := x.(*waiter); ok {
		w.place = len(*q)
		*q = append(*q, w)
	}
}

// Pop takes the last, as container/heap wants it.
func (q *waiters) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.place = -1
	return w
}
