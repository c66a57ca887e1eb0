package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sync/errgroup"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

const (
	// demoWait bounds the ingestion: what is not there by then counts as missing.
	demoWait = 5 * time.Minute
	// demoPoll is how often the demo looks how far the worker is.
	demoPoll = 50 * time.Millisecond
	// demoVideo is the size of the largest video, in bytes.
	demoVideo = 1 << 20

	demoAccount   = "demo"
	demoSecretID  = "AKID-of-the-demo" //nolint:gosec // opens nothing but the demo's own stand-in.
	demoSecretKey = "key-of-the-demo"
)

type demoCmd struct {
	Results int    `default:"50" help:"How many results to publish and ingest."`
	Dir     string `type:"path" predictor:"folder" placeholder:"DIR" help:"Folder for everything the demo writes; left out, a new one in the system's temporary folder."`
	JSON    bool   `help:"Print the numbers as JSON."`
	Verbose bool   `short:"v" help:"Show the daemon's log."`
}

// demoSum is what the demo did.
type demoSum struct {
	Published int   `json:"published"`
	Ingested  int   `json:"ingested"`
	Dead      int   `json:"dead"`
	Assets    int   `json:"assets"`
	Bytes     int64 `json:"bytes"`
	// Verified are the results that were read back from every sink and found to
	// be what the API had sent.
	Verified int    `json:"verified"`
	Folder   string `json:"folder"`

	took     time.Duration
	token    string // one of those that are stored
	missing  []string
	products map[result.Product]int
	forms    map[string]int
}

func (c *demoCmd) Run(ctx context.Context, a *app) (err error) {
	if c.Results < 1 {
		return usagef("--results must be 1 or more")
	}
	folder, err := c.folder()
	if err != nil {
		return err
	}
	api, err := faceidtest.Start(ctx, faceidtest.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	api.AddCredential(demoSecretID, demoSecretKey, "")
	checks := make([]faceidtest.Check, c.Results)
	for i := range checks {
		checks[i] = faceidtest.NewCheck(i, demoVideo)
		api.Put(checks[i])
	}
	cfg, err := demoConfig(folder, api.URL())
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if c.Verbose {
		log = newLogger(config.Log{Level: "info", Format: "text"}, new(slog.LevelVar), a.stderr)
	}
	d, err := newDaemon(ctx, cfg, log)
	if err != nil {
		return err
	}
	sum := &demoSum{Folder: folder, token: checks[0].Token, products: map[result.Product]int{}, forms: map[string]int{}}
	err = errors.Join(c.ingest(ctx, a, d, checks, sum), c.verify(ctx, d, checks, sum), d.close())
	if err != nil {
		return err
	}
	return c.print(a, sum)
}

// folder returns the folder to work in, which must be new or empty.
func (c *demoCmd) folder() (string, error) {
	if c.Dir == "" {
		return os.MkdirTemp("", "faceid-ingest-demo-")
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", usagef("use --dir: %w", err)
	}
	if len(entries) > 0 {
		return "", usagef("use --dir: %s is not empty: name an empty folder, or a new one", c.Dir)
	}
	return c.Dir, os.MkdirAll(c.Dir, 0o700)
}

// demoConfigName is the configuration in the demo's folder, with which other commands
// look into it.
const demoConfigName = "config.yaml"

// demoConfig is written into the folder as an owner would, and read as any
// configuration.
func demoConfig(folder, endpoint string) (*config.Config, error) {
	text := fmt.Sprintf(`# Written by "faceid-ingest demo", for commands that look at what is in this folder. Its
# API is gone: nothing more is ingested.
data_dir: %[1]q
accounts:
  - name: %[3]s
    secret_id: %[4]s
    secret_key: %[5]s
    endpoint: %[2]s
    rate_limit: 10000
    storage: {bucket: faceid-1250000000, region: ap-guangzhou}
sinks:
  - {name: media, type: dir, path: %[6]q}
  - {name: records, type: sqlite, path: %[7]q}
http: {admin: ""}
`, folder, endpoint, demoAccount, demoSecretID, demoSecretKey, filepath.Join(folder, "media"), filepath.Join(folder, "faceid.db"))
	file := filepath.Join(folder, demoConfigName)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the demo's configuration: %w", err)
	}
	return config.Load(file)
}

// ingest publishes an event per check and runs the daemon until all are settled.
func (c *demoCmd) ingest(ctx context.Context, a *app, d *daemon, checks []faceidtest.Check, sum *demoSum) error {
	began := time.Now()
	publisher := event.NewPublisher(d.conn.JS)
	for _, check := range checks {
		e := event.Event{Token: check.Token, RuleID: check.RuleID, IssuedAt: check.Made}
		if _, err := publisher.Publish(ctx, event.Live, demoAccount, check.Product, e, nil); err != nil {
			return err
		}
		sum.Published++
	}
	bounded, cancel := context.WithTimeout(ctx, demoWait)
	defer cancel()
	group, running := errgroup.WithContext(bounded)
	stop, halt := context.WithCancel(running)
	group.Go(func() error { return d.crew.worker.Run(stop) })
	group.Go(func() error {
		defer halt()
		return c.watch(running, a, d, len(checks))
	})
	err := group.Wait()
	sum.took = time.Since(began)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil // the verification says what is missing
	}
	return err
}

