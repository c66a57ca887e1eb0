package sqldb_test

import (
	"context"
	"database/sql/driver"

	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// faultyConnector asks for a fault before every statement and every commit, and
// after a commit, when only the answer is lost.
func faultyConnector(faults *sinktest.Faults) func(driver.Connector) driver.Connector {
	return stepping(func(context.Context, string) error { return faults.Step() })
}

// stepping calls step before everything that changes something: "begin", a
// statement, "commit", and "committed" after it.
func stepping(step func(ctx context.Context, what string) error) func(driver.Connector) driver.Connector {
	return func(c driver.Connector) driver.Connector { return &connector{c, step} }
}

type connector struct {
	driver.Connector
	step func(ctx context.Context, what string) error
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{inner.(fullConn), c.step}, nil
}

// fullConn is what connections of all drivers implement.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
}

type conn struct {
	fullConn
	step func(ctx context.Context, what string) error
}

func (c *conn) Unwrap() driver.Conn { return c.fullConn }

// IsValid implements driver.Validator, which not all drivers do.
func (c *conn) IsValid() bool {
	v, ok := c.fullConn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.step(ctx, query); err != nil {
		return nil, err
	}
	return c.fullConn.ExecContext(ctx, query, args)
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.step(ctx, "begin"); err != nil {
		return nil, err
	}
	inner, err := c.fullConn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &tx{inner, ctx, c.step}, nil
}

type tx struct {
	driver.Tx
	ctx  context.Context
	step func(ctx context.Context, what string) error
}

func (t *tx) Commit() error {
	if err := t.step(t.ctx, "commit"); err != nil {
		_ = t.Rollback()
		return err
	}
	if err := t.Tx.Commit(); err != nil {
		return err
	}
	return t.step(t.ctx, "committed")
}
