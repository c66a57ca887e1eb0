package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type eraseCmd struct {
	tokenList `embed:""`

	Product string `help:"Product of the tokens: enhanced or eid; both are erased if left out." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Reason  string `help:"Why, for the audit log and for who looks for the result later, such as a ticket number; no name." placeholder:"TEXT"`
	Yes     bool   `help:"Erase without asking. What is erased cannot be had back."`
	DryRun  bool   `help:"Look what is there, and erase nothing."`
	JSON    bool   `help:"Print one JSON object per token and place."`
}

// erasedLine is the JSON form of erased. What is not known is left out: nothing is said of
// what is held where there is an error, or of a sink that holds nothing.
type erasedLine struct {
	Token string `json:"token"`
	Sink  string `json:"sink,omitempty"`
	Place string `json:"place,omitempty"`
	*sinks.Holding
	Events *int   `json:"events,omitempty"`
	Told   bool   `json:"told,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (e erased) line() erasedLine {
	l := erasedLine{Token: e.Token, Sink: e.Sink, Place: e.Place, Told: e.Told, Error: e.Error}
	switch {
	case e.Error != "" || e.Told:
	case e.Place != "":
		l.Events = &e.Events
	default:
		l.Holding = &e.Holding
	}
	return l
}

// erased is what became of one token in one sink, in the parking, or, as place, in the
// streams.
type erased struct {
	Token, Sink, Place string
	// Holding is what was there and is gone, or would be; Erased in it is when and why
	// the token was erased before.
	sinks.Holding
	// Events is how many messages of a stream are gone.
	Events int
	// Told says that a sink that holds nothing has told its receivers.
	Told bool
	// Error says why it is not erased there; empty if it is.
	Error string
}

// isEmpty reports whether nothing was there.
func (e erased) isEmpty() bool { return e.IsEmpty() && e.Events == 0 }

// text says what was there.
func (e erased) text() string {
	name := cmp.Or(e.Sink, e.Place)
	switch {
	case e.Error != "":
		return name + ": failed"
	case e.Told:
		return name + ": tells its receivers"
	case e.Events > 0:
		return fmt.Sprintf("%s: %d", name, e.Events)
	}
	return name + ": " + holdingText(e.Holding)
}

