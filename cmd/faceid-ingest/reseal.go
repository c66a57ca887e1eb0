package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type keysResealCmd struct {
	Sink     string `predictor:"sink" help:"Only this sink, or parked for results that wait for a sink." placeholder:"NAME"`
	DryRun   bool   `help:"Count what is sealed under older keys, by sink and key, and change nothing."`
	Parallel int    `help:"How many tokens are resealed at once; 0 is one per processor." default:"0"`
	JSON     bool   `help:"Print the sums as one JSON object."`
}

// resealSum is what became of the tokens of one sink.
type resealSum struct {
	Sink string `predictor:"sink" json:"sink"`
	// Tokens is how many there are; Resealed of them have changed, Failed could not
	// be resealed.
	Tokens   int `json:"tokens"`
	Resealed int `json:"resealed"`
	Failed   int `json:"failed"`
	// Outdated are, of a dry run, the values that a key seals which is not the active
	// one, by its id.
	Outdated map[string]int `json:"outdated,omitempty"`
	// Error says why the list of tokens ended early; empty if it did not.
	Error string `json:"error,omitempty"`
}

// resealer is a sink whose content can be sealed anew, or the parking. Its methods
// are those of sinks.Keeper.
type resealer interface {
	Name() string
	Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error]
	Reseal(ctx context.Context, key sinks.Key) (changed bool, err error)
}

// parkedName stands for the parking among the names of sinks.
const parkedName = "parked"

// parkedResults is a resealer.
type parkedResults struct {
	store *parking.Store
	media *spool.Spool
}

func (parkedResults) Name() string { return parkedName }

func (p parkedResults) Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error] {
	return func(yield func(sinks.Key, error) bool) {
		keys, err := p.store.Keys(ctx)
		if err != nil {
			yield(sinks.Key{}, err)
			return
		}
		for _, key := range keys {
			if key.Compare(after) > 0 && !yield(key, nil) {
				return
			}
		}
	}
}

func (p parkedResults) Reseal(ctx context.Context, key sinks.Key) (changed bool, err error) {
	batch, err := p.media.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, batch.Close()) }()
	changed, err = p.store.Reseal(ctx, key, batch)
	if errors.Is(err, parking.ErrNotParked) {
		err = sinks.ErrNotFound
	}
	return changed, err
}

// Run goes through all sinks and the parking. What is resealed already is only looked at, so that a
// run which was stopped is simply started again.
func (c *keysResealCmd) Run(ctx context.Context, a *app) (err error) {
	s, failed, err := a.openWhatOpens(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if c.Sink == "" || c.Sink == name {
			return fmt.Errorf("open sink %s: %w", name, failed[name])
		}
	}
	media, err := openSpool(s.cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, media.Close()) }()
	store, err := openParking(ctx, s.cfg, s.js, s.policy)
	if err != nil {
		return err
	}
	keepers, err := c.choose(a, s.sinks, parkedResults{store, media})
	if err != nil {
		return err
	}
	show, done := sinkBar(a.stderr, "resealing", c.JSON)
	sums := make([]resealSum, 0, len(keepers))
	for _, keeper := range keepers {
		if c.DryRun {
			sums = append(sums, c.count(ctx, a, s, keeper, show))
		} else {
			sums = append(sums, c.reseal(ctx, a, keeper, show))
		}
		if ctx.Err() != nil {
			break
		}
	}
	done()
	if err := c.print(a, sums); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w; run it again, which goes on where this ended", errInterrupted)
	}
	for _, sum := range sums {
		if sum.Failed > 0 || sum.Error != "" {
			return errPartial
		}
	}
	return nil
}

// choose returns what to go through, and tells of sinks that cannot be. The parking
// comes first: what leaves it meanwhile is sealed under the active key by its sink.
func (c *keysResealCmd) choose(a *app, all []sinks.Sink, parked parkedResults) ([]resealer, error) {
	var keepers []resealer
	if c.Sink == "" || c.Sink == parkedName {
		keepers = append(keepers, parked)
	}
	for _, sink := range all {
		if c.Sink != "" && c.Sink != sink.Name() {
			continue
		}
		if keeper, ok := sink.(sinks.Keeper); ok {
			keepers = append(keepers, keeper)
			continue
		}
		_, _ = fmt.Fprintf(a.stderr, "sink %s keeps nothing that could be resealed; what it has sent stays sealed as it was\n", sink.Name())
	}
	if len(keepers) == 0 {
		return nil, noSink(c.Sink, "whose content can be resealed", all)
	}
	return keepers, nil
}

