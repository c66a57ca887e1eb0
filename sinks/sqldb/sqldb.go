// Package sqldb records results in a SQL database: SQLite, PostgreSQL, or MySQL and
// what speaks its protocol, such as MariaDB and TDSQL.
//
// In goes a result, protected by the privacy policy; out come one row of the
// table results and the rows of its attempts, warnings and assets, in one
// transaction. The key is the token hash, which stands for product and token. A
// repeated call replaces the row and its children, so that doing it again leaves
// the same rows. Results that arrive while others are being written are written
// together, see group.
//
// Personal values are only what the policy leaves of them: column x holds the
// plain, masked or sealed value and x_index its blind index, both NULL where there
// is none. What the tables and columns mean is in migrations/, which the sink
// applies itself when it opens, safely with many processes at once. An erased
// token has a row in the table erased, and no other.
//
// What may go wrong: the database is unreachable, busy, full, read-only or of a
// newer version, which is transient, since its owner can mend it; or it refuses
// this very result, which is permanent. Errors say which in words and never hold
// what the driver said, for that may quote values.
package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Sink records results in a database. All methods but Close may be called by
// several goroutines at once.
type Sink struct {
	name    string
	policy  *privacy.Policy
	db      *sql.DB
	dialect *dialect
	group   *group
	// intact tells whether the database is still the one that was opened.
	intact func() error
	// room reports whether there is room for results.
	room func() error
	// prepared says that the schema is what this program needs. preparing holds
	// the one who sees to that.
	prepared  atomic.Bool
	preparing chan struct{}
}

var _ sinks.RecordKeeper = (*Sink)(nil)

// options are what an open database has of its own.
type options struct {
	connector driver.Connector
	dialect   *dialect
	// connections is how many there may be at once, writers how many of them write
	// results.
	connections, writers int
	// life and idle are how long a connection is used, and not used; 0 is for ever.
	life, idle time.Duration
	// intact and room are the sink's.
	intact, room func() error
}

// openSink makes a sink and its schema. A database that is away, but may come
// back, gives no error: the daemon starts, and its events wait.
func openSink(ctx context.Context, env sinks.Env, o options) (*Sink, error) {
	s := &Sink{
		name: env.Name, policy: env.Policy, db: sql.OpenDB(o.connector), dialect: o.dialect,
		intact: o.intact, room: o.room, preparing: make(chan struct{}, 1),
	}
	s.db.SetMaxOpenConns(o.connections)
	s.db.SetMaxIdleConns(o.connections)
	s.db.SetConnMaxLifetime(o.life)
	s.db.SetConnMaxIdleTime(o.idle)
	s.group = &group{write: s.writeGroup, writers: o.writers}
	err := s.prepare(ctx)
	if err == nil {
		return s, nil
	}
	explained := s.dialect.explain(ctx, "open the database", err)
	if ctx.Err() == nil && s.dialect.diagnose(err).kind == away {
		env.Log.Warn("the database is away; results wait until it is back", "error", explained)
		return s, nil
	}
	_ = s.db.Close() // nothing was written
	return nil, explained
}

// prepare makes the schema once.
func (s *Sink) prepare(ctx context.Context) error {
	if s.prepared.Load() {
		return nil
	}
	select {
	case s.preparing <- struct{}{}:
		defer func() { <-s.preparing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.prepared.Load() {
		return nil
	}
	if err := s.dialect.prepare(ctx, s.db, s.dialect); err != nil {
		return err
	}
	s.prepared.Store(true)
	return nil
}

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink. It waits for what is being written.
func (s *Sink) Close(ctx context.Context) error {
	s.group.close()
	if err := s.db.Close(); err != nil {
		return s.dialect.explain(ctx, "close the database", err)
	}
	return nil
}

// Check implements sinks.Sink: it takes the rights that Record and Erase need, and
// gives them back.
func (s *Sink) Check(ctx context.Context) error {
	err := s.prepare(ctx)
	if err == nil && s.dialect.holdsText != nil {
		err = s.dialect.holdsText(ctx, s.db)
	}
	if err == nil {
		err = s.transaction(ctx, s.dialect.write, func(tx querierExecer) error { return tryAll(ctx, tx) })
	}
	if err == nil || errors.Is(err, errRollback) {
		err = s.intact()
	}
	if err == nil {
		err = s.room()
	}
	if err != nil {
		return s.dialect.explain(ctx, "check the database", err)
	}
	return nil
}

// tryAll does to no row what is done to rows.
func tryAll(ctx context.Context, tx execer) error {
	for name, columns := range map[string][]string{
		results.name: results.names(), attempts.name: attempts.childNames(), warnings.name: warnings.childNames(),
		assets.name: assets.childNames(), erased.name: erased.names(), keyring.name: keyring.names(),
	} {
		list := strings.Join(columns, ", ") // not all, for the owner may have added some
		for _, statement := range []string{
			"INSERT INTO " + name + " (" + list + ") SELECT " + list + " FROM " + name + " WHERE 1 = 0",
			"DELETE FROM " + name + " WHERE 1 = 0",
		} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
	}
	return errRollback
}

// errRollback ends a transaction that shall leave nothing.
var errRollback = errors.New("roll back")

// Record implements sinks.Recorder. It returns when the database says that the
// result is on disk. A value that the database refuses gives a permanent error;
// every other error is transient, or sinks.ErrErased.
func (s *Sink) Record(ctx context.Context, r *result.Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rec, err := s.policy.Protect(r)
	if err != nil {
		return fmt.Errorf("record a result: %w", err)
	}
	e, err := newEntry(ctx, s.dialect, rec)
	if err == nil {
		err = s.group.put(e)
	}
	if err != nil {
		return s.dialect.explain(ctx, "record a result", err)
	}
	return nil
}

// querierExecer is sql.Tx.
type querierExecer interface {
	querier
	execer
}

// transaction runs one.
func (s *Sink) transaction(ctx context.Context, opts *sql.TxOptions, do func(querierExecer) error) error {
	tx, err := s.db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// asSink keeps a nil *Sink from becoming a sinks.Sink that is not nil.
func asSink(s *Sink, err error) (sinks.Sink, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
