package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func init() {
	sinks.Register("mysql", func() sinks.Config { return &MySQL{MaxConnections: defaultConnections} })
}

// MySQL is the configuration of a sink of type "mysql": a database on a server that
// speaks MySQL's protocol and has InnoDB, for this program alone. Its user may
// create tables there, or they are there and it may select, insert, update and
// delete.
type MySQL struct {
	// DSN is such as "user@tcp(host:3306)/database", as
	// github.com/go-sql-driver/mysql reads it, but for what is under tls, and
	// what the sink sets itself: character set, time zone and sql_mode. DSNFile
	// names a file that holds it; it is read for each connection.
	DSN     sinks.Secret `yaml:"dsn"`
	DSNFile string       `yaml:"dsn_file"`
	// PasswordFile names a file that holds the password, if the DSN does not. It is
	// read for each connection.
	PasswordFile string `yaml:"password_file"`
	TLS          TLS    `yaml:"tls"`
	// MaxConnections bounds the connections of this process, 2 to 1000.
	MaxConnections int `yaml:"max_connections" min:"2" max:"1000"`
}

// Validate implements sinks.Config.
func (c *MySQL) Validate() error {
	problems := append(sinks.CheckLimits(c), validateServer("dsn", c.DSN, c.DSNFile, c.TLS)...)
	if c.DSN != "" {
		if _, problem := parseDSN(string(c.DSN)); problem != "" {
			problems = append(problems, &sinks.InvalidFieldError{Field: "dsn", Problem: problem})
		}
	}
	return errors.Join(problems...)
}

// InClear implements sinks.ClearSender: results are in what is sent to a database.
func (c *MySQL) InClear() []string {
	cfg, err := c.connection()
	if err != nil || cfg.TLS != nil {
		return nil
	}

	if host := hostOf(cfg); !sinks.IsLocal(host) {
		return []string{host}
	}
	return nil
}

// hostOf returns the host that is connected to, or the path of a Unix socket.
func hostOf(cfg *mysql.Config) string {
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil || cfg.Net == "unix" {
		return cfg.Addr
	}
	return host
}

// parseDSN reads a data source name, or says what is wrong with it, without a word
// of it.
func parseDSN(text string) (*mysql.Config, string) {
	cfg, err := mysql.ParseDSN(text)
	switch {
	case err != nil, cfg.DBName == "":
		return nil, "must be a data source name such as user@tcp(host:3306)/database"
	case cfg.TLSConfig != "":
		return nil, "must not hold \"tls\": TLS is set by tls"
	case cfg.AllowFallbackToPlaintext:
		return nil, "must not allow a fallback to clear text"
	}
	return cfg, ""
}

// Open implements sinks.Config. It brings the schema up to date; other processes
// that do so at the same time wait for each other. A server that does not answer is
// no error: what it could not do, the first call does that reaches it.
func (c *MySQL) Open(ctx context.Context, env sinks.Env) (sinks.Sink, error) {
	return c.open(ctx, env, func(c driver.Connector) driver.Connector { return c })
}

// open lets tests put something between database/sql and the driver.
func (c *MySQL) open(ctx context.Context, env sinks.Env, wrap func(driver.Connector) driver.Connector) (sinks.Sink, error) {
	cfg, err := c.connection()
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	connector := &dialer{c.connect, &mysql.MySQLDriver{}}
	return openServer(ctx, env, wrap(connector), mysqlDialect(cfg), c.MaxConnections)
}

// connection reads the settings of one connection.
func (c *MySQL) connection() (*mysql.Config, error) {
	text := string(c.DSN)
	var err error
	if c.DSNFile != "" {
		if text, err = readFile("dsn_file", c.DSNFile); err != nil {
			return nil, err
		}
	}
	cfg, problem := parseDSN(text)
	if problem != "" {
		return nil, &knownError{"dsn: " + problem}
	}
	if c.PasswordFile != "" {
		if cfg.Passwd, err = readFile("password_file", c.PasswordFile); err != nil {
			return nil, err
		}
	}
	if cfg.TLS, err = c.TLS.config(hostOf(cfg)); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = dialTimeout
	}
	cfg.Logger = &mysql.NopLogger{} // it would write to standard error
	// Else the server may have the last word (skip-character-set-client-handshake, init_connect).
	if err := cfg.Apply(mysql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, err
	}
	cfg.Loc, cfg.ParseTime = time.UTC, true
	cfg.InterpolateParams = true // one round trip for a statement in place of three
	cfg.MaxAllowedPacket = 0     // ask the server
	cfg.MultiStatements, cfg.AllowAllFiles = false, false
	return cfg, nil
}

