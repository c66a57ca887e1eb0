package sqldb_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

const runs = "that the server runs"

// postgresTroubles are what the owner of a PostgreSQL server has.
func postgresTroubles() []sinktest.Trouble {
	const refuse = `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'no' USING ERRCODE = '%s'; END $$`
	coded := func(code string) provoke {
		return statements(postgresDB,
			[]string{fmt.Sprintf(refuse, code), `CREATE TRIGGER refuse BEFORE INSERT ON warnings FOR EACH ROW EXECUTE FUNCTION refuse()`},
			[]string{`DROP TRIGGER refuse ON warnings`})
	}
	troubles := []sinktest.Trouble{
		{
			Name: "a table is gone", Class: sinks.ClassTransient, CheckFails: true, Words: []string{"its tables are not those"},
			Provoke: statements(postgresDB,
				[]string{"ALTER TABLE warnings RENAME TO elsewhere"}, []string{"ALTER TABLE elsewhere RENAME TO warnings"}),
		},
		{
			Name: "a value too large", Class: sinks.ClassPermanent, Words: []string{"larger than the database takes"},
			Provoke: statements(postgresDB, []string{"ALTER TABLE results ALTER COLUMN raw TYPE varchar(10)"}, nil),
		},
		{
			Name: "a constraint", Class: sinks.ClassPermanent, Words: []string{"a constraint or trigger of the database refuses this result"},
			Provoke: statements(postgresDB, []string{"ALTER TABLE results ADD CHECK (token IS NULL)"}, nil),
		},
		{Name: "the disk is full", Class: sinks.ClassTransient, Words: []string{"its disk is full"}, Provoke: coded("53100")},
		{Name: "a deadlock", Class: sinks.ClassTransient, Words: []string{"other transactions"}, Provoke: coded("40P01")},
		{Name: "a statement prepared twice", Class: sinks.ClassTransient, Words: []string{"keeps no prepared statements: add default_query_exec_mode=exec"}, Provoke: coded("42P05")},
		{Name: "a statement not prepared", Class: sinks.ClassTransient, Words: []string{"keeps no prepared statements: add default_query_exec_mode=exec"}, Provoke: coded("26000")},
		{Name: "a pooler's error", Class: sinks.ClassTransient, Words: []string{"the pooler in between broke the connection off"}, Provoke: coded("08P01")},
		{Name: "a transaction's time limit", Class: sinks.ClassTransient, Words: []string{"idle_in_transaction_session_timeout"}, Provoke: coded("25P03")},
		{Name: "a failure of serialization", Class: sinks.ClassTransient, Words: []string{"other transactions"}, Provoke: coded("40001")},
		{
			Name: "the database is gone", Class: sinks.ClassTransient, CheckFails: true, Words: []string{"there is no such database: create it"},
			Provoke: renamed,
		},
		{
			Name: "the server is gone", Class: sinks.ClassTransient, CheckFails: true, Words: []string{runs},
			Provoke: unreachable(postgresDB),
		},
	}
	for _, u := range userTroubles {
		troubles = append(troubles, u.on(postgresDB))
	}
	return append(troubles,
		limited(postgresDB, "a standby", "it is read-only",
			[]string{"ALTER ROLE %[1]s SET default_transaction_read_only = on"}, []string{"ALTER ROLE %[1]s RESET default_transaction_read_only"}),
		limited(postgresDB, "no connection left", "it has no connection left",
			[]string{"ALTER ROLE %[1]s CONNECTION LIMIT 0"}, []string{"ALTER ROLE %[1]s CONNECTION LIMIT -1"}),
		limited(postgresDB, "a lock", "somebody else holds a lock",
			[]string{"ALTER ROLE %[1]s SET lock_timeout = 10", "LOCK"}, []string{"UNLOCK"}))
}

