package export

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Found is what the sinks have of one token. Nothing of it is opened yet.
type Found struct {
	Key   sinks.Key
	Token string

	// record is nil where no sink has one; recordSink is the sink that has.
	record     *privacy.Record
	recordSink string
	assets     []asset
	// faults are what is wrong with the record.
	faults []Missing
	// unread are the archives that could not be asked, with the reason.
	unread []string
}

// asset is a picture, video or sound, and where it can be had.
type asset struct {
	field       string
	kind        result.Kind
	contentType string
	// copies are those that are as the record says first.
	copies []archived
	// elsewhere says of the places that the record tells of why they have no copy.
	elsewhere []string
}

// archived is an asset in one archive.
type archived struct {
	archive sinks.ArchiveKeeper
	receipt sinks.Receipt
	// differs says in what the receipt is not what the record says; empty if it is.
	differs string
}

// Find looks for what the sinks have of a token. The error is sinks.ErrNotFound if
// none has anything and all could be asked.
func (e *Exporter) Find(ctx context.Context, key sinks.Key, token string) (*Found, error) {
	if hash, err := hex.DecodeString(key.Hash); err != nil || len(hash) != 16 || !key.Product.Valid() {
		return nil, sinks.ErrNotFound // such a key cannot be stored, and would lead out of the folder
	}

	f := &Found{Key: key, Token: token}
	if err := e.findRecord(ctx, f); err != nil {
		return nil, err
	}
	e.listRecorded(f)
	for _, archive := range e.cfg.Archives {
		receipts, err := archive.Manifest(ctx, key)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, sinks.ErrNotFound):
			f.unlisted(archive.Name())
		case err != nil:
			f.unread = append(f.unread, fmt.Sprintf("sink %s: %v", archive.Name(), err))
		default:
			f.listArchived(archive, receipts)
		}
	}

	if f.record == nil && len(f.assets) == 0 {
		return nil, e.nowhere(f)
	}
	if f.record == nil && len(e.cfg.Records) > 0 && len(f.faults) == 0 {
		f.fault("no record sink has a record of this token")
	}
	return f, nil
}

// nowhere says that nothing was found: ErrNotFound, or what kept from looking.
func (e *Exporter) nowhere(f *Found) error {
	problems := make([]error, 0, len(f.faults)+len(f.unread)+len(e.cfg.Closed))
	for _, fault := range f.faults {
		problems = append(problems, errors.New(fault.Reason))
	}
	for _, reason := range f.unread {
		problems = append(problems, errors.New(reason))
	}
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Closed)) {
		problems = append(problems, fmt.Errorf("sink %s cannot be opened: %w", name, e.cfg.Closed[name]))
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return sinks.ErrNotFound
}

// findRecord takes the record of the first sink that has one.
func (e *Exporter) findRecord(ctx context.Context, f *Found) error {
	for _, records := range e.cfg.Records {
		record, err := records.Get(ctx, f.Key)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, sinks.ErrNotFound):
			continue
		case err == nil && sinks.KeyOf(record.Product, record.Token) != f.Key:
			err = errors.New("its record is of another token: it was altered")
		}
		if err != nil {
			f.fault("sink %s: %v", records.Name(), err)
			continue
		}

		// What an earlier sink lacks does not matter any more.
		f.record, f.recordSink, f.Token, f.faults = record, records.Name(), record.Token, nil
		return nil
	}
	return nil
}

// listRecorded lists the assets that the record tells of.
func (e *Exporter) listRecorded(f *Found) {
	if f.record == nil {
		return
	}
	for _, listed := range f.record.Assets {
		a := asset{field: listed.Field, kind: listed.Kind, contentType: listed.ContentType}
		for _, receipt := range listed.Stored {
			if e.knows(receipt.Sink) {
				continue
			}
			why := "is not configured any more, or its content cannot be read"
			if err := e.cfg.Closed[receipt.Sink]; err != nil {
				why = "cannot be opened: " + err.Error()
			}
			a.elsewhere = append(a.elsewhere, fmt.Sprintf("sink %s, where the record says it is (%s), %s", receipt.Sink, receipt.Location, why))
		}
		f.assets = append(f.assets, a)
	}
}

func (e *Exporter) knows(sink string) bool {
	return slices.ContainsFunc(e.cfg.Archives, func(a sinks.ArchiveKeeper) bool { return a.Name() == sink })
}

// listArchived lists the assets of an archive's manifest.
func (f *Found) listArchived(archive sinks.ArchiveKeeper, receipts []sinks.Receipt) {
	for _, receipt := range receipts {
		if receipt.Missing != "" {
			a := f.asset(receipt.Field)
			a.elsewhere = append(a.elsewhere, fmt.Sprintf("sink %s could not have it when it was archived (%s)", archive.Name(), receipt.Missing))
			continue
		}
		c := archived{archive: archive, receipt: receipt}
		if f.record != nil {
			c.differs = differs(f.record, receipt)
		}

		a := f.asset(receipt.Field)
		at := len(a.copies)
		if c.differs == "" {
			at = slices.IndexFunc(append(a.copies, archived{differs: "end"}), func(c archived) bool { return c.differs != "" })
		}
		a.copies = slices.Insert(a.copies, at, c)
	}
}

