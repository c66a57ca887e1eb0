package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/verify"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type verifyCmd struct {
	Sample   string `help:"Part of the tokens to look at, such as 5% or 0.05; the same ones each time." default:"100%" placeholder:"PART"`
	Sink     string `predictor:"sink" help:"Only go through this sink; it is still compared with the others." placeholder:"NAME"`
	Resume   bool   `help:"Go on where a run that was stopped has got to."`
	Parallel int    `help:"How many tokens are looked at at once; 0 is one per processor." default:"0"`
	JSON     bool   `help:"Print one JSON object per problem, and the sum in the last line."`
}

// checkpoint is what a run that was stopped leaves in the data folder.
type checkpoint struct {
	verify.Position
	// Sample and Only are the flags of the run, which must stay the same.
	Sample string    `json:"sample"`
	Only   string    `json:"only"`
	Time   time.Time `json:"time"`
}

func (c *verifyCmd) Run(ctx context.Context, a *app) (err error) {
	part, err := parsePart(c.Sample)
	if err != nil {
		return err
	}
	s, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	file := filepath.Join(s.cfg.DataDir, "verify.json")
	from, err := c.begin(file)
	if err != nil {
		return err
	}
	chosen, err := c.choose(s.sinks)
	if err != nil {
		return err
	}
	bar, done := verifyBar(a.stderr, c.JSON)
	parallel := c.Parallel
	if parallel < 1 {
		parallel = runtime.GOMAXPROCS(0)
	}
	last := from.Position
	sum, runErr := verify.Run(ctx, verify.Config{
		Sample: part, Parallel: parallel, Policy: s.policy,
		Against: s.sinks,
		Report:  func(p verify.Problem) error { return c.report(a, p) },
		Progress: func(p verify.Position) error {
			last = p
			bar(p)
			return c.save(file, p)
		},
	}, chosen, from.Position)
	done()
	if runErr != nil {
		if ctx.Err() != nil {
			runErr = errInterrupted
		}
		if last != (verify.Position{}) {
			runErr = fmt.Errorf("%w; go on with --resume", runErr)
		}
		return runErr
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the mark of where the run has got to: %w", err)
	}
	if err := c.print(a, sum); err != nil {
		return err
	}
	if sum.Problems > 0 {
		return fmt.Errorf("%s found", plural(int(sum.Problems), "problem", "problems"))
	}
	return nil
}

// parsePart reads "5%" or "0.05".
func parsePart(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	part, err := strconv.ParseFloat(number, 64)
	if percent {
		part /= 100
	}
	if err != nil || !(part > 0 && part <= 1) {
		return 0, usagef("--sample must be above 0%% and at most 100%%, not %q", text)
	}
	return part, nil
}

// choose returns the sinks to go through: those that can be, or the named one.
func (c *verifyCmd) choose(all []sinks.Sink) ([]sinks.Sink, error) {
	var chosen []sinks.Sink
	for _, sink := range all {
		if _, ok := sink.(sinks.Keeper); ok && (c.Sink == "" || c.Sink == sink.Name()) {
			chosen = append(chosen, sink)
		}
	}
	if len(chosen) == 0 {
		return nil, noSink(c.Sink, "whose content can be read again", all)
	}
	return chosen, nil
}

// begin returns where to begin.
func (c *verifyCmd) begin(file string) (checkpoint, error) {
	var from checkpoint
	if !c.Resume {
		return from, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return from, usagef("no run was stopped: leave --resume out")
	}
	if err != nil || json.Unmarshal(text, &from) != nil {
		return from, usagef("%s does not tell where a run has got to: leave --resume out", file)
	}
	if from.Sample != c.Sample || from.Only != c.Sink {
		return from, usagef("the run that was stopped had --sample %s and --sink %q: give the same, or leave --resume out", from.Sample, from.Only)
	}
	return from, nil
}

// save keeps the position, whole or not at all.
func (c *verifyCmd) save(file string, p verify.Position) error {
	text, err := json.Marshal(checkpoint{Position: p, Sample: c.Sample, Only: c.Sink, Time: time.Now().UTC()})
	if err == nil {
		err = os.WriteFile(file+".tmp", text, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".tmp", file)
	}
	if err != nil {
		return fmt.Errorf("keep where the run has got to: %w", err)
	}
	return nil
}

func (c *verifyCmd) report(a *app, p verify.Problem) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(p)
	}
	_, err := fmt.Fprintf(a.stdout, "%s  sink %s, %s %s %s: %s\n", p.Kind, p.Sink, p.Product, p.TokenHash, p.Field, p.Detail)
	return err
}

func (c *verifyCmd) print(a *app, sum verify.Summary) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(sum)
	}
	_, err := fmt.Fprintf(a.stdout, "looked at %s in all sinks, read %s (%s), %d only referred to, %d known to be missing: %s\n",
		plural(int(sum.Tokens), "token", "tokens"), plural(int(sum.Assets), "asset", "assets"), bytesText(sum.Bytes),
		sum.Referred, sum.Missing, plural(int(sum.Problems), "problem", "problems"))
	return err
}

// verifyBar shows on a terminal how far the run is in a sink. How many tokens there
// are nobody knows, but hashes are spread evenly, so that the last one tells.
func verifyBar(w io.Writer, quiet bool) (show func(verify.Position), done func()) {
	file, isFile := w.(*os.File)
	if quiet || !isFile || !term.IsTerminal(int(file.Fd())) {
		return func(verify.Position) {}, func() {}
	}
	const full = 10_000
	var sink atomic.Value // the bar draws itself
	sink.Store("")
	progress := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	bar := progress.AddBar(full,
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return fmt.Sprintf("verifying %s ", sink.Load()) })),
		mpb.AppendDecorators(decor.Percentage(), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 8})))
	show = func(p verify.Position) {
		sink.Store(p.Sink)
		bar.SetCurrent(int64(hashPart(p.After) * full))
	}
	return show, func() { bar.Abort(true); progress.Wait() }
}

// hashPart tells how far a key is in the order of all possible ones.
func hashPart(key sinks.Key) float64 {
	products := result.Products()
	n, err := strconv.ParseUint(key.Hash[:min(8, len(key.Hash))], 16, 32)
	if err != nil {
		return 0
	}
	before := 0
	for _, p := range products {
		if p < key.Product {
			before++
		}
	}
	return (float64(before) + float64(n)/(1<<32)) / float64(len(products))
}