// mysqlSession makes a connection what the sink needs, whatever the server's defaults and
// its init_connect: values that do not fit are refused and not cut
// off, a statement outside a transaction is one, all rows are returned, and each
// statement sees what was committed before it, without locks on gaps between rows.
var mysqlSession = []string{
	"SET SESSION sql_mode = 'STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00'," +
		" autocommit = 1, completion_type = 0, sql_safe_updates = 0, sql_big_selects = 1, sql_select_limit = DEFAULT",
	"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
}

func (c *MySQL) connect(ctx context.Context) (driver.Conn, error) {
	cfg, err := c.connection()
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, &knownError{"dsn: must be a data source name such as user@tcp(host:3306)/database"}
	}
	// The driver's own limit is for the dial only: a server that takes the connection and
	// says nothing would hold it for ever.
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range mysqlSession {
		if err := execOn(ctx, conn, statement); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

func execOn(ctx context.Context, conn driver.Conn, statement string) error {
	e, ok := conn.(driver.ExecerContext)
	if !ok {
		return errors.New("the driver's connections do not execute")
	}
	_, err := e.ExecContext(ctx, statement, nil)
	return err
}

//go:embed migrations/mysql/*.sql
var mysqlMigrations embed.FS

func mysqlDialect(cfg *mysql.Config) *dialect {
	migrations, err := fs.Sub(mysqlMigrations, "migrations/mysql")
	if err != nil {
		panic("sqldb: " + err.Error()) // the folder is part of the program
	}
	where := fmt.Sprintf("MySQL database %q at %s", cfg.DBName, cfg.Addr)
	return &dialect{
		migrations:   migrations,
		goose:        goose.DialectMySQL,
		prepare:      prepareMySQL,
		maxArguments: 65535,
		placeholder:  func(int) string { return "?" },
		time:         func(t time.Time) any { return t },
		holdsText:    holdsTextMySQL,
		onConflict: func(key string, columns []string) string {
			// It looks at all unique indexes, those that the owner added too. A row that has
			// another key gets a key that no row may have, so that the statement fails.
			return fmt.Sprintf(" ON DUPLICATE KEY UPDATE %[1]s = IF(%[1]s = VALUES(%[1]s), %[1]s, NULL), ", key) + overwrite(columns, "VALUES(%s)")
		},
		forUpdate: " FOR UPDATE",
		read:      &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true},
		describe: func(err error) (diagnosis, bool) {
			found, ok := describeMySQL(err)
			found.words = where + ": " + found.words
			return found, ok
		},
	}
}

// prepareMySQL migrates under a lock that ends with its connection, so that a
// process that dies leaves none. Locks are the server's, so the name has the
// database in it, hashed, for a name may have 64 characters.
func prepareMySQL(ctx context.Context, db *sql.DB, d *dialect) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	const name = "CONCAT('faceid-ingest.', LEFT(SHA2(DATABASE(), 256), 32))"
	var locked sql.NullBool
	for !locked.Bool {
		// While others take their time the context may end, so the wait is short.
		if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+name+", 5)").Scan(&locked); err != nil {
			return err
		}
		if !locked.Valid {
			return &knownError{"the server gives no lock (GET_LOCK) for the change of the schema: look at its log"}
		}
	}
	err = d.migrate(ctx, db)
	if err == nil {
		err = holdsTextMySQL(ctx, db)
	}
	if _, released := conn.ExecContext(ctx, "DO RELEASE_LOCK("+name+")"); released != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the lock goes with the connection
	}
	return err
}

// holdsTextMySQL finds what statements on a connection cannot set right: a proxy that
// loses its settings, and a table that somebody converted.
func holdsTextMySQL(ctx context.Context, db querier) error {
	const sample = "\U00020BB7" // four bytes in UTF-8, and no character of other sets
	var sent, received string
	if err := db.QueryRowContext(ctx, "SELECT HEX(?), ?", sample, sample).Scan(&sent, &received); err != nil {
		return err
	}
	if sent != fmt.Sprintf("%X", sample) || received != sample {
		return &knownError{"text does not pass as utf8mb4, although faceid-ingest asked for it (SET NAMES): have the proxy in between keep the settings of a session"}
	}

	var table, charset string
	err := db.QueryRowContext(ctx, `SELECT table_name, character_set_name FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name IN ('results', 'attempts', 'warnings', 'assets', 'erased', 'keyring')
			AND character_set_name NOT IN ('utf8mb4', 'ascii')
		ORDER BY table_name LIMIT 1`).Scan(&table, &charset)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &knownError{fmt.Sprintf(
		"its table %s keeps text in the character set %s, which cannot hold every name: ALTER TABLE %[1]s CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", table, charset)}
}

