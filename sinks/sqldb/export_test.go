package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// OpenWith opens a SQLite sink with something between database/sql and the
// driver.
func OpenWith(ctx context.Context, path string, env sinks.Env, wrap func(driver.Connector) driver.Connector) (sinks.Sink, error) {
	return openSQLite(ctx, path, env, wrap)
}

// DB is the sink's pool of one connection.
func (s *Sink) DB() *sql.DB { return s.db }

// InsertResults is the statement of a plain insert of some rows into results, and
// the arguments of one row.
func InsertResults(s *Sink, rows int) string {
	return insertSQL(s.dialect, results.name, results.names(), rows)
}
