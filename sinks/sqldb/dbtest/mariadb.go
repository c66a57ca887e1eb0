package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
)

var mariadb = sync.OnceValues(func() (*server, error) {
	return start(kind{
		name: "mariadb", users: []string{"mysql"}, signal: "KILL",
		prepare: prepareMariaDB, command: mariadbCommand, ready: mariadbReady,
	})
})

// StartMariaDB returns the data source name, as github.com/go-sql-driver/mysql
// reads it, of an empty database on a MariaDB server, with the password in it. The
// database is dropped when the test ends. A server that is not installed fails the
// test.
func StartMariaDB(t testing.TB) string {
	t.Helper()
	s := get(t, mariadb)
	name := databaseName()
	ctx := context.WithoutCancel(t.Context())
	if err := s.mariadb(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.mariadb(ctx, "DROP DATABASE IF EXISTS "+name); err != nil {
			t.Error(err)
		}
	})
	return s.mariadbDSN(name)
}

// MariaDBCA returns the path of the certificate that signed the server's, which is
// for "localhost", but not for 127.0.0.1.
func MariaDBCA(t testing.TB) string {
	t.Helper()
	return get(t, mariadb).path(caName)
}

func (s *server) mariadbDSN(database string) string {
	return fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/%s", account, s.password, s.port, database)
}

// mariadb runs a statement outside any database of a test.
func (s *server) mariadb(ctx context.Context, statement string) error {
	cfg, err := mysql.ParseDSN(s.mariadbDSN(""))
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{} // it is asked before it is there
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func prepareMariaDB(ctx context.Context, s *server, as *syscall.SysProcAttr) error {
	install, err := program("mariadb-install-db", "/usr/bin", "/usr/local/bin")
	if err != nil {
		return err
	}
	statements := fmt.Sprintf(`CREATE USER %[1]s@'%%' IDENTIFIED BY '%[2]s';
GRANT ALL PRIVILEGES ON *.* TO %[1]s@'%%' WITH GRANT OPTION;
DROP USER IF EXISTS root@'localhost', root@'127.0.0.1', root@'::1';
`, account, s.password)
	if err := os.WriteFile(s.path("accounts.sql"), []byte(statements), 0o644); err != nil { //nolint:gosec // the folder is closed
		return err
	}
	return tool(ctx, as, s.folder, install, "--no-defaults", "--datadir="+s.path("data"),
		"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
}

func mariadbCommand(s *server) ([]string, error) {
	binary, err := program("mariadbd", "/usr/sbin", "/usr/libexec", "/usr/local/sbin")
	return []string{
		binary, "--no-defaults", "--datadir=" + s.path("data"), "--socket=" + s.path("socket"),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(s.port), "--init-file=" + s.path("accounts.sql"),
		"--innodb-flush-method=nosync", "--innodb-buffer-pool-size=128M", "--innodb-log-file-size=256M",
		"--max-connections=500", "--skip-name-resolve", "--performance-schema=off",
		"--character-set-server=latin1", "--collation-server=latin1_swedish_ci", "--skip-character-set-client-handshake",
		"--sql-mode=", "--default-time-zone=+08:00", "--log-bin=" + s.path("binlog"), "--binlog-format=MIXED",
		"--ssl-ca=" + s.path(caName), "--ssl-cert=" + s.path(certificateName), "--ssl-key=" + s.path(keyName),
	}, err
}

func mariadbReady(ctx context.Context, s *server) error { return s.mariadb(ctx, "SELECT 1") }
