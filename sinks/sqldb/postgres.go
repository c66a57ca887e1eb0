package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func init() {
	sinks.Register("postgres", func() sinks.Config { return &Postgres{MaxConnections: defaultConnections} })
}

// Postgres is the configuration of a sink of type "postgres": a database, or a
// schema that the search_path of the URL names, which is for this program alone. Its
// user owns the tables, or they are there and it may select, insert, update and
// delete.
type Postgres struct {
	// URL is such as "postgres://user@host:5432/database", with several hosts and
	// what else libpq knows, but for the sslmode and its like, which are under tls,
	// and for what the sink sets itself: character set, time zone and form of dates.
	// It may be that of a pooler, also one that gives each transaction another
	// connection of the server. URLFile names a file that holds it; it is read for
	// each connection.
	URL     sinks.Secret `yaml:"url"`
	URLFile string       `yaml:"url_file"`
	// PasswordFile names a file that holds the password, if the URL does not. It is
	// read for each connection.
	PasswordFile string `yaml:"password_file"`
	TLS          TLS    `yaml:"tls"`
	// MaxConnections bounds the connections of this process, 2 to 1000.
	MaxConnections int `yaml:"max_connections" min:"2" max:"1000"`
}

// Validate implements sinks.Config.
func (c *Postgres) Validate() error {
	problems := append(sinks.CheckLimits(c), validateServer("url", c.URL, c.URLFile, c.TLS)...)
	if c.URL != "" {
		if problem := postgresURLProblem(string(c.URL)); problem != "" {
			problems = append(problems, &sinks.InvalidFieldError{Field: "url", Problem: problem})
		}
	}
	return errors.Join(problems...)
}

// InClear implements sinks.ClearSender: results are in what is sent to a database.
func (c *Postgres) InClear() []string {
	cfg, err := c.connection()
	if err != nil {
		return nil
	}

	var hosts []string
	if cfg.TLSConfig == nil && !sinks.IsLocal(cfg.Host) {
		hosts = append(hosts, cfg.Host)
	}
	for _, f := range cfg.Fallbacks {
		if f.TLSConfig == nil && !sinks.IsLocal(f.Host) {
			hosts = append(hosts, f.Host)
		}
	}
	return hosts
}

// postgresURLProblem says what is wrong with a URL, without a word of it.
func postgresURLProblem(text string) string {
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return "must be a URL such as postgres://user@host:5432/database"
	}
	_, query, _ := strings.Cut(text, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "its parameters, after the question mark, are not those of a URL"
	}
	for name := range values {
		if strings.HasPrefix(name, "ssl") {
			return "must not hold " + strconv.Quote(name) + ": TLS is set by tls"
		}
	}
	return ""
}

// Open implements sinks.Config. It brings the schema up to date; other processes
// that do so at the same time wait for each other. A server that does not answer is
// no error: what it could not do, the first call does that reaches it.
func (c *Postgres) Open(ctx context.Context, env sinks.Env) (sinks.Sink, error) {
	return c.open(ctx, env, func(c driver.Connector) driver.Connector { return c })
}

// open lets tests put something between database/sql and the driver.
func (c *Postgres) open(ctx context.Context, env sinks.Env, wrap func(driver.Connector) driver.Connector) (sinks.Sink, error) {
	cfg, err := c.connection()
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	connector := &dialer{(&postgresDialer{cfg: c}).connect, stdlib.GetDefaultDriver()}
	return openServer(ctx, env, wrap(connector), postgresDialect(cfg), c.MaxConnections)
}

