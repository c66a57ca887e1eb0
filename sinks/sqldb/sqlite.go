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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func init() {
	sinks.Register("sqlite", func() sinks.Config { return &SQLite{} })
}

// SQLite is the configuration of a sink of type "sqlite".
type SQLite struct {
	// Path is the database file. It is made if it is not there, of mode 0600; its
	// folder is not. It must be on a local file system: SQLite's write-ahead log
	// does not work over a network. A relative path is relative to the working
	// directory.
	Path string `yaml:"path"`
}

// Validate implements sinks.Config.
func (c *SQLite) Validate() error {
	switch {
	case c.Path == "" || strings.HasSuffix(c.Path, string(filepath.Separator)):
		return &sinks.InvalidFieldError{Field: "path", Problem: "must name the database file"}
	case strings.ContainsRune(c.Path, 0):
		return &sinks.InvalidFieldError{Field: "path", Problem: "must not contain a NUL character"}
	case c.Path == ":memory:" || strings.HasPrefix(c.Path, "file:"):
		return &sinks.InvalidFieldError{Field: "path", Problem: "must be a file: a database in memory would lose results"}
	}
	return nil
}

// Open implements sinks.Config. It makes the file and brings its schema up to
// date; other processes that open it at the same time wait.
func (c *SQLite) Open(ctx context.Context, env sinks.Env) (sinks.Sink, error) {
	return openSQLite(ctx, c.Path, env, func(c driver.Connector) driver.Connector { return c })
}

// openSQLite lets tests put something between database/sql and the driver.
func openSQLite(ctx context.Context, path string, env sinks.Env, wrap func(driver.Connector) driver.Connector) (sinks.Sink, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	d := sqliteDialect(path)
	unlock, err := lockFile(ctx, path+".lock")
	if err != nil {
		return nil, d.explain(ctx, "open the database", err)
	}
	defer unlock()
	file, err := makeFile(path)
	if err != nil {
		return nil, d.explain(ctx, "open the database", err)
	}
	connector, err := sqlite.NewConnector(sqliteDSN(path))
	if err != nil {
		return nil, d.explain(ctx, "open the database", err)
	}
	return asSink(openSink(ctx, env, options{
		connector: wrap(connector), dialect: d,
		// SQLite has one writer at a time. Within a process a queue for the one
		// connection is fair and ends with the caller's context; between processes
		// SQLite asks again and again for as long as busyTimeout.
		connections: 1, writers: 1,
		intact: func() error { return sameFile(path, file) },
		room:   func() error { return sinks.HasRoom(path) },
	}))
}

func prepareSQLite(ctx context.Context, db *sql.DB, d *dialect) error {
	// With the write-ahead log readers do not stop the writer. The mode is kept
	// in the file.
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return &knownError{"SQLite cannot keep a write-ahead log there: " + noFileLocks}
	}
	// Whoever made the file may have chosen another encoding, and it cannot be changed.
	// UTF-16 loses the character by which value.go stands for NUL.
	var encoding string
	if err := db.QueryRowContext(ctx, "PRAGMA encoding").Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF-8" {
		return &knownError{"SQLite keeps text as " + encoding + " there, not as UTF-8: name another file, which faceid-ingest makes"}
	}
	return d.migrate(ctx, db)
}

// emptyLog moves what is in the write-ahead log, where deleted values still are,
// into the file, unless another process reads. The next Erase, or the last one to
// close the file, does it then.
func emptyLog(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// busyTimeout is how long SQLite waits for another process that writes.
const busyTimeout = 5 * time.Second

// sqliteDSN opens a file that is there. A commit returns when it is on disk
// (synchronous=FULL), a transaction takes its place in the queue of writers when it
// begins, for it cannot later, and what is deleted is overwritten.
func sqliteDSN(path string) string {
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "synchronous(FULL)", "foreign_keys(ON)", "secure_delete(ON)",
	}}
	u := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return u.String()
}

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

func sqliteDialect(path string) *dialect {
	migrations, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		panic("sqldb: " + err.Error()) // the folder is part of the program
	}
	return &dialect{
		migrations:   migrations,
		goose:        goose.DialectSQLite3,
		prepare:      prepareSQLite, // the caller of openSQLite has the lock
		maxArguments: 32766,         // SQLITE_MAX_VARIABLE_NUMBER
		placeholder:  func(int) string { return "?" },
		time:         func(t time.Time) any { return t.Format(timeFormat) },
		onConflict: func(key string, columns []string) string {
			return " ON CONFLICT (" + key + ") DO UPDATE SET " + overwrite(columns, "excluded.%s")
		},
		read:       &sql.TxOptions{ReadOnly: true},
		afterErase: emptyLog,
		describe:   func(err error) (diagnosis, bool) { return describeSQLite(path, err) },
	}
}

