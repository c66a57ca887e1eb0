package dbtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Postgres is a PostgreSQL server of its own that may be crashed and started again,
// for tests of what happens then. Its methods are called by one goroutine at a
// time.
type Postgres struct {
	*server
	database string
}

// NewPostgres starts a server with an empty database. It ends with Close, or with
// this process, however that ends.
func NewPostgres(ctx context.Context) (*Postgres, error) {
	s, err := start(postgresKind) //nolint:contextcheck // it bounds itself
	if err != nil {
		return nil, err
	}
	p := &Postgres{server: s, database: databaseName()}
	if err := s.postgres(ctx, "CREATE DATABASE "+p.database); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// URL is the URL of the database, with the password in it. It stays the same when
// the server is started again.
func (p *Postgres) URL() string { return p.postgresURL(p.database) }

// Address is where the server listens, such as "127.0.0.1:5432".
func (p *Postgres) Address() string { return "127.0.0.1:" + strconv.Itoa(p.port) }

// Folder holds all that the server writes, its log among it.
func (p *Postgres) Folder() string { return p.folder }

// Crash has the server drop everything and end at once ("immediate shutdown"), as a
// kill of all its processes would, and returns when it is gone. A server that is
// gone already is no error.
func (p *Postgres) Crash(ctx context.Context) error {
	pid, err := p.pid()
	if err != nil {
		return fmt.Errorf("crash PostgreSQL: %w", err)
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("crash PostgreSQL: %w", err)
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !p.ended() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("crash PostgreSQL: it does not end: %w", ctx.Err())
		}
	}
	return nil
}

// Restart starts a server that was crashed, on the same folder and port, and
// returns when it has recovered and answers.
func (p *Postgres) Restart(ctx context.Context) error {
	as, _, err := identity(postgresKind.users)
	if err != nil {
		return err
	}
	command, err := postgresCommand(p.server)
	if err != nil {
		return err
	}
	guardian, pipe := p.guardian, p.pipe
	if err := os.Remove(p.path("pid")); err != nil { // of the dead one, else run believes that its own has ended
		return err
	}
	if err := p.run(ctx, postgresKind, as, command); err != nil {
		return fmt.Errorf("start PostgreSQL again: %w", err)
	}
	// The old guardian leaves the folder to the new one.
	return errors.Join(pipe.Close(), guardian.Wait())
}

// Close ends the server and removes its folder.
func (p *Postgres) Close() error { return p.close() }
