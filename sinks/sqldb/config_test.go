package sqldb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

const password = "a-password-that-nobody-may-see"

func TestValidate(t *testing.T) {
	pg := func(change func(*sqldb.Postgres)) sinks.Config {
		c := &sqldb.Postgres{URL: "postgres://faceid:" + password + "@db.internal:5432/faceid", MaxConnections: 8}
		change(c)
		return c
	}
	my := func(change func(*sqldb.MySQL)) sinks.Config {
		c := &sqldb.MySQL{DSN: "faceid:" + password + "@tcp(db.internal:3306)/faceid", MaxConnections: 8}
		change(c)
		return c
	}
	for name, test := range map[string]struct {
		cfg    sinks.Config
		fields []string
	}{
		"sqlite":                {&sqldb.SQLite{Path: "faceid.db"}, nil},
		"sqlite without a path": {&sqldb.SQLite{}, []string{"path"}},
		"sqlite in memory":      {&sqldb.SQLite{Path: ":memory:"}, []string{"path"}},
		"postgres":              {pg(func(*sqldb.Postgres) {}), nil},
		"several hosts": {pg(func(c *sqldb.Postgres) {
			c.URL = "postgres://faceid@a:5432,b:5432/faceid?target_session_attrs=read-write"
		}), nil},
		"url_file":                 {pg(func(c *sqldb.Postgres) { c.URL, c.URLFile = "", "url.txt" }), nil},
		"no url":                   {pg(func(c *sqldb.Postgres) { c.URL = "" }), []string{"url"}},
		"two urls":                 {pg(func(c *sqldb.Postgres) { c.URLFile = "url.txt" }), []string{"url"}},
		"another scheme":           {pg(func(c *sqldb.Postgres) { c.URL = "mysql://" + password }), []string{"url"}},
		"parameters that are none": {pg(func(c *sqldb.Postgres) { c.URL += "?%zz" }), []string{"url"}},
		"sslmode in the url":       {pg(func(c *sqldb.Postgres) { c.URL += "?sslmode=disable" }), []string{"url"}},
		"connections":              {pg(func(c *sqldb.Postgres) { c.MaxConnections = 1 }), []string{"max_connections"}},
		"tls mode":                 {pg(func(c *sqldb.Postgres) { c.TLS.Mode = "prefer" }), []string{"tls.mode"}},
		"tls half a pair":          {pg(func(c *sqldb.Postgres) { c.TLS.Cert = "c.pem" }), []string{"tls"}},
		"tls disabled with a ca":   {pg(func(c *sqldb.Postgres) { c.TLS.Mode, c.TLS.CA = "disable", "ca.pem" }), []string{"tls"}},
		"tls without a ca":         {pg(func(c *sqldb.Postgres) { c.TLS.Mode = "verify-ca" }), []string{"tls.ca"}},
		"mysql":                    {my(func(*sqldb.MySQL) {}), nil},
		"no dsn":                   {my(func(c *sqldb.MySQL) { c.DSN, c.MaxConnections = "", 1001 }), []string{"max_connections", "dsn"}},
		"no database":              {my(func(c *sqldb.MySQL) { c.DSN = "faceid@tcp(db.internal)/" }), []string{"dsn"}},
		"no dsn at all":            {my(func(c *sqldb.MySQL) { c.DSN = "postgres://" + password }), []string{"dsn"}},
		"tls in the dsn":           {my(func(c *sqldb.MySQL) { c.DSN += "?tls=skip-verify" }), []string{"dsn"}},
		"fallback in the dsn":      {my(func(c *sqldb.MySQL) { c.DSN += "?allowFallbackToPlaintext=true" }), []string{"dsn"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.cfg.Validate()
			var fields []string
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, err := range joined.Unwrap() {
					var invalid *sinks.InvalidFieldError
					if !errors.As(err, &invalid) {
						t.Fatal(err)
					}
					fields = append(fields, invalid.Field)
				}
			} else if invalid := new(sinks.InvalidFieldError); errors.As(err, &invalid) {
				fields = append(fields, invalid.Field)
			}
			if fmt.Sprint(fields) != fmt.Sprint(test.fields) {
				t.Errorf("%v, want %v: %v", fields, test.fields, err)
			}
			hides(t, fmt.Sprint(err))
		})
	}
}

