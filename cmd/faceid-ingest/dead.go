package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

type deadCmd struct {
	List  deadListCmd  `cmd:"" help:"List dead letters, oldest first."`
	Show  deadShowCmd  `cmd:"" help:"Show one dead letter with its event and its history."`
	Retry deadRetryCmd `cmd:"" help:"Have events of dead letters worked on once more. What sinks have of their results already they are not given again."`
	Drop  deadDropCmd  `cmd:"" help:"Remove dead letters for good, and what is parked of their results."`
}

// deadFilter picks dead letters.
type deadFilter struct {
	Account string `predictor:"account" help:"Only letters of this account." placeholder:"NAME"`
	Reason  string `help:"Only letters with this reason: malformed, rejected, unfinished, expired, refused or crashed." enum:",malformed,rejected,unfinished,expired,refused,crashed" default:"" placeholder:"REASON"`
	Code    string `help:"Only letters with this code." placeholder:"CODE"`
	From    when   `aliases:"newer-than" help:"Only letters that were given up at or after this time: a day, \"2026-11-29 08:30\" (in the zone of this machine), RFC 3339, or how long ago, such as 2d." placeholder:"TIME"`
	To      when   `aliases:"older-than" help:"Only letters that were given up before this time, given likewise." placeholder:"TIME"`
	Limit   int    `short:"n" help:"At most so many, the oldest first; 0 is all." default:"0"`
}

// Validate says what is wrong with the flags.
func (f deadFilter) Validate() error {
	if f.Limit < 0 {
		return errors.New("--limit must be 0, for all, or more")
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To.Time) {
		return errors.New("--from must be before --to")
	}
	return nil
}

// isSet reports whether any filter was given.
func (f deadFilter) isSet() bool { return f != deadFilter{} }

func (f deadFilter) fits(l event.DeadLetter) bool {
	return (f.Account == "" || f.Account == l.Account) && (f.Reason == "" || f.Reason == string(l.Reason)) &&
		(f.Code == "" || f.Code == l.Code) && (f.From.IsZero() || !l.Last.Before(f.From.Time)) && (f.To.IsZero() || l.Last.Before(f.To.Time))
}

// errEnough ends a reading that has what it wanted.
var errEnough = errors.New("enough")

// read visits the letters that fit, oldest first.
func (f deadFilter) read(ctx context.Context, js jetstream.JetStream, visit func(event.DeadLetter) error) error {
	count := 0
	err := event.ReadDeadLetters(ctx, js, func(l event.DeadLetter) error {
		if !f.fits(l) {
			return nil
		}
		count++
		if err := visit(l); err != nil {
			return err
		}
		if count == f.Limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

type deadListCmd struct {
	deadFilter
	JSON bool `help:"Print one JSON object per line."`
}

// letter is the JSON form of a dead letter.
type letter struct {
	Sequence  uint64          `json:"sequence"`
	Account   string          `json:"account"`
	Product   result.Product  `json:"product,omitempty"`
	Token     string          `json:"token,omitempty"`
	Reason    event.Reason    `json:"reason"`
	Code      string          `json:"code,omitempty"`
	Detail    string          `json:"detail"`
	Attempts  uint64          `json:"attempts"`
	FirstTime time.Time       `json:"first_time"`
	LastTime  time.Time       `json:"last_time"`
	Subject   string          `json:"subject"`
	EventSeq  uint64          `json:"event_sequence"`
	History   []event.Burial  `json:"history,omitempty"`
	Event     json.RawMessage `json:"event,omitempty"`
	Body      []byte          `json:"body_base64,omitempty"`
}

func newLetter(l event.DeadLetter) letter {
	return letter{
		Sequence: l.Sequence, Account: l.Account, Product: l.Product, Token: l.Token, Reason: l.Reason, Code: l.Code, Detail: l.Detail,
		Attempts: l.Attempts, FirstTime: l.First, LastTime: l.Last, Subject: l.Subject, EventSeq: l.StreamSequence,
		History: l.History,
	}
}

func (c *deadListCmd) Run(ctx context.Context, a *app) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	lines := json.NewEncoder(a.stdout)
	count := 0
	err = c.read(ctx, conn.JS, func(l event.DeadLetter) error {
		count++
		if c.JSON {
			return lines.Encode(newLetter(l))
		}
		if count == 1 {
			_, _ = fmt.Fprintln(table, "SEQ\tACCOUNT\tREASON\tCODE\tATTEMPTS\tLAST\tPRODUCT\tTOKEN\tDETAIL")
		}
		_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n",
			l.Sequence, l.Account, l.Reason, dash(l.Code), l.Attempts, timeText(l.Last), dash(string(l.Product)), dash(l.Token), l.Detail)
		return err
	})
	if err != nil || c.JSON {
		return err
	}
	if count == 0 {
		_, err := fmt.Fprintln(a.stdout, "no dead letters")
		return err
	}
	return table.Flush()
}

type deadShowCmd struct {
	Sequence uint64 `arg:"" name:"seq" help:"Number of the letter, as \"dead list\" shows it."`
	JSON     bool   `help:"Print JSON."`
}

func (c *deadShowCmd) Run(ctx context.Context, a *app) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer closeQuietly(conn)
	l, err := event.GetDeadLetter(ctx, conn.JS, c.Sequence)
	if errors.Is(err, event.ErrNoDeadLetter) {
		return fmt.Errorf("there is no dead letter %d; \"faceid-ingest dead list\" shows those there are", c.Sequence)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		out := newLetter(l)
		if json.Valid(l.Body) {
			out.Event = l.Body
		} else {
			out.Body = l.Body
		}
		return json.NewEncoder(a.stdout).Encode(out)
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, row := range [][2]any{
		{"sequence", l.Sequence}, {"account", l.Account}, {"product", dash(string(l.Product))}, {"token", dash(l.Token)}, {"reason", l.Reason}, {"code", dash(l.Code)},
		{"detail", l.Detail}, {"attempts", l.Attempts},
		{"published", timeText(l.First)}, {"given up", timeText(l.Last)},
		{"subject", l.Subject}, {"event sequence", l.StreamSequence},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%v\n", row[0], row[1])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if err := showHistory(a, l.History); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", printable(l.Body))
	return err
}

// showHistory prints the earlier burials of a letter, oldest first, if there are any.
func showHistory(a *app, history []event.Burial) error {
	if len(history) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nGIVEN UP BEFORE\tREASON\tCODE\tATTEMPTS")
	for _, b := range history {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\n", timeText(b.Time), b.Reason, dash(b.Code), b.Attempts)
	}
	return table.Flush()
}
