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
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type keysResealCmd struct {
	Sink     string `predictor:"sink" help:"Only this sink, or parked for results that wait for a sink." placeholder:"NAME"`
	DryRun   bool   `help:"Count the tokens that would be looked at, and change nothing."`
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
	show, done := resealBar(a.stderr, c.JSON)
	sums := make([]resealSum, 0, len(keepers))
	for _, keeper := range keepers {
		sums = append(sums, c.reseal(ctx, a, keeper, show))
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
		return nil, usagef("--sink: %q is not the name of a sink whose content can be resealed", c.Sink)
	}
	return keepers, nil
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
		if c.DryRun {
			continue
		}
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
			text = fmt.Sprintf("sink %s: would look at %s", sum.Sink, plural(sum.Tokens, "token", "tokens"))
		}
		if _, err := fmt.Fprintln(a.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// resealBar shows on a terminal how far the run is in a sink, see verifyBar.
func resealBar(w io.Writer, quiet bool) (show func(sink string, at sinks.Key), done func()) {
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
				mpb.PrependDecorators(decor.Name("resealing "+sink+" ")),
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