// watch shows a progress bar until every event is settled.
func (c *demoCmd) watch(ctx context.Context, a *app, d *daemon, total int) error {
	output := a.stderr
	if c.JSON || c.Verbose {
		output = io.Discard
	}
	progress := mpb.NewWithContext(ctx, mpb.WithOutput(output), mpb.WithWidth(40))
	bar := progress.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name("ingesting "), decor.CountersNoUnit("%d/%d")),
		mpb.AppendDecorators(decor.Elapsed(decor.ET_STYLE_GO)))
	defer progress.Wait()
	defer bar.Abort(false)
	_, records := d.demoSinks()
	tick := time.NewTicker(demoPoll)
	defer tick.Stop()
	for {
		ingested, err := records.Count(ctx)
		if err != nil {
			return err
		}
		_, dead, err := event.CountDeadLetters(ctx, d.conn.JS)
		if err != nil {
			return err
		}
		settled := ingested + int64(dead)
		bar.SetCurrent(settled)
		if settled >= int64(total) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// demoSinks returns the archive's folder and the database of demoConfig.
func (d *daemon) demoSinks() (archive string, records *sqldb.Sink) {
	for i, s := range d.sinks {
		switch s := s.(type) {
		case *sqldb.Sink:
			records = s
		case *dir.Sink:
			if cfg, ok := d.cfg.Sinks[i].Config.(*dir.Config); ok {
				archive = cfg.Path
			}
		}
	}
	return archive, records
}

// verify reads everything back and compares it with what the API has.
func (c *demoCmd) verify(ctx context.Context, d *daemon, checks []faceidtest.Check, sum *demoSum) error {
	archive, records := d.demoSinks()
	for _, check := range checks {
		if err := verifyCheck(ctx, archive, records, check, sum); err != nil {
			sum.missing = append(sum.missing, fmt.Sprintf("%s: %v", check.Token, err))
			continue
		}
		sum.Verified++
		sum.products[check.Product]++
	}
	count, err := records.Count(ctx)
	if err != nil {
		return err
	}
	sum.Ingested = int(count)
	_, dead, err := event.CountDeadLetters(ctx, d.conn.JS)
	sum.Dead = int(dead)
	return err
}

func verifyCheck(ctx context.Context, archive string, records *sqldb.Sink, check faceidtest.Check, sum *demoSum) error {
	manifest, err := dir.Verify(ctx, archive, check.Product, check.Token)
	if err != nil {
		return err
	}
	record, err := records.Get(ctx, sinks.KeyOf(check.Product, check.Token))
	if err != nil {
		return err
	}
	if len(manifest.Assets) != len(check.Media) || len(record.Assets) != len(check.Media) {
		return fmt.Errorf("%d assets in the folder and %d in the database, of %d", len(manifest.Assets), len(record.Assets), len(check.Media))
	}
	digests := map[string]string{}
	for _, e := range manifest.Assets {
		digests[e.Field] = e.SHA256
	}
	stored := map[string]bool{}
	for _, asset := range record.Assets {
		stored[asset.Field] = len(asset.Stored) > 0
	}
	for _, m := range check.Media {
		if !stored[m.Field] {
			return fmt.Errorf("the database does not know where %s is", m.Field)
		}
		sum.Assets++
		sum.forms[string(m.Form)]++
		if m.Form.InCOS() {
			continue
		}
		hash := sha256.New()
		n, err := io.Copy(hash, m.Reader())
		if err != nil {
			return err
		}
		if digests[m.Field] != hex.EncodeToString(hash.Sum(nil)) {
			return fmt.Errorf("%s has other bytes than the API sent", m.Field)
		}
		sum.Bytes += n
	}
	return nil
}

func (c *demoCmd) print(a *app, sum *demoSum) error {
	if c.JSON {
		if err := json.NewEncoder(a.stdout).Encode(sum); err != nil {
			return err
		}
	} else if err := sum.table(a.stdout); err != nil {
		return err
	}
	if sum.Verified == sum.Published && sum.Dead == 0 {
		return nil
	}
	const most = 10
	for _, one := range sum.missing[:min(most, len(sum.missing))] {
		_, _ = fmt.Fprintln(a.stderr, "missing:", one)
	}
	return fmt.Errorf("%d of %d results are not in every sink", sum.Published-sum.Verified, sum.Published)
}

// commandLine returns what to type for a command that looks into the folder.
func (s *demoSum) commandLine(command string) string {
	file := filepath.Join(s.Folder, demoConfigName)
	if strings.ContainsFunc(file, func(r rune) bool {
		return r != '/' && r != '.' && r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		file = "'" + strings.ReplaceAll(file, "'", `'\''`) + "'"
	}
	return "faceid-ingest -c " + file + " " + command
}

func (s *demoSum) table(w io.Writer) error {
	products := fmt.Sprintf("%d enhanced, %d eid", s.products[result.Enhanced], s.products[result.EID])
	base64s, paths := 0, 0
	for form, n := range s.forms {
		if faceidtest.Form(form).InCOS() {
			paths += n
		} else {
			base64s += n
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"published", plural(s.Published, "event", "events")},
		{"ingested", fmt.Sprintf("%s (%s)", plural(s.Ingested, "result", "results"), products)},
		{"dead letters", strconv.Itoa(s.Dead)},
		{"assets", fmt.Sprintf("%d (%d base64, %d in COS), %s", s.Assets, base64s, paths, bytesText(s.Bytes))},
		{"verified", fmt.Sprintf("%d of %d, read back and compared with what the API sent", s.Verified, s.Published)},
		{"took", s.took.Round(10 * time.Millisecond).String()},
		{"try", s.commandLine("list")},
		{"", s.commandLine("show " + s.token)},
		{"look into", s.Folder},
	} {
		if _, err := fmt.Fprintf(table, "%s\t%s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return table.Flush()
}
