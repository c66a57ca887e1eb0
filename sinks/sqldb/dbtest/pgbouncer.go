package dbtest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// StartPgBouncer starts a pgbouncer in front of a database of StartPostgres, and returns
// the URL of the database through it. It gives each transaction any connection of the
// server (pool_mode = transaction), unless settings, lines of its configuration, say
// otherwise; those that begin with "database: " are of the database. It ends with the test.
func StartPgBouncer(t testing.TB, databaseURL string, settings ...string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(pgbouncerKind(*u, settings))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})

	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	return u.String()
}

func pgbouncerKind(u url.URL, settings []string) kind {
	return kind{
		name: "pgbouncer", users: []string{"postgres"}, signal: "KILL",
		prepare: func(_ context.Context, s *server, _ *syscall.SysProcAttr) error {
			password, _ := u.User.Password()
			users := fmt.Sprintf("%q %q\n", u.User.Username(), password)
			if err := os.WriteFile(s.path("users"), []byte(users), 0o644); err != nil { //nolint:gosec // the folder is closed
				return err
			}

			var own, general []string
			for _, line := range settings {
				if of, ok := strings.CutPrefix(line, "database: "); ok {
					own = append(own, of)
				} else {
					general = append(general, line)
				}
			}

			text := fmt.Sprintf(`[databases]
%s = host=%s port=%s %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = md5
auth_file = %s
pool_mode = transaction
%s
`, strings.TrimPrefix(u.Path, "/"), u.Hostname(), u.Port(), strings.Join(own, " "), s.port, s.path("users"), strings.Join(general, "\n"))
			return os.WriteFile(s.path("pgbouncer.ini"), []byte(text), 0o644) //nolint:gosec // the folder is closed
		},
		command: func(s *server) ([]string, error) {
			binary, err := program("pgbouncer", "/usr/sbin", "/usr/local/sbin")
			return []string{binary, "--quiet", s.path("pgbouncer.ini")}, err
		},
		ready: func(ctx context.Context, s *server) error {
			// It answers who asks for a database that it has not.
			at := u
			at.Host, at.Path = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), "/"+noDatabase
			conn, err := pgx.Connect(ctx, at.String()+"?sslmode=disable")
			if err == nil {
				return conn.Close(ctx)
			}
			if strings.Contains(err.Error(), noDatabase) && strings.Contains(err.Error(), "SQLSTATE") {
				return nil
			}
			return err
		},
	}
}

const noDatabase = "no_database_has_this_name"
