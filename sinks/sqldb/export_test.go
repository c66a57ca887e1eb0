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

// Diagnose are the words and whether it is permanent, of a code of PostgreSQL and of
// an error number of MySQL.
func DiagnoseSQLState(code string) string      { return describeSQLState(code).words }
func DiagnoseErrorNumber(number uint16) string { return describeErrorNumber(number).words }

// InsertPlain inserts new results with multi-row statements in one transaction and
// nothing else: what a batch costs at least.
func InsertPlain(ctx context.Context, s *Sink, rs []*result.Result) error {
	entries := make([]*entry, len(rs))
	for i, r := range rs {
		rec, err := s.policy.Protect(r)
		if err != nil {
			return err
		}
		if entries[i], err = newEntry(ctx, s.dialect, rec); err != nil {
			return err
		}
	}
	return s.transaction(ctx, s.dialect.write, func(tx querierExecer) error {
		var all [4][]row
		for _, e := range entries {
			all[0] = append(all[0], e.result)
			all[1] = append(all[1], e.attempts...)
			all[2] = append(all[2], e.warnings...)
			all[3] = append(all[3], e.assets...)
		}
		for i, t := range []struct {
			name  string
			names []string
		}{
			{results.name, results.names()}, {attempts.name, attempts.childNames()},
			{warnings.name, warnings.childNames()}, {assets.name, assets.childNames()},
		} {
			if err := insert(ctx, tx, s.dialect, t.name, t.names, all[i], ""); err != nil {
				return err
			}
		}
		return nil
	})
}
