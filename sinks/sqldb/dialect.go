package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// dialect is what differs between databases: all SQL text is made in table.go
// with its help.
type dialect struct {
	// migrations are the files that make the schema.
	migrations fs.FS
	goose      goose.Dialect
	// maxArguments is how many arguments a statement may have.
	maxArguments int
	// placeholder is that of the n-th argument, from 1.
	placeholder func(n int) string
	// time is how a time that is not zero is passed to the driver.
	time func(time.Time) any
	// onConflict is the clause after VALUES that overwrites columns where there
	// is a row with the key.
	onConflict func(key string, columns []string) string
	// describe says in words what an error of the driver means, and whether the
	// database refuses the very result; ok is false if it is not the driver's.
	describe func(err error) (words string, permanent, ok bool)
}

// arguments puts times into the form of the dialect.
func (d *dialect) arguments(args []any) []any {
	for i, arg := range args {
		if t, ok := arg.(timeValue); ok {
			if args[i] = nil; !t.p.IsZero() {
				args[i] = d.time(t.p.UTC())
			}
		}
	}
	return args
}

// explain says what was being done and what is wrong, with the error's class, and
// without the driver's words.
func (d *dialect) explain(ctx context.Context, doing string, err error) error {
	var known *knownError
	words, permanent, ok := d.describe(err)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.As(err, &known):
		return fmt.Errorf("%s: %w", doing, known)
	case !ok && errors.Is(err, sql.ErrConnDone), !ok && errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("%s: the connection to the database was lost", doing)
	case !ok:
		return fmt.Errorf("%s: the database driver failed (%T)", doing, innermost(err))
	case permanent:
		return sinks.Permanent(fmt.Errorf("%s: %s", doing, words))
	}
	return fmt.Errorf("%s: %s", doing, words)
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
// it that no other process does so at the same time.
func (d *dialect) migrate(ctx context.Context, db *sql.DB) error {
	provider, err := goose.NewProvider(d.goose, db, d.migrations,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return &knownError{fmt.Sprintf(
			"its schema has version %d, this program knows up to %d: it was written by a newer version of faceid-ingest; use that one",
			current, target)}
	}
	_, err = provider.Up(ctx)
	return err
}

// overwrite is a list of "column = value" that takes what was to be inserted.
func overwrite(columns []string, value string) string {
	set := make([]string, len(columns))
	for i, c := range columns {
		set[i] = c + " = " + fmt.Sprintf(value, c)
	}
	return strings.Join(set, ", ")
}
