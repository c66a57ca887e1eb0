package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type listCmd struct {
	Day     string `help:"Results of one day in the local time zone, as 2006-01-02." placeholder:"DAY" xor:"time"`
	From    string `help:"Results from this day or time (RFC 3339) on." placeholder:"TIME"`
	To      string `help:"Results before this day or time." placeholder:"TIME"`
	Account string `help:"Results of this account." placeholder:"NAME"`
	Product string `help:"Results of this product: enhanced or eid." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Rule    string `name:"rule-id" help:"Results of this rule." placeholder:"ID"`
	Verdict string `help:"Only passed or only failed checks." enum:",passed,failed" default:"" placeholder:"VERDICT"`
	Code    *int64 `help:"Results with this code (see the codes command)." placeholder:"CODE"`
	Find    string `help:"Results of a person: the field to look up by its blind index, such as id_card, name or mobile. Its value is read from standard input, so that it stays out of the shell's history." placeholder:"FIELD"`
	Limit   int    `short:"n" help:"At most so many, the latest first; 0 is all." default:"0"`
	Sink    string `help:"Record sink to read from; the first one if left out." placeholder:"NAME"`
	JSON    bool   `help:"Print one JSON object per line."`
}

func (c *listCmd) Run(ctx context.Context, a *app) (err error) {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	s, records, err := a.openRecords(ctx, c.Sink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if c.Find != "" {
		if filter.IndexField, filter.Index, err = lookUp(s.policy, c.Find, a.stdin); err != nil {
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
		if _, err := fmt.Fprintf(out, "%-19s %-8s %-12s %-6s %-7s %6s %6s %6s %s\n",
			"FETCHED", "PRODUCT", "ACCOUNT", "RULE", "VERDICT", "CODE", "SIM", "ASSETS", "TOKEN"); err != nil {
			return err
		}
	}
	verdict := "failed"
	if s.Passed {
		verdict = "passed"
	}
	_, err := fmt.Fprintf(out, "%-19s %-8s %-12s %-6s %-7s %6d %6s %6d %s\n", s.FetchedAt.Local().Format(time.DateTime), s.Product,
		s.Account, dash(s.RuleID), verdict, s.Code, dash(s.Similarity), s.Assets, printable([]byte(s.Token)))
	return err
}

func (c *listCmd) filter() (sinks.Filter, error) {
	f := sinks.Filter{Account: c.Account, Product: result.Product(c.Product), RuleID: c.Rule, Code: c.Code, Limit: c.Limit}
	if c.Limit < 0 {
		return f, errors.New("--limit must not be negative")
	}
	if c.Verdict != "" {
		passed := c.Verdict == "passed"
		f.Passed = &passed
	}
	if c.Day != "" && c.From+c.To != "" {
		return f, errors.New("--day does not go with --from and --to")
	}
	if c.Day != "" {
		day, err := time.ParseInLocation(time.DateOnly, c.Day, time.Local)
		if err != nil {
			return f, fmt.Errorf("--day must be a day such as %s", time.Now().Format(time.DateOnly))
		}
		f.From, f.To = day, day.AddDate(0, 0, 1)
	}
	for _, bound := range []struct {
		flag, text string
		at         *time.Time
	}{{"--from", c.From, &f.From}, {"--to", c.To, &f.To}} {
		if bound.text == "" {
			continue
		}
		at, err := parseTime(bound.text)
		if err != nil {
			return f, fmt.Errorf("%s %w", bound.flag, err)
		}
		*bound.at = at
	}
	return f, nil
}

// parseTime reads a local day or a time with its zone.
func parseTime(text string) (time.Time, error) {
	if day, err := time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return day, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("must be a day such as %[1]s or a time such as %[1]sT08:30:00+08:00", time.Now().Format(time.DateOnly))
	}
	return at, nil
}

// maxValue bounds a value to look up, in bytes.
const maxValue = 4096

// lookUp makes the blind index of a value that it reads.
func lookUp(policy *privacy.Policy, field string, in io.Reader) (privacy.Field, string, error) {
	f := privacy.Field(field)
	if !f.Valid() {
		return "", "", fmt.Errorf("--find: there is no field %q; try id_card, name or mobile", field)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxValue))
	if err != nil {
		return "", "", fmt.Errorf("--find: read the value from standard input: %w", err)
	}
	index := policy.Index(f, result.NewSensitive(strings.TrimSpace(string(text))))
	if index == "" {
		return "", "", fmt.Errorf("--find: give a value of %s on standard input", f)
	}
	if rule := policy.Rule(f); rule != privacy.Hash && rule != privacy.SealHash && rule != privacy.MaskHash {
		return "", "", fmt.Errorf("--find: %s has no blind index: privacy.fields says %s", f, rule)
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
	return nil, fmt.Errorf("sink %s has no result of this token", records.Name())
}
