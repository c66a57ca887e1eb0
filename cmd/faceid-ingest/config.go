package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type configCmd struct {
	Check   configCheckCmd   `cmd:"" help:"Check the configuration, and open what it names as the daemon would: missing folders, keys and tables are made."`
	Example configExampleCmd `cmd:"" help:"Print a commented example configuration."`
	Schema  configSchemaCmd  `cmd:"" help:"Print the JSON schema of the configuration, for editors."`
}

type configExampleCmd struct{}

func (*configExampleCmd) Run(a *app) error {
	_, err := a.stdout.Write(config.Example())
	return err
}

type configCheckCmd struct {
	Static  bool   `help:"Only look at the file itself, not at what it names." xor:"depth"`
	Online  bool   `help:"Also call the FaceID API, and KMS, with the credentials of every account." xor:"depth"`
	Token   string `help:"With --online: a finished token of the last three days, which is pulled and opened, to try the keys of its account. Nothing of it is stored or shown." placeholder:"TOKEN"`
	Product string `help:"Product of --token: ${enum}." enum:"enhanced,eid" default:"enhanced"`
	Account string `help:"Account of --token; may be left out when there is only one." placeholder:"NAME"`
}

func (c *configCheckCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	what := a.configFile
	if what == "" {
		what = "embedded default"
	}
	if c.Static {
		_, err := fmt.Fprintf(a.stdout, "%s: no problem found (only the file itself was looked at)\n", what)
		return err
	}
	if err := sameOwner(cfg.DataDir); err != nil {
		return err
	}
	list := probes(cfg)
	if c.Token != "" && !c.Online {
		return errors.New("--token is for --online")
	}
	if c.Online {
		online, err := c.onlineProbes(cfg)
		if err != nil {
			return err
		}
		list = append(list, online...)
	}
	warnings, err := durability(ctx, cfg)
	if err != nil {
		// The probe of NATS says the same, better.
		warnings = nil
	}
	for _, warning := range warnings {
		_, _ = fmt.Fprintln(a.stderr, "warning:", warning)
	}
	problems := 0
	for _, p := range list {
		word := "ok"
		if err := p.run(ctx); err != nil {
			problems++
			word = err.Error()
		}
		if _, err := fmt.Fprintf(a.stdout, "%-24s %s\n", p.name, word); err != nil {
			return err
		}
	}
	if problems > 0 {
		return errors.New(plural(problems, "problem", "problems") + " found")
	}
	return nil
}

// sameOwner refuses to open things as root that belong to somebody else: what
// is made on the way, the daemon could not use.
func sameOwner(folder string) error {
	for {
		info, err := os.Stat(folder)
		switch {
		case errors.Is(err, fs.ErrNotExist) && filepath.Dir(folder) != folder:
			folder = filepath.Dir(folder)
			continue
		case err != nil:
			return fmt.Errorf("look at data_dir: %w", err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && stat.Uid != 0 {
			return fmt.Errorf("%s belongs to user %d: check as that user (sudo -u '#%d' …), or the daemon could not use what the check makes as root; --static looks at the file only", folder, stat.Uid, stat.Uid)
		}
		return nil
	}
}

// probe tries one thing that the configuration names.
type probe struct {
	name string
	run  func(ctx context.Context) error
}

// probes are in the order in which the daemon opens things.
func probes(cfg *config.Config) []probe {
	list := []probe{
		{"nats", func(ctx context.Context) error { return probeNATS(ctx, cfg) }},
		{"spool", func(context.Context) error { return probeSpool(cfg) }},
		{"keyring", func(ctx context.Context) error { _, err := openPolicy(ctx, cfg); return err }},
	}
	for _, s := range cfg.Sinks {
		list = append(list, probe{"sink " + s.Name, func(ctx context.Context) error { return probeSink(ctx, cfg, s) }})
	}
	for _, account := range cfg.Accounts {
		list = append(list, probe{"account " + account.Name, func(context.Context) error {
			_, closeClient, err := newClient(cfg, account, nil, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			closeClient()
			_, _, _, err = account.Credential()
			return err
		}})
	}
	return list
}

func probeNATS(ctx context.Context, cfg *config.Config) error {
	settings, err := brokerConfig(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	conn, err := broker.Connect(ctx, settings)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	if _, err := conn.JS.AccountInfo(ctx); err != nil {
		return fmt.Errorf("JetStream cannot be used: %w", err)
	}
	return nil
}

// durability warns of what would make NATS lose events.
func durability(ctx context.Context, cfg *config.Config) ([]string, error) {
	settings, err := brokerConfig(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	conn, err := broker.Connect(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(conn)
	return conn.Durability(ctx, cfg.NATS.Monitors(), cfg.NATS.Replicas, event.Stream, event.ParkedStream, event.DeadStream)
}

func probeSpool(cfg *config.Config) error {
	s, err := openSpool(cfg)
	if err != nil {
		return err
	}
	return s.Close()
}

func probeSink(ctx context.Context, cfg *config.Config, s config.Sink) error {
	policy, err := openPolicy(ctx, cfg)
	if err != nil {
		return err
	}
	env := sinks.Env{Name: s.Name, Policy: policy, Log: slog.New(slog.DiscardHandler)}
	if settings, err := brokerConfig(cfg, env.Log); err == nil {
		// A sink that needs the connection says so if it is not there; what is
		// wrong with it the probe of NATS tells.
		if conn, err := broker.Connect(ctx, settings); err == nil {
			defer closeQuietly(conn)
			env.NATS = conn.NATS
		}
	}
	sink, err := s.Config.Open(ctx, env)
	if err != nil {
		return err
	}
	return errors.Join(sink.Check(ctx), sink.Close(ctx))
}
