package sqldb_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

// A first start that fails says why, and the next one goes on where it stopped.
func TestMySQLFirstStart(t *testing.T) {
	const lacks = "the user lacks a privilege: grant select, insert, update and delete on the database, and create and alter"
	for name, test := range map[string]struct {
		// rights are those that the user has at first.
		rights string
		// trouble and heal are statements of the server's owner.
		trouble, heal []string
		words         string
	}{
		"no right at all":      {words: "(MySQL error 1044)"},
		"to read":              {rights: "SELECT", words: lacks},
		"not to create":        {rights: "SELECT, INSERT, UPDATE, DELETE, ALTER, DROP", words: lacks},
		"to create only":       {rights: "CREATE", words: lacks},
		"not to insert":        {rights: "SELECT, CREATE, ALTER, UPDATE, DELETE", words: lacks},
		"not to alter":         {rights: "SELECT, INSERT, UPDATE, DELETE, CREATE", words: lacks + " for the first start and for new versions (MySQL error 1142)"},
		"not to delete":        {rights: "SELECT, INSERT, UPDATE, CREATE, ALTER", words: lacks},
		"a log of statements":  {rights: "ALL", trouble: []string{"SET GLOBAL binlog_format = STATEMENT"}, heal: []string{"SET GLOBAL binlog_format = ROW"}, words: "its binary log cannot take the isolation level READ COMMITTED: set binlog_format to ROW (MySQL error 1665)"},
		"a read-only server":   {rights: "ALL", trouble: []string{"SET GLOBAL read_only = 1"}, heal: []string{"SET GLOBAL read_only = 0"}, words: "it is read-only"},
		"versions, but none":   {rights: "ALL", trouble: []string{"CREATE TABLE goose_db_version (id bigint unsigned auto_increment primary key, version_id bigint, is_applied boolean, tstamp datetime)"}},
		"half of the first":    {rights: "ALL", trouble: []string{"CREATE TABLE erased (token_hash char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY, product varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, erased_at datetime(6) NOT NULL) ENGINE = InnoDB CHARACTER SET utf8mb4"}},
		"results of an other":  {rights: "ALL", trouble: []string{"CREATE TABLE results (n int) CHARACTER SET utf8mb4"}, heal: []string{"DROP TABLE results, goose_db_version"}, words: "its tables are not those that faceid-ingest made"},
		"a table of its names": {rights: "ALL", trouble: []string{"CREATE TABLE erased (n int) CHARACTER SET utf8mb4"}, heal: []string{"DROP TABLE erased, goose_db_version"}, words: "its tables are not those that faceid-ingest made"},
	} {
		t.Run(name, func(t *testing.T) {
			source := dbtest.StartMariaDB(t)
			dsn, err := mysql.ParseDSN(source)
			must(t, err)
			d := &database{system: mariaDB, raw: openRaw(t, "mysql", source)}
			dsn.User, dsn.Passwd = newUserName(), "limited"
			d.exec(t, "CREATE USER "+dsn.User+" IDENTIFIED BY 'limited'")
			t.Cleanup(func() { d.exec(t, "DROP USER "+dsn.User) })
			grant := func(rights string) { d.exec(t, "GRANT "+rights+" ON "+dsn.DBName+".* TO "+dsn.User) }
			if test.rights != "" {
				grant(test.rights)
			}
			d.exec(t, test.trouble...)
			cfg := &sqldb.MySQL{DSN: sinks.Secret(dsn.FormatDSN()), MaxConnections: 2}

			for range 2 { // the second start fails as the first
				err = passes(t, cfg)
				if test.words == "" {
					break
				}
				judge(t, err, test.words)
			}
			d.exec(t, test.heal...)
			grant("ALL")
			if test.words != "" {
				err = passes(t, cfg)
			}
			must(t, err)
		})
	}
}

// An index that the owner added does not make one token's result overwrite another's.
func TestUniqueIndexOfTheOwner(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		for name, index := range map[string]string{
			"request":          "results (request_id)",
			"account and rule": "results (account, rule_id)",
			"an attempt":       "attempts (seq)",
			"a tombstone":      "erased (product)",
		} {
			t.Run(name, func(t *testing.T) {
				d := newDatabase(t, s)
				index := index
				if s.name == "mariadb" { // which indexes the beginning of long texts
					index = strings.NewReplacer("_id", "_id(64)", "account,", "account(64),", "seq", "seq(64)").Replace(index)
				}
				d.exec(t, "CREATE UNIQUE INDEX of_the_owner ON "+index)
				sink := d.open(t, env(t))

				// Alone and in a group, after and before the one whose value it has.
				for i := range 8 {
					r := sinktest.Archived(sinktest.Result(i))
					r.RequestID, r.Account, r.RuleID = "same", "same", "same"
					for n := range r.Attempts {
						r.Attempts[n].Seq = fmt.Sprint(n)
					}
					key := sinks.KeyOf(r.Product, r.Token)
					var err error
					if name == "a tombstone" {
						_, err = sink.Erase(t.Context(), sinks.Key{Product: "enhanced", Hash: key.Hash}, "asked for")
					} else {
						err = sink.Record(t.Context(), r)
					}
					if i == 0 {
						must(t, err)
						continue
					}
					judge(t, err, otherRow)
					if class, _ := sinks.ClassOf(err); class != sinks.ClassPermanent {
						t.Errorf("the class is %q", class)
					}
				}
				if name == "a tombstone" {
					return
				}

				first := sinktest.Archived(sinktest.Result(0))
				rec, err := sink.Get(t.Context(), sinks.KeyOf(first.Product, first.Token))
				must(t, err)
				if rec.Token != first.Token || len(rec.Attempts) != len(first.Attempts) || len(rec.Assets) != len(first.Assets) {
					t.Errorf("the first result is not what it was: %q", rec.Token)
				}
				if n, err := sink.Count(t.Context()); n != 1 || err != nil {
					t.Errorf("%d results, %v", n, err)
				}
				first.RequestID, first.Account, first.RuleID = "another", "another", "another"
				must(t, sink.Record(t.Context(), first)) // its own may change
			})
		}
	})
}

