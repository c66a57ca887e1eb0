// Package export gives stored results back: as a folder per token, or as one file
// that only the named recipients can open.
//
// An export holds the record with its sealed values opened, every asset as FaceID
// gave it, and a manifest with the digest of each file and where it came from. Of
// several archives that have an asset, the first whose bytes are right gives it. What
// cannot be had, or is not what was archived, is listed in the manifest with the
// reason; it is never exported as if it were right.
//
// Nothing is opened before the audit log has an entry about it, and nothing stands
// under its final name before it is whole. What may go wrong besides: the audit log
// or the place to write to fails, which ends the export with an error and leaves
// nothing there.
package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Config says from where, what and to where results are exported.
type Config struct {
	// Policy opens sealed values.
	Policy *privacy.Policy
	// Records and Archives are asked in this order.
	Records  []sinks.RecordKeeper
	Archives []sinks.ArchiveKeeper
	// Closed are the sinks that could not be opened, by name, with the reason.
	Closed map[string]error
	// Only are the values and assets to export, by the names of their fields; all
	// if it is empty.
	Only []string
	// Audit gets Entry, completed with token and fields, before a token is opened.
	Audit *privacy.Audit
	Entry privacy.AuditEntry
	// Dir is the folder that exports are written into. It is made if need be.
	Dir string
	// Recipients are who can open the export. If there are none, it is a folder of
	// files in clear, and otherwise one file encrypted with age.
	Recipients []age.Recipient
	// Progress is told how many bytes were written of the token in work; may be nil.
	Progress func(written int64)
}

// Exporter exports one token after the other.
type Exporter struct{ cfg Config }

// New returns an Exporter.
func New(cfg Config) *Exporter {
	if cfg.Progress == nil {
		cfg.Progress = func(int64) {}
	}
	return &Exporter{cfg}
}

// Report is what became of the export of one token. It holds no personal data.
type Report struct {
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
	// Path is the folder or file; empty if there is none.
	Path string `json:"path,omitempty"`
	// Files is how many there are, the manifest not counted, and Bytes their size.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// ManifestSHA256 is the digest of the manifest, in lower-case hex.
	ManifestSHA256 string `json:"manifest_sha256,omitempty"`
	// Unchanged says that an equal export was there already, which was left as it
	// was.
	Unchanged bool `json:"unchanged,omitempty"`
	// Missing is what should be in the export and is not, or is not right.
	Missing []Missing `json:"missing,omitempty"`
	// PassedOver are copies that are damaged or could not be read, where another
	// archive had what they should be.
	PassedOver []Missing `json:"passed_over,omitempty"`
}

var (
	// ErrNothing means that of what was asked for, nothing could be exported.
	ErrNothing = errors.New("nothing could be exported")
	// ErrExists means that something is where the export should be.
	ErrExists = errors.New("is there already")
	// ErrNoAudit means that the audit log did not take the entry.
	ErrNoAudit = errors.New("nothing is exported without an entry in the audit log")
)

// Plan says what Export would write, as far as that can be known without opening
// anything.
func (e *Exporter) Plan(found *Found) Report {
	report := e.report(found)
	assets, values := e.selected(found)
	if values {
		report.Files++
	}
	for _, a := range assets {
		if len(a.copies) == 0 {
			report.Missing = append(report.Missing, Missing{Field: a.field, Reason: found.why(a, nil)})
			continue
		}
		report.Files++
		report.Bytes += max(0, a.copies[0].receipt.Size)
	}
	report.Path = e.path(found.Key)
	return report
}

// report begins the report about a token.
func (e *Exporter) report(found *Found) Report {
	report := Report{Product: found.Key.Product, TokenHash: found.Key.Hash}
	if len(e.cfg.Only) == 0 || len(e.fields()) > 0 {
		report.Missing = slices.Clone(found.faults)
	}
	return report
}

