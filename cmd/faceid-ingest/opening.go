package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
)

// step is one thing that the configuration names. "run" opens all of them, in order, and
// ends at the first that does not open; "config check" opens and tries all of them, and
// says of each what it found. There is no other list, so that the two agree.
type step struct {
	// name is what people read.
	name string
	// needs are the steps without which this one can say nothing of its own.
	needs []string
	// open is what "run" does. What it opens, daemon.close closes. May be nil.
	open func(ctx context.Context) error
	// try looks further, for "config check": whether what is open works. May be nil.
	try func(ctx context.Context) error
}

// The steps that others need.
const (
	stepDataDir = "data_dir"
	stepNATS    = "nats"
	stepSpool   = "spool"
	stepKeyring = "keyring"
	stepParking = "parking"
	stepMatch   = "keyring in use"
)

// unusableError is of something that the configuration names and that stays as it is
// until somebody mends it: starting again is of no use.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return e.err.Error() }
func (e *unusableError) Unwrap() error { return e.err }

// laterError is of something that may be otherwise at another start.
type laterError struct{ error }

func (e *laterError) Unwrap() error { return e.error }

// newDaemon opens everything the configuration names and starts nothing. The
// caller closes it. An error that only a person can mend is an *unusableError.
func newDaemon(ctx context.Context, cfg *config.Config, log *slog.Logger) (_ *daemon, err error) {
	d := prepare(cfg, log, time.Now().Add(startWait))
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()

	for _, s := range d.steps() {
		if s.open == nil {
			continue
		}
		slow := time.AfterFunc(slowStep, func() { log.Info("still opening", "what", s.name) })
		err := s.open(ctx)
		slow.Stop()
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", s.name, err)
		if ctx.Err() == nil && !passing(err) {
			err = &unusableError{err}
		}
		return nil, err
	}
	return d, nil
}

// slowStep is when a start that takes long says what it waits for.
const slowStep = 10 * time.Second

// prepare returns a daemon that has opened nothing.
func prepare(cfg *config.Config, log *slog.Logger, startBy time.Time) *daemon {
	d := &daemon{cfg: cfg, log: log, metrics: telemetry.New(), startBy: startBy, notes: map[string]string{}, lookAtRights: make(chan struct{}, 1)}
	d.serves(cfg)
	b := thisBuild()
	d.metrics.Build(b.Version, b.Commit, runtime.Version())
	return d
}

// passing reports whether what failed may work at another start though nobody has changed
// anything: what is away comes back, and a disk that is full is emptied.
func passing(err error) bool {
	for _, forGood := range []error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, forGood) {
			return false
		}
	}
	for _, passes := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, passes) {
			return true
		}
	}
	var later *laterError
	if errors.As(err, &later) {
		return true
	}
	var refused *faceid.Error
	if errors.As(err, &refused) {
		return refused.Class == faceid.Transient || refused.Class == faceid.Throttled
	}
	return broker.IsAway(err)
}

// steps are in the order in which things depend on each other.
func (d *daemon) steps() []step {
	cfg := d.cfg
	list := []step{
		{name: "accounts", open: func(context.Context) error { return someAccount(cfg) }},
		{name: stepDataDir, open: d.openDataDir, try: d.tryDataDir},
	}
	if cfg.Tracing.Endpoint != "" {
		list = append(list, step{name: "tracing", open: d.openTracing})
	}
	natsNeeds := []string{stepDataDir}
	if cfg.NATS.URL != broker.Embedded {
		natsNeeds = nil
	}
	list = append(list,
		step{name: stepNATS, needs: natsNeeds, open: d.openNATS, try: d.tryNATS},
		step{name: stepSpool, needs: []string{stepDataDir}, open: d.openSpool},
		step{name: stepKeyring, needs: []string{stepDataDir}, open: d.openKeyring},
		step{name: stepParking, needs: []string{stepNATS, stepKeyring}, open: d.openParking},
	)

	// What the worker works with.
	parts := []string{stepNATS, stepSpool, stepKeyring, stepParking}
	for _, s := range cfg.Sinks {
		own := d.sinkSteps(s)
		list, parts = append(list, own...), append(parts, own[0].name)
	}
	list = append(list, step{name: stepMatch, needs: slices.Clone(parts), open: d.matchKeyring})
	parts = append(parts, stepMatch)
	for _, account := range cfg.Accounts {
		own := step{name: "account " + account.Name, try: func(ctx context.Context) error { return d.tryAccount(ctx, account) }}
		list, parts = append(list, own), append(parts, own.name)
	}
	list = append(list, step{name: "worker", needs: append(parts, "accounts"), open: d.openCrew})
	if cfg.HTTP.Admin != "" {
		list = append(list, step{name: "http.admin", open: d.openAdmin})
	}
	return list
}