// hides fails the test if a text holds the password.
func hides(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, password) {
		t.Errorf("the password is in %q", text)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	for _, cfg := range []any{
		sqldb.Postgres{URL: sinks.Secret(password)}, &sqldb.Postgres{URL: sinks.Secret(password)}, &sqldb.MySQL{DSN: sinks.Secret(password)},
	} {
		b, err := json.Marshal(cfg)
		must(t, err)
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("configured", "sink", cfg)
		hides(t, fmt.Sprintf("%v %+v %#v %s %q %x", cfg, cfg, cfg, cfg, cfg, cfg)+string(b)+log.String())
	}
}

func TestDefaults(t *testing.T) {
	for _, typ := range []string{"postgres", "mysql"} {
		cfg, ok := sinks.NewConfig(typ)
		if !ok {
			t.Fatalf("no type %s", typ)
		}
		switch cfg := cfg.(type) {
		case *sqldb.Postgres:
			cfg.URLFile = "url.txt"
		case *sqldb.MySQL:
			cfg.DSNFile = "dsn.txt"
		}
		if err := cfg.Validate(); err != nil {
			t.Errorf("the defaults of %s: %v", typ, err)
		}
	}
}

// at is the configuration of a database at another host.
func at(t *testing.T, cfg sinks.Config, host string, tls sqldb.TLS) sinks.Config {
	t.Helper()
	switch cfg := cfg.(type) {
	case *sqldb.Postgres:
		u, err := url.Parse(string(cfg.URL))
		must(t, err)
		u.Host = host + ":" + u.Port()
		return &sqldb.Postgres{URL: sinks.Secret(u.String()), TLS: tls, MaxConnections: 2}
	case *sqldb.MySQL:
		dsn, err := mysql.ParseDSN(string(cfg.DSN))
		must(t, err)
		_, port, _ := strings.Cut(dsn.Addr, ":")
		dsn.Addr = host + ":" + port
		return &sqldb.MySQL{DSN: sinks.Secret(dsn.FormatDSN()), TLS: tls, MaxConnections: 2}
	}
	return cfg
}