// asset returns what is found of an asset; it is listed from now on.
func (f *Found) asset(field string) *asset {
	i := slices.IndexFunc(f.assets, func(a asset) bool { return a.field == field })
	if i < 0 {
		i = len(f.assets)
		f.assets = append(f.assets, asset{field: field})
	}
	return &f.assets[i]
}

// differs says in what a receipt is not what the record says of the asset.
func differs(record *privacy.Record, receipt sinks.Receipt) string {
	i := slices.IndexFunc(record.Assets, func(a privacy.Asset) bool { return a.Field == receipt.Field })
	if i < 0 {
		return fmt.Sprintf("sink %s has this asset, and the record does not tell of it", receipt.Sink)
	}

	listed := record.Assets[i]
	other := listed.Inline != nil && receipt.SHA256 != "" && receipt.SHA256 != listed.Inline.SHA256
	for _, told := range listed.Stored {
		other = other || told.Sink == receipt.Sink && (unequal(told.SHA256, receipt.SHA256) || unequal(told.CRC64, receipt.CRC64))
	}
	if other {
		return fmt.Sprintf("these are the bytes that the manifest in sink %s describes; the record describes others", receipt.Sink)
	}
	return ""
}

// unequal reports whether two digests contradict each other.
func unequal(a, b string) bool { return a != "" && b != "" && a != b }

// unlisted notes that an archive has nothing of what the record says it has.
func (f *Found) unlisted(sink string) {
	if f.record == nil {
		return
	}
	for i, listed := range f.record.Assets {
		if slices.ContainsFunc(listed.Stored, func(r sinks.Receipt) bool { return r.Sink == sink }) {
			f.assets[i].elsewhere = append(f.assets[i].elsewhere, fmt.Sprintf("sink %s has nothing of this token, or nothing whole", sink))
		}
	}
}

func (f *Found) fault(format string, args ...any) {
	f.faults = append(f.faults, Missing{Field: recordField, Reason: fmt.Sprintf(format, args...)})
}

// Assets returns the fields of the assets that there should be.
func (f *Found) Assets() []string {
	fields := make([]string, len(f.assets))
	for i, a := range f.assets {
		fields[i] = a.field
	}
	return fields
}

// check says whether bytes are those of the receipt, as far as it describes them.
func (c archived) check(got digest) error {
	r := c.receipt
	if r.Size >= 0 && got.size != r.Size || unequal(r.SHA256, got.sha256) || unequal(r.CRC64, got.crc64) {
		return sinks.ErrDamaged
	}
	return nil
}

// unread says why a copy could not be read.
func (c archived) unread(err error) string {
	if errors.Is(err, sinks.ErrNotFound) && c.receipt.SHA256 == "" && c.receipt.CRC64 == "" {
		return fmt.Sprintf("sink %s only refers to it: it lies at %s, where FaceID put it; fetch it there, or configure a cos sink that may read it", c.archive.Name(), c.receipt.Location)
	}
	return fmt.Sprintf("sink %s: %v", c.archive.Name(), err)
}

// sniffed is how many bytes tell what an asset is.
const sniffed = 512

// typeOf returns the content type of a copy: what the record says, or where that says
// nothing, what the first bytes show.
func (a asset) typeOf(ctx context.Context, key sinks.Key, c archived) string {
	if a.contentType != "" && a.contentType != unknownType {
		return a.contentType
	}
	content, err := c.archive.OpenAsset(ctx, key, c.receipt)
	if err != nil {
		return unknownType // whoever reads it next says why
	}
	head := make([]byte, sniffed)
	n, err := io.ReadFull(content, head)
	if closeErr := content.Close(); closeErr != nil || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return unknownType
	}
	return spool.ContentType(head[:n])
}

const unknownType = "application/octet-stream"

// why says why an asset cannot be had, after the copies in tried.
func (f *Found) why(a asset, tried []Missing) string {
	var reasons []string
	for _, t := range tried {
		reasons = append(reasons, t.Reason)
	}
	reasons = append(append(reasons, a.elsewhere...), f.unread...)
	if len(reasons) == 0 {
		return "no configured archive has it"
	}
	return strings.Join(reasons, "; ")
}

// digest describes bytes in the words of a receipt.
type digest struct {
	size   int64
	sha256 string
	crc64  string
}

func newDigest(size int64, sha []byte, crc uint64) digest {
	return digest{size, hex.EncodeToString(sha), strconv.FormatUint(crc, 10)}
}