// Export writes what was found of a token. The error is ErrNothing if there is
// nothing to write, ErrExists if there is another export in the way, ErrNoAudit if
// nobody may be told; Report.Missing says what is not in it in the first case, too.
func (e *Exporter) Export(ctx context.Context, found *Found) (_ Report, err error) {
	report := e.report(found)
	assets, values := e.selected(found)
	if len(assets) == 0 && !values {
		return report, fmt.Errorf("%w: the result has none of the fields that were asked for", ErrNothing)
	}

	place, err := e.open(ctx, found)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, place.close()) }()

	record, faults, err := e.opened(found, assets)
	if err != nil {
		return report, err
	}
	report.Missing = append(report.Missing, faults...)

	b := bundle{found: found, place: place, progress: e.cfg.Progress}
	if record != nil && values {
		if err := b.addRecord(ctx, record); err != nil {
			return report, err
		}
	}
	for _, a := range assets {
		if err := b.addAsset(ctx, a); err != nil {
			return report, err
		}
	}
	report.Missing = append(report.Missing, b.missing...)
	report.PassedOver = b.passedOver
	if len(b.files) == 0 {
		return report, ErrNothing
	}

	return report, e.finish(ctx, found, &b, &report)
}

// selected returns the assets to export, and whether the record is to be.
func (e *Exporter) selected(found *Found) (assets []asset, values bool) {
	if len(e.cfg.Only) == 0 {
		return found.assets, found.record != nil
	}
	for _, a := range found.assets {
		if slices.Contains(e.cfg.Only, a.field) {
			assets = append(assets, a)
		}
	}
	return assets, found.record != nil && len(e.fields()) > 0
}

// fields returns the personal values among the fields that were asked for.
func (e *Exporter) fields() []privacy.Field {
	var fields []privacy.Field
	for _, name := range e.cfg.Only {
		if f := privacy.Field(name); f.Valid() {
			fields = append(fields, f)
		}
	}
	return fields
}

// assetsPerEntry bounds an entry of the audit log: 200 names have some 26 KiB.
const assetsPerEntry = 200

// opened writes to the audit log what is about to be opened, and returns the record
// with its values opened; nil if there is no record, or none of its values was asked
// for. Values that do not open stay sealed, and are returned as missing.
func (e *Exporter) opened(found *Found, assets []asset) (*privacy.Record, []Missing, error) {
	entry := e.cfg.Entry
	entry.Product, entry.TokenHash = found.Key.Product, found.Key.Hash
	names := make([]string, len(assets))
	for i, a := range assets {
		names[i] = result.FieldName(a.field)
	}
	for len(names) > assetsPerEntry {
		entry.Assets, names = names[:assetsPerEntry], names[assetsPerEntry:]
		if err := e.cfg.Audit.Append(entry); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrNoAudit, err)
		}
	}

	entry.Assets = names
	only := e.fields()
	if found.record == nil || len(e.cfg.Only) > 0 && len(only) == 0 {
		if err := e.cfg.Audit.Append(entry); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrNoAudit, err)
		}
		return nil, nil, nil
	}

	record, err := e.cfg.Policy.OpenRecord(found.record, e.cfg.Audit, entry, only...)
	if record == nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoAudit, errors.Unwrap(err))
	}
	if len(only) > 0 {
		narrow(record, only, assets)
	}
	return record, e.stillSealed(found.record, record), nil
}

// narrow takes out of a record what was not asked for.
func narrow(record *privacy.Record, only []privacy.Field, assets []asset) {
	_ = record.Each(func(f privacy.Field, _ int, s *privacy.Stored) error {
		if !slices.Contains(only, f) {
			*s = privacy.Stored{}
		}
		return nil
	})
	record.Assets = slices.DeleteFunc(slices.Clone(record.Assets), func(listed privacy.Asset) bool {
		return !slices.ContainsFunc(assets, func(a asset) bool { return a.field == listed.Field })
	})
}

// stillSealed says why values did not open: those that are in the opened record as
// they are in the sealed one.
func (e *Exporter) stillSealed(record, opened *privacy.Record) (missing []Missing) {
	type place struct {
		field    privacy.Field
		position int
	}
	before := map[place]string{}
	_ = record.Each(func(f privacy.Field, position int, s *privacy.Stored) error {
		before[place{f, position}] = s.Value
		return nil
	})

	_ = opened.Each(func(f privacy.Field, position int, s *privacy.Stored) error {
		if !privacy.IsSealed(s.Value) || s.Value != before[place{f, position}] {
			return nil
		}
		_, err := e.cfg.Policy.Open(privacy.Ref{Product: record.Product, Token: record.Token, Field: f, Position: position}, s.Value)
		missing = append(missing, Missing{Field: string(f), Reason: fmt.Sprintf("it stays sealed: %v", err)})
		return nil
	})
	return missing
}