// A server is trusted if its certificate is, and the loopback interface needs none.
func TestTLS(t *testing.T) {
	for _, server := range []struct {
		system
		// ca signed the server's certificate, and other did not.
		ca, other func(testing.TB) string
		inUse     string
	}{
		{postgresDB, dbtest.PostgresCA, dbtest.MariaDBCA, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"},
		{mariaDB, dbtest.MariaDBCA, dbtest.PostgresCA, "SELECT VARIABLE_VALUE <> '' FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher'"},
	} {
		t.Run(server.name, func(t *testing.T) {
			cfg, _ := server.fresh(t)
			ca := server.ca(t)
			for name, test := range map[string]struct {
				host  string
				tls   sqldb.TLS
				inUse bool
				words string
			}{
				"loopback":                          {"127.0.0.1", sqldb.TLS{}, false, ""},
				"disabled":                          {"127.0.0.1", sqldb.TLS{Mode: "disable"}, false, ""},
				"with a CA":                         {"localhost", sqldb.TLS{CA: ca}, true, ""},
				"verify-full":                       {"localhost", sqldb.TLS{Mode: "verify-full", CA: ca}, true, ""},
				"verify-full of another name":       {"127.0.0.1", sqldb.TLS{Mode: "verify-full", CA: ca}, true, "its certificate is for another name"},
				"verify-full without the CA":        {"localhost", sqldb.TLS{Mode: "verify-full"}, true, "signed by nobody that is trusted"},
				"verify-ca":                         {"127.0.0.1", sqldb.TLS{Mode: "verify-ca", CA: ca}, true, ""},
				"verify-ca of another CA":           {"127.0.0.1", sqldb.TLS{Mode: "verify-ca", CA: server.other(t)}, true, "signed by nobody that is trusted"},
				"a CA that is not there":            {"127.0.0.1", sqldb.TLS{CA: "/nowhere/ca.pem"}, true, "tls.ca: read /nowhere/ca.pem: no such file"},
				"a client certificate that is none": {"127.0.0.1", sqldb.TLS{CA: ca, Cert: ca, Key: ca}, true, "are not a certificate and its key"},
			} {
				var log bytes.Buffer
				e := env(t)
				e.Log = slog.New(slog.NewTextHandler(&log, nil))
				sink, err := at(t, cfg, test.host, test.tls).Open(t.Context(), e)
				if err == nil {
					err = sink.Check(t.Context())
					var inUse bool
					if err == nil {
						must(t, sink.(*sqldb.Sink).DB().QueryRowContext(t.Context(), server.inUse).Scan(&inUse))
						if inUse != test.inUse {
							t.Errorf("%s: TLS is in use: %v", name, inUse)
						}
					}
					must(t, sink.Close(t.Context()))
				}
				if test.words == "" && err != nil || test.words != "" && (err == nil || !strings.Contains(err.Error(), test.words)) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// A server elsewhere is never spoken to in clear, unless the configuration says so.
func TestNoClearTextElsewhere(t *testing.T) {
	for _, s := range []system{postgresDB, mariaDB} {
		t.Run(s.name, func(t *testing.T) {
			host, err := os.Hostname()
			must(t, err)
			cfg, _ := s.fresh(t)
			e := env(t)
			sink, err := at(t, cfg, host, sqldb.TLS{}).Open(t.Context(), e)
			if err == nil {
				err = sink.Check(t.Context())
				must(t, sink.Close(t.Context()))
			}
			if err == nil {
				t.Error("it is spoken to in clear")
			}
		})
	}
}

// Secrets in files are read for each connection, so that they can be rotated.
func TestSecretsFromFiles(t *testing.T) {
	for _, s := range []system{postgresDB, mariaDB} {
		t.Run(s.name, func(t *testing.T) {
			d := newDatabase(t, s)
			user := limitedUser(t, d)
			file := filepath.Join(t.TempDir(), "password")
			address := filepath.Join(t.TempDir(), "address")
			must(t, os.WriteFile(file, []byte("limited\n"), 0o600))
			cfg := asUser(t, d, user)
			switch c := cfg.(type) {
			case *sqldb.Postgres:
				must(t, os.WriteFile(address, []byte(strings.Replace(string(c.URL), ":limited@", "@", 1)+"\n"), 0o600))
				c.URL, c.URLFile, c.PasswordFile = "", address, file
			case *sqldb.MySQL:
				must(t, os.WriteFile(address, []byte(strings.Replace(string(c.DSN), ":limited@", "@", 1)+"\n"), 0o600))
				c.DSN, c.DSNFile, c.PasswordFile = "", address, file
			}
			must(t, cfg.Validate())
			opened, err := cfg.Open(t.Context(), env(t))
			must(t, err)
			sink := opened.(*sqldb.Sink)
			defer func() { must(t, sink.Close(t.Context())) }()
			must(t, sink.Check(t.Context()))
			d.exec(t, map[string]string{
				"postgres": "ALTER ROLE " + user + " PASSWORD '" + password + "'",
				"mariadb":  "ALTER USER " + user + " IDENTIFIED BY '" + password + "'",
			}[s.name])
			reconnect(sink)
			err = sink.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), "refuses the user or the password") {
				t.Errorf("%v", err)
			}
			must(t, os.WriteFile(file, []byte(password), 0o600))
			must(t, sink.Check(t.Context()))
			reconnect(sink)
			must(t, os.Remove(file))
			err = sink.Record(t.Context(), sinktest.Result(0))
			if err == nil || !strings.Contains(err.Error(), "password_file: read "+file+": no such file") {
				t.Errorf("%v", err)
			}
			if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient {
				t.Errorf("the class is %q", class)
			}
		})
	}
}

// A sink opens although its server is away; what is wrong with the configuration is
// an error at once. Nothing says the password.
func TestOpenWhileAway(t *testing.T) {
	for _, s := range []system{postgresDB, mariaDB} {
		t.Run(s.name, func(t *testing.T) {
			cfg, _ := s.fresh(t)
			p := throughProxy(t, cfg)
			p.stop()
			var log bytes.Buffer
			e := env(t)
			e.Log = slog.New(slog.NewTextHandler(&log, nil))
			sink, err := cfg.Open(t.Context(), e)
			must(t, err)
			defer func() { must(t, sink.Close(t.Context())) }()
			if !strings.Contains(log.String(), "results wait until it is back") || !strings.Contains(log.String(), "nobody listens there") {
				t.Errorf("the log: %s", log.String())
			}
			if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody listens there") {
				t.Errorf("%v", err)
			}
			p.start(t)
			must(t, sink.Check(t.Context()))
			must(t, sink.(*sqldb.Sink).Record(t.Context(), sinktest.Result(0)))
		})
	}
}

func TestOpenErrors(t *testing.T) {
	pg, _ := postgresDB.fresh(t)
	my, _ := mariaDB.fresh(t)
	pgURL, myDSN := string(pg.(*sqldb.Postgres).URL), string(my.(*sqldb.MySQL).DSN)
	u, err := url.Parse(pgURL)
	must(t, err)
	u.User = url.UserPassword("faceid", password)
	dsn, err := mysql.ParseDSN(myDSN)
	must(t, err)
	dsn.Passwd = password
	for name, test := range map[string]struct {
		cfg   sinks.Config
		words []string
	}{
		"postgres, password":   {&sqldb.Postgres{URL: sinks.Secret(u.String()), MaxConnections: 2}, []string{"PostgreSQL database", "127.0.0.1", "refuses the user or the password", "SQLSTATE 28P01"}},
		"postgres, database":   {&sqldb.Postgres{URL: sinks.Secret(pgURL + "_not_there"), MaxConnections: 2}, []string{"there is no such database"}},
		"postgres, url file":   {&sqldb.Postgres{URLFile: "/nowhere", MaxConnections: 2}, []string{"url_file: read /nowhere: no such file"}},
		"postgres, url":        {&sqldb.Postgres{URL: sinks.Secret("postgres://" + password + "@[/x"), MaxConnections: 2}, []string{"url: must be a URL such as"}},
		"mysql, password":      {&sqldb.MySQL{DSN: sinks.Secret(dsn.FormatDSN()), MaxConnections: 2}, []string{"MySQL database", "127.0.0.1", "refuses the user or the password", "MySQL error 1045"}},
		"mysql, database":      {&sqldb.MySQL{DSN: sinks.Secret(myDSN + "_not_there"), MaxConnections: 2}, []string{"there is no such database"}},
		"mysql, dsn file":      {&sqldb.MySQL{DSNFile: "/nowhere", MaxConnections: 2}, []string{"dsn_file: read /nowhere: no such file"}},
		"mysql, password file": {&sqldb.MySQL{DSN: sinks.Secret(myDSN), PasswordFile: "/nowhere", MaxConnections: 2}, []string{"password_file: read /nowhere"}},
	} {
		_, err := test.cfg.Open(t.Context(), env(t))
		if err == nil {
			t.Errorf("%s: it opened", name)
			continue
		}
		for _, word := range test.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v", name, err)
			}
		}
		hides(t, fmt.Sprintf("%v %+v", err, err))
	}
}

// A commit is on disk when Record returns, unless the server's owner has it
// otherwise.
func TestCommitsAreSynchronous(t *testing.T) {
	for s, want := range map[*system][2]string{
		&sqliteDB:   {"PRAGMA synchronous", "2"},
		&postgresDB: {"SHOW synchronous_commit", "on"},
		&mariaDB:    {"SELECT @@innodb_flush_log_at_trx_commit", "1"},
	} {
		sink := newDatabase(t, *s).open(t, env(t))
		var got string
		must(t, sink.DB().QueryRowContext(t.Context(), want[0]).Scan(&got))
		if got != want[1] {
			t.Errorf("%s: %q", s.name, got)
		}
	}
}

// What MySQL servers default to does not matter.
func TestMySQLSession(t *testing.T) {
	d := newDatabase(t, mariaDB)
	sink := d.open(t, env(t))
	for query, want := range map[string]string{
		"SELECT @@sql_mode LIKE '%STRICT_ALL_TABLES%'": "1",
		"SELECT @@time_zone":                           "+00:00",
		"SELECT @@tx_isolation":                        "READ-COMMITTED",
		"SELECT @@collation_connection":                "utf8mb4_bin",
	} {
		var got string
		must(t, sink.DB().QueryRowContext(context.Background(), query).Scan(&got))
		if got != want {
			t.Errorf("%s: %q", query, got)
		}
	}
}

// A pooler that gives each transaction another connection cannot keep prepared
// statements. The URL says so, in pgx's words.
func TestPostgresWithoutPreparedStatements(t *testing.T) {
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			cfg, _ := postgresDB.fresh(t)
			cfg.(*sqldb.Postgres).URL += sinks.Secret("?default_query_exec_mode=" + mode)
			opened, err := cfg.Open(t.Context(), env(t))
			must(t, err)
			sink := opened.(*sqldb.Sink)
			defer func() { must(t, sink.Close(t.Context())) }()
			r := sinktest.Archived(sinktest.Result(1))
			must(t, sink.Record(t.Context(), r))
			passed := true
			if got := list(t, sink, sinks.Filter{Account: "main", Passed: &passed, From: r.FetchedAt}); len(got) != 1 {
				t.Errorf("%v", got)
			}
			key := sinks.KeyOf(r.Product, r.Token)
			_, err = sink.Get(t.Context(), key)
			must(t, errors.Join(err, sink.Check(t.Context()), sinktest.Erase(t.Context(), sink, key)))
		})
	}
}
