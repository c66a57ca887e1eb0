package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// keyUse is what one key seals in one sink, or in the parking.
type keyUse struct {
	Sink string `json:"sink"`
	// Holds is what Values are: record (fields of records), media (files or objects) or
	// parked (results).
	Holds string `json:"holds"`
	Key   string `json:"key"`
	// State is the key's; missing if the keyring does not have it.
	State string `json:"state"`
	// Tokens is how many results hold Values.
	Tokens int `json:"tokens"`
	Values int `json:"values"`
}

// missingKey is the state of a key that values need and the keyring lacks.
const missingKey = "missing"

// sinkUse is what is sealed in one sink.
type sinkUse struct {
	sink, holds string
	tokens      int
	// keys are counted by id.
	keys map[string]keyUse
	// failed is how many tokens could not be looked at, and err why: the first of
	// these, or what ended the list.
	failed int
	err    error
}

// add counts the values of one token.
func (u *sinkUse) add(use map[string]int) {
	u.tokens++
	for id, n := range use {
		k := u.keys[id]
		k.Tokens++
		k.Values += n
		u.keys[id] = k
	}
}

// list returns what is counted, in the order of key ids.
func (u *sinkUse) list(keys *privacy.Keyring) []keyUse {
	list := make([]keyUse, 0, len(u.keys))
	for _, id := range slices.Sorted(maps.Keys(u.keys)) {
		k := u.keys[id]
		k.Sink, k.Holds, k.Key, k.State = u.sink, u.holds, id, missingKey
		if state, known := stateOf(keys, id); known {
			k.State = string(state)
		}
		list = append(list, k)
	}
	return list
}

// keyUser is a sink whose values can be counted by key.
type keyUser interface {
	Name() string
	Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error]
	KeyUse(ctx context.Context, key sinks.Key) (map[string]int, error)
}

// countKeys asks all that a sink holds which keys seal it. What is damaged is counted as
// failed, and does not end it.
func countKeys(ctx context.Context, sink keyUser, show func(sink string, at sinks.Key)) *sinkUse {
	use := &sinkUse{sink: sink.Name(), holds: "record", keys: map[string]keyUse{}}
	if _, archive := sink.(sinks.ArchiveKeeper); archive {
		use.holds = "media"
	}
	var mu sync.Mutex // of use
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for key, err := range sink.Keys(ctx, sinks.Key{}) {
		if err != nil {
			mu.Lock()
			use.err = errors.Join(use.err, err)
			mu.Unlock()
			break
		}
		show(use.sink, key)
		group.Go(func() error {
			found, err := sink.KeyUse(ctx, key)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, sinks.ErrNotFound), errors.Is(err, sinks.ErrErased):
				// It was erased in between.
			case err != nil:
				use.failed++
				if use.err == nil {
					use.err = fmt.Errorf("%s %s: %w", key.Product, key.Hash, err)
				}
			default:
				use.add(found)
			}
			return nil
		})
	}
	_ = group.Wait() // errors are in use
	return use
}

// countParked asks the parking which keys seal what is parked; nothing is if it is nil.
func countParked(ctx context.Context, nats keymark.NATS) *sinkUse {
	use := &sinkUse{sink: parkedName, holds: parkedName, keys: map[string]keyUse{}}
	if nats.Parked == nil {
		return use
	}
	found, err := nats.Parked.KeyUse(ctx)
	use.err = err
	for id, n := range found {
		use.tokens += n
		use.keys[id] = keyUse{Tokens: n, Values: n}
	}
	return use
}

// countAll counts in the parking and in every sink of a store whose places are given,
// and tells of what cannot be.
func (s *store) countAll(ctx context.Context, places []keymark.Place, show func(string, sinks.Key)) []*sinkUse {
	var all []*sinkUse
	for _, place := range places {
		switch p := place.(type) {
		case keymark.NATS:
			all = append(all, countParked(ctx, p))
		case keymark.Sink:
			all = append(all, countKeys(ctx, p.Keeper, show))
		default:
			_, err := p.Keyring(ctx)
			name := strings.TrimPrefix(p.Name(), "sink ")
			if p.Name() == (keymark.NATS{}).Name() {
				name = parkedName
			}
			all = append(all, &sinkUse{sink: name, err: err})
		}
	}
	return all
}

type keysStatusCmd struct {
	JSON bool `help:"Print one JSON object."`
}

// keysStatus is the JSON form of what keys status tells.
type keysStatus struct {
	File string `json:"file"`
	// Fingerprint is empty, and Keys are none, where there is no keyring.
	Fingerprint string            `json:"fingerprint,omitempty"`
	Protection  string            `json:"protection,omitempty"`
	Keys        []privacy.KeyInfo `json:"keys"`
	Places      []placeStatus     `json:"places"`
	Use         []keyUse          `json:"use"`
	Daemons     []daemonStatus    `json:"daemons"`
	// Problems say what is wrong, or could not be looked at.
	Problems []string `json:"problems"`
}

