package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/sinks"

	// The kinds of sink this binary knows.
	_ "github.com/faceid-ingest/faceid-ingest/sinks/cos"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/dir"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// newLogger returns the process's logger, which writes to w: JSON for machines,
// text for people.
// level may be changed while it is used.
func newLogger(cfg config.Log, level *slog.LevelVar, w io.Writer) *slog.Logger {
	level.Set(cfg.SlogLevel())
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	file, isFile := w.(*os.File)
	text := cfg.Format == "text" || cfg.Format == "auto" && isFile && term.IsTerminal(int(file.Fd()))
	if text {
		return slog.New(telemetry.WithTrace(slog.NewTextHandler(w, options)))
	}
	return slog.New(telemetry.WithTrace(slog.NewJSONHandler(w, options)))
}

// readable writes durations as people do, such as 15s, where JSON would have
// nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// connect opens JetStream as the configuration says, for a command that runs
// beside the daemon or without one.
func (a *app) connect(ctx context.Context) (*broker.Conn, error) {
	cfg, err := a.readConfig()
	if err != nil {
		return nil, err
	}

	// The embedded server writes where the daemon does, another one elsewhere.
	if cfg.NATS.URL == broker.Embedded {
		if err := refuseForeign(cfg); err != nil {
			return nil, err
		}
	}

	settings, err := brokerConfig(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return broker.Connect(ctx, settings)
}

func brokerConfig(cfg *config.Config, log *slog.Logger) (broker.Config, error) {
	if err := cfg.Need("nats"); err != nil {
		return broker.Config{}, err
	}
	n := cfg.NATS
	return broker.Config{
		URL:          n.URL,
		Dir:          natsDir(cfg),
		CredsFile:    n.CredsFile,
		NkeyFile:     n.NkeyFile,
		User:         n.User,
		Password:     string(n.Password),
		PasswordFile: n.PasswordFile,
		Token:        string(n.Token),
		TokenFile:    n.TokenFile,
		CAFile:       n.TLS.CA,
		CertFile:     n.TLS.Cert,
		KeyFile:      n.TLS.Key,
		TLSFirst:     n.TLS.HandshakeFirst,
		Domain:       n.Domain,
		APIPrefix:    n.APIPrefix,
		Layout:       n.Layout(),
		Name:         "faceid-ingest",
		Log:          log,
	}, nil
}

// natsDir is where the embedded server keeps its files.
func natsDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "nats") }

// closeQuietly ends a connection whose work is done and confirmed.
func closeQuietly(conn *broker.Conn) { _ = conn.Close() }

// openSink opens a sink in env, which it gives its name and its part of the log.
func openSink(ctx context.Context, cfg *config.Config, s config.Sink, env sinks.Env) (sinks.Sink, error) {
	if err := cfg.NeedSink(s.Name); err != nil {
		return nil, err
	}
	env.Name, env.Log = s.Name, env.Log.With("sink", s.Name)
	return s.Config.Open(ctx, env)
}

// openSinks opens some sinks of cfg in env, in their order. Those that do not open are
// returned by name with the reason.
func openSinks(ctx context.Context, cfg *config.Config, some []config.Sink, env sinks.Env) ([]sinks.Sink, map[string]error) {
	var open []sinks.Sink
	failed := map[string]error{}
	for _, one := range some {
		sink, err := openSink(ctx, cfg, one, env)
		if err != nil {
			failed[one.Name] = err
			continue
		}
		open = append(open, sink)
	}
	return open, failed
}

