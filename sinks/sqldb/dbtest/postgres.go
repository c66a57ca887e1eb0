package dbtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// postgresPrograms is where Debian puts what is not in PATH.
const postgresPrograms = "/usr/lib/postgresql/*/bin"

var postgresKind = kind{
	name: "postgres", users: []string{"postgres"}, signal: "QUIT",
	prepare: preparePostgres, command: postgresCommand, ready: postgresReady,
}

var postgres = sync.OnceValues(func() (*server, error) { return start(postgresKind) })

// StartPostgres returns the URL of an empty database on a PostgreSQL server, with
// the password in it. The database is dropped when the test ends. A server that
// is not installed fails the test.
func StartPostgres(t testing.TB) string {
	t.Helper()
	return StartPostgresIn(t, "UTF8")
}

// StartPostgresIn is StartPostgres with a database that keeps text in an encoding.
func StartPostgresIn(t testing.TB, encoding string) string {
	t.Helper()
	s := get(t, postgres)
	name := databaseName()
	ctx := context.WithoutCancel(t.Context())
	create := "CREATE DATABASE " + name
	if encoding != "UTF8" {
		create += " ENCODING '" + encoding + "' LOCALE 'C' TEMPLATE template0"
	}
	if err := s.postgres(ctx, create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.postgres(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.postgresURL(name)
}

// PostgresCA returns the path of the certificate that signed the server's, which
// is for "localhost", but not for 127.0.0.1.
func PostgresCA(t testing.TB) string {
	t.Helper()
	return get(t, postgres).path(caName)
}

func (s *server) postgresURL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(account, s.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database,
	}
	return u.String()
}

// postgres runs a statement in the database every cluster has.
func (s *server) postgres(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.postgresURL("postgres")+"?sslmode=disable")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func preparePostgres(ctx context.Context, s *server, as *syscall.SysProcAttr) error {
	initdb, err := program("initdb", postgresPrograms)
	if err != nil {
		return err
	}
	superuser := s.path("superuser")                                            // nobody uses that account
	if err := os.WriteFile(superuser, []byte(rand.Text()), 0o644); err != nil { //nolint:gosec // the folder is closed
		return err
	}
	if err := tool(ctx, as, s.folder, initdb, "-D", s.path("data"), "-U", "postgres", "--no-sync",
		"-E", "UTF8", "--locale=C.UTF-8", "-A", "md5", "--pwfile", superuser); err != nil {
		return err
	}
	binary, err := program("postgres", postgresPrograms)
	if err != nil {
		return err
	}
	// Statements before the first start need no connection, in single-user mode.
	sql := s.path("accounts.sql")
	text := fmt.Sprintf("CREATE ROLE %[1]s LOGIN CREATEDB CREATEROLE PASSWORD '%[2]s'\nGRANT pg_signal_backend TO %[1]s\n", account, s.password)
	if err := os.WriteFile(sql, []byte(text), 0o644); err != nil { //nolint:gosec // the folder is closed
		return err
	}
	return tool(ctx, as, s.folder, "/bin/sh", "-c", `"$1" --single -F -c password_encryption=md5 -D "$2" postgres <"$3"`, "sh", binary, s.path("data"), sql)
}

func postgresCommand(s *server) ([]string, error) {
	binary, err := program("postgres", postgresPrograms)
	return []string{
		binary, "-D", s.path("data"), "-p", strconv.Itoa(s.port), "-k", "", "-h", "127.0.0.1",
		"--fsync=off", "--full_page_writes=off", "--wal_level=minimal", "--max_wal_senders=0",
		"--max_connections=500", "--shared_buffers=64MB", "--autovacuum=off", "--jit=off",
		"--timezone=Asia/Shanghai", "--password_encryption=md5", // which is faster than SCRAM
		"--ssl=on", "--ssl_cert_file=" + s.path(certificateName), "--ssl_key_file=" + s.path(keyName),
	}, err
}

func postgresReady(ctx context.Context, s *server) error { return s.postgres(ctx, "SELECT 1") }
