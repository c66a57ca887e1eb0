package sqldb_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var tables = []string{"results", "attempts", "warnings", "assets", "erased", "keyring"}

// system is a database system under test.
type system struct {
	name, driver string
	// fresh makes an empty database, and returns the configuration of a sink on it
	// and what a plain connection is opened with.
	fresh func(t testing.TB) (cfg sinks.Config, source string)
	// argument is the placeholder of a first argument.
	argument string
	// duplicate makes a database like one that nobody uses, which is faster than
	// migrating an empty one; nil where it is not.
	duplicate func(t testing.TB, source string) (cfg sinks.Config, copied string)
}

var (
	sqliteDB = system{"sqlite", "sqlite", func(t testing.TB) (sinks.Config, string) {
		path := filepath.Join(t.TempDir(), "faceid.db")
		return &sqldb.SQLite{Path: path}, path
	}, "?", duplicateFile}

	postgresDB = system{"postgres", "pgx", func(t testing.TB) (sinks.Config, string) {
		url := dbtest.StartPostgres(t)
		return &sqldb.Postgres{URL: sinks.Secret(url), MaxConnections: 8}, url
	}, "$1", duplicatePostgres}

	mariaDB = system{"mariadb", "mysql", func(t testing.TB) (sinks.Config, string) {
		dsn := dbtest.StartMariaDB(t)
		return &sqldb.MySQL{DSN: sinks.Secret(dsn), MaxConnections: 8}, dsn + "?charset=utf8mb4"
	}, "?", nil}

	systems = []system{sqliteDB, postgresDB, mariaDB}
)

// eachSystem runs a test on all database systems.
func eachSystem(t *testing.T, test func(*testing.T, system)) {
	for _, s := range systems {
		t.Run(s.name, func(t *testing.T) { test(t, s) })
	}
}

// database is one that tests have for themselves.
type database struct {
	system
	cfg sinks.Config
	// raw is a connection that owes nothing to the package under test.
	raw *sql.DB
	// reader is a sink to read by.
	reader *sqldb.Sink
}

// newDatabase makes an empty database, with the tables of faceid-ingest.
func newDatabase(t testing.TB, s system) *database {
	t.Helper()
	cfg, source := s.fresh(t)
	return newDatabaseAt(t, s, cfg, source)
}

// newDatabaseAt is a database that is there.
func newDatabaseAt(t testing.TB, s system, cfg sinks.Config, source string) *database {
	t.Helper()
	d := &database{system: s, cfg: cfg}
	d.reader = d.open(t, sinks.Env{Name: "reader"})
	d.raw = openRaw(t, s.driver, source)
	return d
}

// openRaw opens plain connections.
func openRaw(t testing.TB, driver, source string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, source)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

// open opens a sink, which is closed at the end.
func (d *database) open(t testing.TB, env sinks.Env) *sqldb.Sink {
	t.Helper()
	sink, err := d.cfg.Open(t.Context(), env)
	must(t, err)
	t.Cleanup(func() { must(t, sink.Close(context.WithoutCancel(t.Context()))) })
	return sink.(*sqldb.Sink)
}

// exec runs a statement on the plain connection.
func (d *database) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := d.raw.ExecContext(context.WithoutCancel(t.Context()), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// Open implements sinktest.Destination.
func (d *database) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	sink, err := sqldb.OpenWith(t.Context(), d.cfg, env, faultyConnector(faults))
	must(t, err)
	return sink
}

// Stored implements sinktest.Destination.
func (d *database) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	key := sinks.KeyOf(p, token)
	s := sinktest.Stored{State: d.rows(t, key.Hash), Dump: d.dump(t)}
	rec, err := d.reader.Get(t.Context(), key)
	if errors.Is(err, sinks.ErrNotFound) {
		return s
	}
	must(t, err)
	s.Record = rec
	return s
}

// rows are all rows of a token in all tables.
func (d *database) rows(t testing.TB, hash string) string {
	t.Helper()
	var b strings.Builder
	for _, table := range tables[:4] {
		order := ""
		if table != "results" {
			order = " ORDER BY position"
		}
		rows, err := d.raw.QueryContext(t.Context(), "SELECT * FROM "+table+" WHERE token_hash = "+d.argument+order, hash)
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
			fmt.Fprintf(b, " %s=%s", names[i], printed(*v.(*any)))
		}
		fmt.Fprintln(b)
	}
	must(t, rows.Err())
}

var sealed = regexp.MustCompile(`seal:v1:[0-9a-f]{8}:[A-Za-z0-9_-]+`)

