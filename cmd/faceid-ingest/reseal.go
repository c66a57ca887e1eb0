package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type keysResealCmd struct {
	Sink     string `help:"Only this sink." placeholder:"NAME"`
	DryRun   bool   `help:"Count the tokens that would be looked at, and change nothing."`
	Parallel int    `help:"How many tokens are resealed at once; 0 is one per processor." default:"0"`
	JSON     bool   `help:"Print the sums as one JSON object."`
}

// resealSum is what became of the tokens of one sink.
type resealSum struct {
	Sink string `json:"sink"`
	// Tokens is how many there are; Resealed of them have changed, Failed could not
	// be resealed.
	Tokens   int `json:"tokens"`
	Resealed int `json:"resealed"`
	Failed   int `json:"failed"`
	// Error says why the list of tokens ended early; empty if it did not.
	Error string `json:"error,omitempty"`
}

// Run goes through all sinks. What is resealed already is only looked at, so that a
// run which was stopped is simply started again.
func (c *keysResealCmd) Run(ctx context.Context, a *app) (err error) {
	s, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	keepers, err := c.choose(a, s.sinks)
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
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopped: %w; run it again, which goes on where this ended", err)
	}
	for _, sum := range sums {
		if sum.Failed > 0 || sum.Error != "" {
			return errPartial
		}
	}
	return nil
}

// choose returns the sinks to go through, and tells of those that cannot be.
func (c *keysResealCmd) choose(a *app, all []sinks.Sink) ([]sinks.Keeper, error) {
	var keepers []sinks.Keeper
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
		return nil, errors.New("there is no such sink whose content can be resealed")
	}
	return keepers, nil
}

// reseal goes through one sink.
func (c *keysResealCmd) reseal(ctx context.Context, a *app, keeper sinks.Keeper, show func(string, sinks.Key)) resealSum {
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
