package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

type runCmd struct{}

func (c *runCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadWhole()
	if err != nil {
		return err
	}
	if err := refuseForDaemon(cfg); err != nil {
		return err
	}

	level := new(slog.LevelVar)
	log := newLogger(cfg.Log, level, a.stderr)
	speakBy(log) //nolint:contextcheck // What libraries print has no context.
	log.Info("configuration", "from", a.configName())
	d, err := newDaemon(ctx, cfg, log)
	if err != nil && ctx.Err() != nil {
		log.Info("faceid-ingest was stopped before it was running", "error", err)
		return nil //nolint:nilerr // it did what it was asked to
	}
	if err == nil {
		logWarnings(log, warningsOf(cfg, a.configFile))
		err = errors.Join(d.run(ctx, &reloader{load: a.loadWhole, level: level}), d.close())
	}
	return told(log, err)
}

// told logs why the daemon ends, so that every line of a log in JSON is JSON.
func told(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}

	attrs := []any{"error", err}
	if hint := foreignHint(err); hint != "" {
		attrs = append(attrs, "hint", hint)
	}
	log.Error("faceid-ingest has failed", attrs...)

	return &saidError{err}
}

// run serves until ctx is done.
func (d *daemon) run(ctx context.Context, reload *reloader) error {
	group, ctx := errgroup.WithContext(ctx)
	if d.admin != nil {
		d.log.Info("admin endpoint", "address", d.admin.URL())
		group.Go(func() error { return d.admin.Serve(ctx) })
	}
	group.Go(func() error { d.sayRunning(ctx, d.cfg, d.crew.worker); return nil })
	group.Go(func() error { d.watchRights(ctx); return nil })
	expiring := expiringOf(d.cfg) // of parts that no reload changes
	group.Go(func() error { return d.watchExpiry(ctx, expiring) })
	group.Go(func() error { return d.watchKeyring(ctx) })
	group.Go(func() error { return d.work(ctx, reload) })
	err := group.Wait()
	d.log.Info("faceid-ingest has stopped")
	return err
}

// sayRunning says that the daemon runs once events are fetched, and not before.
func (d *daemon) sayRunning(ctx context.Context, cfg *config.Config, worker *pipeline.Worker) {
	select {
	case <-worker.Opened():
	case <-ctx.Done():
		return
	}
	b := thisBuild()
	d.log.Info("faceid-ingest is running", "version", b.Version, "commit", b.Commit, "nats", cfg.NATS.URL,
		"accounts", len(cfg.Accounts), "sinks", len(d.sinks), "slots", cfg.Worker.Slots)
}

const (
	// rightsEvery is how often a daemon looks at its rights, for a server tells nobody that
	// it has taken one; rightsSoon is how often while one is missing.
	rightsEvery = time.Minute
	rightsSoon  = 5 * time.Second
)

// watchRights looks at the user's rights for /readyz until ctx is done: from time to time,
// at SIGHUP, and when the server has refused something or the connection was made anew.
func (d *daemon) watchRights(ctx context.Context) {
	again := time.NewTimer(rightsEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.conn.Violated():
		case <-d.lookAtRights:
		case <-again.C:
		}

		err := d.lacksRights(ctx)
		var lacking *broker.RightsError
		switch known := d.rights.Load(); {
		case err == nil:
			if known != nil {
				d.log.Info("NATS grants all rights again")
			}
			d.rights.Store(nil)
			again.Reset(rightsEvery)
			continue
		case errors.As(err, &lacking) && (known == nil || (*known).Error() != err.Error()):
			d.log.Error("events may wait, for a right is missing", "error", err)
		}
		if lacking != nil {
			d.rights.Store(&err)
		}
		again.Reset(rightsSoon)
	}
}

func (d *daemon) adminConfig() telemetry.AdminConfig {
	h := d.cfg.HTTP
	return telemetry.AdminConfig{
		Address:   h.Admin,
		TokenFile: h.AdminTokenFile,
		Cert:      h.TLS.Cert,
		Key:       h.TLS.Key,
		ClientCA:  h.TLS.ClientCA,
		Pprof:     h.Pprof,
		Metrics:   d.metrics,
		Checks:    d.checks(),
		Known:     d.known,
		Status: func(ctx context.Context) (any, error) {
			return pipeline.ReadStatus(ctx, d.conn.JS, *d.accounts.Load())
		},
		Log: d.log,
	}
}

// serves notes the accounts of cfg as those in force.
func (d *daemon) serves(cfg *config.Config) {
	names := accountNames(cfg)
	d.accounts.Store(&names)
}

// checks look at each sink, for /readyz: whether it could take a result.
func (d *daemon) checks() map[string]telemetry.Check {
	checks := map[string]telemetry.Check{}
	for _, s := range d.sinks {
		checks["sink "+s.Name()] = s.Check
	}
	return checks
}

// known is what the daemon knows without asking anybody: how the connection and its rights
// are, whether events are fetched, and what became of the results that were last given to the sinks.
func (d *daemon) known() map[string]error {
	worker := d.worker.Load()
	known := map[string]error{"nats": d.conn.Trouble(), "events": worker.Fetching()}
	if lacks := d.rights.Load(); lacks != nil && known["nats"] == nil {
		known["nats"] = *lacks
	}
	for name, err := range worker.SinkTroubles() {
		known["sink "+name] = err
	}
	return known
}
