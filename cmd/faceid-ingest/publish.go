package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/feed"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type publishCmd struct {
	Tokens  []string `arg:"" optional:"" name:"token" help:"BizTokens or EidTokens."`
	Account string   `predictor:"account" help:"Account the tokens belong to; may be left out when there is only one." placeholder:"NAME"`
	Product string   `help:"Product of the tokens: ${enum}." enum:"enhanced,eid" default:"enhanced"`
	Rule    string   `name:"rule-id" help:"Rule of enhanced tokens; left out, the account's default." placeholder:"ID"`
	File    string   `short:"f" type:"path" predictor:"file" placeholder:"FILE" help:"Read tokens from a file, one per line, or - for standard input. A line that begins with { is an event in JSON; a CSV has a first line that names its columns, one of them token."`
	Lane    string   `help:"Lane: ${enum}." enum:"live,backfill" default:"live"`
	Again   bool     `help:"Have the tokens ingested once more, even if they were published just now: for what became a dead letter and is mended."`
	DryRun  bool     `help:"Check the input and publish nothing."`
	JSON    bool     `help:"Print the numbers as JSON."`
}

// published is what the publish command did.
type published struct {
	Published int `json:"published"`
	// Duplicates were published minutes ago and are not published again.
	Duplicates int `json:"duplicates"`
	Failed     int `json:"failed"`
}

// checkedInput is what --dry-run found.
type checkedInput struct {
	WouldPublish int `json:"would_publish"`
	Failed       int `json:"failed"`
}

func (c *publishCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	account, err := pickAccount(cfg, c.Account)
	if err != nil {
		return err
	}
	if c.Rule == "" {
		c.Rule = account.RuleID
	}
	if len(c.Tokens) == 0 && c.File == "" {
		return usagef("nothing to publish: name tokens, or a file with --file (- for standard input)")
	}
	publish := func(event.Event) (bool, error) { return false, nil }
	if !c.DryRun {
		conn, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer closeQuietly(conn)
		provider, closeTracing, err := openTracing(ctx, cfg, newLogger(cfg.Log, new(slog.LevelVar), a.stderr))
		if err != nil {
			return err
		}
		// What it cannot deliver it has said.
		defer func() { _ = closeTracing() }()
		publisher := &tracedPublisher{
			Publisher: event.NewPublisher(conn.JS), tracer: provider.Tracer(span.Scope),
			lane: event.Lane(c.Lane), account: account.Name, product: result.Product(c.Product), again: c.Again,
		}
		publish = makingStreams(ctx, conn, cfg, publisher.publish)
		if c.Again {
			once, look := publish, a.lookForErased(ctx, conn.JS)
			defer look.close()
			publish = func(e event.Event) (bool, error) {
				look.warn(ctx, sinks.KeyOf(result.Product(c.Product), e.Token), e.Token)
				return once(e)
			}
		}
	}
	sum, err := c.publishAll(ctx, a, publish)
	if err != nil {
		return err
	}
	if err := c.print(a, sum); err != nil {
		return err
	}
	switch {
	case sum.Failed == 0:
		return nil
	case sum.Published+sum.Duplicates == 0:
		return errors.New("nothing to publish: every line is wrong")
	default:
		return errPartial
	}
}

// makingStreams is publish that makes the streams if the server says that there is none
// for an event: who only publishes needs no right to look.
func makingStreams(ctx context.Context, conn *broker.Conn, cfg *config.Config, publish func(context.Context, event.Event) (bool, error)) func(event.Event) (bool, error) {
	made := false
	return func(e event.Event) (duplicate bool, err error) {
		err = conn.Do(ctx, func(ctx context.Context) (err error) { duplicate, err = publish(ctx, e); return err })
		if !errors.Is(err, jetstream.ErrNoStreamResponse) || made {
			return duplicate, err
		}
		made = true
		if err := ensureStreams(ctx, conn, cfg); err != nil {
			return false, fmt.Errorf("no stream takes the event, and none can be made: %w", err)
		}
		return publish(ctx, e)
	}
}

// pickAccount returns the account of the given name; there must be no doubt which
// if it is empty.
func pickAccount(cfg *config.Config, name string) (config.Account, error) {
	var names []string
	for _, account := range cfg.Accounts {
		if account.Name == name || name == "" && len(cfg.Accounts) == 1 {
			return account, nil
		}
		names = append(names, account.Name)
	}
	switch {
	case len(names) == 0 && name != "":
		// Without accounts in the configuration (a machine that only publishes)
		// the name is taken as it is.
		if err := event.CheckAccount(name); err != nil {
			return config.Account{}, usagef("--account: %w", err)
		}
		return config.Account{Name: name}, nil
	case len(names) == 0:
		return config.Account{}, usagef("the configuration has no account: name one with --account, or give the configuration with --config")
	case name == "":
		return config.Account{}, usagef("there are several accounts: name one with --account: %s", strings.Join(names, ", "))
	default:
		return config.Account{}, usagef("there is no account %q in the configuration, only %s", name, strings.Join(names, ", "))
	}
}

