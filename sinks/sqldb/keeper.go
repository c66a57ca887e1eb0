package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// tombstone says that a token was erased.
type tombstone struct {
	sinks.Key
	sinks.Tombstone
}

var erased = table[tombstone]{"erased", []column[tombstone]{
	{hashColumn, func(t *tombstone) any { return &t.Hash }},
	{"product", func(t *tombstone) any { return &t.Product }},
	{"erased_at", func(t *tombstone) any { return instant(&t.At) }},
	{"reason", func(t *tombstone) any { return text(&t.Reason) }},
}}

// Erase implements sinks.Eraser. Rows and tombstone change in one transaction. In
// the files of SQLite what was removed is overwritten; other databases do so in
// their own time, such as PostgreSQL's VACUUM, and their backups and logs are the
// owner's.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, reason string) (held sinks.Holding, err error) {
	err = s.prepare(ctx)
	if err == nil {
		err = s.unhindered(ctx, func(tx querierExecer) (err error) {
			held, err = s.erase(ctx, tx, key, reason)
			return err
		})
	}
	if err == nil && s.dialect.afterErase != nil {
		err = s.dialect.afterErase(ctx, s.db)
	}
	if err == nil {
		err = s.intact()
	}
	if err != nil {
		return sinks.Holding{}, s.dialect.explain(ctx, "erase a result", err)
	}
	return held, nil
}

// hinderedFor is how long a transaction in whose way others were is begun anew.
const hinderedFor = 10 * time.Second

// unhindered runs a transaction that writes, and runs it again if others were in its way:
// of transactions that wait for each other a database ends one, of which nothing is left
// then. MariaDB does so where two look for a row that is not there, to put one there.
func (s *Sink) unhindered(ctx context.Context, do func(querierExecer) error) error {
	began := time.Now()
	for {
		err := s.transaction(ctx, s.dialect.write, do)
		if err == nil || ctx.Err() != nil || s.dialect.diagnose(err).kind != contended || time.Since(began) > hinderedFor {
			return err
		}
	}
}

func (s *Sink) erase(ctx context.Context, tx querierExecer, key sinks.Key, reason string) (sinks.Holding, error) {
	held, err := s.holding(ctx, tx, key, s.dialect.forUpdate)
	if err != nil {
		return held, err
	}

	stone := tombstone{key, sinks.NewTombstone(reason)}
	args, err := s.dialect.arguments(erased.places(&stone))
	if err != nil {
		return held, err
	}
	// An earlier tombstone keeps its time and reason.
	end := s.dialect.onConflict(hashColumn, []string{"product"})
	if err := insert(ctx, tx, s.dialect, erased.name, erased.names(), []row{args}, end); err != nil {
		return held, err
	}

	// A row that is not there cannot be locked against replace, so one is put there.
	stub := &privacy.Record{Product: key.Product, TokenHash: key.Hash, FetchedAt: stone.At}
	if args, err = s.dialect.arguments(results.places(stub)); err != nil {
		return held, err
	}
	if err := results.replace(ctx, tx, s.dialect, []row{args}); err != nil {
		return held, err
	}

	for _, remove := range []func(context.Context, execer, *dialect, []any) error{
		attempts.remove, warnings.remove, assets.remove, results.remove,
	} {
		if err := remove(ctx, tx, s.dialect, []any{key.Hash}); err != nil {
			return held, err
		}
	}
	return held, nil
}

// Holds implements sinks.Keeper. It knows nothing of the room that rows take.
func (s *Sink) Holds(ctx context.Context, key sinks.Key) (held sinks.Holding, err error) {
	if err = s.prepare(ctx); err == nil {
		err = s.transaction(ctx, s.dialect.read, func(tx querierExecer) (err error) {
			held, err = s.holding(ctx, tx, key, "")
			return err
		})
	}
	if err != nil {
		return sinks.Holding{}, s.dialect.explain(ctx, "look for a result", err)
	}
	return held, nil
}

// holding looks what there is of a token; end is what follows the condition for the
// row of its result.
func (s *Sink) holding(ctx context.Context, tx querier, key sinks.Key, end string) (held sinks.Holding, err error) {
	stone, err := erased.one(ctx, tx, s.dialect, key.Hash, "")
	switch {
	case err == nil:
		held.Erased = &stone.Tombstone
	case !errors.Is(err, sql.ErrNoRows):
		return held, err
	}

	query := "SELECT 1 FROM " + results.name + " WHERE " + hashColumn + " = " + s.dialect.placeholder(1) + end
	err = tx.QueryRowContext(ctx, query, key.Hash).Scan(&held.Records)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return held, err
}

