package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// quiet is how long a trouble that goes on is not mentioned again.
const quiet = time.Minute

// troubles keeps a fault that hits many events from filling the log: the first
// occurrence is logged at once, the following ones once a minute with their
// number, and the end of it once.
type troubles struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	open map[string]*trouble
}

type trouble struct {
	last     time.Time
	message  string
	silenced int
}

func newTroubles(log *slog.Logger, now func() time.Time) *troubles {
	return &troubles{log: log, now: now, open: map[string]*trouble{}}
}

// note reports that what key stands for failed; ctx is that of the event it failed
// for. A different message is a different trouble and is logged at once.
func (t *troubles) note(ctx context.Context, key, message string, attrs ...any) {
	t.mu.Lock()
	one, known := t.open[key]
	now := t.now()
	if known && one.message == message && now.Sub(one.last) < quiet {
		one.silenced++
		t.mu.Unlock()
		return
	}
	silenced := 0
	if known {
		silenced = one.silenced
	}
	t.open[key] = &trouble{last: now, message: message}
	t.mu.Unlock()
	if silenced > 0 {
		attrs = append(attrs, "repeated", silenced)
	}
	t.log.WarnContext(ctx, message, attrs...)
}

// over reports that what key stands for works.
func (t *troubles) over(key string) {
	t.mu.Lock()
	one, known := t.open[key]
	delete(t.open, key)
	t.mu.Unlock()
	if known {
		t.log.Info("works again: "+one.message, "repeated", one.silenced)
	}
}

// ongoing returns what is open among the keys with a prefix; nil if nothing is.
func (t *troubles) ongoing(prefix string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(t.open)) {
		if strings.HasPrefix(key, prefix) {
			errs = append(errs, fmt.Errorf("%s: %s", strings.TrimPrefix(key, prefix), t.open[key].message))
		}
	}
	return errors.Join(errs...)
}
