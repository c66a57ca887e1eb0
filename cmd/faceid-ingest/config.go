package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
)

type configCmd struct {
	Check   configCheckCmd   `cmd:"" help:"Check the configuration, and open all that run opens, beside a daemon or before its start: missing folders, keys, streams and tables are made. Exits with 2 if anything is wrong."`
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
	Online  bool   `help:"Also call the FaceID API with the credentials of every account, or of --account." xor:"depth"`
	Token   string `help:"With --online: a finished token of the last three days, which is pulled and opened, to try the keys of its account. Nothing of it is stored or shown." placeholder:"TOKEN"`
	Product string `help:"Product of --token: ${enum}." enum:"enhanced,eid" default:"enhanced"`
	Account string `predictor:"account" help:"With --online: call the API for this account only. Also the account of --token; may be left out when there is only one." placeholder:"NAME"`
	JSON    bool   `help:"Print one JSON object per check and warning."`
}

// What a check may find.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailed  = "failed"
	// checkSkipped is of what was not looked at, for it needs something that failed.
	checkSkipped = "skipped"
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
	case found.State == checkOK && found.Detail != "":
		_, err = fmt.Fprintf(a.stdout, "%-24s %s (%s)\n", found.Check, found.State, found.Detail)
	case found.State == checkOK:
		_, err = fmt.Fprintf(a.stdout, "%-24s %s\n", found.Check, found.State)
	default:
		_, err = fmt.Fprintf(a.stdout, "%-24s %s\n", found.Check, found.Detail)
	}
	return err
}

// Validate says what is wrong with the flags.
func (c *configCheckCmd) Validate() error {
	switch {
	case c.Online:
		return nil
	case c.Token != "":
		return errors.New("--token is for --online: add it")
	case c.Account != "":
		return errors.New("--account is for --online: add it")
	}
	return nil
}

func (c *configCheckCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadWhole()
	if err != nil {
		return err
	}
	if c.Static && !c.JSON {
		_, err := fmt.Fprintf(a.stdout, "%s: no problem found (only the file itself was looked at)\n", a.configName())
		return err
	}
	if err := c.tell(a, checked{"configuration", checkOK, a.configName()}); err != nil || c.Static {
		return err
	}
	if err := refuseForDaemon(cfg); err != nil {
		return err
	}

	for _, w := range warningsOf(cfg, a.configFile) {
		if err := c.tell(a, checked{w.code, checkWarning, w.detail}); err != nil {
			return err
		}
	}
	problems, err := c.checkSteps(ctx, a, cfg)
	if err != nil {
		return err
	}
	if c.Online {
		online, err := c.onlineProbes(cfg)
		if err != nil {
			return err
		}
		for _, p := range online {
			err := within(ctx, p.run)
			if err != nil {
				problems++
			}
			if err := c.tell(a, outcome(p.name, "", err)); err != nil {
				return err
			}
		}
	}
	if problems > 0 {
		return &unusableError{errors.New(plural(problems, "problem", "problems") + " found")}
	}
	return nil
}

// checkSteps opens and tries what "run" opens, and returns how many steps failed for a
// reason of their own.
func (c *configCheckCmd) checkSteps(ctx context.Context, a *app, cfg *config.Config) (problems int, err error) {
	d := prepare(cfg, slog.New(slog.DiscardHandler), time.Now())
	d.beside = true
	defer func() { err = errors.Join(err, d.close()) }()

	closed := map[string]bool{} // what others need and did not open
	for _, s := range d.steps() {
		found := checked{Check: s.name, State: checkSkipped}
		if i := slices.IndexFunc(s.needs, func(name string) bool { return closed[name] }); i >= 0 {
			closed[s.name] = true
			found.Detail = "not looked at: it needs " + s.needs[i]
		} else {
			opened, err := s.both(ctx)
			closed[s.name] = !opened
			if err != nil {
				problems++
			}
			found = outcome(s.name, d.notes[s.name], err)
		}
		if err := c.tell(a, found); err != nil {
			return problems, err
		}
	}

	for _, warning := range d.durability(ctx) {
		if err := c.tell(a, checked{"durability", checkWarning, warning}); err != nil {
			return problems, err
		}
	}
	return problems, nil
}

// both opens and tries; opened says whether steps that need this one can go on.
func (s step) both(ctx context.Context) (opened bool, err error) {
	if s.open != nil {
		if err := within(ctx, s.open); err != nil {
			return false, err
		}
	}
	if s.try == nil {
		return true, nil
	}
	err = within(ctx, s.try)
	return err == nil || s.open != nil, err
}

// outcome says what came of a check.
func outcome(name, note string, err error) checked {
	if err != nil {
		return checked{name, checkFailed, err.Error()}
	}
	return checked{name, checkOK, note}
}

// stepWait bounds one step of a check: what says nothing for so long is down.
const stepWait = 30 * time.Second

// within runs one step and says if it took too long.
func within(ctx context.Context, do func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, stepWait)
	defer cancel()
	err := do(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return fmt.Errorf("no answer within %s: %w", stepWait, err)
	}
	return err
}

// probe is one check of --online.
type probe struct {
	name string
	run  func(ctx context.Context) error
}

// durability warns of what would make NATS lose events or parked results. Of a server
// that cannot be reached it says nothing: the step of NATS does.
func (d *daemon) durability(ctx context.Context) []string {
	if d.conn == nil || d.lacksRights(ctx) != nil {
		return nil
	}
	warnings, err := d.conn.Durability(ctx, d.cfg.NATS.Monitors(), d.cfg.NATS.Replicas,
		event.Stream, event.ParkedStream, event.DeadStream, "OBJ_"+parking.Bucket)
	if err != nil {
		return []string{fmt.Sprintf("how safe the streams are cannot be seen: %v", err)}
	}
	return warnings
}
