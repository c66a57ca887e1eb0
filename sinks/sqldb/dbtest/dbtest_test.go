package dbtest_test

import (
	"database/sql"
	"os"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Each test has a database of its own, and may do there what it likes.
func TestDatabasesAreEmptyAndApart(t *testing.T) {
	for _, server := range []struct {
		driver string
		start  func(testing.TB) string
	}{
		{"pgx", dbtest.StartPostgres},
		{"mysql", dbtest.StartMariaDB},
	} {
		t.Run(server.driver, func(t *testing.T) {
			one, other := server.start(t), server.start(t)
			for _, name := range []string{one, other} {
				db, err := sql.Open(server.driver, name)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				if _, err := db.ExecContext(t.Context(), "CREATE TABLE same_name (n INTEGER)"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// What was committed is there after a crash, and nothing is left after Close.
func TestCrash(t *testing.T) {
	p, err := dbtest.NewPostgres(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	execute := func(statement string) error {
		db, err := sql.Open("pgx", p.URL())
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.ExecContext(t.Context(), statement)
		return err
	}
	if err := execute("CREATE TABLE kept (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := execute("INSERT INTO kept VALUES (1)"); err == nil {
			t.Error("a crashed server answers")
		}
		if err := p.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := execute("INSERT INTO kept VALUES (1)"); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Folder()); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}