type placeStatus struct {
	Place       string    `json:"place"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	ActiveKey   string    `json:"active_key,omitempty"`
	Since       time.Time `json:"since,omitzero"`
	// State is same, other, older (the keyring lacks the active key), none (nothing is
	// noted yet) or unseen.
	State string `json:"state"`
}

type daemonStatus struct {
	ID      string `json:"id"`
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Version string `json:"version"`
	// Fingerprint and ActiveKey are empty of a version that does not tell them.
	Fingerprint string `json:"fingerprint,omitempty"`
	ActiveKey   string `json:"active_key,omitempty"`
}

// Run tells all that is known of the keyring, whatever it is. It makes none.
func (c *keysStatusCmd) Run(ctx context.Context, a *app) (err error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	policy, keys, err := preparePolicy(ctx, cfg)
	if err != nil {
		return err
	}
	s, places := a.openPlaces(ctx, cfg, policy)
	defer func() { err = errors.Join(err, s.close()) }()

	status := keysStatus{File: keys.Path(), Keys: []privacy.KeyInfo{}, Use: []keyUse{}, Daemons: []daemonStatus{}, Problems: []string{}}
	if keys.Made() {
		status.Fingerprint, status.Protection, status.Keys = keys.Fingerprint(), protection(keys), keys.List()
	}
	findings := keymark.Examine(ctx, keys, places)
	for _, f := range findings {
		status.Places = append(status.Places, placeStatus{f.Place.Name(), f.Mark.Fingerprint, f.Mark.ActiveKey, f.Mark.Since, stateOfPlace(f)})
	}
	show, done := sinkBar(a.stderr, "counting", c.JSON)
	uses := s.countAll(ctx, places, show)
	done()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, use := range uses {
		status.Use = append(status.Use, use.list(keys)...)
		if use.err != nil {
			status.Problems = append(status.Problems, fmt.Sprintf("sink %s: what it holds could not all be looked at: %v", use.sink, use.err))
		}
	}
	for _, f := range findings {
		if _, closed := f.Place.(closedPlace); f.Unseen != nil && !closed { // why it is closed was said
			status.Problems = append(status.Problems, fmt.Sprintf("%s: whether this keyring seals what is there could not be looked at: %v", f.Place.Name(), f.Unseen))
		}
	}
	status.Problems = append(status.Problems, s.readDaemons(ctx, &status)...)
	if err := c.print(a, status); err != nil {
		return err
	}

	if refused := refusal(cfg, keys, findings); refused != nil {
		return refused
	}
	if len(status.Problems) > 0 {
		return errPartial
	}
	return nil
}

func stateOfPlace(f keymark.Finding) string {
	var old *privacy.OldKeyringError
	switch {
	case f.Unseen != nil:
		return "unseen"
	case errors.As(f.Refusal, &old):
		return "older"
	case f.Refusal != nil:
		return "other"
	case f.Mark.IsZero():
		return "none"
	}
	return "same"
}

// readDaemons adds what the daemons that run say of their keyrings, and returns what is
// wrong with that.
func (s *store) readDaemons(ctx context.Context, status *keysStatus) (problems []string) {
	if s.js == nil {
		return nil // that NATS is away is said already
	}
	reports, err := replica.List(ctx, s.js)
	if err != nil {
		return []string{fmt.Sprintf("the daemons cannot be seen: %v", err)}
	}
	for _, r := range reports {
		d := daemonStatus{r.ID, r.Host, r.PID, r.Version, r.Keyring.Fingerprint, r.Keyring.ActiveKey}
		status.Daemons = append(status.Daemons, d)
		if d.Fingerprint != "" && d.Fingerprint != status.Fingerprint {
			problems = append(problems, fmt.Sprintf("daemon %s on %s seals with another keyring", d.ID, d.Host))
		}
	}
	return problems
}

func (c *keysStatusCmd) print(a *app, s keysStatus) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(s)
	}
	var page strings.Builder
	if s.Fingerprint == "" {
		_, _ = fmt.Fprintf(&page, "keyring %s: there is none\n", s.File)
	} else {
		_, _ = fmt.Fprintf(&page, "keyring %s, %s, fingerprint %s\n", s.File, s.Protection, s.Fingerprint)
	}
	section(&page, "NOTED IN\tFINGERPRINT\tACTIVE KEY\tSTATE", len(s.Places), func(w io.Writer, i int) {
		p := s.Places[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Place, dash(p.Fingerprint), dash(p.ActiveKey), p.State)
	})
	section(&page, "KEY\tCREATED\tSTATE", len(s.Keys), func(w io.Writer, i int) {
		k := s.Keys[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", k.ID, k.Created.Format(time.RFC3339), k.State)
	})
	section(&page, "SINK\tHOLDS\tKEY\tSTATE\tTOKENS\tVALUES", len(s.Use), func(w io.Writer, i int) {
		u := s.Use[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\n", u.Sink, u.Holds, u.Key, u.State, u.Tokens, u.Values)
	})
	section(&page, "DAEMON\tHOST\tPID\tVERSION\tFINGERPRINT\tACTIVE KEY", len(s.Daemons), func(w io.Writer, i int) {
		d := s.Daemons[i]
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", d.ID, d.Host, d.PID, d.Version, dash(d.Fingerprint), dash(d.ActiveKey))
	})
	for _, problem := range s.Problems {
		_, _ = fmt.Fprintln(a.stderr, problem)
	}
	_, err := io.WriteString(a.stdout, page.String())
	return err
}

// section prints a table with an empty line before it; nothing if it has no rows.
func section(page *strings.Builder, head string, rows int, row func(w io.Writer, i int)) {
	if rows == 0 {
		return
	}
	page.WriteByte('\n')
	table := tabwriter.NewWriter(page, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, head)
	for i := range rows {
		row(table, i)
	}
	_ = table.Flush() // into memory
}
