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

// row is the arguments of one row, in the order of the table's columns.
type row []any

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

// Children belong to a result by token_hash and keep their order by position.
const hashColumn, positionColumn = "token_hash", "position"

func (t *table[T]) childNames() []string {
	return append([]string{hashColumn, positionColumn}, t.names()...)
}

// childRows returns the rows of a result's children.
func (t *table[T]) childRows(d *dialect, hash string, children []T) ([]row, error) {
	rows := make([]row, len(children))
	for i := range children {
		args, err := d.arguments(t.places(&children[i]))
		if err != nil {
			return nil, err
		}
		rows[i] = append(row{hash, int64(i)}, args...)
	}
	return rows, nil
}

// insertSQL is an INSERT of a number of rows, with placeholders.
func insertSQL(d *dialect, table string, columns []string, rows int) string {
	var b strings.Builder
	b.WriteString("INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES ")
	for r := range rows {
		if r > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + d.placeholders(r*len(columns)+1, len(columns)) + ")")
	}
	return b.String()
}

// insert writes rows with few statements; end is what follows the values.
func insert(ctx context.Context, tx execer, d *dialect, table string, columns []string, rows []row, end string) error {
	for len(rows) > 0 {
		n := d.portion(len(rows), len(columns))
		args := make([]any, 0, n*len(columns))
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		if _, err := tx.ExecContext(ctx, insertSQL(d, table, columns, n)+end, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// replace writes rows in place of those with the same keys. The key is the first
// column, and no two rows have the same.
func (t *table[T]) replace(ctx context.Context, tx execer, d *dialect, rows []row) error {
	names := t.names()
	return insert(ctx, tx, d, t.name, names, rows, d.onConflict(names[0], names[1:]))
}

// replaceChildren writes rows in place of all the children that results have.
func (t *table[T]) replaceChildren(ctx context.Context, tx execer, d *dialect, hashes []any, rows []row) error {
	if err := t.remove(ctx, tx, d, hashes); err != nil {
		return err
	}
	return insert(ctx, tx, d, t.name, t.childNames(), rows, "")
}

// remove deletes all rows of some tokens.
func (t *table[T]) remove(ctx context.Context, tx execer, d *dialect, hashes []any) error {
	condition, args := d.among(hashColumn, hashes)
	_, err := tx.ExecContext(ctx, "DELETE FROM "+t.name+" WHERE "+condition, args...)
	return err
}

// one reads the row of a key, which is the first column; end is what follows the
// condition.
func (t *table[T]) one(ctx context.Context, tx querier, d *dialect, key, end string) (*T, error) {
	names := t.names()
	query := "SELECT " + strings.Join(names, ", ") + " FROM " + t.name + " WHERE " + names[0] + " = " + d.placeholder(1) + end
	var v T
	if err := tx.QueryRowContext(ctx, query, key).Scan(t.places(&v)...); err != nil {
		return nil, err
	}
	return &v, nil
}

// all reads the children of a result in their order.
func (t *table[T]) all(ctx context.Context, tx querier, d *dialect, hash string) ([]T, error) {
	return t.query(ctx, tx, " WHERE "+hashColumn+" = "+d.placeholder(1)+" ORDER BY "+positionColumn, hash)
}

// query reads rows; end is what follows the name of the table.
func (t *table[T]) query(ctx context.Context, tx querier, end string, args ...any) (values []T, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT "+strings.Join(t.names(), ", ")+" FROM "+t.name+end, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err below says what went wrong
	for rows.Next() {
		var v T
		if err := rows.Scan(t.places(&v)...); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}