func closeSinks(ctx context.Context, open []sinks.Sink) error {
	var errs []error
	for _, s := range open {
		if err := s.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close sink %s: %w", s.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// openParking makes sure of the place where results wait for a sink.
func openParking(ctx context.Context, cfg *config.Config, js jetstream.JetStream, policy *privacy.Policy) (*parking.Store, error) {
	return parking.Open(ctx, js, parking.Config{Replicas: cfg.NATS.Replicas, Quota: int64(cfg.Parking.Quota)}, policy)
}

// spoolDir is where media in flight lies.
func spoolDir(cfg *config.Config) string {
	if cfg.Spool.Dir != "" {
		return cfg.Spool.Dir
	}
	return filepath.Join(cfg.DataDir, "spool")
}

func openSpool(cfg *config.Config) (*spool.Spool, error) {
	return spool.Open(spool.Config{Dir: spoolDir(cfg), MemoryLimit: int64(cfg.Spool.Memory), Quota: int64(cfg.Spool.Quota)})
}

// newAccounts makes a client for every account, each with the limiter of its name. The
// returned function closes them.
func newAccounts(cfg *config.Config, limiters map[string]*limit.Limiter, metrics *telemetry.Metrics, log *slog.Logger) (_ []pipeline.Account, _ func(), err error) {
	var accounts []pipeline.Account
	var closers []func()
	closeAll := func() {
		for _, c := range closers {
			c()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	for _, account := range cfg.Accounts {
		client, closeClient, err := newClient(cfg, account, limiters[account.Name], metrics.Stage, log)
		if err != nil {
			return nil, nil, fmt.Errorf("account %s: %w", account.Name, err)
		}
		closers = append(closers, closeClient)
		accounts = append(accounts, pipeline.Account{
			Name: account.Name, Query: queryOf(account), Client: client, Share: limiters[account.Name].Share,
		})
	}
	return accounts, closeAll, nil
}

// queryOf returns what an account's results are asked for with.
func queryOf(account config.Account) faceid.Query {
	return faceid.Query{
		RuleID:     account.RuleID,
		InfoType:   account.Request.InfoType,
		BestFrames: account.Request.BestFrames,
		CropIDCard: account.Request.CropIDCard,
		Avatar:     account.Request.Avatar,
		AllVideos:  account.Request.AllVideos,
	}
}

// observer is told how long a stage took.
type observer func(ctx context.Context, stage string, took time.Duration)

// newClient makes the client of an account with its keys; limiter and observe may be
// nil. The returned function closes it.
func newClient(cfg *config.Config, account config.Account, limiter faceid.Limiter, observe observer, log *slog.Logger) (*faceid.Client, func(), error) {
	if err := cfg.NeedAccount(account.Name); err != nil {
		return nil, nil, err
	}
	eidKey, err := openEIDKey(account.EID)
	if err != nil {
		return nil, nil, err
	}
	encryption, closeEncryption, err := openEncryption(cfg, account)
	if err != nil {
		return nil, nil, err
	}
	client, err := faceid.New(faceid.Config{
		Account:     account.Name,
		Endpoint:    account.Endpoint,
		Region:      account.Region,
		Credentials: credentials(account),
		Timeout:     cfg.Worker.Timeout.Duration(),
		MaxResponse: int64(cfg.Worker.MaxResponse),
		Storage:     faceid.Storage{Bucket: account.Storage.Bucket, Region: account.Storage.Region},
		Encryption:  encryption,
		EIDKey:      eidKey,
		Log:         log.With("account", account.Name),
		Limit:       limiter,
		Observe:     observe,
	})
	if err != nil {
		closeEncryption()
		return nil, nil, err
	}
	return client, func() { client.Close(); closeEncryption() }, nil
}

// credentials reads an account's secrets anew for each call.
func credentials(account config.Account) func(context.Context) (faceid.Credential, error) {
	return func(context.Context) (faceid.Credential, error) {
		id, key, token, err := account.Credential()
		return faceid.Credential{SecretID: id, SecretKey: key, Token: token}, err
	}
}

// daemon is everything that runs together.
type daemon struct {
	cfg *config.Config
	log *slog.Logger
	// beside says that this process only looks, and may find a daemon at work: then
	// neighbour is that one. Otherwise claim is the data folder's.
	beside    bool
	neighbour *neighbour
	claim     *claim
	// notes are what there is to say of steps that are well, by their names.
	notes   map[string]string
	conn    *broker.Conn
	crew    *crew
	admin   *telemetry.Admin
	metrics *telemetry.Metrics
	sinks   []sinks.Sink
	spool   *spool.Spool
	parking *parking.Store
	policy  *privacy.Policy
	keys    *privacy.Keyring
	tracing trace.TracerProvider
	// accounts are the names of those in force: a reload changes them while
	// /api/v1/status reads them.
	accounts atomic.Pointer[[]string]
	// limiters are those of the crew, for the metrics, and worker is its, for /readyz.
	limiters atomic.Pointer[map[string]*limit.Limiter]
	worker   atomic.Pointer[pipeline.Worker]
	// rights says which of them the user of NATS lacks; nil if none, or nobody knows.
	rights atomic.Pointer[error]
	// lookAtRights has watchRights look at once.
	lookAtRights chan struct{}
	// startBy is when a start that waits for NATS gives up.
	startBy time.Time
	closers []func() error
}

// startWait is how long a daemon that starts waits for NATS: within the minute that the
// chart's startup probe gives, for before that nobody answers it.
const startWait = 45 * time.Second

// patiently repeats what needs NATS while that is away or not ready, until startWait is
// over.
func (d *daemon) patiently(ctx context.Context, do func() error) error {
	said := false
	wait := backoff.NewExponentialBackOff(backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(max(time.Millisecond, time.Until(d.startBy))))
	return backoff.RetryNotify(func() error {
		err := do()
		if err != nil && !broker.IsAway(err) {
			return backoff.Permanent(err)
		}
		return err
	}, backoff.WithContext(wait, ctx), func(err error, _ time.Duration) {
		if !said {
			d.log.Warn("NATS is not there yet, waiting for it", "until", d.startBy.UTC().Format(time.RFC3339), "error", err)
			said = true
		}
	})
}

// crew is a worker with the accounts it works for: what a new configuration replaces
// while the daemon runs.
type crew struct {
	worker *pipeline.Worker
	// limiters are those of the accounts, by name.
	limiters map[string]*limit.Limiter
	close    func()
}

// hire makes a crew for the accounts and limits of cfg; it does not run yet.
func (d *daemon) hire(cfg *config.Config) (*crew, error) {
	limiters := make(map[string]*limit.Limiter, len(cfg.Accounts))
	for _, account := range cfg.Accounts {
		limiters[account.Name] = limit.New(float64(account.RateLimit))
	}
	closeLimiters := func() {
		for _, l := range limiters {
			l.Close()
		}
	}
	accounts, closeAccounts, err := newAccounts(cfg, limiters, d.metrics, d.log)
	if err != nil {
		closeLimiters()
		return nil, err
	}
	c := &crew{limiters: limiters, close: func() { closeAccounts(); closeLimiters() }}
	settings := pipeline.DefaultConfig()
	settings.Replicas = cfg.NATS.Replicas
	settings.Version = thisBuild().Version
	settings.Slots = cfg.Worker.Slots
	settings.AckWait = cfg.Worker.AckWait.Duration()
	settings.ShutdownGrace = cfg.Worker.ShutdownGrace.Duration()
	c.worker, err = pipeline.New(settings, pipeline.Deps{
		JetStream: d.conn.JS, Accounts: accounts, Sinks: d.sinks, Spool: d.spool, Parking: d.parking, Metrics: d.metrics, Tracing: d.tracing, Keyring: d.seals, Log: d.log,
	})
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// employ has metrics and /readyz look at a crew.
func (d *daemon) employ(c *crew) {
	d.limiters.Store(&c.limiters)
	d.worker.Store(c.worker)
}

// limits are what the accounts' limiters do now.
func (d *daemon) limits() map[string]telemetry.Limit {
	all := map[string]telemetry.Limit{}
	for name, l := range *d.limiters.Load() {
		s := l.State()
		all[name] = telemetry.Limit{Limit: s.Limit, Share: s.Rate, Throttles: s.Throttles}
	}
	return all
}

// close releases everything, the last opened first.
func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}
