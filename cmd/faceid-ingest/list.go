package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type listCmd struct {
	Day     day    `help:"Results of one day in the zone of this machine, such as 2026-11-29." placeholder:"DAY"`
	From    when   `help:"Results fetched at or after this time: a day, \"2026-11-29 08:30\" (in the zone of this machine), RFC 3339, or how long ago, such as 2d." placeholder:"TIME"`
	To      when   `help:"Results fetched before this time, given likewise." placeholder:"TIME"`
	Account string `predictor:"account" help:"Results of this account." placeholder:"NAME"`
	Product string `help:"Results of this product: enhanced or eid." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Rule    string `name:"rule-id" help:"Results of this rule." placeholder:"ID"`
	Verdict string `help:"Only passed or only failed checks." enum:",passed,failed" default:"" placeholder:"VERDICT"`
	Code    *int64 `help:"Results with this code, of the check or of its intention step (see the codes command)." placeholder:"CODE"`
	Find    string `help:"Results of a person: the field to look up by its blind index, such as id_card, name or mobile. Its value is read from standard input, so that it stays out of the shell's history." placeholder:"FIELD"`
	Limit   int    `short:"n" help:"At most so many, the latest first; 0 is all." default:"0"`
	Sink    string `predictor:"sink" help:"Record sink to read from; the first one if left out." placeholder:"NAME"`
	JSON    bool   `help:"Print one JSON object per line."`
}

func (c *listCmd) Run(ctx context.Context, a *app) (err error) {
	filter := c.filter()
	s, records, err := a.openRecords(ctx, c.Sink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if c.Find != "" {
		if filter.IndexField, filter.Index, err = a.lookUp(ctx, s.policy, c.Find); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(a.stdout)
	lines := json.NewEncoder(out)
	n := 0
	for summary, err := range records.List(ctx, filter) {
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if c.JSON {
			err = lines.Encode(summary)
		} else {
			err = listLine(out, n, summary)
		}
		if err != nil {
			return err
		}
		n++
	}
	if n == 0 && !c.JSON {
		_, _ = fmt.Fprintln(out, "no results")
	}
	return out.Flush()
}

func listLine(out io.Writer, n int, s sinks.Summary) error {
	if n == 0 {
		if _, err := fmt.Fprintf(out, "%-26s %-8s %-12s %-6s %-7s %6s %6s %6s %s\n",
			"FETCHED", "PRODUCT", "ACCOUNT", "RULE", "VERDICT", "CODE", "SIM", "ASSETS", "TOKEN"); err != nil {
			return err
		}
	}
	verdict := "failed"
	if s.Passed {
		verdict = "passed"
	}
	_, err := fmt.Fprintf(out, "%-26s %-8s %-12s %-6s %-7s %6d %6s %6d %s\n", timeText(s.FetchedAt), s.Product,
		s.Account, dash(s.RuleID), verdict, decidingCode(s), dash(s.Similarity), s.Assets, printable([]byte(s.Token)))
	return err
}

// decidingCode returns the code that says why a check has the verdict it has: where the
// check itself is passed, and an intention step is not, that step's.
func decidingCode(s sinks.Summary) int64 {
	if s.Code == 0 && s.IntentionCode != nil {
		return *s.IntentionCode
	}
	return s.Code
}

// Validate says what is wrong with the flags.
func (c *listCmd) Validate() error {
	if c.Limit < 0 {
		return errors.New("--limit must be 0, for all, or more")
	}
	if !c.Day.IsZero() && (!c.From.IsZero() || !c.To.IsZero()) {
		return errors.New("--day does not go with --from and --to")
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To.Time) {
		return errors.New("--from must be before --to")
	}
	return nil
}

func (c *listCmd) filter() sinks.Filter {
	f := sinks.Filter{Account: c.Account, Product: result.Product(c.Product), RuleID: c.Rule, Code: c.Code, Limit: c.Limit}
	if c.Verdict != "" {
		passed := c.Verdict == "passed"
		f.Passed = &passed
	}
	f.From, f.To = c.From.Time, c.To.Time
	if !c.Day.IsZero() {
		f.From, f.To = c.Day.Time, c.Day.AddDate(0, 0, 1)
	}
	return f
}

// maxValue bounds a value to look up, in bytes.
const maxValue = 4096

// lookUp makes the blind index of a value that it reads.
func (a *app) lookUp(ctx context.Context, policy *privacy.Policy, field string) (privacy.Field, string, error) {
	f := privacy.Field(field)
	if !f.Valid() {
		return "", "", usagef("--find: there is no field %q; try id_card, name or mobile", field)
	}
	text, err := a.readValue(ctx, fmt.Sprintf("%s to look for (not shown): ", f))
	if err != nil {
		return "", "", fmt.Errorf("--find: read the value from standard input: %w", err)
	}
	index := policy.Index(f, result.NewSensitive(strings.TrimSpace(text)))
	if index == "" {
		return "", "", usagef("--find: give a value of %s on standard input", f)
	}
	if rule := policy.Rule(f); rule != privacy.Hash && rule != privacy.SealHash && rule != privacy.MaskHash {
		return "", "", usagef("--find: %s has no blind index: privacy.fields says %s", f, rule)
	}
	return f, index, nil
}

// findStored returns what is recorded of a token, whatever its product if product
// is empty.
func findStored(ctx context.Context, records sinks.RecordKeeper, product, token string) (*privacy.Record, error) {
	for _, key := range keys(product, token) {
		rec, err := records.Get(ctx, key)
		if !errors.Is(err, sinks.ErrNotFound) {
			return rec, err
		}
	}
	for _, key := range keys(product, token) {
		held, err := records.Holds(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("look for its tombstone in sink %s: %w", records.Name(), err)
		}
		if held.Erased != nil {
			return nil, erasedError(records.Name(), *held.Erased)
		}
	}
	return nil, fmt.Errorf("sink %s has no result of this token; \"faceid-ingest where\" looks in other places", records.Name())
}
