package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
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
	Account string `predictor:"account" help:"Account of --token; may be left out when there is only one." placeholder:"NAME"`
	JSON    bool   `help:"Print one JSON object per check and warning."`
}

// What a check may find.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailed  = "failed"
)

// checked is the JSON form of what a check found.
type checked struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail,omitempty"`
}

func (c *configCheckCmd) tell(a *app, found checked) error {
	var err error
	switch {
	case c.JSON:
		err = json.NewEncoder(a.stdout).Encode(found)
	case found.State == checkWarning:
		_, err = fmt.Fprintln(a.stderr, "warning:", found.Detail)
	case found.State == checkFailed:
		_, err = fmt.Fprintf(a.stdout, "%-24s %s\n", found.Check, found.Detail)
	default:
		_, err = fmt.Fprintf(a.stdout, "%-24s %s\n", found.Check, found.State)
	}
	return err
}

func (c *configCheckCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	if c.Static {
		return c.tellStatic(a)
	}
	if err := refuseForDaemon(cfg); err != nil {
		return err
	}
	list := a.probes(cfg)
	if c.Token != "" && !c.Online {
		return usagef("--token is for --online: add it")
	}
	if c.Online {
		online, err := c.onlineProbes(cfg)
		if err != nil {
			return err
		}
		list = append(list, online...)
	}
	for _, w := range warningsOf(cfg, a.configFile) {
		if err := c.tell(a, checked{w.code, checkWarning, w.detail}); err != nil {
			return err
		}
	}
	for _, warning := range durability(ctx, cfg) {
		if err := c.tell(a, checked{"durability", checkWarning, warning}); err != nil {
			return err
		}
	}
	problems := 0
	var keyring *keyringError
	for _, p := range list {
		found := checked{Check: p.name, State: checkOK}
		if err := p.run(ctx); err != nil {
			problems++
			errors.As(err, &keyring)
			found.State, found.Detail = checkFailed, err.Error()
		}
		if err := c.tell(a, found); err != nil {
			return err
		}
	}
	switch {
	case keyring != nil:
		return &keyringError{errors.New(plural(problems, "problem", "problems") + " found")}
	case problems > 0:
		return errors.New(plural(problems, "problem", "problems") + " found")
	}
	return nil
}

// tellStatic says that the file, which has been read, is well.
func (c *configCheckCmd) tellStatic(a *app) error {
	if c.JSON {
		return c.tell(a, checked{Check: "file", State: checkOK})
	}
	what := a.configFile
	if what == "" {
		what = "embedded default"
	}
	_, err := fmt.Fprintf(a.stdout, "%s: no problem found (only the file itself was looked at)\n", what)
	return err
}

// probe tries one thing that the configuration names.
type probe struct {
	name string
	run  func(ctx context.Context) error
}

// probes are in the order in which the daemon opens things.
func (a *app) probes(cfg *config.Config) []probe {
	list := []probe{
		{"nats", func(ctx context.Context) error { return probeNATS(ctx, cfg) }},
		{"spool", func(context.Context) error { return probeSpool(cfg) }},
		{"keyring", func(ctx context.Context) error { return a.probeKeyring(ctx, cfg) }},
	}
	for _, s := range cfg.Sinks {
		list = append(list, probe{"sink " + s.Name, func(ctx context.Context) error { return probeSink(ctx, cfg, s) }})
	}
	for _, account := range cfg.Accounts {
		list = append(list, probe{"account " + account.Name, func(context.Context) error {
			_, closeClient, err := newClient(cfg, account, nil, nil, slog.New(slog.DiscardHandler))
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

// durability warns of what would make NATS lose events or parked results. Of a server
// that cannot be reached it says nothing: the probe of NATS does.
func durability(ctx context.Context, cfg *config.Config) []string {
	settings, err := brokerConfig(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil
	}
	conn, err := broker.Connect(ctx, settings)
	if err != nil {
		return nil
	}
	defer closeQuietly(conn)
	warnings, err := conn.Durability(ctx, cfg.NATS.Monitors(), cfg.NATS.Replicas,
		event.Stream, event.ParkedStream, event.DeadStream, "OBJ_"+parking.Bucket)
	if err != nil {
		return []string{fmt.Sprintf("how safe the streams are cannot be seen: %v", err)}
	}
	return warnings
}

func probeSpool(cfg *config.Config) error {
	s, err := openSpool(cfg)
	if err != nil {
		return err
	}
	return s.Close()
}

func probeSink(ctx context.Context, cfg *config.Config, s config.Sink) error {
	policy, _, err := preparePolicy(ctx, cfg)
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
