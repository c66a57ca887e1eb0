package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"testing"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// sqliteTroubles are what the owner of a file has.
func sqliteTroubles() []sinktest.Trouble {
	return []sinktest.Trouble{
		{
			Name: "another process writes", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "another process keeps it locked"},
			Provoke: inFile(func(t testing.TB, path string, sink *sqldb.Sink) func() {
				execOn(t, sink, "PRAGMA busy_timeout = 1")
				other, err := sql.Open("sqlite", path)
				must(t, err)
				t.Cleanup(func() { _ = other.Close() })
				tx, err := other.Conn(t.Context())
				must(t, err)
				_, err = tx.ExecContext(t.Context(), "BEGIN IMMEDIATE")
				must(t, err)
				return func() {
					_, err := tx.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
					must(t, errors.Join(err, tx.Close(), other.Close()))
				}
			}),
		},
		{
			Name: "the disk is full", Class: sinks.ClassTransient,
			Words: []string{"faceid.db", "the disk is full"},
			Provoke: large(inFile(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				execOn(t, sink, "PRAGMA max_page_count = 1") // which means the size it has
				return func() { execOn(t, sink, "PRAGMA max_page_count = 1000000") }
			})),
		},
		{
			Name: "the file is read-only", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "read-only", "the right to write"},
			Provoke: inFile(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				execOn(t, sink, "PRAGMA query_only = ON")
				return func() { execOn(t, sink, "PRAGMA query_only = OFF") }
			}),
		},
		{
			Name: "the file is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "the file or its folder is gone"},
			Provoke: inFile(func(t testing.TB, path string, _ *sqldb.Sink) func() {
				must(t, os.Rename(path, path+".gone"))
				return func() { must(t, os.Rename(path+".gone", path)) }
			}),
		},
		{
			Name: "another file is there", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "moved or replaced", "restart"},
			Provoke: inFile(func(t testing.TB, path string, _ *sqldb.Sink) func() {
				must(t, os.Rename(path, path+".gone"))
				must(t, os.WriteFile(path, nil, 0o600))
				return func() { must(t, os.Rename(path+".gone", path)) }
			}),
		},
		{
			Name: "a table is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "its tables are not those"},
			Provoke: statements(sqliteDB,
				[]string{"ALTER TABLE warnings RENAME TO elsewhere"}, []string{"ALTER TABLE elsewhere RENAME TO warnings"}),
		},
		{
			Name: "a constraint", Class: sinks.ClassPermanent,
			Words: []string{"faceid.db", "a constraint of the database refuses this result"},
			Provoke: statements(sqliteDB,
				[]string{`CREATE TRIGGER refuse BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'refused'); END`}, nil),
		},
		{
			Name: "a value too large", Class: sinks.ClassPermanent,
			Words: []string{"faceid.db", "larger than the database takes"},
			Provoke: large(inFile(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				conn, err := sink.DB().Conn(t.Context())
				must(t, err)
				_, err = sqlite.Limit(conn, sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
				must(t, errors.Join(err, conn.Close()))
				return nil
			})),
		},
	}
}

// inFile is inTrouble of a SQLite file.
func inFile(trouble func(t testing.TB, path string, sink *sqldb.Sink) (heal func())) provoke {
	return inTrouble(sqliteDB, func(t testing.TB, d *database, sink *sqldb.Sink) func() {
		return trouble(t, d.cfg.(*sqldb.SQLite).Path, sink)
	})
}

// execOn runs a statement on the sink's own connection.
func execOn(t testing.TB, sink *sqldb.Sink, query string) {
	t.Helper()
	_, err := sink.DB().ExecContext(context.WithoutCancel(t.Context()), query)
	must(t, err)
}