// publishAll publishes arguments, then the file. Nothing is published if an argument is
// wrong; a wrong line of the file is reported and the others go on.
func (c *publishCmd) publishAll(ctx context.Context, a *app, publish func(event.Event) (bool, error)) (published, error) {
	var sum published
	given := make([]event.Event, len(c.Tokens))
	for i, token := range c.Tokens {
		var err error
		if given[i], err = c.fromArgument(token); err != nil {
			return sum, usagef("token %d: %s; nothing was published", i+1, strings.TrimPrefix(err.Error(), "malformed event: "))
		}
	}

	one := func(where string, e event.Event) error {
		var wrong *event.MalformedError
		duplicate, err := publish(e)
		switch {
		case errors.As(err, &wrong):
			sum.Failed++
			_, _ = fmt.Fprintf(a.stderr, "%s: %v\n", where, err)
		case err == nil && duplicate:
			sum.Duplicates++
		case err == nil:
			sum.Published++
		case ctx.Err() != nil:
			return fmt.Errorf("%w at %s: publish it and what follows again", errInterrupted, where)
		default:
			// The stream cannot be reached; the rest would fail the same way.
			return fmt.Errorf("%s: %w; publish it and what follows again", where, err)
		}
		return nil
	}
	for i, e := range given {
		if err := one(fmt.Sprintf("token %d", i+1), e); err != nil {
			return sum, err
		}
	}

	err := c.eachInFile(a, func(where string, l feed.Line) error {
		e, err := l.Event, l.Err
		if err == nil {
			e, err = c.withRule(e)
		}
		if err != nil {
			sum.Failed++
			_, err = fmt.Fprintf(a.stderr, "%s: %v\n", where, err)
			return err
		}
		return one(where, e)
	})
	return sum, err
}

// eachInFile visits the lines of --file, and shows on a terminal how far it is.
func (c *publishCmd) eachInFile(a *app, do func(where string, l feed.Line) error) error {
	input, name := a.stdin, "standard input"
	switch c.File {
	case "":
		return nil
	case "-":
	default:
		file, err := os.Open(c.File)
		if err != nil {
			return usagef("read tokens: %w", err)
		}
		defer func() { _ = file.Close() }() // only read

		size := int64(0)
		if info, err := file.Stat(); err == nil {
			size = info.Size()
		}
		show, done := newBar(a.stderr, c.JSON, size, "publishing")
		defer done()
		input, name = &countingReader{file, show}, c.File
	}

	return feed.ReadList(input, name, result.Product(c.Product), time.Now(), func(l feed.Line) error {
		return do(fmt.Sprintf("%s:%d", name, l.Number), l)
	})
}

// countingReader says how many bytes were read so far.
type countingReader struct {
	io.Reader
	read func(n int64)
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read(int64(n))
	return n, err
}

// withRule completes an event with the rule that applies to it.
func (c *publishCmd) withRule(e event.Event) (event.Event, error) {
	if e.RuleID != "" || result.Product(c.Product) != result.Enhanced {
		return e, nil
	}
	if c.Rule == "" {
		return e, &event.MalformedError{Problem: "an enhanced token needs a rule: give --rule-id, or rule_id in the account's configuration"}
	}
	e.RuleID = c.Rule
	return e, nil
}

// fromArgument reads an argument: a token, or an event in JSON.
func (c *publishCmd) fromArgument(text string) (event.Event, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "{") {
		e, err := event.Parse(result.Product(c.Product), []byte(text), time.Now())
		if err != nil {
			return event.Event{}, err
		}
		return c.withRule(e)
	}

	if err := feed.CheckToken(text); err != nil {
		return event.Event{}, err
	}
	return c.withRule(event.Event{Token: text})
}

func (c *publishCmd) print(a *app, sum published) error {
	if c.JSON && c.DryRun {
		return json.NewEncoder(a.stdout).Encode(checkedInput{sum.Published, sum.Failed})
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(sum)
	}

	verb := "published"
	if c.DryRun {
		verb = "would publish"
	}
	line := fmt.Sprintf("%s %d, %d wrong", verb, sum.Published, sum.Failed)
	if sum.Duplicates > 0 {
		line += fmt.Sprintf(", %d published minutes ago and not again (--again does)", sum.Duplicates)
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}
