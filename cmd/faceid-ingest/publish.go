package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// maxLine bounds one line of the publish command's input.
const maxLine = event.MaxBody

type publishCmd struct {
	Tokens  []string `arg:"" optional:"" name:"token" help:"BizTokens or EidTokens."`
	Account string   `help:"Account the tokens belong to; may be left out when there is only one." placeholder:"NAME"`
	Product string   `help:"Product of the tokens: ${enum}." enum:"enhanced,eid" default:"enhanced"`
	Rule    string   `name:"rule-id" help:"Rule of enhanced tokens; left out, the account's default." placeholder:"ID"`
	File    string   `short:"f" type:"path" placeholder:"FILE" help:"Read tokens from a file, one per line, or - for standard input. A line that begins with { is an event in JSON."`
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
		return errors.New("nothing to publish: name tokens, or a file with --file (- for standard input)")
	}
	publish := func(event.Event) (bool, error) { return false, nil }
	if !c.DryRun {
		conn, err := a.connect(ctx)
		if err != nil {
			return err
		}
		defer closeQuietly(conn)
		if err := a.ensureStreams(ctx, conn); err != nil {
			return err
		}
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
		publish = func(e event.Event) (bool, error) { return publisher.publish(ctx, e) }
	}
	sum, err := c.publishAll(a, publish)
	if err != nil {
		return err
	}
	if err := c.print(a, sum); err != nil {
		return err
	}
	if sum.Failed > 0 {
		return errPartial
	}
	return nil
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
		return config.Account{Name: name}, event.CheckAccount(name)
	case len(names) == 0:
		return config.Account{}, errors.New("name the account with --account")
	case name == "":
		return config.Account{}, fmt.Errorf("name the account with --account: %s", strings.Join(names, ", "))
	default:
		return config.Account{}, fmt.Errorf("there is no account %q in the configuration, only %s", name, strings.Join(names, ", "))
	}
}

// publishAll publishes arguments, then the file. A wrong line is reported and
// the others go on.
func (c *publishCmd) publishAll(a *app, publish func(event.Event) (bool, error)) (published, error) {
	var sum published
	one := func(where string, line []byte) error {
		e, err := c.parse(line)
		if err == nil {
			var duplicate bool
			if duplicate, err = publish(e); err == nil {
				if duplicate {
					sum.Duplicates++
				} else {
					sum.Published++
				}
				return nil
			}
		}
		sum.Failed++
		var wrong *event.MalformedError
		_, _ = fmt.Fprintf(a.stderr, "%s: %v\n", where, err)
		if errors.As(err, &wrong) {
			return nil
		}
		// The stream cannot be reached; the rest would fail the same way.
		return fmt.Errorf("stopped at %s; publish it and what follows again", where)
	}
	for i, token := range c.Tokens {
		if err := one(fmt.Sprintf("argument %d", i+1), []byte(token)); err != nil {
			return sum, err
		}
	}
	if c.File == "" {
		return sum, nil
	}
	input, name := a.stdin, "standard input"
	if c.File != "-" {
		file, err := os.Open(c.File)
		if err != nil {
			return sum, fmt.Errorf("read tokens: %w", err)
		}
		defer func() { _ = file.Close() }()
		input, name = file, c.File
	}
	return sum, eachLine(input, name, one)
}

func eachLine(input io.Reader, name string, do func(where string, line []byte) error) error {
	scanner := bufio.NewScanner(input)
	scanner.Buffer(make([]byte, 0, 4096), maxLine)
	number := 0
	for scanner.Scan() {
		number++
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := do(fmt.Sprintf("%s:%d", name, number), []byte(line)); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, number+1, err)
	}
	return nil
}

// parse reads a line: a token, or an event in JSON.
func (c *publishCmd) parse(line []byte) (event.Event, error) {
	product := result.Product(c.Product)
	e := event.Event{Token: string(line)}
	if line[0] == '{' {
		var err error
		if e, err = event.Decode(product, line); err != nil {
			return event.Event{}, err
		}
	}
	if e.RuleID == "" && product == result.Enhanced {
		e.RuleID = c.Rule
		if c.Rule == "" {
			return event.Event{}, &event.MalformedError{Problem: "an enhanced token needs a rule: give --rule-id, or rule_id in the account's configuration"}
		}
	}
	return e, event.CheckToken(e.Token)
}

func (c *publishCmd) print(a *app, sum published) error {
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
