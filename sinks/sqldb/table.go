package sqldb

import (
	"context"
	"database/sql"
	"strings"
)

// table maps rows of one table to values of T, for writing and reading alike.
type table[T any] struct {
	name    string
	columns []column[T]
}

// column is a column of a table and where its value is in a T: a pointer, or a
// driver.Valuer and sql.Scanner around one.
type column[T any] struct {
	name string
	at   func(*T) any
}

// execer and querier are the parts of sql.Tx that tables use.
type (
	execer interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	}
	querier interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
)

func (t *table[T]) names() []string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.name
	}
	return names
}

// places returns where the values of v are, in the order of names.
func (t *table[T]) places(v *T) []any {
	places := make([]any, len(t.columns))
	for i, c := range t.columns {
		places[i] = c.at(v)
	}
	return places
}

// insertSQL is an INSERT of a number of rows, with placeholders.
func insertSQL(d *dialect, table string, columns []string, rows int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES ")
	n := 0
	for row := range rows {
		if row > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for i := range columns {
			if i > 0 {
				b.WriteString(", ")
			}
			n++
			b.WriteString(d.placeholder(n))
		}
		b.WriteByte(')')
	}
	return b.String()
}

// replace writes the row of v in place of the one with the same key, which is
// the first column.
func (t *table[T]) replace(ctx context.Context, tx execer, d *dialect, v *T) error {
	names := t.names()
	query := insertSQL(d, t.name, names, 1) + d.onConflict(names[0], names[1:])
	_, err := tx.ExecContext(ctx, query, d.arguments(t.places(v))...)
	return err
}

// one reads the row of a key, which is the first column.
func (t *table[T]) one(ctx context.Context, tx querier, d *dialect, key string) (*T, error) {
	names := t.names()
	query := "SELECT " + strings.Join(names, ", ") + " FROM " + t.name + " WHERE " + names[0] + " = " + d.placeholder(1)
	var v T
	if err := tx.QueryRowContext(ctx, query, key).Scan(t.places(&v)...); err != nil {
		return nil, err
	}
	return &v, nil
}

// Children belong to a result by token_hash and keep their order by position.
const hashColumn, positionColumn = "token_hash", "position"

// replaceAll writes the children of a result in place of those that are there.
func (t *table[T]) replaceAll(ctx context.Context, tx execer, d *dialect, hash string, children []T) error {
	query := "DELETE FROM " + t.name + " WHERE " + hashColumn + " = " + d.placeholder(1)
	if _, err := tx.ExecContext(ctx, query, hash); err != nil {
		return err
	}
	names := append([]string{hashColumn, positionColumn}, t.names()...)
	for first := 0; first < len(children); {
		rows := min(len(children)-first, d.maxArguments/len(names))
		args := make([]any, 0, rows*len(names))
		for i := first; i < first+rows; i++ {
			args = append(append(args, hash, i), t.places(&children[i])...)
		}
		if _, err := tx.ExecContext(ctx, insertSQL(d, t.name, names, rows), d.arguments(args)...); err != nil {
			return err
		}
		first += rows
	}
	return nil
}

// all reads the children of a result in their order.
func (t *table[T]) all(ctx context.Context, tx querier, d *dialect, hash string) (children []T, err error) {
	query := "SELECT " + strings.Join(t.names(), ", ") + " FROM " + t.name +
		" WHERE " + hashColumn + " = " + d.placeholder(1) + " ORDER BY " + positionColumn
	rows, err := tx.QueryContext(ctx, query, hash)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err below says what went wrong
	for rows.Next() {
		var v T
		if err := rows.Scan(t.places(&v)...); err != nil {
			return nil, err
		}
		children = append(children, v)
	}
	return children, rows.Err()
}