// count looks at one sink and changes nothing.
func (c *keysResealCmd) count(ctx context.Context, a *app, s *store, keeper resealer, show func(string, sinks.Key)) resealSum {
	use := &sinkUse{}
	switch k := keeper.(type) {
	case parkedResults:
		use = countParked(ctx, keymark.NATS{Parked: k.store})
	case keyUser:
		use = countKeys(ctx, k, show)
	}

	sum := resealSum{Sink: keeper.Name(), Tokens: use.tokens + use.failed, Failed: use.failed, Outdated: map[string]int{}}
	for _, k := range use.list(s.policy.Keyring()) {
		if k.State != string(privacy.Active) {
			sum.Outdated[k.Key] = k.Values
		}
	}
	if use.err != nil {
		sum.Error = use.err.Error()
		_, _ = fmt.Fprintf(a.stderr, "sink %s: what it holds could not all be looked at: %s\n", sum.Sink, sum.Error)
	}
	return sum
}

// outdatedText says what is sealed under older keys.
func (s resealSum) outdatedText() string {
	if len(s.Outdated) == 0 {
		return "nothing under older keys"
	}
	parts := make([]string, 0, len(s.Outdated))
	for _, id := range slices.Sorted(maps.Keys(s.Outdated)) {
		parts = append(parts, fmt.Sprintf("%s under key %s", plural(s.Outdated[id], "value", "values"), id))
	}
	return strings.Join(parts, ", ")
}

// reseal goes through one sink.
func (c *keysResealCmd) reseal(ctx context.Context, a *app, keeper resealer, show func(string, sinks.Key)) resealSum {
	sum := resealSum{Sink: keeper.Name()}
	var mu sync.Mutex // of sum and stderr
	var group errgroup.Group
	group.SetLimit(c.parallel())
	for key, err := range keeper.Keys(ctx, sinks.Key{}) {
		if err != nil {
			sum.Error = err.Error()
			break
		}
		mu.Lock()
		sum.Tokens++
		mu.Unlock()
		show(sum.Sink, key)
		group.Go(func() error {
			changed, err := keeper.Reseal(ctx, key)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, sinks.ErrNotFound), errors.Is(err, sinks.ErrErased):
				// It was erased in between.
			case err != nil:
				sum.Failed++
				_, _ = fmt.Fprintf(a.stderr, "%s %s: not resealed in sink %s: %v\n", key.Product, key.Hash, sum.Sink, err)
			case changed:
				sum.Resealed++
			}
			return nil
		})
	}
	_ = group.Wait() // errors are in sum
	if sum.Error != "" {
		_, _ = fmt.Fprintf(a.stderr, "sink %s: its tokens cannot all be listed: %s\n", sum.Sink, sum.Error)
	}
	return sum
}

func (c *keysResealCmd) parallel() int {
	if c.Parallel > 0 {
		return c.Parallel
	}
	return runtime.GOMAXPROCS(0)
}

func (c *keysResealCmd) print(a *app, sums []resealSum) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(struct {
			DryRun bool        `json:"dry_run"`
			Sinks  []resealSum `json:"sinks"`
		}{c.DryRun, sums})
	}
	for _, sum := range sums {
		text := fmt.Sprintf("sink %s: %s, %d resealed, %d failed", sum.Sink, plural(sum.Tokens, "token", "tokens"), sum.Resealed, sum.Failed)
		if c.DryRun {
			text = fmt.Sprintf("sink %s: %s, %s", sum.Sink, plural(sum.Tokens, "token", "tokens"), sum.outdatedText())
		}
		if _, err := fmt.Fprintln(a.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// sinkBar shows on a terminal how far a run is in a sink, see verifyBar.
func sinkBar(w io.Writer, doing string, quiet bool) (show func(sink string, at sinks.Key), done func()) {
	file, isFile := w.(*os.File)
	if quiet || !isFile || !term.IsTerminal(int(file.Fd())) {
		return func(string, sinks.Key) {}, func() {}
	}
	const full = 10_000
	progress := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	bars := map[string]*mpb.Bar{}
	show = func(sink string, at sinks.Key) {
		if bars[sink] == nil {
			bars[sink] = progress.AddBar(full,
				mpb.PrependDecorators(decor.Name(doing+" "+sink+" ")),
				mpb.AppendDecorators(decor.Percentage(), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 8})))
		}
		bars[sink].SetCurrent(int64(hashPart(at) * full))
	}
	return show, func() {
		for _, bar := range bars {
			bar.Abort(true)
		}
		progress.Wait()
	}
}
