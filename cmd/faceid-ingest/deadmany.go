package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/time/rate"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
)

// deadPick names dead letters by their numbers or by filters.
type deadPick struct {
	Sequences []uint64 `arg:"" optional:"" name:"seq" help:"Numbers of letters, as \"dead list\" shows them."`
	All       bool     `help:"All letters there are."`
	deadFilter
}

// Validate says what is wrong with the flags.
func (p deadPick) Validate() error {
	switch {
	case len(p.Sequences) > 0 && (p.All || p.isSet()):
		return errors.New("give numbers of letters, or filters, not both")
	case len(p.Sequences) == 0 && !p.All && !p.isSet():
		return errors.New("which letters? Give numbers, filters such as --reason, or --all")
	}
	return p.deadFilter.Validate()
}

// letters returns what is picked. A number that is not there is an error, before
// anything is done.
func (p deadPick) letters(ctx context.Context, js jetstream.JetStream) ([]event.DeadLetter, error) {
	var list []event.DeadLetter
	if len(p.Sequences) == 0 {
		err := p.read(ctx, js, func(l event.DeadLetter) error {
			list = append(list, l)
			return nil
		})
		return list, err
	}
	for _, sequence := range slices.Compact(slices.Sorted(slices.Values(p.Sequences))) {
		l, err := event.GetDeadLetter(ctx, js, sequence)
		if errors.Is(err, event.ErrNoDeadLetter) {
			return nil, fmt.Errorf("there is no dead letter %d; \"faceid-ingest dead list\" shows those there are", sequence)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

type deadRetryCmd struct {
	deadPick
	Rate   float64 `default:"20" help:"Letters per second."`
	DryRun bool    `help:"Say which letters would be retried."`
	JSON   bool    `help:"Print one JSON object per letter."`
}

// Validate says what is wrong with the flags.
func (c *deadRetryCmd) Validate() error {
	if c.Rate <= 0 {
		return errors.New("--rate must be more than 0")
	}
	return c.deadPick.Validate()
}

func (c *deadRetryCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	letters, err := c.letters(ctx, conn.JS)
	if err != nil {
		return err
	}
	c.warn(a, cfg, letters)
	publisher := event.NewPublisher(conn.JS)
	pace := rate.NewLimiter(rate.Limit(c.Rate), 1)
	run := deadRun{verb: "retried", dryRun: c.DryRun, json: c.JSON}
	return run.each(ctx, a, letters, func(l event.DeadLetter) error {
		if err := pace.Wait(ctx); err != nil {
			return err
		}
		return publisher.Retry(ctx, l)
	})
}

// warn tells of accounts that nobody works for.
func (c *deadRetryCmd) warn(a *app, cfg *config.Config, letters []event.DeadLetter) {
	told := map[string]bool{}
	for _, account := range cfg.Accounts {
		told[account.Name] = true
	}
	for _, l := range letters {
		if !told[l.Account] {
			told[l.Account] = true
			_, _ = fmt.Fprintf(a.stderr, "account %q is not configured: nobody takes its events until it is\n", l.Account)
		}
	}
}

type deadDropCmd struct {
	deadPick
	Yes    bool `help:"Drop without asking. What is dropped cannot be had back."`
	DryRun bool `help:"Say which letters would be dropped."`
	JSON   bool `help:"Print one JSON object per letter."`
}

// Validate says what is wrong with the flags.
func (c *deadDropCmd) Validate() error { return c.deadPick.Validate() }

func (c *deadDropCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	letters, err := c.letters(ctx, conn.JS)
	if err != nil {
		return err
	}
	if !c.Yes && !c.DryRun && len(letters) > 0 {
		if err := c.confirm(a, len(letters)); err != nil {
			return err
		}
	}
	// What is dropped is not opened, so no keyring is needed.
	policy, _, err := preparePolicy(ctx, cfg)
	if err != nil {
		return err
	}
	parked, err := openParking(ctx, cfg, conn.JS, policy)
	if err != nil {
		return err
	}
	publisher := event.NewPublisher(conn.JS)
	run := deadRun{verb: "dropped", dryRun: c.DryRun, json: c.JSON}
	return run.each(ctx, a, letters, func(l event.DeadLetter) error {
		// In this order: while the letter is there, dropping can be tried again.
		if err := dropParked(ctx, parked, l); err != nil {
			return err
		}
		return publisher.Drop(ctx, l)
	})
}

// dropParked removes what is parked of a letter's result: with the letter goes the
// last way to it.
func dropParked(ctx context.Context, parked *parking.Store, l event.DeadLetter) error {
	_, _, product, err := event.ParseSubject(l.Subject)
	if err != nil {
		return nil //nolint:nilerr // such an event has no result
	}
	e, err := event.Decode(product, l.Body)
	if err != nil {
		return nil //nolint:nilerr // nor has this one
	}
	return parked.Drop(ctx, product, e.Token)
}

func (c *deadDropCmd) confirm(a *app, n int) error {
	if !isTerminal(a.stdin) {
		return usagef("nobody can be asked: add --yes, or look first with --dry-run")
	}
	_, _ = fmt.Fprintf(a.stderr, "This drops %s for good. Type \"drop\" to go on: ", plural(n, "dead letter", "dead letters"))
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "drop" {
		return errors.New("nothing was dropped")
	}
	return nil
}

// deadRun does something with many letters and says what became of them.
type deadRun struct {
	// verb is what is done, in the past.
	verb         string
	dryRun, json bool
}

// deadDone is the JSON form of what became of a letter.
type deadDone struct {
	letter
	Done  bool   `json:"done"`
	Error string `json:"error,omitempty"`
}

func (r deadRun) each(ctx context.Context, a *app, letters []event.DeadLetter, do func(event.DeadLetter) error) error {
	step, finish := r.bar(a.stderr, len(letters))
	done, failures := 0, []string{}
	for _, l := range letters {
		var err error
		if !r.dryRun {
			err = do(l)
		}
		if ctx.Err() != nil {
			break
		}
		step()
		if err == nil {
			done++
		} else {
			failures = append(failures, fmt.Sprintf("%d: %v", l.Sequence, err))
		}
		if err := r.tell(a, l, err); err != nil {
			return err
		}
	}
	finish()
	for _, failure := range failures {
		_, _ = fmt.Fprintln(a.stderr, failure)
	}
	r.sum(a, done, len(failures), len(letters))
	if ctx.Err() != nil {
		return fmt.Errorf("%w after %d of %d letters: run it again for the others", errInterrupted, done, len(letters))
	}
	if len(failures) > 0 {
		return errPartial
	}
	return nil
}

// tell says what became of one letter, where somebody wants that of each.
func (r deadRun) tell(a *app, l event.DeadLetter, failed error) error {
	var err error
	switch {
	case r.json:
		one := deadDone{letter: newLetter(l), Done: failed == nil && !r.dryRun}
		if failed != nil {
			one.Error = failed.Error()
		}
		err = json.NewEncoder(a.stdout).Encode(one)
	case r.dryRun:
		_, err = fmt.Fprintf(a.stdout, "%d %s %s %s: would be %s\n", l.Sequence, l.Account, l.Reason, dash(l.Code), r.verb)
	}
	return err
}

// sum says in one line what became of all.
func (r deadRun) sum(a *app, done, failed, all int) {
	if r.json || r.dryRun {
		return
	}
	rest := ""
	if failed > 0 {
		rest = fmt.Sprintf("; %d could not be %s", failed, r.verb)
	}
	_, _ = fmt.Fprintf(a.stdout, "%s %d of %s%s\n", r.verb, done, plural(all, "dead letter", "dead letters"), rest)
}

// bar shows on a terminal how far the run is.
func (r deadRun) bar(w io.Writer, total int) (step, finish func()) {
	if _, isFile := w.(*os.File); !isFile || r.json || r.dryRun || !isTerminal(w) {
		return func() {}, func() {}
	}
	progress := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	bar := progress.AddBar(int64(total), mpb.PrependDecorators(decor.CountersNoUnit("%d/%d ")), mpb.AppendDecorators(decor.AverageETA(decor.ET_STYLE_GO)))
	return bar.Increment, func() { bar.Abort(false); progress.Wait() }
}