// In a group, too, one result is kept and the others are refused, with nothing of them
// left.
func TestUniqueIndexOfTheOwnerInGroups(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		column := "request_id"
		if s.name == "mariadb" {
			column = "request_id(64)"
		}
		d.exec(t, "CREATE UNIQUE INDEX of_the_owner ON results ("+column+")")
		sink := d.open(t, env(t))

		const pairs = 48
		errs := make([]error, 2*pairs)
		var wg sync.WaitGroup
		for i := range errs {
			r := sinktest.Archived(sinktest.Result(i))
			r.RequestID = fmt.Sprint(i % pairs)
			wg.Go(func() { errs[i] = sink.Record(t.Context(), r) })
		}
		wg.Wait()

		for i := range pairs {
			kept, left := i, i+pairs
			if errs[i] != nil {
				kept, left = left, kept
			}
			must(t, errs[kept])
			judge(t, errs[left], otherRow)
			r := sinktest.Archived(sinktest.Result(kept))
			rec, err := sink.Get(t.Context(), sinks.KeyOf(r.Product, r.Token))
			must(t, err)
			if rec.Token != r.Token || len(rec.Assets) != len(r.Assets) {
				t.Errorf("%q is stored as %q with %d assets", r.Token, rec.Token, len(rec.Assets))
			}
		}
		if n, err := sink.Count(t.Context()); n != pairs || err != nil {
			t.Errorf("%d results, %v", n, err)
		}
	})
}

const otherRow = "a unique index that is not faceid-ingest's has the value of another row"

// A column that the owner added does not matter.
func TestColumnOfTheOwner(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		for _, table := range tables {
			column := "INTEGER GENERATED ALWAYS AS (1 + 1) STORED"
			if s.name == "sqlite" {
				column = "INTEGER GENERATED ALWAYS AS (1 + 1) VIRTUAL"
			}
			d.exec(t, "ALTER TABLE "+table+" ADD COLUMN of_the_owner "+column)
		}
		must(t, passes(t, d.cfg))
	})
}

// A file that is not what faceid-ingest makes gets true words.
func TestSQLiteFiles(t *testing.T) {
	statements := func(list ...string) func(testing.TB, string) {
		return func(t testing.TB, path string) {
			t.Helper()
			onServer(t, "sqlite", path, list...)
		}
	}
	contents := func(text string) func(testing.TB, string) {
		return func(t testing.TB, path string) { t.Helper(); must(t, os.WriteFile(path, []byte(text), 0o600)) }
	}
	for name, test := range map[string]struct {
		make  func(t testing.TB, path string)
		path  string
		words string
	}{
		"empty":                      {make: contents("")},
		"UTF-8":                      {make: statements("PRAGMA encoding = 'UTF-8'", "CREATE TABLE other (n)")},
		"UTF-16le":                   {make: statements("PRAGMA encoding = 'UTF-16le'", "CREATE TABLE other (n)"), words: "keeps text as UTF-16le there, not as UTF-8: name another file"},
		"UTF-16be":                   {make: statements("PRAGMA encoding = 'UTF-16be'", "CREATE TABLE other (n)"), words: "keeps text as UTF-16be there, not as UTF-8: name another file"},
		"another journal":            {make: statements("PRAGMA journal_mode = PERSIST", "CREATE TABLE other (n)")},
		"small pages":                {make: statements("PRAGMA page_size = 512", "PRAGMA auto_vacuum = FULL", "CREATE TABLE other (n)")},
		"another program's":          {make: statements("CREATE TABLE results (n)"), words: "its tables are not those that faceid-ingest made: restore them, or name another file in path"},
		"no database":                {make: contents("this is a letter to somebody, and quite a long one, so that it has a header's length at least, which is 100 bytes"), words: "the file is not a SQLite database"},
		"damaged":                    {make: contents("SQLite format 3\x00" + strings.Repeat("\xff", 8192)), words: "the file is not a SQLite database"},
		"a folder":                   {make: func(t testing.TB, path string) { t.Helper(); must(t, os.Mkdir(path, 0o700)) }, words: "the path must name a file in a folder"},
		"a folder that is not there": {path: "nowhere/faceid.db", words: "create the folder"},
		"a folder that is read-only": {path: "/sys/faceid.db", words: "the right to write the file and its folder"},
		"a file as a folder":         {path: "/dev/null/faceid.db", words: "the path must name a file in a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "faceid.db")
			if test.path != "" && filepath.IsAbs(test.path) {
				path = test.path
			} else if test.path != "" {
				path = filepath.Join(t.TempDir(), test.path)
			}
			if test.make != nil {
				test.make(t, path)
			}
			judge(t, passes(t, &sqldb.SQLite{Path: path}), test.words)
		})
	}
}

// A file that another program has for itself is not waited for without end.
func TestSQLiteIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faceid.db")
	other := openRaw(t, "sqlite", path)
	conn, err := other.Conn(t.Context())
	must(t, err)
	for _, statement := range []string{"PRAGMA locking_mode = EXCLUSIVE", "CREATE TABLE other (n)", "BEGIN EXCLUSIVE"} {
		_, err := conn.ExecContext(t.Context(), statement)
		must(t, err)
	}
	judge(t, passes(t, &sqldb.SQLite{Path: path}), "another process keeps it locked")

	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	must(t, errors.Join(err, conn.Close()))
}
