package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// dialect is what differs between databases. SQL text is made in table.go and
// keeper.go with its help.
type dialect struct {
	// migrations are the files that make the schema.
	migrations fs.FS
	goose      goose.Dialect
	// prepare readies the database for use, which includes migrate, safely with many
	// processes at once.
	prepare func(ctx context.Context, db *sql.DB, d *dialect) error
	// prepares says that the driver has the server prepare each text of a statement
	// once, so that it pays to have few: statements are for 1, 2, 4, 8, … rows.
	prepares bool
	// holdsText returns an error if text is not stored as it comes; nil where a
	// connection that is open says that it is.
	holdsText func(ctx context.Context, db querier) error
	// maxArguments is how many arguments a statement may have.
	maxArguments int
	// placeholder is that of the n-th argument, from 1.
	placeholder func(n int) string
	// time is how a time that is not zero is passed to the driver.
	time func(time.Time) any
	// onConflict is the clause after VALUES that overwrites columns where there
	// is a row with the key. A row that has another key, but shares another unique
	// value, makes the statement fail.
	onConflict func(key string, columns []string) string
	// prefix is the expression of a text column's beginning that indexes hold;
	// empty where they hold the column.
	prefix string
	// forUpdate at the end of a SELECT locks its rows until the transaction ends.
	forUpdate string
	// write makes each statement of a transaction see what others committed
	// before it, and read makes all of them see the same.
	write, read *sql.TxOptions
	// afterErase makes what was deleted unreadable in files, where that is to be
	// asked for; nil where not.
	afterErase func(ctx context.Context, db *sql.DB) error
	// describe tells what an error means to the database's owner; ok is false if
	// the database and its driver know no such error.
	describe func(err error) (d diagnosis, ok bool)
}

// diagnosis is what an error means.
type diagnosis struct {
	words string
	kind  kind
}

type kind int

const (
	// broken is for the database's owner to mend.
	broken kind = iota
	// away means that the database does not answer, or not yet.
	away
	// contended means that others were in the way.
	contended
	// oversized means that the database takes no statement of this size, until its
	// owner allows it.
	oversized
	// refused means that the database does not take this very result.
	refused
)

// arguments brings values of columns into the form that drivers take. It is what
// database/sql would do, once and before the database waits.
func (d *dialect) arguments(places []any) ([]any, error) {
	for i, place := range places {
		switch v := place.(type) {
		case timeValue:
			places[i] = d.timeArgument(*v.p)
		case driver.Valuer:
			value, err := v.Value()
			if err != nil {
				return nil, err
			}
			places[i] = value
		}
	}
	return places, nil
}

// timeArgument is the argument for a time. What no database can hold counts as
// not there, as the zero time does.
func (d *dialect) timeArgument(t time.Time) any {
	t = t.UTC().Truncate(time.Microsecond)
	if y := t.Year(); y < 1000 || y > 9999 {
		return nil
	}
	return d.time(t)
}

// placeholders are those of some arguments, with commas between.
func (d *dialect) placeholders(first, count int) string {
	var b strings.Builder
	for n := range count {
		if n > 0 {
			b.WriteString(", ")
		}
		b.WriteString(d.placeholder(first + n))
	}
	return b.String()
}

// portion is how many of some rows one statement inserts.
func (d *dialect) portion(rows, columns int) int {
	n := min(rows, d.maxArguments/columns)
	if d.prepares {
		n = 1 << (bits.Len(uint(n)) - 1)
	}
	return n
}

// among is the condition that a column is one of some values, which are the
// statement's first arguments.
func (d *dialect) among(column string, values []any) (condition string, args []any) {
	args = slices.Clone(values)
	for d.prepares && bits.OnesCount(uint(len(args))) != 1 {
		args = append(args, values[0]) // twice the same is once
	}
	return column + " IN (" + d.placeholders(1, len(args)) + ")", args
}

