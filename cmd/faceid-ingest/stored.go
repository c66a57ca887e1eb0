package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// store is what commands that look at stored results work with.
type store struct {
	cfg    *config.Config
	policy *privacy.Policy
	// sinks are open, in the order of the configuration.
	sinks []sinks.Sink
	// js is nil where only records are looked at.
	js    jetstream.JetStream
	close func() error
}

// openStore opens all sinks, beside the daemon or without it.
func (a *app) openStore(ctx context.Context) (*store, error) {
	s, failed, err := a.openWhatOpens(ctx)
	if err != nil {
		return nil, err
	}
	if len(failed) == 0 {
		return s, nil
	}
	errs := make([]error, 0, len(failed)+1)
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		errs = append(errs, fmt.Errorf("open sink %s: %w", name, failed[name]))
	}
	return nil, errors.Join(append(errs, s.close())...)
}

// openWhatOpens is openStore for a command that does what it can: sinks that do not
// open are left out, and returned by name with the reason.
func (a *app) openWhatOpens(ctx context.Context) (*store, map[string]error, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	policy, _, err := preparePolicy(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := &store{cfg: cfg, policy: policy, js: conn.JS}
	s.close = func() error { return errors.Join(closeSinks(context.WithoutCancel(ctx), s.sinks), conn.Close()) }
	var failed map[string]error
	s.sinks, failed = openSinks(ctx, cfg, cfg.Sinks, sinks.Env{Policy: policy, Log: slog.New(slog.DiscardHandler), NATS: conn.NATS})
	if err := s.rightKeyring(ctx); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, failed, nil
}

// openKept opens the sinks that keep what they are given, without NATS, which none of them
// needs. The others have nothing to be read, and may be without their secrets. Sinks that
// do not open are returned by name with the reason.
func openKept(ctx context.Context, cfg *config.Config, policy *privacy.Policy) (*store, map[string]error) {
	kept := slices.DeleteFunc(slices.Clone(cfg.Sinks), func(s config.Sink) bool {
		switch s.Config.(type) {
		case *kafka.Config, *natsmsg.Config, *webhook.Config:
			return true
		}
		return false
	})
	open, failed := openSinks(ctx, cfg, kept, sinks.Env{Policy: policy, Log: slog.New(slog.DiscardHandler)})
	return &store{
		cfg: cfg, policy: policy, sinks: open,
		close: func() error { return closeSinks(context.WithoutCancel(ctx), open) },
	}, failed
}

// openRecords opens the first record sink that can be read, or the named one, and
// nothing else: whoever looks a result up need not reach every sink.
func (a *app) openRecords(ctx context.Context, name string) (*store, sinks.RecordKeeper, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	policy, _, err := preparePolicy(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	var failed []error
	for _, s := range cfg.Sinks {
		if name != "" && name != s.Name {
			continue
		}
		sink, err := openSink(ctx, cfg, s, sinks.Env{Policy: policy, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			failed = append(failed, fmt.Errorf("open sink %s: %w", s.Name, err))
			continue
		}
		closeIt := func() error { return closeSinks(context.WithoutCancel(ctx), []sinks.Sink{sink}) }
		if keeper, ok := sink.(sinks.RecordKeeper); ok {
			opened := &store{cfg: cfg, policy: policy, sinks: []sinks.Sink{sink}, close: closeIt}
			if err := opened.rightKeyring(ctx); err != nil {
				return nil, nil, errors.Join(err, closeIt())
			}
			return opened, keeper, nil
		}
		failed = append(failed, closeIt())
	}
	if err := errors.Join(failed...); err != nil {
		return nil, nil, err
	}
	return nil, nil, noRecords(cfg, name)
}

// keys returns the keys that a token may have: of one product, or of each.
func keys(product, token string) []sinks.Key {
	if product != "" {
		return []sinks.Key{sinks.KeyOf(result.Product(product), token)}
	}
	var list []sinks.Key
	for _, p := range result.Products() {
		list = append(list, sinks.KeyOf(p, token))
	}
	return list
}

// audit returns the audit log, and an entry that names who runs this command.
func audit(cfg *config.Config, action, reason string) (*privacy.Audit, privacy.AuditEntry) {
	entry := privacy.AuditEntry{Action: action, Reason: reason, User: fmt.Sprintf("uid %d", os.Getuid())}
	if u, err := user.Current(); err == nil {
		entry.User = u.Username
	}
	if by := os.Getenv("SUDO_USER"); by != "" {
		entry.User += " (sudo by " + by + ")"
	}
	entry.Host, _ = os.Hostname() // an entry without it is still one
	return privacy.OpenAudit(auditFile(cfg)), entry
}

// auditFile is where the audit log is.
func auditFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "audit.log") }

// noRecords says that no sink keeps records that can be read, or not the one that --sink
// names.
func noRecords(cfg *config.Config, name string) error {
	there := strings.Join(sinkNames(cfg), ", ")
	if name == "" {
		return usagef("no configured sink keeps records that can be read: add one of type sqlite, postgres or mysql; there are %s", there)
	}
	return usagef("--sink: no configured sink keeps records that can be read and is named %q; there are %s", name, there)
}