// connection reads the settings of one connection.
func (c *Postgres) connection() (*pgx.ConnConfig, error) {
	text := string(c.URL)
	var err error
	if c.URLFile != "" {
		if text, err = readFile("url_file", c.URLFile); err != nil {
			return nil, err
		}
	}
	if problem := postgresURLProblem(text); problem != "" {
		return nil, &knownError{"url: " + problem}
	}
	cfg, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, &knownError{"url: must be a URL such as postgres://user@host:5432/database"}
	}
	if c.PasswordFile != "" {
		if cfg.Password, err = readFile("password_file", c.PasswordFile); err != nil {
			return nil, err
		}
	}
	if cfg.TLSConfig, err = c.TLS.config(cfg.Host); err != nil {
		return nil, err
	}
	fallbacks := cfg.Fallbacks
	cfg.Fallbacks = nil
	for _, f := range fallbacks {
		// Without sslmode there are two for each host, one of them in clear.
		if last := cfg.Fallbacks; f.Host == cfg.Host && f.Port == cfg.Port ||
			len(last) > 0 && f.Host == last[len(last)-1].Host && f.Port == last[len(last)-1].Port {
			continue
		}
		if f.TLSConfig, err = c.TLS.config(f.Host); err != nil {
			return nil, err
		}
		cfg.Fallbacks = append(cfg.Fallbacks, f)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = dialTimeout
	}
	setPostgresSession(cfg)
	return cfg, nil
}

// postgresSession makes a connection what the sink needs, whatever the defaults of
// server, database and user are, and whatever the URL says. These are the settings that
// poolers keep for each of their clients.
var postgresSession = map[string]string{
	"client_encoding": "UTF8", "standard_conforming_strings": "on", "TimeZone": "UTC", "DateStyle": "ISO",
}

func setPostgresSession(cfg *pgx.ConnConfig) {
	for name, value := range postgresSession {
		// The server does not care for case.
		maps.DeleteFunc(cfg.RuntimeParams, func(other, _ string) bool { return strings.EqualFold(name, other) })
		cfg.RuntimeParams[name] = value
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "faceid-ingest"
	}
}

// postgresDialer makes connections, with prepared statements where the server itself is at
// the other end. A pooler that gives each transaction another connection keeps none.
// Without them a statement is still one round trip, but the server plans it each time.
type postgresDialer struct {
	cfg *Postgres
	// pooled says that there was a pooler.
	pooled atomic.Bool
}

func (d *postgresDialer) connect(ctx context.Context) (driver.Conn, error) {
	cfg, err := d.cfg.connection()
	if err != nil {
		return nil, err
	}
	if d.pooled.Load() {
		withoutPrepared(cfg)
	}

	conn, err := connectPostgres(ctx, cfg)
	if errors.Is(err, errPooled) {
		d.pooled.Store(true)
		withoutPrepared(cfg)
		conn, err = connectPostgres(ctx, cfg)
	}
	return conn, err
}

// withoutPrepared leaves other ways that the URL names as they are: they prepare nothing.
func withoutPrepared(cfg *pgx.ConnConfig) {
	if cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
}

func connectPostgres(ctx context.Context, cfg *pgx.ConnConfig) (driver.Conn, error) {
	return stdlib.GetConnector(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		err := checkPostgres(ctx, conn, cfg)
		if err != nil {
			_ = conn.Close(ctx) // nobody else does
		}
		return err
	})).Connect(ctx)
}

// errPooled means that there is a pooler where statements were to be prepared.
var errPooled = &knownError{"a pooler is in between"}

// checkPostgres asks the server itself: what the other end says when it takes the
// connection is a pooler's word, which may not be right. A pooler's connection has
// another process id than its server's.
func checkPostgres(ctx context.Context, conn *pgx.Conn, cfg *pgx.ConnConfig) error {
	var server, client string
	var pid int64
	query := "SELECT current_setting('server_encoding'), current_setting('client_encoding'), pg_backend_pid()"
	if err := conn.QueryRow(ctx, query, pgx.QueryExecModeExec).Scan(&server, &client, &pid); err != nil {
		return err
	}

	switch {
	case server != "UTF8" && server != "SQL_ASCII": // which keeps bytes as they are
		return &knownError{fmt.Sprintf(
			"%s: its encoding, %s, cannot hold every name: make another with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in url", wherePostgres(cfg), server)}
	case client != postgresSession["client_encoding"]:
		return &knownError{fmt.Sprintf(
			"%s: client_encoding is %s, although faceid-ingest asked for UTF8: have the pooler in between pass it on", wherePostgres(cfg), client)}
	case cfg.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement && int64(conn.PgConn().PID()) != pid:
		return errPooled
	}
	return nil
}