// holdingText says what a sink holds.
func holdingText(h sinks.Holding) string {
	var parts []string
	if h.Records > 0 {
		parts = append(parts, plural(h.Records, "result", "results"))
	}
	if h.Assets > 0 {
		parts = append(parts, plural(h.Assets, "asset", "assets"))
	}
	if h.Bytes > 0 {
		parts = append(parts, bytesText(h.Bytes))
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// tombstoneText says when and why a token was erased.
func tombstoneText(t sinks.Tombstone) string {
	text := "at a time that nobody noted"
	if !t.At.IsZero() {
		text = "on " + timeText(t.At)
	}
	if t.Reason != "" {
		text += fmt.Sprintf(" (%s)", printable([]byte(t.Reason)))
	}
	return text
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

	run := &eraseRun{eraseCmd: c, app: a, store: s, tokens: tokens, closed: closed}
	run.open(ctx)
	if c.DryRun {
		return run.all(ctx)
	}
	if err := c.confirm(a, len(tokens), run.names()); err != nil {
		return err
	}
	if err := run.audit(); err != nil {
		return err
	}
	return run.all(ctx)
}

// eraseRun is one run of the command.
type eraseRun struct {
	*eraseCmd
	app    *app
	store  *store
	tokens []namedToken
	places []erasePlace
	// closed are the places that cannot be reached, and why.
	closed map[string]error

	gone, absent, failed int
}

// erasePlace is a sink, or the parking.
type erasePlace struct {
	name string
	// look says what is there, erase takes it away and says what that was.
	look, erase func(context.Context, sinks.Key) (erased, error)
}

// open finds the places where something of the tokens may be.
func (r *eraseRun) open(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(r.closed)) {
		_, _ = fmt.Fprintf(r.app.stderr, "sink %s cannot be opened, so nothing is erased there: %v\n", name, r.closed[name])
	}
	for _, sink := range r.store.sinks {
		if e, ok := sink.(sinks.Eraser); ok {
			r.places = append(r.places, sinkPlace(e, r.Reason))
		} else {
			_, _ = fmt.Fprintf(r.app.stderr, "sink %s cannot erase: what it holds of a person has to be removed where it is\n", sink.Name())
		}
	}

	parked, err := openParking(ctx, r.store.cfg, r.store.js, r.store.policy)
	if err != nil {
		r.closed[parkedName] = err
		_, _ = fmt.Fprintf(r.app.stderr, "parked results cannot be reached, so none is erased: %v\n", err)
		return
	}
	// Last: what the sinks refuse from now on must not come back from there.
	r.places = append(r.places, parkedPlace(r.store.js, parked))
}

func sinkPlace(e sinks.Eraser, reason string) erasePlace {
	keeper, keeps := e.(sinks.Keeper)
	return erasePlace{
		name: e.Name(),
		look: func(ctx context.Context, key sinks.Key) (one erased, err error) {
			if one.Told = !keeps; keeps {
				one.Holding, err = keeper.Holds(ctx, key)
			}
			return one, err
		},
		erase: func(ctx context.Context, key sinks.Key) (one erased, err error) {
			one.Told = !keeps
			one.Holding, err = e.Erase(ctx, key, reason)
			return one, err
		},
	}
}

func parkedPlace(js jetstream.JetStream, store *parking.Store) erasePlace {
	look := func(ctx context.Context, key sinks.Key) (one erased, err error) {
		held, err := parking.Find(ctx, js, key)
		if held != nil {
			one.Holding = sinks.Holding{Records: 1, Bytes: held.Bytes}
		}
		return one, err
	}
	return erasePlace{name: parkedName, look: look, erase: func(ctx context.Context, key sinks.Key) (erased, error) {
		one, err := look(ctx, key)
		if err == nil {
			err = store.DropKey(ctx, key)
		}
		return one, err
	}}
}

// names lists the places for people.
func (r *eraseRun) names() string {
	names := make([]string, len(r.places))
	for i, p := range r.places {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

// audit notes all tokens, before anything is erased.
func (r *eraseRun) audit() error {
	log, entry := audit(r.store.cfg, "erase", r.Reason)
	for _, token := range r.tokens {
		for _, key := range token.keys(r.Product) {
			entry.Product, entry.TokenHash = key.Product, key.Hash
			if err := log.Append(entry); err != nil {
				return fmt.Errorf("nothing is erased without an entry in the audit log: %w", err)
			}
		}
	}
	return nil
}

// all erases one token after the other, or looks what would be.
func (r *eraseRun) all(ctx context.Context) error {
	if !r.DryRun {
		r.mark(ctx)
	}
	streams := r.streams(ctx)

	for _, token := range r.tokens {
		lines := make([]erased, 0, len(r.places)+len(streams))
		for _, place := range r.places {
			lines = append(lines, r.at(ctx, place, token))
		}
		for _, name := range slices.Sorted(maps.Keys(r.closed)) {
			lines = append(lines, erased{Token: token.Token, Sink: name, Error: r.closed[name].Error()})
		}
		for _, stream := range streams {
			one := erased{Token: token.Token, Place: stream.name, Events: stream.counts[token.Token]}
			if stream.err != nil {
				one.Error = stream.err.Error()
			}
			lines = append(lines, one)
		}
		if err := r.tell(token.Token, lines); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return r.sum()
}

// mark notes in the ledger that the tokens are erased, so that events in work end. Where
// that fails, only sinks that keep tombstones refuse them.
func (r *eraseRun) mark(ctx context.Context) {
	stone := sinks.NewTombstone(r.Reason)
	for _, token := range r.tokens {
		for _, key := range token.keys(r.Product) {
			if err := pipeline.MarkErased(ctx, r.store.js, key, stone); err != nil {
				r.failed++
				_, _ = fmt.Fprintf(r.app.stderr, "the ledger cannot be told, so that events on the way are pulled before the sinks refuse them; repeat this: %v\n", err)
				return
			}
		}
	}
}

// at erases a token in one place, or looks.
func (r *eraseRun) at(ctx context.Context, place erasePlace, token namedToken) erased {
	sum := erased{Token: token.Token, Sink: place.name}
	do, what := place.erase, "not erased"
	if r.DryRun {
		do, what = place.look, "not looked at"
	}

	var failed error
	for _, key := range token.keys(r.Product) {
		one, err := do(ctx, key)
		failed = errors.Join(failed, err)
		sum.Records, sum.Assets, sum.Bytes = sum.Records+one.Records, sum.Assets+one.Assets, sum.Bytes+one.Bytes
		sum.Told = one.Told
		if one.Erased != nil {
			sum.Erased = one.Erased
		}
	}
	if failed != nil {
		sum.Error = failed.Error()
		_, _ = fmt.Fprintf(r.app.stderr, "%s: %s in sink %s: %v\n", token.Token, what, place.name, failed)
	}
	return sum
}

// streamPlace is what the streams held of the tokens.
type streamPlace struct {
	name   string
	counts map[string]int
	err    error
}

// streams takes the events and dead letters of all tokens off their streams, or looks for
// them.
func (r *eraseRun) streams(ctx context.Context) []streamPlace {
	tokens := event.Tokens{}
	for _, token := range r.tokens {
		for _, key := range token.keys(r.Product) {
			tokens[token.Token] = append(tokens[token.Token], key.Product)
		}
	}
	events := streamPlace{name: "events", counts: map[string]int{}}
	events.err = event.Find(ctx, r.store.js, tokens, func(found event.Stored) error {
		events.counts[found.Token]++
		return r.eraseMessage(ctx, found.Stream, found.Place.Sequence)
	})
	letters := streamPlace{name: "dead letters", counts: map[string]int{}}
	letters.err = event.FindDead(ctx, r.store.js, tokens, func(token string, l event.DeadLetter) error {
		letters.counts[token]++
		return r.eraseMessage(ctx, event.DeadStream, l.Sequence)
	})

	places := []streamPlace{events, letters}
	for _, place := range places {
		if place.err != nil {
			_, _ = fmt.Fprintf(r.app.stderr, "%s cannot be looked through, so not all are erased: %v\n", place.name, place.err)
		}
	}
	return places
}

func (r *eraseRun) eraseMessage(ctx context.Context, name string, sequence uint64) error {
	if r.DryRun {
		return nil
	}
	stream, err := r.store.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", name, err)
	}
	return event.Erase(ctx, stream, sequence)
}

// tell says what became of one token, and counts it.
func (r *eraseRun) tell(token string, lines []erased) error {
	there, failed := false, false
	var before *sinks.Tombstone
	texts := make([]string, 0, len(lines))
	for _, one := range lines {
		there = there || !one.isEmpty()
		if one.Error != "" {
			failed = true
			r.failed++
		}
		if before == nil {
			before = one.Erased
		}
		texts = append(texts, one.text())
	}
	switch {
	case there:
		r.gone++
	case !failed: // of what was not looked at nobody knows
		r.absent++
	}

	if r.JSON {
		out := json.NewEncoder(r.app.stdout)
		for _, one := range lines {
			if err := out.Encode(one.line()); err != nil {
				return err
			}
		}
		return nil
	}
	text := strings.Join(texts, "; ")
	switch {
	case there, failed:
	case before != nil:
		text = "nothing is there: it was erased " + tombstoneText(*before)
	case r.DryRun:
		text = "nothing is there"
	default:
		text = "nothing was there; should its event still come, nothing of it will be stored"
	}
	_, err := fmt.Fprintf(r.app.stdout, "%s  %s\n", token, text)
	return err
}

// sum says what became of all tokens. Of what was not there nothing was erased.
func (r *eraseRun) sum() error {
	verb, rest := "erased", ""
	if r.DryRun {
		verb = "would erase"
	}
	if r.absent > 0 {
		rest = fmt.Sprintf("; of %s nothing was there", plural(r.absent, "token", "tokens"))
	}
	text := fmt.Sprintf("%s %s in %s, %d not%s\n", verb, plural(r.gone, "token", "tokens"), r.names(), r.failed, rest)
	var err error
	if r.JSON {
		_, err = io.WriteString(r.app.stderr, text)
	} else {
		_, err = io.WriteString(r.app.stdout, text)
	}
	if r.failed > 0 || r.absent > 0 {
		return errors.Join(err, errPartial)
	}
	return err
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
