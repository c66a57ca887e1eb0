package parking

import (
	"context"
	"time"
)

// Sweep lets a test remove chunks that are younger than those which Open removes.
func (s *Store) Sweep(ctx context.Context, age time.Duration) error { return s.sweep(ctx, age) }

// AbandonedAfter is how old those are.
const AbandonedAfter = abandonedAfter
