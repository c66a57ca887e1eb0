package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

type deadCmd struct {
	List deadListCmd `cmd:"" help:"List dead letters, oldest first."`
	Show deadShowCmd `cmd:"" help:"Show one dead letter with its event."`
}

type deadListCmd struct {
	Account string `help:"Only letters of this account." placeholder:"NAME"`
	Reason  string `help:"Only letters with this reason: ${enum}." enum:",malformed,rejected,unfinished,expired,refused" default:"" placeholder:"REASON"`
	JSON    bool   `help:"Print one JSON object per line."`
}

// letter is the JSON form of a dead letter.
type letter struct {
	Sequence  uint64          `json:"sequence"`
	Account   string          `json:"account"`
	Reason    event.Reason    `json:"reason"`
	Code      string          `json:"code,omitempty"`
	Detail    string          `json:"detail"`
	Attempts  uint64          `json:"attempts"`
	FirstTime time.Time       `json:"first_time"`
	LastTime  time.Time       `json:"last_time"`
	Subject   string          `json:"subject"`
	EventSeq  uint64          `json:"event_sequence"`
	Event     json.RawMessage `json:"event,omitempty"`
	Body      []byte          `json:"body_base64,omitempty"`
}

func newLetter(l event.DeadLetter) letter {
	return letter{
		Sequence: l.Sequence, Account: l.Account, Reason: l.Reason, Code: l.Code, Detail: l.Detail,
		Attempts: l.Attempts, FirstTime: l.First, LastTime: l.Last, Subject: l.Subject, EventSeq: l.StreamSequence,
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
	err = event.ReadDeadLetters(ctx, conn.JS, func(l event.DeadLetter) error {
		if c.Account != "" && c.Account != l.Account || c.Reason != "" && c.Reason != string(l.Reason) {
			return nil
		}
		count++
		if c.JSON {
			return lines.Encode(newLetter(l))
		}
		if count == 1 {
			_, _ = fmt.Fprintln(table, "SEQ\tACCOUNT\tREASON\tCODE\tATTEMPTS\tLAST\tDETAIL")
		}
		_, err := fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\n",
			l.Sequence, l.Account, l.Reason, dash(l.Code), l.Attempts, l.Last.Local().Format(time.DateTime), l.Detail)
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
		{"sequence", l.Sequence}, {"account", l.Account}, {"reason", l.Reason}, {"code", dash(l.Code)},
		{"detail", l.Detail}, {"attempts", l.Attempts},
		{"published", l.First.Local().Format(time.RFC3339)}, {"given up", l.Last.Local().Format(time.RFC3339)},
		{"subject", l.Subject}, {"event sequence", l.StreamSequence},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%v\n", row[0], row[1])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", printable(l.Body))
	return err
}
