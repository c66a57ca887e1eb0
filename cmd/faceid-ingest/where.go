package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type whereCmd struct {
	Token   string `arg:"" help:"BizToken or EidToken."`
	Product string `help:"Product of the token: enhanced or eid; either if left out." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	JSON    bool   `help:"Print one JSON object per product of which anything is known."`
}

// Help is what --help says of it beside its flags.
func (whereCmd) Help() string {
	return "Looks at the queues, the parking, the dead letters, the ledger, the daemons and every sink, and changes nothing. Exit code 0: found; 1: nothing is known of it; 3: some place could not be looked at."
}

// whereabouts is the JSON form of where a token is.
type whereabouts struct {
	Token string `json:"token"`
	pipeline.Whereabouts
	Dead   []letter     `json:"dead_letters,omitempty"`
	Stored []storedIn   `json:"stored,omitempty"`
	Missed []string     `json:"missing_in,omitempty"`
	Erased *erasedWhere `json:"erased,omitempty"`
	// Unseen are the places that could not be looked at, and why.
	Unseen map[string]string `json:"unseen,omitempty"`
}

// storedIn is what a sink holds.
type storedIn struct {
	Sink string `json:"sink"`
	sinks.Holding
}

// erasedWhere is when, why and where a token was erased.
type erasedWhere struct {
	sinks.Tombstone
	Sinks []string `json:"sinks,omitempty"`
}

func (c *whereCmd) Run(ctx context.Context, a *app) error {
	if err := event.CheckToken(c.Token); err != nil {
		return usagef("%w", err)
	}
	cfg, err := a.readConfig()
	if err != nil {
		return err
	}
	if err := refuseForeign(cfg); err != nil {
		return err
	}

	products := make([]result.Product, 0, 2)
	for _, key := range keys(c.Product, c.Token) {
		products = append(products, key.Product)
	}
	found, unseen := c.locate(ctx, a, products)
	all := make([]whereabouts, len(found))
	for i, w := range found {
		all[i] = c.join(cfg, w)
	}
	c.askSinks(ctx, a, cfg, all, unseen)
	return c.print(a, all, unseen)
}

// locate asks NATS.
func (c *whereCmd) locate(ctx context.Context, a *app, products []result.Product) ([]pipeline.Whereabouts, pipeline.Unseen) {
	conn, err := a.connect(ctx)
	if err == nil {
		defer closeQuietly(conn)
		return pipeline.Locate(ctx, conn.JS, c.Token, products)
	}

	found := make([]pipeline.Whereabouts, len(products))
	for i, p := range products {
		found[i].Product = p
	}
	return found, pipeline.Unseen{"NATS": err}
}

// join begins with what NATS knows.
func (c *whereCmd) join(cfg *config.Config, w pipeline.Whereabouts) whereabouts {
	one := whereabouts{Token: c.Token, Whereabouts: w}
	for _, l := range w.Dead {
		one.Dead = append(one.Dead, newLetter(l))
	}
	if w.Erased != nil {
		one.Erased = &erasedWhere{Tombstone: *w.Erased}
	}
	if w.Parked != nil {
		for _, s := range cfg.Sinks {
			if !slices.Contains(w.Done, s.Name) {
				one.Missed = append(one.Missed, s.Name)
			}
		}
	}
	return one
}

// askSinks asks every sink that keeps something what it has.
func (c *whereCmd) askSinks(ctx context.Context, a *app, cfg *config.Config, all []whereabouts, unseen pipeline.Unseen) {
	s, closed, err := a.openToLook(ctx)
	if err != nil {
		for _, one := range cfg.Sinks {
			unseen["sink "+one.Name] = err
		}
		return
	}
	defer func() { _ = s.close() }() // only read
	for name, err := range closed {
		unseen["sink "+name] = err
	}

	for _, sink := range s.sinks {
		keeper, ok := sink.(sinks.Keeper)
		if !ok {
			continue
		}
		for i := range all {
			held, err := keeper.Holds(ctx, sinks.KeyOf(all[i].Product, c.Token))
			if err != nil {
				unseen["sink "+sink.Name()] = err
				break
			}
			all[i].add(sink.Name(), held)
		}
	}
}

// openToLook is openKept for who only asks what sinks hold: that needs no keyring, and none
// is opened or made.
func (a *app) openToLook(ctx context.Context) (*store, map[string]error, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, privacy.NewKeyring(ctx, keyringFile(cfg), keyringWrapper(cfg)))
	if err != nil {
		return nil, nil, err
	}

	s, failed := openKept(ctx, cfg, policy)
	return s, failed, nil
}

// add takes in what a sink says.
func (w *whereabouts) add(sink string, held sinks.Holding) {
	if !held.IsEmpty() {
		w.Stored = append(w.Stored, storedIn{sink, held})
	}
	if held.Erased == nil {
		return
	}
	if w.Erased == nil {
		w.Erased = &erasedWhere{Tombstone: *held.Erased}
	}
	w.Erased.Sinks = append(w.Erased.Sinks, sink)
}

// isNothing reports whether nothing is known.
func (w *whereabouts) isNothing() bool {
	return w.IsNothing() && len(w.Stored) == 0 && w.Erased == nil
}

func (c *whereCmd) print(a *app, all []whereabouts, unseen pipeline.Unseen) error {
	places := slices.Sorted(maps.Keys(unseen))
	texts := map[string]string{}
	for _, place := range places {
		texts[place] = unseen[place].Error()
		_, _ = fmt.Fprintf(a.stderr, "could not look at %s: %v\n", place, unseen[place])
	}

	all = slices.DeleteFunc(all, func(w whereabouts) bool { return w.isNothing() })
	for _, w := range all {
		w.Unseen = texts
		if err := c.printOne(a, w); err != nil {
			return err
		}
	}
	switch {
	case len(places) > 0 && len(all) == 0:
		_, _ = fmt.Fprintf(a.stderr, "nothing is known of %s where it could be looked for\n", c.Token)
		return errPartial
	case len(places) > 0:
		return errPartial
	case len(all) == 0:
		return fmt.Errorf("nothing is known of %s: no event waits, no result is parked or stored, there is no dead letter, and no sink has erased it", c.Token)
	}
	return nil
}

func (c *whereCmd) printOne(a *app, w whereabouts) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(w)
	}

	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "%s\t%s\n", w.Product, w.Token) // Flush tells of errors
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	for _, e := range w.Waiting {
		line("waiting", "%s", waitingText(e))
	}
	for _, d := range w.InWork {
		line("in work", "daemon %s (host %s, process %d), since %s", d.Replica, d.Host, d.PID, timeText(d.Since))
	}
	if p := w.Parked; p != nil {
		text := fmt.Sprintf("since %s, %s, missing in %s", timeText(p.Since), bytesText(p.Bytes), strings.Join(w.Missed, ", "))
		if p.Cause != nil {
			text += ": " + p.Cause.String()
		}
		line("parked", "%s", text)
	}
	for _, l := range w.Dead {
		line("dead letter", "%d, %s (%s), given up %s: %s", l.Sequence, l.Reason, dash(l.Code), timeText(l.LastTime), l.Detail)
	}
	for _, s := range w.Stored {
		line("stored", "sink %s: %s", s.Sink, holdingText(s.Holding))
	}
	if len(w.Done) > 0 {
		line("ledger", "done by %s", strings.Join(w.Done, ", "))
	}
	if w.Erased != nil {
		line("erased", "%s, %s", tombstoneText(w.Erased.Tombstone), erasedIn(w.Erased.Sinks))
	}
	return table.Flush()
}

// erasedIn says who knows of an erasure.
func erasedIn(names []string) string {
	if len(names) == 0 {
		return "as the ledger says; no sink that was asked has a tombstone"
	}
	return "as " + strings.Join(names, ", ") + " say"
}

// waitingText says where an event is, how often it was tried and what for it waits.
func waitingText(e pipeline.WaitingEvent) string {
	text := fmt.Sprintf("account %s, lane %s, published %s", dash(e.Account), dash(string(e.Lane)), timeText(e.Published))
	switch {
	case !e.Served:
		text += "; no daemon has served this account yet"
	case !e.Delivered:
		text += "; not tried yet, its turn comes"
	case e.Wait == nil:
		text += "; delivered, and not put off"
	default:
		text += fmt.Sprintf("; %s so far, the last %s: %s", plural(int(e.Wait.Attempts), "try", "tries"), timeText(e.Wait.Last), e.Wait.Cause)
		if !e.Wait.Next.IsZero() {
			text += "; next try " + timeText(e.Wait.Next)
		}
	}
	if !e.Deadline.IsZero() {
		text += "; Tencent deletes the result " + timeText(e.Deadline)
	}
	return text
}
