package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
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
	// what else libpq knows, but for the sslmode and its like, which are under tls.
	// URLFile names a file that holds it; it is read for each connection.
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
	connector := &dialer{c.connect, stdlib.GetDefaultDriver()}
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
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "faceid-ingest"
	}
	return cfg, nil
}

func (c *Postgres) connect(ctx context.Context) (driver.Conn, error) {
	cfg, err := c.connection()
	if err != nil {
		return nil, err
	}
	return stdlib.GetConnector(*cfg).Connect(ctx)
}

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

func postgresDialect(cfg *pgx.ConnConfig) *dialect {
	migrations, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		panic("sqldb: " + err.Error()) // the folder is part of the program
	}
	where := fmt.Sprintf("PostgreSQL database %q at %s:%d", cfg.Database, cfg.Host, cfg.Port)
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
			found, ok := describePostgres(err)
			found.words = where + ": " + found.words
			return found, ok
		},
	}
}

// schemaLock is the advisory lock of the schema: "faceid" and a number.
const schemaLock = 0x666163656964_0001

// preparePostgres migrates under a lock that ends with its transaction, so that it
// works through a pooler too and a process that dies leaves none.
func preparePostgres(ctx context.Context, db *sql.DB, d *dialect) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it only holds the lock
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(schemaLock)); err != nil {
		return err
	}
	return d.migrate(ctx, db)
}

// describePostgres says what an error means for the owner of the database.
func describePostgres(err error) (diagnosis, bool) {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		found := describeSQLState(failed.Code)
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
		return diagnosis{"the user lacks a privilege: grant select, insert, update and delete on the tables of faceid-ingest, and create on their schema for the first start", broken}
	case "25006":
		return diagnosis{"it is read-only, as a standby is: name the primary in url, or add target_session_attrs=read-write", broken}
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
	case "42P01", "42703", "3F000", "42P10", "42804":
		return diagnosis{"its tables are not those that faceid-ingest made: restore them, and restart faceid-ingest", broken}
	case "42P07", "42710":
		return diagnosis{"there are tables of other programs with the same names: give faceid-ingest a database or schema of its own", broken}
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