// describeSQLite says what an error means for the owner of the file.
func describeSQLite(path string, err error) (diagnosis, bool) {
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		words, ok := describeFile(path, err)
		return diagnosis{words: words}, ok
	}
	words, k := describeSQLiteCode(failed.Code())
	return diagnosis{fmt.Sprintf("SQLite database %s: %s (SQLite code %d)", path, words, failed.Code()), k}, true
}

// describeSQLiteCode says what a result code of SQLite means.
func describeSQLiteCode(code int) (words string, k kind) {
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return otherRow, refused
	case sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS,
		sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK, sqlite3.SQLITE_IOERR_UNLOCK, sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
		sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMLOCK, sqlite3.SQLITE_IOERR_SHMMAP:
		return noFileLocks, broken
	}

	words, k = "SQLite failed: check the disk and the file with \"PRAGMA integrity_check\"", broken
	switch code & 0xff { // the rest says more than words need
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		words = "another process keeps it locked: end it, or wait until it is done"
	case sqlite3.SQLITE_FULL:
		words = "the disk is full: free some space or enlarge it"
	case sqlite3.SQLITE_READONLY:
		words = fmt.Sprintf("it is read-only: give user id %d the right to write the file and its folder", os.Getuid())
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		words = fmt.Sprintf("it cannot be opened: give user id %d the right to write the file and its folder", os.Getuid())
	case sqlite3.SQLITE_IOERR:
		words = "the disk reports an error or is full: check it"
	case sqlite3.SQLITE_NOTADB:
		words = "the file is not a SQLite database: name another path, or move the file away"
	case sqlite3.SQLITE_CORRUPT:
		words = "the file is damaged: restore it from a copy"
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA:
		words = "its tables are not those that faceid-ingest made: restore them, or name another file in path"
	case sqlite3.SQLITE_NOMEM:
		words = "there is not enough memory"
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH:
		words, k = "a constraint of the database refuses this result", refused
	case sqlite3.SQLITE_TOOBIG:
		words, k = "this result is larger than the database takes", refused
	}
	return words, k
}

// noFileLocks is what network file systems are like.
const noFileLocks = "the file system cannot share and lock files as SQLite needs it: put the file on a local file system"

// describeFile says what an error of the file system means.
func describeFile(path string, err error) (words string, ok bool) {
	var failed *fs.PathError
	if !errors.As(err, &failed) {
		return "", false
	}
	hint := "check the disk"
	switch {
	case errors.Is(err, errReplaced):
		hint = "it was moved or replaced while in use: put it back, or restart faceid-ingest"
	case errors.Is(err, fs.ErrNotExist):
		hint = "the file or its folder is gone: put it back, or create the folder and restart faceid-ingest"
	case errors.Is(err, errNotFile), errors.Is(err, unix.ENOTDIR):
		hint = "the path must name a file in a folder"
	case errors.Is(err, fs.ErrPermission):
		hint = fmt.Sprintf("give user id %d the right to write the file and its folder", os.Getuid())
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "the disk is full: free some space or enlarge it"
	case errors.Is(err, unix.EROFS):
		hint = "the file system is read-only: mount it writable"
	}
	return fmt.Sprintf("SQLite database %s: %s: %s", path, failed.Err, hint), true
}

var (
	errReplaced = errors.New("not the file that was opened")
	errNotFile  = errors.New("not a file")
)

// makeFile sees to it that there is a file nobody else may read; SQLite gives the
// same mode to the files that it puts beside. A file that is there is not opened:
// closing it would end the locks of this process on it.
func makeFile(path string) (fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotFile}
	}
	return info, nil
}

// sameFile notices that the file was moved or removed: SQLite would go on writing
// to what nobody can find any more.
func sameFile(path string, opened fs.FileInfo) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(info, opened) {
		return &fs.PathError{Op: "stat", Path: path, Err: errReplaced}
	}
	return nil
}

// lockPoll is how often a process that waits for another looks again.
const lockPoll = 10 * time.Millisecond

// lockFile lets one process at a time prepare a database. The file stays.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}
