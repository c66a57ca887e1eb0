// Package sqldb records results in a SQL database.
//
// In goes a result, protected by the privacy policy; out come one row of the
// table results and the rows of its attempts, warnings and assets, in one
// transaction. The key is the token hash, which stands for product and token. A
// repeated call replaces the row and its children, so that doing it again leaves
// the same rows.
//
// Personal values are only what the policy leaves of them: column x holds the
// plain, masked or sealed value and x_index its blind index, both NULL where there
// is none. What the tables and columns mean is in migrations/, which the sink
// applies itself when it opens, safely with several processes at once.
//
// What may go wrong: the database is unreachable, busy, full, read-only or of a
// newer version, which is transient, since its owner can mend it; or it refuses
// this very result, which is permanent. Errors say which in words and never hold
// what the driver said, for that may quote values.
package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// ErrNotFound means that the database holds no result of a token.
var ErrNotFound = errors.New("no such result is recorded")

// Sink records results in a database. All methods but Close may be called by
// several goroutines at once.
type Sink struct {
	name    string
	policy  *privacy.Policy
	db      *sql.DB
	dialect *dialect
	// intact tells whether the database is still the one that was opened.
	intact func() error
}

var _ sinks.Recorder = (*Sink)(nil)

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink.
func (s *Sink) Close(ctx context.Context) error {
	if err := s.db.Close(); err != nil {
		return s.dialect.explain(ctx, "close the database", err)
	}
	return nil
}

// Check implements sinks.Sink: it takes the right to write and gives it back.
func (s *Sink) Check(ctx context.Context) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM results WHERE 1 = 0"); err != nil {
			return err
		}
		return errRollback
	})
	if err == nil || errors.Is(err, errRollback) {
		err = s.intact()
	}
	if err != nil {
		return s.dialect.explain(ctx, "check the database", err)
	}
	return nil
}

// errRollback ends a transaction that shall leave nothing.
var errRollback = errors.New("roll back")

// Record implements sinks.Recorder. It returns when the database says that the
// result is on disk. A value that the database refuses gives a permanent error;
// every other error is transient.
func (s *Sink) Record(ctx context.Context, r *result.Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rec, err := s.policy.Protect(r)
	if err != nil {
		return fmt.Errorf("record a result: %w", err)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		if err := results.replace(ctx, tx, s.dialect, rec); err != nil {
			return err
		}
		return s.replaceChildren(ctx, tx, rec)
	})
	if err == nil {
		err = s.intact()
	}
	if err != nil {
		return s.dialect.explain(ctx, "record a result", err)
	}
	return nil
}

func (s *Sink) replaceChildren(ctx context.Context, tx *sql.Tx, rec *privacy.Record) error {
	if err := attempts.replaceAll(ctx, tx, s.dialect, rec.TokenHash, rec.Attempts); err != nil {
		return err
	}
	if err := warnings.replaceAll(ctx, tx, s.dialect, rec.TokenHash, rec.Warnings); err != nil {
		return err
	}
	return assets.replaceAll(ctx, tx, s.dialect, rec.TokenHash, assetRows(rec.Assets))
}

// write runs a transaction.
func (s *Sink) write(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// Get returns what is recorded of a token, as the policy left it when it was
// recorded; sealed values are opened by privacy.Policy.Open. The error is
// ErrNotFound where there is nothing.
func (s *Sink) Get(ctx context.Context, p result.Product, token string) (*privacy.Record, error) {
	rec, err := s.get(ctx, result.TokenHash(p, token))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, s.dialect.explain(ctx, "read a result", err)
	}
	return rec, nil
}

func (s *Sink) get(ctx context.Context, hash string) (*privacy.Record, error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	rec, err := results.one(ctx, tx, s.dialect, hash)
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
func (s *Sink) Count(ctx context.Context) (int64, error) {
	var n int64
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM results").Scan(&n); err != nil {
		return 0, s.dialect.explain(ctx, "count results", err)
	}
	return n, nil
}