// sinkSteps opens a sink, and tries the buckets of FaceID that it takes media from.
func (d *daemon) sinkSteps(s config.Sink) []step {
	name := "sink " + s.Name
	needs := []string{stepKeyring}
	if c, ok := s.Config.(*natsmsg.Config); ok && c.URL == "" {
		needs = append(needs, stepNATS)
	}
	list := []step{{
		name: name, needs: needs,
		open: func(ctx context.Context) error { return d.openSink(ctx, s) },
		try:  func(ctx context.Context) error { return d.sink(s.Name).Check(ctx) },
	}}

	if _, ok := s.Config.(*cos.Config); !ok {
		return list
	}
	for _, account := range d.cfg.Accounts {
		if from := account.Storage; from != (config.Storage{}) {
			list = append(list, step{
				name: fmt.Sprintf("%s, storage of %s", name, account.Name), needs: []string{name},
				try: func(ctx context.Context) error { return d.trySource(ctx, s.Name, from) },
			})
		}
	}
	return list
}

func someAccount(cfg *config.Config) error {
	if len(cfg.Accounts) == 0 {
		return errors.New("no account is configured, so there is nothing to ingest: \"faceid-ingest config example\" shows how to add one, \"faceid-ingest demo\" needs none")
	}
	return nil
}

// openDataDir takes the data folder, or looks whether it may.
func (d *daemon) openDataDir(context.Context) (err error) {
	if !d.beside {
		d.claim, err = claimDataDir(d.cfg.DataDir)
		if err == nil {
			d.closers = append(d.closers, d.claim.release)
		}
		return err
	}

	if err := makeDataDir(d.cfg.DataDir); err != nil {
		return err
	}
	d.neighbour, err = findNeighbour(d.cfg.DataDir)
	if d.neighbour != nil {
		d.notes[stepDataDir] = fmt.Sprintf("a daemon%s works in it", d.neighbour.pid)
	}
	return err
}

// tryDataDir looks whether there is room.
func (d *daemon) tryDataDir(context.Context) error {
	if err := sinks.HasRoom(d.cfg.DataDir); err != nil {
		return dataDirError(d.cfg.DataDir, err)
	}
	return nil
}

func (d *daemon) openTracing(ctx context.Context) error {
	tracing, closeTracing, err := openTracing(ctx, d.cfg, d.log)
	if err != nil {
		return err
	}
	d.tracing = tracing
	d.closers = append(d.closers, closeTracing)
	return nil
}

// openNATS opens the connection, looks whether the user may do all that the daemon does,
// and makes sure of the streams and buckets.
func (d *daemon) openNATS(ctx context.Context) error {
	settings, err := brokerConfig(d.cfg, d.log)
	if err != nil {
		return err
	}
	connect := broker.Serve
	if d.beside {
		connect = broker.Connect
	}
	return d.patiently(ctx, func() (err error) {
		if d.conn == nil {
			if d.conn, err = connect(ctx, settings); err != nil {
				return err
			}
			d.closers = append(d.closers, d.conn.Close)
		}
		return errors.Join(d.lacksRights(ctx), ensureStreams(ctx, d.conn, d.cfg))
	})
}

// lacksRights returns an error if the user may not do all that the daemon does.
func (d *daemon) lacksRights(ctx context.Context) error {
	return d.conn.Lacks(ctx, pipeline.Rights(d.conn.JS, *d.accounts.Load()))
}

// ensureStreams makes sure of all that the daemon keeps in NATS.
func ensureStreams(ctx context.Context, conn *broker.Conn, cfg *config.Config) error {
	var errs []error
	for _, need := range streams.Table(int64(cfg.Parking.Quota)) {
		err := conn.Do(ctx, func(ctx context.Context) error {
			_, err := streams.Ensure(ctx, conn.JS, need, cfg.NATS.Replicas)
			return err
		})
		if err != nil && !slices.ContainsFunc(errs, func(known error) bool { return known.Error() == err.Error() }) {
			errs = append(errs, err)
		}
		if broker.IsAway(err) {
			break
		}
	}
	return errors.Join(errs...)
}