// describeMySQL says what an error means for the owner of the database.
func describeMySQL(err error) (diagnosis, bool) {
	var failed *mysql.MySQLError
	switch {
	case errors.As(err, &failed) && failed.Number == 1105 && strings.Contains(failed.Message, "max_allowed_packet"),
		errors.Is(err, mysql.ErrPktTooLarge):
		return describeErrorNumber(1153), true
	case errors.As(err, &failed):
		found := describeErrorNumber(failed.Number)
		if failed.Number == 1048 && strings.Contains(failed.Message, "'"+hashColumn+"'") { // see onConflict
			found.words = otherRow
		}
		found.words += " (MySQL error " + strconv.Itoa(int(failed.Number)) + ")"
		return found, true
	case errors.Is(err, mysql.ErrNoTLS):
		return diagnosis{"the server offers no TLS: have it do so, or set tls.mode to disable", broken}, true
	case errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, mysql.ErrMalformPkt),
		errors.Is(err, mysql.ErrPktSync), errors.Is(err, mysql.ErrPktSyncMul), errors.Is(err, mysql.ErrBusyBuffer):
		return diagnosis{connectionLost, away}, true
	}
	if found, ok := describeNetwork(err); ok {
		return found, true
	}
	for _, auth := range []error{mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword, mysql.ErrUnknownPlugin} {
		if errors.Is(err, auth) {
			return diagnosis{"the server wants the password in a way that is not allowed here: give the user the plugin caching_sha2_password or mysql_native_password", broken}, true
		}
	}
	return diagnosis{}, false
}

// describeErrorNumber says what an error number of the server means; those from
// 1900 on to 2000 and 4025 are MariaDB's.
func describeErrorNumber(n uint16) diagnosis {
	switch n {
	case 1044, 1142, 1143, 1227, 1370:
		return diagnosis{"the user lacks a privilege: grant select, insert, update and delete on the database, and create and alter for the first start and for new versions", broken}
	case 1045, 1129, 1130, 1251, 1698, 1820, 1862, 3118, 4151:
		return diagnosis{"it refuses the user or the password: check dsn and password_file, that the user may connect from this host, and that the password has not expired", broken}
	case 1049:
		return diagnosis{"there is no such database: create it, or name another in dsn", broken}
	case 1290, 1792, 1836:
		return diagnosis{"it is read-only, as a replica is: name the primary in dsn", broken}
	case 1021, 1114, 3, 28:
		return diagnosis{"its disk is full: free some space or enlarge it", broken}
	case 1040, 1203, 1226:
		return diagnosis{"it has no connection left: lower max_connections here, or raise it at the server", away}
	case 1037, 1038, 1041:
		return diagnosis{"the server is out of memory", broken}
	case 1053, 1077, 1079, 1927:
		return diagnosis{"the server is shutting down", away}
	case 1205, 1206, 1213, 1317, 1614, 1969, 3024, 3572:
		return diagnosis{"other transactions were in the way, or the server's time limit for a statement is too short", contended}
	case 1054, 1072, 1136, 1146, 1364:
		return diagnosis{"its tables are not those that faceid-ingest made: restore them, and restart faceid-ingest", broken}
	case 1153, 1301:
		return diagnosis{"this result is larger than the server takes: raise its max_allowed_packet", oversized}
	case 1118, 1264, 1292, 1366, 1406, 1690:
		return diagnosis{"a value of this result is larger than the database takes, or not one it knows", refused}
	case 1062, 1586:
		return diagnosis{otherRow, refused}
	case 1048, 1216, 1452, 1644, 3819, 4025:
		return diagnosis{"a constraint or trigger of the database refuses this result", refused}
	case 1115, 1273:
		return diagnosis{"it does not know the character set utf8mb4, or its collation utf8mb4_bin: use a newer server", broken}
	case 1184:
		return diagnosis{"its init_connect fails: mend that setting", broken}
	case 1193, 1231:
		return diagnosis{"it does not know a setting that faceid-ingest needs (character set, sql_mode, time zone and their like), or one that dsn names: use a server that does, as MySQL and MariaDB, or mend dsn", broken}
	case 3159:
		return diagnosis{"it takes connections over TLS only: set tls.mode to verify-full", broken}
	case 1665:
		return diagnosis{"its binary log cannot take the isolation level READ COMMITTED: set binlog_format to ROW", broken}
	}
	return diagnosis{"the database failed: look at its log", broken}
}
