package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

type statusCmd struct {
	JSON  bool            `help:"Print JSON; with --watch, one object per line."`
	Watch bool            `short:"w" help:"Show it again and again, until interrupted."`
	Every config.Duration `default:"2s" help:"Time between two looks with --watch."`
}

// Validate says what is wrong with the flags.
func (c *statusCmd) Validate() error {
	if c.Every.Duration() < 100*time.Millisecond {
		return errors.New("--every must be 100ms or more")
	}
	return nil
}

func (c *statusCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	names := accountNames(cfg)
	if !c.Watch {
		return c.once(ctx, a, conn, names)
	}
	tick := time.NewTicker(c.Every.Duration())
	defer tick.Stop()
	for {
		if err := c.once(ctx, a, conn, names); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			// A server that restarts is no reason to stop watching it.
			_, _ = fmt.Fprintln(a.stderr, "faceid-ingest:", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// accountNames lists the accounts of cfg.
func accountNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Accounts))
	for i, account := range cfg.Accounts {
		names[i] = account.Name
	}
	return names
}

// clearScreen moves to the upper left corner and clears what is there.
const clearScreen = "\x1b[H\x1b[2J"

func (c *statusCmd) once(ctx context.Context, a *app, conn *broker.Conn, accounts []string) error {
	status, err := pipeline.ReadStatus(ctx, conn.JS, accounts)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(status)
	}
	var page strings.Builder
	if c.Watch {
		if isTerminal(a.stdout) {
			page.WriteString(clearScreen)
		}
		_, _ = fmt.Fprintf(&page, "%s\n\n", timeText(time.Now()))
	}
	printStatus(&page, status)
	_, err = io.WriteString(a.stdout, page.String())
	return err
}

// isTerminal tells whether w is one.
func isTerminal(w any) bool {
	file, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(file.Fd()))
}

// heldLegend says what the columns of a table with held events mean.
const heldLegend = `WAITING: no daemon has taken them yet. HELD: taken and not done, which means in work, or
put off until their next try. REDELIVERED: those of them that came more than once, for a
try failed or their daemon ended.
`

// waitsText says how many events wait for one cause.
func waitsText(l pipeline.WaitStatus) string {
	if l.Events == 1 {
		return fmt.Sprintf("1 of %d held events waits", l.Of)
	}
	return fmt.Sprintf("%d of %d held events wait", l.Events, l.Of)
}

// parkedText says how much is parked and what the limit is.
func parkedText(p pipeline.ParkedStatus) string {
	text := fmt.Sprintf("%s, %s", plural(p.Results, "result", "results"), bytesText(p.Bytes))
	if p.Quota > 0 {
		text += " of " + bytesText(p.Quota)
	}
	if !p.Reserved {
		text += "; the NATS server has not so much room to set aside as parking.quota says, and may be full before"
	}
	return text
}

// printStatus writes what a person wants to see first to last: what may be lost,
// then what waits.
func printStatus(w io.Writer, s pipeline.Status) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "ACCOUNT\tLANE\tWAITING\tHELD\tREDELIVERED\tOLDEST")
	for _, l := range s.Lanes {
		oldest := "-"
		if l.OldestSeconds != nil {
			oldest = seconds(*l.OldestSeconds)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", l.Account, l.Lane, l.Waiting, l.Held, l.Redelivered, oldest)
	}
	_ = table.Flush()
	if slices.ContainsFunc(s.Lanes, func(l pipeline.LaneStatus) bool { return l.Held > 0 }) {
		_, _ = fmt.Fprint(w, heldLegend)
	}
	for _, l := range s.Waits {
		_, _ = fmt.Fprintf(w, "account %s: %s: %s\n", l.Account, waitsText(l), l.Text)
	}
	_, _ = fmt.Fprintf(w, "\nevents stored: %d, dead letters: %d, daemons: %d\n", s.Events, s.Dead, len(s.Replicas))
	for _, d := range s.Deadlines {
		what := "the result of %s is deleted by Tencent in %s, and not stored yet"
		if d.LeftSeconds < 0 {
			what = "the result of %s was due to be deleted by Tencent %s ago, and is not stored"
		}
		_, _ = fmt.Fprintf(w, "nearest deadline of account %s: "+what+"\n", d.Account, d.Token, seconds(max(d.LeftSeconds, -d.LeftSeconds)))
	}
	for _, p := range s.Paused {
		_, _ = fmt.Fprintf(w, "account %s is paused by daemon %s since %s: %s\n", p.Account, p.Replica, timeText(p.Since), p.Text)
	}
	for _, d := range s.SinksDown {
		_, _ = fmt.Fprintf(w, "sink %s does not take results of daemon %s since %s (%s)\n", d.Sink, d.Replica, timeText(d.Since), d.Class)
	}
	if s.Parked.Results > 0 {
		_, _ = fmt.Fprintf(w, "parked: %s\n", parkedText(s.Parked))
	}
	for _, account := range slices.Sorted(maps.Keys(s.DeadByReason)) {
		for _, reason := range slices.Sorted(maps.Keys(s.DeadByReason[account])) {
			_, _ = fmt.Fprintf(w, "dead letters of account %s, %s: %d\n", account, reason, s.DeadByReason[account][reason])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Strangers)) {
		_, _ = fmt.Fprintf(w, "%d of account %q, which is not configured: nobody takes them\n", s.Strangers[name], name)
	}
}