// diagnose tells what an error means.
func (d *dialect) diagnose(err error) diagnosis {
	var known *knownError
	if errors.As(err, &known) {
		return diagnosis{words: known.words}
	}
	if found, ok := d.describe(err); ok {
		return found
	}
	if errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone) || errors.Is(err, driver.ErrBadConn) {
		return diagnosis{"the connection to the database was lost", away}
	}
	if strings.HasPrefix(err.Error(), "sql: Scan error") { // which is all that tells it from others, and is fixed
		return diagnosis{words: errColumn.words}
	}
	return diagnosis{words: fmt.Sprintf("the database driver failed (%T)", innermost(err))}
}

// explain says what was being done and what is wrong, with the error's class, and
// without the driver's words.
func (d *dialect) explain(ctx context.Context, doing string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, context.Canceled)
	case errors.Is(err, sinks.ErrErased):
		return fmt.Errorf("%s: %w", doing, sinks.ErrErased)
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", doing, sinks.ErrNotFound)
	case errors.Is(err, privacy.ErrMark):
		return fmt.Errorf("%s: %w", doing, err) // in our own words
	}
	found := d.diagnose(err)
	err = fmt.Errorf("%s: %s", doing, found.words)
	if found.kind == refused {
		return sinks.Permanent(err)
	}
	return err
}

// knownError is an error of this package's own words.
type knownError struct{ words string }

func (e *knownError) Error() string { return e.words }

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// migrate brings the schema to what this program needs. Whoever calls it sees to
// what happens if other processes do so at the same time.
func (d *dialect) migrate(ctx context.Context, db *sql.DB) error {
	if err := d.readyVersions(ctx, db); err != nil {
		return err
	}
	provider, err := goose.NewProvider(d.goose, db, d.migrations,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return d.versionsProblem(ctx, err)
	}
	if current > target {
		return &knownError{fmt.Sprintf(
			"its schema has version %d, this program knows up to %d: it was written by a newer version of faceid-ingest, or by another program; use that version, or give faceid-ingest a database of its own",
			current, target)}
	}
	_, err = provider.Up(ctx)
	return d.versionsProblem(ctx, err)
}

// readyVersions makes the table in which goose notes versions, with its first row. goose
// would do so, too, but says another error than the first if that fails, and cannot go
// on if only the table was made: where CREATE TABLE ends a transaction, as in MySQL.
func (d *dialect) readyVersions(ctx context.Context, db *sql.DB) error {
	plain, err := database.NewStore(d.goose, goose.DefaultTablename)
	if err != nil {
		return err
	}
	store, ok := plain.(database.StoreExtender)
	if !ok {
		return nil
	}

	there, err := store.TableExists(ctx, db)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // SQLite, which does not fail half way
	}
	if err != nil {
		return err
	}
	if there {
		noted, err := store.ListMigrations(ctx, db)
		if err != nil || len(noted) > 0 {
			return err
		}
	}

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of no effect after Commit
	if !there {
		if err := store.CreateVersionTable(ctx, tx); err != nil {
			return err
		}
	}
	if err := store.Insert(ctx, tx, database.InsertRequest{Version: 0}); err != nil {
		return err
	}
	return tx.Commit()
}

// versionsProblem gives words to what goose itself has against the table of versions,
// such as one with a gap. All other errors are the database's.
func (d *dialect) versionsProblem(ctx context.Context, err error) error {
	var known *knownError
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.As(err, &known) {
		return err
	}
	if _, ok := d.describe(err); ok || errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) {
		return err
	}
	return &knownError{fmt.Sprintf(
		"its table %s does not hold what faceid-ingest noted there of its schema: restore it, or give faceid-ingest a database of its own",
		goose.DefaultTablename)}
}

// overwrite is a list of "column = value" that takes what was to be inserted.
func overwrite(columns []string, value string) string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c + " = " + fmt.Sprintf(value, c)
	}
	return strings.Join(set, ", ")
}