// mariadbTroubles are what the owner of a MariaDB server has.
func mariadbTroubles() []sinktest.Trouble {
	coded := func(number int) provoke {
		return statements(mariaDB,
			[]string{fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT ON warnings FOR EACH ROW SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = %d`, number)},
			[]string{`DROP TRIGGER refuse`})
	}
	troubles := []sinktest.Trouble{
		{
			Name: "a table is gone", Class: sinks.ClassTransient, CheckFails: true, Words: []string{"its tables are not those"},
			Provoke: statements(mariaDB,
				[]string{"ALTER TABLE warnings RENAME TO elsewhere"}, []string{"ALTER TABLE elsewhere RENAME TO warnings"}),
		},
		{
			// The server itself would cut the value off: it is not strict.
			Name: "a value too large", Class: sinks.ClassPermanent, Words: []string{"larger than the database takes"},
			Provoke: statements(mariaDB, []string{"ALTER TABLE results MODIFY raw varchar(10)"}, nil),
		},
		{
			Name: "a packet too large", Class: sinks.ClassTransient, Words: []string{"max_allowed_packet"},
			Provoke: large(statements(mariaDB,
				[]string{"SET GLOBAL max_allowed_packet = 65536"}, []string{"SET GLOBAL max_allowed_packet = 16777216"})),
		},
		{
			Name: "a constraint", Class: sinks.ClassPermanent, Words: []string{"a constraint or trigger of the database refuses this result"},
			Provoke: statements(mariaDB, []string{"ALTER TABLE results ADD CHECK (token IS NULL)"}, nil),
		},
		{Name: "the disk is full", Class: sinks.ClassTransient, Words: []string{"its disk is full"}, Provoke: coded(1021)},
		{Name: "a deadlock", Class: sinks.ClassTransient, Words: []string{"other transactions"}, Provoke: coded(1213)},
		{
			Name: "the server is gone", Class: sinks.ClassTransient, CheckFails: true, Words: []string{runs},
			Provoke: unreachable(mariaDB),
		},
	}
	for _, u := range userTroubles {
		troubles = append(troubles, u.on(mariaDB))
	}
	return append(troubles, limited(mariaDB, "a replica", "it is read-only",
		[]string{"SET GLOBAL read_only = 1"}, []string{"SET GLOBAL read_only = 0"}))
}

// userTrouble is trouble with the sink's user.
type userTrouble struct {
	name, words string
	// trouble and heal are statements for each system; %[1]s is the user.
	trouble, heal map[string][]string
}

var userTroubles = []userTrouble{
	{
		name: "another password", words: "it refuses the user or the password",
		trouble: map[string][]string{
			"postgres": {"ALTER ROLE %[1]s PASSWORD 'another'"}, "mariadb": {"ALTER USER %[1]s IDENTIFIED BY 'another'"},
		},
		heal: map[string][]string{
			"postgres": {"ALTER ROLE %[1]s PASSWORD 'limited'"}, "mariadb": {"ALTER USER %[1]s IDENTIFIED BY 'limited'"},
		},
	},
	{
		name: "a privilege is taken", words: "the user lacks a privilege",
		trouble: map[string][]string{
			"postgres": {"REVOKE INSERT ON assets FROM %[1]s"}, "mariadb": {"REVOKE INSERT ON assets FROM %[1]s"},
		},
		heal: map[string][]string{
			"postgres": {"GRANT INSERT ON assets TO %[1]s"}, "mariadb": {"GRANT INSERT ON assets TO %[1]s"},
		},
	},
}

func (u userTrouble) on(s system) sinktest.Trouble {
	return limited(s, u.name, u.words, u.trouble[s.name], u.heal[s.name])
}

// limited is trouble of a user that has only the rights it needs. Statements "LOCK"
// and "UNLOCK" lock a table and let it go.
func limited(s system, name, words string, trouble, heal []string) sinktest.Trouble {
	return sinktest.Trouble{
		Name: name, Class: sinks.ClassTransient, CheckFails: true, Words: []string{words},
		Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
			t.Helper()
			d := newDatabase(t, s)
			user := limitedUser(t, d)
			sink, err := asUser(t, d, user).Open(t.Context(), env)
			must(t, err)
			other, err := d.raw.Conn(t.Context())
			must(t, err)
			t.Cleanup(func() { _ = other.Close() })
			run := func(list []string) {
				t.Helper()
				for _, statement := range list {
					switch statement {
					case "LOCK":
						statement = "BEGIN; LOCK TABLE results"
					case "UNLOCK":
						statement = "ROLLBACK"
					default:
						statement = strings.ReplaceAll(statement, "%[1]s", user)
					}
					_, err := other.ExecContext(context.WithoutCancel(t.Context()), statement)
					must(t, err)
				}
				reconnect(sink.(*sqldb.Sink))
			}
			run(trouble)
			return sinktest.Troubled{Sink: sink, Heal: func() { run(heal) }}
		},
	}
}

var users atomic.Int64

func newUserName() string { return fmt.Sprintf("limited_%d", users.Add(1)) }

// limitedUser makes a user with the rights that the documentation asks for.
func limitedUser(t testing.TB, d *database) string {
	t.Helper()
	user := newUserName()
	switch d.name {
	case "postgres":
		d.exec(t, "CREATE ROLE "+user+" LOGIN PASSWORD 'limited'",
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+user)
		t.Cleanup(func() { d.exec(t, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "+user, "DROP ROLE "+user) })
	case "mariadb":
		d.exec(t, "CREATE USER "+user+" IDENTIFIED BY 'limited'")
		for _, table := range append(tables, "goose_db_version") {
			d.exec(t, "GRANT SELECT, INSERT, UPDATE, DELETE ON "+table+" TO "+user)
		}
		t.Cleanup(func() { d.exec(t, "DROP USER "+user) })
	}
	return user
}

// asUser is the configuration of a database with another user.
func asUser(t testing.TB, d *database, user string) sinks.Config {
	t.Helper()
	switch cfg := d.cfg.(type) {
	case *sqldb.Postgres:
		u, err := url.Parse(string(cfg.URL))
		must(t, err)
		u.User = url.UserPassword(user, "limited")
		return &sqldb.Postgres{URL: sinks.Secret(u.String()), MaxConnections: 4}
	case *sqldb.MySQL:
		dsn, err := mysql.ParseDSN(string(cfg.DSN))
		must(t, err)
		dsn.User, dsn.Passwd = user, "limited"
		return &sqldb.MySQL{DSN: sinks.Secret(dsn.FormatDSN()), MaxConnections: 4}
	}
	t.Fatalf("%T has no users", d.cfg)
	return nil
}

// renamed is a database that has another name.
func renamed(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
	t.Helper()
	cfg, _ := postgresDB.fresh(t)
	sink, err := cfg.Open(t.Context(), env)
	must(t, err)
	other := newDatabase(t, postgresDB)
	u, err := url.Parse(string(cfg.(*sqldb.Postgres).URL))
	must(t, err)
	name := strings.TrimPrefix(u.Path, "/")
	rename := func(from, to string) {
		reconnect(sink.(*sqldb.Sink))
		other.exec(t, "ALTER DATABASE "+from+" RENAME TO "+to)
	}
	rename(name, name+"_gone")
	return sinktest.Troubled{Sink: sink, Heal: func() { rename(name+"_gone", name) }}
}

// unreachable is a server behind a proxy that ends.
func unreachable(s system) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		cfg, _ := s.fresh(t)
		p := throughProxy(t, cfg)
		sink, err := cfg.Open(t.Context(), env)
		must(t, err)
		p.stop()
		return sinktest.Troubled{Sink: sink, Heal: func() { p.start(t) }}
	}
}

// proxy is the network between a sink and a server.
type proxy struct {
	address, server string
	mu              sync.Mutex
	listener        net.Listener
	conns           map[net.Conn]bool
	done            sync.WaitGroup
}

// throughProxy puts a proxy into the configuration of a server.
func throughProxy(t testing.TB, cfg sinks.Config) *proxy {
	t.Helper()
	p := &proxy{address: "127.0.0.1:0"}
	t.Cleanup(p.stop)
	switch cfg := cfg.(type) {
	case *sqldb.Postgres:
		u, err := url.Parse(string(cfg.URL))
		must(t, err)
		p.server = u.Host
		p.start(t)
		u.Host = p.address
		cfg.URL = sinks.Secret(u.String())
	case *sqldb.MySQL:
		dsn, err := mysql.ParseDSN(string(cfg.DSN))
		must(t, err)
		p.server = dsn.Addr
		p.start(t)
		dsn.Addr = p.address
		cfg.DSN = sinks.Secret(dsn.FormatDSN())
	default:
		t.Fatalf("%T is no server", cfg)
	}
	return p
}

// start listens, on the same port as before.
func (p *proxy) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", p.address)
	must(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener, p.address, p.conns = l, l.Addr().String(), map[net.Conn]bool{}
	p.done.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.forward(client) })
		}
	})
}

func (p *proxy) forward(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	if p.listener == nil {
		_, _ = client.Close(), server.Close()
	}
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	p.done.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	_, _ = io.Copy(client, server)
	_ = client.Close()
}

// stop ends the listener and all connections.
func (p *proxy) stop() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}
