package dbtest_test

import (
	"database/sql"
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
