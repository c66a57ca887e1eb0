package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// MaxGroup is the bound of a transaction.
const MaxGroup = maxGroup

// OpenWith opens a sink with something between database/sql and the driver.
func OpenWith(ctx context.Context, cfg sinks.Config, env sinks.Env, wrap func(driver.Connector) driver.Connector) (sinks.Sink, error) {
	switch cfg := cfg.(type) {
	case *SQLite:
		return openSQLite(ctx, cfg.Path, env, wrap)
	case *Postgres:
		return cfg.open(ctx, env, wrap)
	case *MySQL:
		return cfg.open(ctx, env, wrap)
	}
	return nil, fmt.Errorf("no database: %T", cfg)
}

// DB is the sink's pool of connections.
func (s *Sink) DB() *sql.DB { return s.db }

// Queued is how many results wait for a writer.
func (s *Sink) Queued() int {
	s.group.mu.Lock()
	defer s.group.mu.Unlock()
	return len(s.group.queue)
}

// Rows are results ready to be inserted.
type Rows struct{ results, attempts, warnings, assets []row }

// RowsOf makes the rows of some results.
func RowsOf(ctx context.Context, s *Sink, rs []*result.Result) (all Rows, err error) {
	for _, r := range rs {
		rec, err := s.policy.Protect(r)
		if err != nil {
			return all, err
		}
		e, err := newEntry(ctx, s.dialect, rec)
		if err != nil {
			return all, err
		}
		all.results = append(all.results, e.result)
		all.attempts = append(all.attempts, e.attempts...)
		all.warnings = append(all.warnings, e.warnings...)
		all.assets = append(all.assets, e.assets...)
	}
	return all, nil
}

// InsertPlain inserts rows with multi-row statements in one transaction and does
// nothing else: what a group costs at least.
func InsertPlain(ctx context.Context, s *Sink, all Rows) error {
	return s.transaction(ctx, s.dialect.write, func(tx querierExecer) error {
		for _, t := range []struct {
			name  string
			names []string
			rows  []row
		}{
			{results.name, results.names(), all.results}, {attempts.name, attempts.childNames(), all.attempts},
			{warnings.name, warnings.childNames(), all.warnings}, {assets.name, assets.childNames(), all.assets},
		} {
			if err := insert(ctx, tx, s.dialect, t.name, t.names, t.rows, ""); err != nil {
				return err
			}
		}
		return nil
	})
}
