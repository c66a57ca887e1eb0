package sqldb

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// maxGroup is how many results one transaction writes at most.
	maxGroup = 128
	// maxGroupBytes bounds the values of such a transaction, in bytes, except where
	// one result has more. Escaped, it is less than the smallest
	// max_allowed_packet that MySQL servers come with, 4 MiB.
	maxGroupBytes = 1 << 20
)

// entry is one result on its way into the database.
type entry struct {
	ctx  context.Context
	hash string
	// result is the row of the table results; the others are the children.
	result                     row
	attempts, warnings, assets []row
	// bytes is the length of all texts.
	bytes int
	// outcome takes one error, or nil when the result is on disk.
	outcome chan error
}

// newEntry makes the rows of a record. The caller's goroutine does it, so that the
// writer only has to write.
func newEntry(ctx context.Context, d *dialect, rec *privacy.Record) (*entry, error) {
	e := &entry{ctx: ctx, hash: rec.TokenHash, outcome: make(chan error, 1)}
	var errs [4]error
	e.result, errs[0] = d.arguments(results.places(rec))
	e.attempts, errs[1] = attempts.childRows(d, e.hash, rec.Attempts)
	e.warnings, errs[2] = warnings.childRows(d, e.hash, rec.Warnings)
	e.assets, errs[3] = assets.childRows(d, e.hash, assetRows(rec.Assets))
	for _, rows := range [][]row{{e.result}, e.attempts, e.warnings, e.assets} {
		for _, r := range rows {
			e.bytes += r.bytes()
		}
	}
	return e, errors.Join(errs[:]...)
}

// bytes is the length of the texts in a row.
func (r row) bytes() (n int) {
	for _, v := range r {
		if s, ok := v.(string); ok {
			n += len(s)
		}
	}
	return n
}

// group writes results that arrive while others are being written in one
// transaction, as databases themselves do with commits. A result that finds a
// writer idle is written at once and alone; those that come while all writers are
// busy wait in a queue, and the first writer to be done takes as many of them as
// fit. So there is no timer: under no load nothing waits, and under load a
// transaction is as large as the load is.
//
// Every caller gets the outcome of its own result. One that gives up leaves: the
// transaction goes on for the others, and ends when all have left. What is already
// in it may still be stored.
//
// A writer is a goroutine that lives for as long as there is something to write;
// close waits for all.
type group struct {
	// write writes some results and sends each its outcome. No two are of one token.
	write func(context.Context, []*entry)
	// writers is how many write at once.
	writers int

	mu     sync.Mutex
	queue  []*entry
	busy   int
	closed bool
	done   sync.WaitGroup
}

// put writes a result and returns its outcome, or early the context's error.
func (g *group) put(e *entry) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	g.queue = append(g.queue, e)
	if g.busy < g.writers {
		g.busy++
		g.done.Go(g.run)
	}
	g.mu.Unlock()
	select {
	case err := <-e.outcome:
		return err
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

var errClosed = &knownError{"the sink is closed"}

// run writes until nothing waits.
func (g *group) run() {
	for entries := g.take(); entries != nil; entries = g.take() {
		ctx, end := together(entries)
		g.write(ctx, entries)
		end()
	}
}

// take returns what is next to be written together. Where a token waits twice the
// second has to wait for the next turn, so that the last one to come is what stays.
func (g *group) take() []*entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queue = slices.DeleteFunc(g.queue, func(e *entry) bool { return e.ctx.Err() != nil })
	n, bytes := 0, 0
	tokens := map[string]bool{}
	for _, e := range g.queue {
		if n == maxGroup || n > 0 && bytes+e.bytes > maxGroupBytes || tokens[e.hash] {
			break
		}
		tokens[e.hash] = true
		bytes += e.bytes
		n++
	}
	if n == 0 {
		g.busy--
		return nil
	}
	entries := slices.Clone(g.queue[:n])
	g.queue = slices.Delete(g.queue, 0, n)
	// Whoever locks rows does it in this order, so that nobody waits in a circle.
	slices.SortFunc(entries, func(a, b *entry) int { return cmp.Compare(a.hash, b.hash) })
	return entries
}

// close lets what waits be written, and refuses what comes.
func (g *group) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.done.Wait()
}

// together returns a context that ends when all callers have given up; end
// releases it.
func together(entries []*entry) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(entries[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(entries)))
	stops := make([]func() bool, len(entries))
	for i, e := range entries {
		stops[i] = context.AfterFunc(e.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}

// writeGroup is the group's write. A transaction that fails for what one of
// the results is, or for what others were doing, is tried again for each result
// alone, so that one result cannot hold up others.
func (s *Sink) writeGroup(ctx context.Context, entries []*entry) {
	err := s.writeEntries(ctx, entries)
	if len(entries) > 1 && err != nil && s.divisible(err) {
		for _, e := range entries {
			if err := e.ctx.Err(); err != nil {
				e.outcome <- err
				continue
			}
			e.outcome <- s.writeEntries(e.ctx, []*entry{e}) //nolint:contextcheck // alone, it is its caller's affair
		}
		return
	}
	for _, e := range entries {
		e.outcome <- err
	}
}

func (s *Sink) divisible(err error) bool {
	k := s.dialect.diagnose(err).kind
	return k == refused || k == oversized || k == contended || errors.Is(err, sinks.ErrErased)
}

// writeEntries writes results in one transaction.
func (s *Sink) writeEntries(ctx context.Context, entries []*entry) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.transaction(ctx, s.dialect.write, func(tx querierExecer) error {
		return s.replace(ctx, tx, entries)
	}); err != nil {
		return err
	}
	return s.intact()
}

// replace writes results in place of what is there of their tokens.
//
// The row in results comes first. Until the transaction ends, everybody else who
// writes of the token waits there: another Record, Reseal, and Erase, whose
// tombstone is looked for after that. So either Erase has committed, and its
// tombstone is seen, or it waits and removes what is written here.
func (s *Sink) replace(ctx context.Context, tx querierExecer, entries []*entry) error {
	hashes := make([]any, len(entries))
	var all struct{ results, attempts, warnings, assets []row }
	for i, e := range entries {
		hashes[i] = e.hash
		all.results = append(all.results, e.result)
		all.attempts = append(all.attempts, e.attempts...)
		all.warnings = append(all.warnings, e.warnings...)
		all.assets = append(all.assets, e.assets...)
	}
	if err := results.replace(ctx, tx, s.dialect, all.results); err != nil {
		return err
	}
	if err := s.noneErased(ctx, tx, hashes); err != nil {
		return err
	}
	if err := attempts.replaceChildren(ctx, tx, s.dialect, hashes, all.attempts); err != nil {
		return err
	}
	if err := warnings.replaceChildren(ctx, tx, s.dialect, hashes, all.warnings); err != nil {
		return err
	}
	return assets.replaceChildren(ctx, tx, s.dialect, hashes, all.assets)
}

// noneErased returns sinks.ErrErased if one of the tokens has a tombstone.
func (s *Sink) noneErased(ctx context.Context, tx querier, hashes []any) error {
	var n int64
	condition, args := s.dialect.among(hashColumn, hashes)
	query := "SELECT count(*) FROM " + erased.name + " WHERE " + condition
	if err := tx.QueryRowContext(ctx, query, args...).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return sinks.ErrErased
	}
	return nil
}
