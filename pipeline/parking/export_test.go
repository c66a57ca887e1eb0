package parking

import (
	"context"
	"time"
)

// SweepOlder lets a test remove chunks that are younger than those which Sweep removes.
func (s *Store) SweepOlder(ctx context.Context, age time.Duration) error { return s.sweep(ctx, age) }
