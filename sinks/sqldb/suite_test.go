package sqldb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSQLiteSuite(t *testing.T) {
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return database(filepath.Join(t.TempDir(), "faceid.db")) },
		Troubles: sqliteTroubles(),
	})
}

// database is a SQLite file.
type database string

func (d database) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	sink, err := sqldb.OpenWith(t.Context(), string(d), env, faultyConnector(faults))
	must(t, err)
	return sink
}

func (d database) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	hash := result.TokenHash(p, token)
	s := sinktest.Stored{State: d.rows(t, hash), Dump: d.dump(t)}
	sink := d.Open(t, sinks.Env{Name: "reader"}, nil).(*sqldb.Sink)
	defer func() { must(t, sink.Close(t.Context())) }()
	rec, err := sink.Get(t.Context(), p, token)
	if errors.Is(err, sqldb.ErrNotFound) {
		return s
	}
	must(t, err)
	s.Record = rec
	return s
}

// rows are all rows of a token in all tables, as SQL literals. It uses nothing of
// the package under test.
func (d database) rows(t testing.TB, hash string) string {
	t.Helper()
	if _, err := os.Stat(string(d)); err != nil {
		return ""
	}
	db, err := sql.Open("sqlite", string(d))
	must(t, err)
	defer db.Close()
	var b strings.Builder
	for _, table := range []string{"results", "attempts", "warnings", "assets"} {
		order := ""
		if table != "results" {
			order = " ORDER BY position"
		}
		rows, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" WHERE token_hash = ?"+order, hash)
		must(t, err)
		printRows(t, &b, table, rows)
	}
	return b.String()
}

// printRows writes each row on a line of its own and closes rows.
func printRows(t testing.TB, b *strings.Builder, table string, rows *sql.Rows) {
	t.Helper()
	defer rows.Close()
	names, err := rows.Columns()
	must(t, err)
	for rows.Next() {
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		must(t, rows.Scan(values...))
		fmt.Fprint(b, table)
		for i, v := range values {
			fmt.Fprintf(b, " %s=%q", names[i], fmt.Sprint(*v.(*any)))
		}
		fmt.Fprintln(b)
	}
	must(t, rows.Err())
}

// dump is the bytes of the file and those beside it.
func (d database) dump(t testing.TB) []byte {
	t.Helper()
	names, err := filepath.Glob(string(d) + "*")
	must(t, err)
	var all []byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // SQLite removes its log when the last connection closes
		}
		must(t, err)
		all = append(all, b...)
	}
	return all
}

// sqliteTroubles are what the owner of a file has.
func sqliteTroubles() []sinktest.Trouble {
	return []sinktest.Trouble{
		{
			Name: "another process writes", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "another process keeps it locked"},
			Provoke: inTrouble(func(t testing.TB, path string, sink *sqldb.Sink) func() {
				exec(t, sink, "PRAGMA busy_timeout = 1")
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
			Provoke: large(inTrouble(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				exec(t, sink, "PRAGMA max_page_count = 1") // which means the size it has
				return func() { exec(t, sink, "PRAGMA max_page_count = 1000000") }
			})),
		},
		{
			Name: "the file is read-only", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "read-only", "the right to write"},
			Provoke: inTrouble(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				exec(t, sink, "PRAGMA query_only = ON")
				return func() { exec(t, sink, "PRAGMA query_only = OFF") }
			}),
		},
		{
			Name: "the file is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "the file or its folder is gone"},
			Provoke: inTrouble(func(t testing.TB, path string, _ *sqldb.Sink) func() {
				must(t, os.Rename(path, path+".gone"))
				return func() { must(t, os.Rename(path+".gone", path)) }
			}),
		},
		{
			Name: "another file is there", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"faceid.db", "moved or replaced", "restart"},
			Provoke: inTrouble(func(t testing.TB, path string, _ *sqldb.Sink) func() {
				must(t, os.Rename(path, path+".gone"))
				must(t, os.WriteFile(path, nil, 0o600))
				return func() { must(t, os.Rename(path+".gone", path)) }
			}),
		},
		{
			Name: "a table is gone", Class: sinks.ClassTransient,
			Words: []string{"faceid.db", "its tables are not those"},
			Provoke: inTrouble(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				exec(t, sink, "ALTER TABLE warnings RENAME TO elsewhere")
				return func() { exec(t, sink, "ALTER TABLE elsewhere RENAME TO warnings") }
			}),
		},
		{
			Name: "a constraint", Class: sinks.ClassPermanent,
			Words: []string{"faceid.db", "a constraint of the database refuses this result"},
			Provoke: inTrouble(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				exec(t, sink, `CREATE TRIGGER refuse BEFORE INSERT ON results
					BEGIN SELECT RAISE(ABORT, 'refused'); END`)
				return nil
			}),
		},
		{
			Name: "a value too large", Class: sinks.ClassPermanent,
			Words: []string{"faceid.db", "larger than the database takes"},
			Provoke: large(inTrouble(func(t testing.TB, _ string, sink *sqldb.Sink) func() {
				conn, err := sink.DB().Conn(t.Context())
				must(t, err)
				_, err = sqlite.Limit(conn, sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
				must(t, errors.Join(err, conn.Close()))
				return nil
			})),
		},
	}
}

// provoke is sinktest.Trouble.Provoke.
type provoke func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled

// large is trouble with a large result.
func large(trouble provoke) provoke {
	return func(t testing.TB, env sinks.Env, r *result.Result) sinktest.Troubled {
		t.Helper()
		r.Raw = result.NewSensitive(strings.Repeat("x", 200_000))
		return trouble(t, env, r)
	}
}

// inTrouble opens a sink and gets it into trouble.
func inTrouble(trouble func(t testing.TB, path string, sink *sqldb.Sink) (heal func())) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		path := filepath.Join(t.TempDir(), "faceid.db")
		sink := open(t, path, env)
		return sinktest.Troubled{Sink: sink, Heal: trouble(t, path, sink)}
	}
}

func open(t testing.TB, path string, env sinks.Env) *sqldb.Sink {
	t.Helper()
	sink, err := (&sqldb.SQLite{Path: path}).Open(t.Context(), env)
	must(t, err)
	return sink.(*sqldb.Sink)
}

func exec(t testing.TB, sink *sqldb.Sink, query string) {
	t.Helper()
	_, err := sink.DB().ExecContext(context.WithoutCancel(t.Context()), query)
	must(t, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
