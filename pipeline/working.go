package pipeline

import (
	"slices"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
)

// working are the tokens that this process works on now.
type working struct {
	mu  sync.Mutex
	set map[*task]replica.Work
}

// begin notes that a task is worked on until the returned function is called.
func (w *working) begin(t *task, now time.Time) (end func()) {
	if t.event.Token == "" {
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.set == nil {
		w.set = map[*task]replica.Work{}
	}
	w.set[t] = replica.Work{TokenHash: t.key().Hash, Since: now.UTC().Truncate(time.Millisecond)}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.set, t)
	}
}

// list returns what is worked on, the longest first.
func (w *working) list() []replica.Work {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]replica.Work, 0, len(w.set))
	for _, one := range w.set {
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b replica.Work) int { return a.Since.Compare(b.Since) })
	return list[:min(len(list), replica.MaxWork)]
}
