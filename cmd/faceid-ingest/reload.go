package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// reloader brings a changed configuration into force.
type reloader struct {
	load func() (*config.Config, error)
	// level is the logger's.
	level *slog.LevelVar
}

// work runs the crew until ctx is done. At each SIGHUP it reads the configuration
// again and lets a new crew take over: both work on the same streams for a moment, so
// that nothing waits, and the old one finishes what it has.
func (d *daemon) work(ctx context.Context, r *reloader) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	now := d.crew.start(ctx)
	for {
		select {
		case err := <-now.done:
			return err
		case <-hangup:
		}
		d.renewLogin(ctx)
		next, cfg, err := r.next(d)
		d.metrics.Reloaded(err == nil)
		if err != nil {
			d.log.Error("the new configuration is refused, the old one stays in force", "error", err)
			continue
		}
		coming := next.start(ctx)
		now.stop()
		err = <-now.done
		d.crew.close()
		// Whatever comes, close finds the crew that is there.
		served := accountNames(d.cfg)
		d.crew, d.cfg, now = next, cfg, coming
		d.employ(next)
		d.serves(cfg)
		for _, name := range served {
			if !slices.Contains(accountNames(cfg), name) {
				d.metrics.Forget(name)
			}
		}
		if err != nil {
			d.log.Error("the old worker ended with an error", "error", err)
		}
		r.level.Set(cfg.Log.SlogLevel())
		d.log.Info("the new configuration is in force", "accounts", len(cfg.Accounts), "slots", cfg.Worker.Slots, "log_level", cfg.Log.Level)
	}
}

// renewLogin has NATS see credentials that were replaced on the disk.
func (d *daemon) renewLogin(ctx context.Context) {
	select {
	case d.lookAtRights <- struct{}{}:
	default:
	}
	switch renewed, err := d.conn.Renew(ctx); {
	case err != nil:
		d.log.Error("the credentials of NATS that are on the disk now are refused, the old connection stays", "error", err)
	case renewed:
		d.log.Info("logging in to NATS with the credentials that are on the disk now")
	}
}

// shift is a crew at work.
type shift struct {
	stop context.CancelFunc
	done chan error
}

func (c *crew) start(ctx context.Context) shift {
	ctx, stop := context.WithCancel(ctx)
	s := shift{stop, make(chan error, 1)}
	go func() {
		defer stop()
		s.done <- c.worker.Run(ctx)
	}()
	return s
}

// next reads the configuration and hires a crew for it.
func (r *reloader) next(d *daemon) (*crew, *config.Config, error) {
	cfg, err := r.load()
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.Accounts) == 0 {
		return nil, nil, errors.New("no account is configured")
	}
	if fixed := changedForGood(d.cfg, cfg); len(fixed) > 0 {
		return nil, nil, errors.New("changes of " + strings.Join(fixed, ", ") + " need a restart; nothing of the new file is in force")
	}
	c, err := d.hire(cfg)
	return c, cfg, err
}

// changedForGood lists the parts of the configuration that differ and cannot be
// changed while the daemon runs: all but accounts, worker and log.level.
func changedForGood(a, b *config.Config) []string {
	var list []string
	for _, part := range []struct {
		key  string
		a, b any
	}{
		{"data_dir", a.DataDir, b.DataDir}, {"nats", a.NATS, b.NATS}, {"spool", a.Spool, b.Spool}, {"parking", a.Parking, b.Parking},
		{"privacy", a.Privacy, b.Privacy}, {"sinks", a.Sinks, b.Sinks}, {"http", a.HTTP, b.HTTP}, {"tracing", a.Tracing, b.Tracing}, {"log.format", a.Log.Format, b.Log.Format},
	} {
		if !reflect.DeepEqual(part.a, part.b) {
			list = append(list, part.key)
		}
	}
	return list
}