func wherePostgres(cfg *pgx.ConnConfig) string {
	return fmt.Sprintf("PostgreSQL database %q at %s:%d", cfg.Database, cfg.Host, cfg.Port)
}

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

func postgresDialect(cfg *pgx.ConnConfig) *dialect {
	migrations, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		panic("sqldb: " + err.Error()) // the folder is part of the program
	}
	return &dialect{
		migrations:   migrations,
		goose:        goose.DialectPostgres,
		prepare:      preparePostgres,
		prepares:     true,
		maxArguments: 65535, // the protocol counts them in 16 bits
		placeholder:  func(n int) string { return "$" + strconv.Itoa(n) },
		time:         func(t time.Time) any { return t },
		onConflict: func(key string, columns []string) string {
			return " ON CONFLICT (" + key + ") DO UPDATE SET " + overwrite(columns, "excluded.%s")
		},
		prefix:    "left(%s, 64)",
		forUpdate: " FOR UPDATE",
		write:     &sql.TxOptions{Isolation: sql.LevelReadCommitted},
		read:      &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
		describe: func(err error) (diagnosis, bool) {
			found, ok := describePostgres(err, cfg)
			found.words = wherePostgres(cfg) + ": " + found.words
			return found, ok
		},
	}
}

// preparePostgres migrates without a lock, since a pooler may lose one of a session, and
// may not have the second connection that one of a transaction takes.
//
// Each migration is a transaction of its own, and cannot be done twice. Of two processes
// that do it at once the second waits for the first, fails, and looks again what is left
// to be done: at most as often as there are migrations.
func preparePostgres(ctx context.Context, db *sql.DB, d *dialect) (err error) {
	migrations, err := fs.Glob(d.migrations, "*.sql")
	if err != nil {
		return err
	}

	for range len(migrations) + 1 {
		err = d.migrate(ctx, db)
		var failed *pgconn.PgError
		if !errors.As(err, &failed) || !slices.Contains(raced, failed.Code) {
			return err
		}
	}
	return err
}

// raced are the errors of a migration that another process did at the same time: what it
// makes is there, or was being made.
var raced = []string{"42P07", "42710", "42701", "23505", "40P01", "XX000"}

// describePostgres says what an error means for the owner of the database.
func describePostgres(err error, cfg *pgx.ConnConfig) (diagnosis, bool) {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		found := describeSQLState(failed.Code)
		if failed.Code == "08P01" {
			found = describePooler(failed.Message, cfg)
		}
		found.words += " (SQLSTATE " + failed.Code + ")"
		return found, true
	}
	if found, ok := describeNetwork(err); ok {
		return found, true
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return diagnosis{"it cannot be connected to: check host, port and tls, and that the server offers TLS or tls.mode is disable", broken}, true
	}
	if pgconn.SafeToRetry(err) { // nothing was sent
		return diagnosis{connectionLost, away}, true
	}
	return diagnosis{}, false
}

