package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/faceid-ingest/faceid-ingest/pipeline/export"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

type exportCmd struct {
	tokenList `embed:""`

	Find           string   `help:"Export all results of a person: the field to look up by its blind index, such as id_card, name or mobile. Its value is read as by \"list --find\"." placeholder:"FIELD"`
	Product        string   `help:"Product of the tokens: enhanced or eid; either if left out." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Reason         string   `help:"Why, for the audit log and the manifest, such as a ticket number." placeholder:"TEXT"`
	Fields         []string `name:"field" sep:"none" help:"Export only this value or asset, such as id_card or BestFrame.BestFrame; may be given again." placeholder:"NAME"`
	To             string   `type:"path" predictor:"folder" help:"Folder that exports are written into; faceid-export if left out." default:"faceid-export" placeholder:"DIR"`
	Recipient      []string `sep:"none" help:"Encrypt for this recipient of age, such as age1…; may be given again. Nothing is on disk in clear then." placeholder:"AGE"`
	RecipientsFile []string `sep:"none" type:"path" predictor:"file" help:"Encrypt for the recipients in a file, one a line; may be given again." placeholder:"FILE"`
	DryRun         bool     `help:"Say what would be exported, and open nothing."`
	JSON           bool     `help:"Print one JSON object per token."`
}

// Validate says what is wrong with the flags.
func (c *exportCmd) Validate() error {
	switch {
	case len(c.Tokens) == 0 && c.File == "" && c.Find == "":
		return errors.New("nothing to export: name tokens, a file with --file (- for standard input), or a person with --find")
	case c.Find != "" && (len(c.Tokens) > 0 || c.File != ""):
		return errors.New("--find does not go with tokens: give one or the other")
	case !c.DryRun && strings.TrimSpace(c.Reason) == "":
		return errors.New("an export needs a reason for the audit log: add --reason, such as a ticket number")
	}
	return nil
}

// exported is what became of one token.
type exported struct {
	Token string `json:"token"`
	export.Report
	// Error says why there is no export of it; empty if there is one.
	Error string `json:"error,omitempty"`
}

// exportRun is one run of the command.
type exportRun struct {
	*exportCmd
	app      *app
	exporter *export.Exporter
	why      absence
	show     func(token string, at, total int, size int64)

	whole, partial, failed int
}

func (c *exportCmd) Run(ctx context.Context, a *app) (err error) {
	recipients, err := c.recipients()
	if err != nil {
		return err
	}
	s, closed, err := a.openKeepers(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	log, entry := audit(s.cfg, "export", c.Reason)
	cfg := export.Config{
		Policy: s.policy, Closed: closed, Only: c.Fields, Audit: log, Entry: entry, Dir: c.To, Recipients: recipients,
	}
	cfg.Records, cfg.Archives = keepers(s.sinks)
	show, written, done := exportBar(a.stderr, c.JSON)
	cfg.Progress = written

	tokens, err := c.tokens(ctx, a, s.policy, cfg.Records)
	if err != nil {
		return err
	}
	run := &exportRun{exportCmd: c, app: a, exporter: export.New(cfg), why: absence{app: a, store: s}, show: show}
	if err := run.checkFields(ctx, tokens); err != nil {
		return err
	}

	defer run.why.close()

	err = run.all(ctx, tokens)
	done()
	if err != nil {
		return err
	}
	return run.sum()
}

// recipients reads those of the flags and of the files.
func (c *exportCmd) recipients() ([]age.Recipient, error) {
	var all []age.Recipient
	for _, text := range c.Recipient {
		some, err := export.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, usagef("--recipient: %w", err)
		}
		all = append(all, some...)
	}
	for _, name := range c.RecipientsFile {
		some, err := recipientsIn(name)
		if err != nil {
			return nil, usagef("--recipients-file %s: %w", name, err)
		}
		all = append(all, some...)
	}

	if len(all) > 0 {
		if err := export.CheckRecipients(all); err != nil {
			return nil, usagef("these recipients do not go together: %w", err)
		}
	}
	return all, nil
}

func recipientsIn(name string) (_ []age.Recipient, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	return export.ParseRecipients(file)
}

// openKeepers is openKept with the keyring of the installation.
func (a *app) openKeepers(ctx context.Context) (*store, map[string]error, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	policy, _, err := preparePolicy(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}

	s, failed := openKept(ctx, cfg, policy)
	if err := s.rightKeyring(ctx); err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, failed, nil
}

// keepers returns the sinks that can give back what they hold.
func keepers(all []sinks.Sink) (records []sinks.RecordKeeper, archives []sinks.ArchiveKeeper) {
	for _, sink := range all {
		if r, ok := sink.(sinks.RecordKeeper); ok {
			records = append(records, r)
		}
		if a, ok := sink.(sinks.ArchiveKeeper); ok {
			archives = append(archives, a)
		}
	}
	return records, archives
}

// tokens returns what to export.
func (c *exportCmd) tokens(ctx context.Context, a *app, policy *privacy.Policy, records []sinks.RecordKeeper) ([]namedToken, error) {
	if c.Find == "" {
		return c.read(a)
	}

	field, index, err := a.lookUp(ctx, policy, c.Find)
	if err != nil {
		return nil, err
	}
	var found []namedToken
	for _, keeper := range records {
		for summary, err := range keeper.List(ctx, sinks.Filter{IndexField: field, Index: index, Product: result.Product(c.Product)}) {
			if err != nil {
				return nil, fmt.Errorf("--find in sink %s: %w", keeper.Name(), err)
			}
			if one := (namedToken{summary.Token, summary.Product}); !slices.Contains(found, one) {
				found = append(found, one)
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no result of such a person: --find %s found nothing", c.Find)
	}
	return found, nil
}

// checkFields refuses fields that neither results nor these tokens have, before
// anything is exported.
func (r *exportRun) checkFields(ctx context.Context, tokens []namedToken) error {
	left := slices.DeleteFunc(slices.Clone(r.Fields), func(name string) bool { return privacy.Field(name).Valid() })
	var known []string
	for _, f := range privacy.Fields() {
		known = append(known, string(f))
	}

	for _, token := range tokens {
		for _, key := range token.keys(r.Product) {
			if len(left) == 0 {
				return nil
			}
			found, err := r.exporter.Find(ctx, key, token.Token)
			if err != nil {
				continue // it is said when its turn comes
			}
			for _, name := range found.Assets() {
				if !slices.Contains(known, name) {
					known = append(known, name)
				}
			}
			left = slices.DeleteFunc(left, func(name string) bool { return slices.Contains(known, name) })
		}
	}
	if len(left) > 0 {
		return unknownField(left[0], known)
	}
	return nil
}

// all exports one token after the other.
func (r *exportRun) all(ctx context.Context, tokens []namedToken) error {
	for i, token := range tokens {
		n := 0
		var absent []error
		for _, key := range token.keys(r.Product) {
			found, err := r.exporter.Find(ctx, key, token.Token)
			if err != nil {
				absent = append(absent, err)
				continue
			}
			n++
			r.show(token.Token, i, len(tokens), r.exporter.Plan(found).Bytes)
			if err := r.one(ctx, found); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n == 0 {
			if err := r.absent(ctx, token, absent); err != nil {
				return err
			}
		}
	}
	return nil
}

// one exports what was found of a token, or says what would be.
func (r *exportRun) one(ctx context.Context, found *export.Found) error {
	var report export.Report
	var err error
	if r.DryRun {
		report = r.exporter.Plan(found)
	} else {
		report, err = r.exporter.Export(ctx, found)
	}
	if ctx.Err() != nil || errors.Is(err, export.ErrNoAudit) {
		return err
	}

	switch {
	case err != nil:
		r.failed++
	case len(report.Missing) > 0:
		r.partial++
	default:
		r.whole++
	}
	return r.print(exported{Token: found.Token, Report: report}, err)
}

// absent says why there is nothing of a token.
func (r *exportRun) absent(ctx context.Context, token namedToken, errs []error) error {
	r.failed++
	var err error
	for _, one := range errs {
		if !errors.Is(one, sinks.ErrNotFound) {
			err = errors.Join(err, one)
		}
	}
	if err == nil {
		err = r.why.of(ctx, token, r.Product)
	}

	report := exported{Token: token.Token}
	if keys := token.keys(r.Product); len(keys) == 1 {
		report.Product, report.TokenHash = keys[0].Product, keys[0].Hash
	}
	return r.print(report, err)
}

// print tells of one token. What is wrong goes to stderr, too, for who reads no JSON.
func (r *exportRun) print(one exported, failure error) error {
	token := printable([]byte(one.Token))
	if failure != nil {
		one.Error = failure.Error()
		_, _ = fmt.Fprintf(r.app.stderr, "%s: not exported: %v\n", token, failure)
	}
	for _, m := range one.Missing {
		_, _ = fmt.Fprintf(r.app.stderr, "%s: %s is missing or not right: %s\n", token, printable([]byte(m.Field)), printable([]byte(m.Reason)))
	}
	for _, m := range one.PassedOver {
		_, _ = fmt.Fprintf(r.app.stderr, "%s: %s is taken from another archive: %s\n", token, printable([]byte(m.Field)), printable([]byte(m.Reason)))
	}

	switch {
	case r.JSON:
		return json.NewEncoder(r.app.stdout).Encode(one)
	case failure != nil:
		return nil //nolint:nilerr // It was said.
	}
	verb := "exported"
	if r.DryRun {
		verb = "would be exported"
	}
	switch {
	case one.Unchanged:
		verb = "was exported before, and the same, to"
	case len(one.Missing) > 0:
		verb += " in part to"
	default:
		verb += " to"
	}
	_, err := fmt.Fprintf(r.app.stdout, "%s %s %s: %s, %s\n", token, verb, one.Path, plural(one.Files, "file", "files"), bytesText(one.Bytes))
	return err
}

// sum is the error that makes the exit code.
func (r *exportRun) sum() error {
	if !r.JSON && r.whole+r.partial+r.failed > 1 {
		verb := "exported"
		if r.DryRun {
			verb = "would export"
		}
		if _, err := fmt.Fprintf(r.app.stdout, "%s %s whole, %d in part, %d not\n", verb, plural(r.whole, "token", "tokens"), r.partial, r.failed); err != nil {
			return err
		}
	}

	switch {
	case r.whole+r.partial == 0:
		return errors.New("nothing was exported")
	case r.partial+r.failed > 0:
		return errPartial
	}
	return nil
}

// exportBar shows on a terminal how far the export is.
func exportBar(w io.Writer, quiet bool) (show func(token string, at, total int, size int64), written func(int64), done func()) {
	if _, isFile := w.(*os.File); quiet || !isFile || !isTerminal(w) {
		return func(string, int, int, int64) {}, func(int64) {}, func() {}
	}

	var bar *mpb.Bar
	progress := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	show = func(token string, at, total int, size int64) {
		if bar != nil {
			bar.Abort(true)
		}
		bar = progress.AddBar(size,
			mpb.PrependDecorators(decor.Name(fmt.Sprintf("exporting %d/%d %.12s… ", at+1, total, printable([]byte(token))))),
			mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 8})))
	}
	written = func(n int64) {
		if bar != nil {
			bar.SetCurrent(n)
		}
	}
	return show, written, func() {
		if bar != nil {
			bar.Abort(false)
		}
		progress.Wait()
	}
}
