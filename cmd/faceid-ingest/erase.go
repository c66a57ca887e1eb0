package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type eraseCmd struct {
	tokenList `embed:""`

	Product string `help:"Product of the tokens: enhanced or eid; both are erased if left out." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Reason  string `help:"Why, for the audit log, such as a ticket number." placeholder:"TEXT"`
	Yes     bool   `help:"Erase without asking. What is erased cannot be had back."`
	DryRun  bool   `help:"Say what would be erased, and where."`
	JSON    bool   `help:"Print one JSON object per token and sink."`
}

// erased is what became of one token in one sink, or in the parking.
type erased struct {
	Token string `json:"token"`
	Sink  string `predictor:"sink" json:"sink"`
	// Error says why it is not erased there; empty if it is.
	Error string `json:"error,omitempty"`
}

func (c *eraseCmd) Run(ctx context.Context, a *app) (err error) {
	tokens, err := c.read(a)
	if err != nil {
		return err
	}
	if len(tokens) == 0 {
		return usagef("nothing to erase: name tokens, or a file with --file (- for standard input)")
	}

	s, closed, err := a.openWhatOpens(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, name := range slices.Sorted(maps.Keys(closed)) {
		_, _ = fmt.Fprintf(a.stderr, "sink %s cannot be opened, so nothing is erased there: %v\n", name, closed[name])
	}
	places, others := erasePlaces(s.sinks, c.Reason)
	if parked, err := openParking(ctx, s.cfg, s.js, s.policy); err == nil {
		// Last: what the sinks refuse from now on must not come back from there.
		places = append(places, erasePlace{parkedName, parked.Drop})
	} else {
		closed[parkedName] = err
		_, _ = fmt.Fprintf(a.stderr, "parked results cannot be reached, so none is erased: %v\n", err)
	}
	for _, sink := range others {
		_, _ = fmt.Fprintf(a.stderr, "sink %s cannot erase: what it holds of a person has to be removed where it is\n", sink.Name())
	}
	if c.DryRun {
		_, err := fmt.Fprintf(a.stdout, "would erase %s in %s\n", plural(len(tokens), "token", "tokens"), placeNames(places))
		return err
	}
	if err := c.confirm(a, len(tokens), placeNames(places)); err != nil {
		return err
	}
	log, entry := audit(s.cfg, "erase", c.Reason)
	failed := 0
	lines := json.NewEncoder(a.stdout)
	for _, named := range tokens {
		token := named.Token
		for _, key := range keys(c.Product, token) {
			entry.Product, entry.TokenHash = key.Product, key.Hash
			if err := log.Append(entry); err != nil {
				return fmt.Errorf("nothing is erased without an entry in the audit log: %w", err)
			}
		}
		for _, place := range places {
			one := erased{Token: token, Sink: place.name}
			if err := c.eraseOne(ctx, place, token); err != nil {
				failed++
				one.Error = err.Error()
				_, _ = fmt.Fprintf(a.stderr, "%s: not erased in sink %s: %v\n", token, place.name, err)
			}
			if c.JSON {
				if err := lines.Encode(one); err != nil {
					return err
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(closed)) {
			failed++
			if c.JSON {
				if err := lines.Encode(erased{token, name, closed[name].Error()}); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !c.JSON {
		_, err = fmt.Fprintf(a.stdout, "erased %s in %s, %d not\n", plural(len(tokens), "token", "tokens"), placeNames(places), failed)
	}
	if failed > 0 {
		return errors.Join(err, errPartial)
	}
	return err
}

func (c *eraseCmd) eraseOne(ctx context.Context, place erasePlace, token string) error {
	var err error
	for _, key := range keys(c.Product, token) {
		err = errors.Join(err, place.erase(ctx, key.Product, token))
	}
	return err
}

// erasePlace is a sink or the parking.
type erasePlace struct {
	name  string
	erase func(ctx context.Context, p result.Product, token string) error
}

// erasePlaces returns the sinks from which persons can be erased, and the others.
func erasePlaces(all []sinks.Sink, reason string) (places []erasePlace, others []sinks.Sink) {
	for _, sink := range all {
		e, ok := sink.(sinks.Eraser)
		if !ok {
			others = append(others, sink)
			continue
		}
		places = append(places, erasePlace{sink.Name(), func(ctx context.Context, p result.Product, token string) error {
			_, err := e.Erase(ctx, sinks.KeyOf(p, token), reason)
			return err
		}})
	}
	return places, others
}

// placeNames lists places for people.
func placeNames(places []erasePlace) string {
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

// confirm asks, unless that was answered on the command line.
func (c *eraseCmd) confirm(a *app, n int, places string) error {
	if c.Yes {
		return nil
	}
	if c.File == "-" {
		return usagef("tokens come on standard input, so nobody can be asked: add --yes, or look first with --dry-run")
	}
	_, _ = fmt.Fprintf(a.stderr, "This erases %s in %s for good. Type \"erase\" to go on: ", plural(n, "token", "tokens"), places)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != "erase" {
		return errors.New("nothing was erased")
	}
	return nil
}