// printed is a value for people; a long one is its digest, but for sealed ones,
// which are never the same.
func printed(v any) string {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case []byte:
		text = string(v)
	default:
		text = fmt.Sprint(v)
	}
	if len(text) > 1000 {
		if strings.Contains(text, "seal:") {
			text = sealed.ReplaceAllString(text, "")
		}
		return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	}
	return fmt.Sprintf("%q", text)
}

// dump is all that the database holds: the bytes of SQLite's files, the rows of
// others. Of large databases there is none, for it would be taken again and again;
// those with personal values are small.
func (d *database) dump(t testing.TB) []byte {
	t.Helper()
	if cfg, ok := d.cfg.(*sqldb.SQLite); ok {
		return dumpFiles(t, cfg.Path)
	}
	var n int
	must(t, d.raw.QueryRowContext(t.Context(), "SELECT count(*) FROM results").Scan(&n))
	if n > 4 {
		return nil
	}
	var b strings.Builder
	for _, table := range tables {
		rows, err := d.raw.QueryContext(t.Context(), "SELECT * FROM "+table)
		must(t, err)
		printRows(t, &b, table, rows)
	}
	return []byte(b.String())
}

func dumpFiles(t testing.TB, path string) []byte {
	t.Helper()
	names, err := filepath.Glob(path + "*")
	must(t, err)
	var all bytes.Buffer
	for _, name := range names {
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() > 4<<20 {
			continue // SQLite removes its log when the last connection closes
		}
		must(t, err)
		b, err := os.ReadFile(name)
		if !errors.Is(err, os.ErrNotExist) {
			must(t, err)
		}
		all.Write(b)
	}
	return all.Bytes()
}

// pool lends databases, so that not every use has to make one.
type pool struct {
	system
	// owner is the test that the databases live for.
	owner testing.TB
	// model is what a database is a duplicate of; empty where that does not pay.
	model string
	mu    sync.Mutex
	idle  []*database
}

func newPool(t testing.TB, s system) *pool {
	t.Helper()
	p := &pool{system: s, owner: t}
	if s.duplicate != nil {
		cfg, source := s.fresh(t)
		sink, err := cfg.Open(t.Context(), sinks.Env{Name: "model"})
		must(t, err)
		must(t, sink.Close(t.Context()))
		p.model = source
	}
	return p
}

func (p *pool) add(t testing.TB) *database {
	t.Helper()
	if p.model == "" {
		return newDatabase(p.owner, p.system)
	}
	cfg, source := p.duplicate(p.owner, p.model)
	return newDatabaseAt(p.owner, p.system, cfg, source)
}

func duplicateFile(t testing.TB, source string) (sinks.Config, string) {
	t.Helper()
	b, err := os.ReadFile(source)
	must(t, err)
	path := filepath.Join(t.TempDir(), "faceid.db")
	must(t, os.WriteFile(path, b, 0o600))
	return &sqldb.SQLite{Path: path}, path
}

// duplicatePostgres makes a database out of another, from within a third.
func duplicatePostgres(t testing.TB, source string) (sinks.Config, string) {
	t.Helper()
	u, err := url.Parse(source)
	must(t, err)
	original := strings.TrimPrefix(u.Path, "/")
	name := fmt.Sprintf("%s_copy_%d", original, copies.Add(1))
	u.Path = "/postgres"
	admin, err := sql.Open("pgx", u.String())
	must(t, err)
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+original)
	must(t, err)
	t.Cleanup(func() {
		_, err := admin.ExecContext(context.WithoutCancel(t.Context()), "DROP DATABASE "+name+" WITH (FORCE)")
		must(t, errors.Join(err, admin.Close()))
	})
	u.Path = "/" + name
	return &sqldb.Postgres{URL: sinks.Secret(u.String()), MaxConnections: 8}, u.String()
}

var copies atomic.Int64

// take returns an empty database until the test ends.
func (p *pool) take(t testing.TB) *database {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		p.idle = append(p.idle, p.add(t))
	}
	d := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	t.Cleanup(func() {
		for _, table := range tables {
			d.exec(t, "DELETE FROM "+table)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.idle = append(p.idle, d)
	})
	return d
}

// env is what a sink gets that stores personal values sealed.
func env(t testing.TB) sinks.Env {
	t.Helper()
	return sinks.Env{Name: "records", Policy: sealing(t, keyring(t)), Log: slog.New(slog.DiscardHandler)}
}

func keyring(t testing.TB) *privacy.Keyring {
	t.Helper()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	return keys
}

func sealing(t testing.TB, keys *privacy.Keyring) *privacy.Policy {
	t.Helper()
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	return policy
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