// Get implements sinks.RecordKeeper.
func (s *Sink) Get(ctx context.Context, key sinks.Key) (*privacy.Record, error) {
	var rec *privacy.Record
	err := s.prepare(ctx)
	if err == nil {
		err = s.transaction(ctx, s.dialect.read, func(tx querierExecer) (err error) {
			rec, err = s.get(ctx, tx, key.Hash, "")
			return err
		})
	}
	if err != nil {
		return nil, s.dialect.explain(ctx, "read a result", err)
	}
	return rec, nil
}

// get reads a result; end is what follows the condition for its row. The error is
// sql.ErrNoRows if there is none.
func (s *Sink) get(ctx context.Context, tx querier, hash, end string) (*privacy.Record, error) {
	rec, err := results.one(ctx, tx, s.dialect, hash, end)
	if err != nil {
		return nil, err
	}
	if rec.Attempts, err = attempts.all(ctx, tx, s.dialect, hash); err != nil {
		return nil, err
	}
	if rec.Warnings, err = warnings.all(ctx, tx, s.dialect, hash); err != nil {
		return nil, err
	}
	rows, err := assets.all(ctx, tx, s.dialect, hash)
	if err != nil {
		return nil, err
	}
	rec.Assets = assetsOf(rows)
	return rec, nil
}

// Count returns the number of results recorded.
func (s *Sink) Count(ctx context.Context) (n int64, err error) {
	if err = s.prepare(ctx); err == nil {
		err = s.db.QueryRowContext(ctx, "SELECT count(*) FROM "+results.name).Scan(&n)
	}
	if err != nil {
		return 0, s.dialect.explain(ctx, "count results", err)
	}
	return n, nil
}

// Reseal implements sinks.Keeper. The row is locked while its values are sealed
// anew, so that what is written is what was read.
func (s *Sink) Reseal(ctx context.Context, key sinks.Key) (changed bool, err error) {
	var unsealable error
	if err = s.prepare(ctx); err == nil {
		err = s.transaction(ctx, s.dialect.write, func(tx querierExecer) error {
			rec, err := s.get(ctx, tx, key.Hash, s.dialect.forUpdate)
			if err != nil {
				return err
			}
			if changed, unsealable = s.reseal(rec); unsealable != nil || !changed {
				return errRollback
			}
			e, err := newEntry(ctx, s.dialect, rec)
			if err != nil {
				return err
			}
			return s.replace(ctx, tx, []*entry{e})
		})
	}
	switch {
	case unsealable != nil:
		return false, fmt.Errorf("reseal a result: %w", unsealable)
	case err != nil && !errors.Is(err, errRollback):
		return false, s.dialect.explain(ctx, "reseal a result", err)
	}
	return changed, nil
}

// reseal seals every sealed value of a record anew.
func (s *Sink) reseal(rec *privacy.Record) (changed bool, err error) {
	one := func(f privacy.Field, position int, stored *privacy.Stored) {
		if err != nil || !privacy.IsSealed(stored.Value) {
			return
		}
		ref := privacy.Ref{Product: rec.Product, Token: rec.Token, Field: f, Position: position}
		value, anew, failed := s.policy.Reseal(ref, stored.Value)
		switch {
		case failed == nil:
			stored.Value, changed = value, changed || anew
		case !s.looksSealed(f, failed):
			err = failed
		}
	}
	for _, p := range personalOfResult {
		one(p.field, 0, p.at(rec))
	}
	one(privacy.Raw, 0, &rec.Raw)
	for i := range rec.Intention.Answers {
		one(privacy.Answer, i, &rec.Intention.Answers[i])
	}
	for i := range rec.Attempts {
		for _, p := range personalOfAttempt {
			one(p.field, i, p.at(&rec.Attempts[i]))
		}
	}
	return changed, err
}

// looksSealed tells whether a value that does not open is one that somebody has
// made to look sealed, where values are stored as they come.
func (s *Sink) looksSealed(f privacy.Field, err error) bool {
	var unknown *privacy.UnknownKeyError
	return errors.Is(err, privacy.ErrNotSealed) || s.policy.Rule(f) == privacy.Plain &&
		(errors.Is(err, privacy.ErrNotAuthentic) || errors.As(err, &unknown))
}