// describeSQLState says what a code of PostgreSQL means. The documentation calls
// them "PostgreSQL Error Codes"; the first two characters are a class.
func describeSQLState(code string) diagnosis {
	switch code {
	case "28P01", "28000":
		return diagnosis{"it refuses the user or the password: check url, password_file and the server's pg_hba.conf", broken}
	case "3D000":
		return diagnosis{"there is no such database: create it, or name another in url", broken}
	case "42501":
		return diagnosis{"the user lacks a privilege: grant select, insert, update and delete on the tables of faceid-ingest, without a row-level security policy that bars rows, and create on their schema for the first start", broken}
	case "25006":
		return diagnosis{"it is read-only, as a standby is, or by default_transaction_read_only: name the primary in url, or add target_session_attrs=read-write, or turn that setting off", broken}
	case "25P03", "25P04":
		return diagnosis{"the server ended a transaction by its time limit: make idle_in_transaction_session_timeout and transaction_timeout longer", contended}
	case "26000", "42P05":
		return diagnosis{"a pooler in between gives each transaction another connection, which keeps no prepared statements: add default_query_exec_mode=exec to url", broken}
	case "53100":
		return diagnosis{"its disk is full: free some space or enlarge it", broken}
	case "53200":
		return diagnosis{"the server is out of memory", broken}
	case "53300":
		return diagnosis{"it has no connection left: lower max_connections here, or raise it at the server", away}
	case "57P01", "57P02", "57P03", "57P04", "57P05":
		return diagnosis{"the server is starting up, shutting down or recovering", away}
	case "57014":
		return diagnosis{"the server cancelled the statement: its statement_timeout may be too short", contended}
	case "55P03":
		return diagnosis{"somebody else holds a lock on the tables", contended}
	case "0A000":
		return diagnosis{"it does not do what faceid-ingest needs, such as to take text as UTF-8: make a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in url", broken}
	case "3F000":
		return diagnosis{"search_path names no schema that is there: create the schema, or name another by search_path in url or with ALTER ROLE", broken}
	case "42P01", "42703", "42P10", "42804":
		return diagnosis{"its tables are not those that faceid-ingest made, or search_path names another schema than theirs: restore them, or the search_path, and restart faceid-ingest", broken}
	case "23505":
		return diagnosis{otherRow, refused}
	case "42P07", "42710":
		return diagnosis{"there are tables with the same names, of other programs or restored without the rows of goose_db_version: restore those, or give faceid-ingest a database or schema of its own", broken}
	}
	switch code[:min(2, len(code))] {
	case "08":
		return diagnosis{connectionLost, away}
	case "40":
		return diagnosis{"other transactions were in the way", contended}
	case "22", "54":
		return diagnosis{"a value of this result is larger than the database takes, or not one it knows", refused}
	case "23", "44", "P0":
		return diagnosis{"a constraint or trigger of the database refuses this result", refused}
	}
	return diagnosis{"the database failed: look at its log", broken}
}

// otherRow means that somebody added a unique index.
const otherRow = "a unique index that is not faceid-ingest's has the value of another row, and keeps this result out: drop the index"

// describePooler says what a message means that comes with 08P01: pgbouncer gives all
// its own errors this code, or most of them. What it says is not repeated, for it may
// hold anything.
func describePooler(message string, cfg *pgx.ConnConfig) diagnosis {
	for _, known := range []struct {
		part  string
		words string
		kind  kind
	}{
		{"unsupported startup parameter", unsupportedParameters(cfg), broken},
		{"no such database", "the pooler knows no such database: add it to the pooler's configuration, or name another in url", broken},
		{"no such user", "the pooler refuses the user or the password: check url, password_file, and the pooler's auth_file or auth_query", broken},
		{"authentication failed", "the pooler refuses the user or the password: check url, password_file, and the pooler's auth_file or auth_query", broken},
		{"statement pooling", "the pooler's pool_mode is statement, which bars transactions: set it to transaction or session", broken},
		{"max_client_conn", "the pooler has no connection left: lower max_connections here, or raise its max_client_conn", away},
		{"query_wait_timeout", "the pooler had no connection to the server in time: check that the server runs, raise the pooler's default_pool_size, or lower max_connections here", away},
		{"query timeout", "the pooler ended the statement: its query_timeout may be too short", contended},
		{"transaction timeout", "the pooler ended the transaction: its idle_transaction_timeout may be too short", contended},
		{"prepared statement", describeSQLState("26000").words, broken},
	} {
		if strings.Contains(message, known.part) {
			return diagnosis{known.words, known.kind}
		}
	}
	return diagnosis{"the pooler in between broke the connection off, or has none to the server: look at its log, and check that the server runs", away}
}

// unsupportedParameters names what is in the URL, and not ours: pgbouncer takes ours.
func unsupportedParameters(cfg *pgx.ConnConfig) string {
	var names []string
	for name := range cfg.RuntimeParams {
		if _, ours := postgresSession[name]; !ours && name != "application_name" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return fmt.Sprintf("the pooler in between does not take what url says of %s: set it at the server (ALTER ROLE … SET), and take it out of url",
		strings.Join(names, " and "))
}