// finish writes the manifest, and makes the export one.
func (e *Exporter) finish(ctx context.Context, found *Found, b *bundle, report *Report) error {
	m := &Manifest{
		Version: manifestVersion, Product: found.Key.Product, Token: found.Token, TokenHash: found.Key.Hash,
		ExportedAt: time.Now().UTC().Truncate(time.Second), User: e.cfg.Entry.User, Host: e.cfg.Entry.Host, Reason: e.cfg.Entry.Reason,
		Only: e.cfg.Only, Complete: len(report.Missing) == 0, Files: b.files, Missing: report.Missing, PassedOver: report.PassedOver,
	}
	if found.record != nil {
		m.Account, m.RuleID = found.record.Account, found.record.RuleID
	}
	text, err := m.encode()
	if err != nil {
		return err
	}
	if _, err := b.place.add(ctx, manifestName, fixed(text)); err != nil {
		return err
	}

	for _, f := range b.files {
		report.Bytes += f.Size
	}
	report.Files = len(b.files)
	sum := sha256.Sum256(text)
	report.ManifestSHA256 = hex.EncodeToString(sum[:])
	if report.Path, report.Unchanged, err = b.place.finish(m); err != nil {
		return err
	}
	if report.Unchanged {
		report.ManifestSHA256 = "" // that of another time
	}
	return nil
}

// bundle is what an export is made of.
type bundle struct {
	found    *Found
	place    place
	progress func(written int64)

	files               []File
	missing, passedOver []Missing
	written             int64
}

func (b *bundle) addRecord(ctx context.Context, record *privacy.Record) error {
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return fmt.Errorf("write the record: %w", err)
	}

	got, err := b.place.add(ctx, recordName, fixed(append(text, '\n')))
	if err != nil {
		return err
	}
	b.added(File{Name: recordName, ContentType: "application/json", Size: got.size, SHA256: got.sha256, Sink: b.found.recordSink})
	return nil
}

// addAsset takes an asset from the first archive that has it as it should be. An
// error means that the export cannot go on.
func (b *bundle) addAsset(ctx context.Context, a asset) error {
	var tried []Missing
	for _, c := range a.copies {
		err := b.addCopy(ctx, a, c)
		var unread *readError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &unread):
			tried = append(tried, Missing{Field: a.field, Reason: c.unread(unread.err)})
			continue
		case err != nil:
			return err
		}

		b.passedOver = append(b.passedOver, tried...)
		if c.differs != "" {
			b.missing = append(b.missing, Missing{Field: a.field, Reason: c.differs})
		}
		return nil
	}

	b.missing = append(b.missing, Missing{Field: a.field, Reason: b.found.why(a, tried)})
	return nil
}

func (b *bundle) addCopy(ctx context.Context, a asset, c archived) error {
	key := b.found.Key
	contentType := a.typeOf(ctx, key, c)
	name := result.FieldName(a.field) + "." + result.Extension(contentType)
	src := source{
		open:  func() (io.ReadCloser, error) { return c.archive.OpenAsset(ctx, key, c.receipt) },
		check: c.check,
		read:  func(n int64) { b.progress(b.written + n) },
	}

	got, err := b.place.add(ctx, name, src)
	if err != nil {
		return err
	}
	b.added(File{
		Name: name, Field: a.field, Kind: a.kind, ContentType: contentType, Size: got.size, SHA256: got.sha256,
		Sink: c.archive.Name(), Location: c.receipt.Location,
	})
	return nil
}

func (b *bundle) added(f File) {
	b.files = append(b.files, f)
	b.written += f.Size
	b.progress(b.written)
}

// fixed is a source of bytes in memory.
func fixed(text []byte) source {
	return source{open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }}
}