// tryNATS looks whether JetStream answers, and makes the consumers that are missing: an
// account may have too few of them.
func (d *daemon) tryNATS(ctx context.Context) error {
	return d.conn.Do(ctx, func(ctx context.Context) error {
		if _, err := d.conn.JS.AccountInfo(ctx); err != nil {
			return fmt.Errorf("JetStream cannot be used: %w", err)
		}
		return pipeline.EnsureConsumers(ctx, d.conn.JS, *d.accounts.Load(), d.cfg.Worker.AckWait.Duration())
	})
}

func (d *daemon) openSpool(context.Context) (err error) {
	if d.spool, err = openSpool(d.cfg); err != nil {
		return err
	}
	d.closers = append(d.closers, d.spool.Close)
	d.metrics.Spool(func() (int64, int64) {
		usage := d.spool.Usage()
		return usage.Bytes, usage.Quota
	})
	return nil
}

func (d *daemon) openKeyring(ctx context.Context) (err error) {
	d.policy, d.keys, err = preparePolicy(ctx, d.cfg)
	return err
}

// matchKeyring makes sure that the keyring is the one of the installation; beside a
// daemon it only looks, and makes none.
func (d *daemon) matchKeyring(ctx context.Context) error {
	if !d.beside {
		return d.settleKeyring(ctx)
	}
	if _, err := d.examineKeyring(ctx); err != nil {
		return err
	}
	if !d.keys.Made() && d.cfg.Privacy.KeyringFile != "" {
		_, err := openKeyringFile(ctx, d.cfg) // says that it is missing
		return err
	}
	return nil
}

func (d *daemon) openParking(ctx context.Context) error {
	return d.patiently(ctx, func() (err error) {
		d.parking, err = openParking(ctx, d.cfg, d.conn.JS, d.policy)
		return d.conn.Explain(err)
	})
}

func (d *daemon) openSink(ctx context.Context, s config.Sink) error {
	env := sinks.Env{Policy: d.policy, Log: d.log}
	if d.conn != nil { // "config check" goes on without
		env.NATS = d.conn.NATS
	}
	sink, err := openSink(ctx, d.cfg, s, env)
	if err != nil {
		return err
	}
	d.sinks = append(d.sinks, sink)
	d.closers = append(d.closers, func() error { return closeSinks(context.WithoutCancel(ctx), []sinks.Sink{sink}) })
	return nil
}

// sink returns the open sink of a name, or nil.
func (d *daemon) sink(name string) sinks.Sink {
	for _, s := range d.sinks {
		if s.Name() == name {
			return s
		}
	}
	return nil
}

// trySource looks whether a sink could take media from a bucket of FaceID.
func (d *daemon) trySource(ctx context.Context, name string, from config.Storage) error {
	sink, ok := d.sink(name).(*cos.Sink)
	if !ok {
		return fmt.Errorf("sink %s is not open", name)
	}
	return sink.CheckSource(ctx, from.Bucket, from.Region)
}

// tryAccount looks at the keys of an account; those that KMS makes are asked for.
func (d *daemon) tryAccount(ctx context.Context, account config.Account) error {
	_, closeClient, err := newClient(d.cfg, account, nil, nil, d.log)
	if err != nil {
		return err
	}
	closeClient()
	if _, _, _, err := account.Credential(); err != nil {
		return err
	}
	return tryEncryption(ctx, d.cfg, account)
}

// openCrew makes the worker and its accounts.
func (d *daemon) openCrew(context.Context) (err error) {
	if d.crew, err = d.hire(d.cfg); err != nil {
		return err
	}
	d.employ(d.crew)
	d.metrics.Limiters(d.limits)
	d.closers = append(d.closers, func() error { d.crew.close(); return nil })
	return nil
}

// openAdmin opens the admin endpoint. A daemon that works here with the same
// configuration has its port, and rightly.
func (d *daemon) openAdmin(ctx context.Context) error {
	admin, err := telemetry.Listen(ctx, d.adminConfig())
	if _, port, split := net.SplitHostPort(d.cfg.HTTP.Admin); split == nil && errors.Is(err, syscall.EADDRINUSE) && d.neighbour != nil && d.neighbour.port == port {
		d.notes["http.admin"] = fmt.Sprintf("the daemon%s that works in data_dir has the port", d.neighbour.pid)
		return nil
	}
	if err != nil {
		return err
	}

	d.admin = admin
	d.closers = append(d.closers, admin.Close)
	if d.claim == nil {
		return nil
	}
	return d.claim.announce(admin.Address())
}
