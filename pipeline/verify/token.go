package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"slices"
	"strconv"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// archive looks at one token of an archive. The error means that the sink cannot
// be read.
func (r *run) archive(ctx context.Context, a sinks.ArchiveKeeper, key sinks.Key, f *finding) error {
	receipts, err := a.Manifest(ctx, key)
	switch {
	case erasedMeanwhile(err):
		return nil
	case errors.Is(err, sinks.ErrDamaged):
		f.problem(Damaged, a.Name(), key, "", "%v", err)
		return nil
	case err != nil:
		return err
	}
	for _, receipt := range receipts {
		if err := r.asset(ctx, a, key, receipt, f); err != nil {
			return err
		}
	}
	for _, records := range r.records {
		rec, err := records.Get(ctx, key)
		switch {
		case errors.Is(err, sinks.ErrNotFound):
			// Beside a daemon it may be on its way, or erased just now.
			f.later = append(f.later, doubt{MissingRecord, a, records})
		case err != nil:
			return err
		default:
			compare(a.Name(), records.Name(), key, receipts, rec, f)
		}
	}
	return nil
}

// compare holds what a record says of an archive against the archive's manifest.
func compare(archive, records string, key sinks.Key, receipts []sinks.Receipt, rec *privacy.Record, f *finding) {
	told := map[string]sinks.Receipt{}
	for _, asset := range rec.Assets {
		for _, receipt := range asset.Stored {
			if receipt.Sink == archive {
				told[asset.Field] = receipt
			}
		}
	}
	for _, receipt := range receipts {
		other, ok := told[receipt.Field]
		delete(told, receipt.Field)
		switch {
		case receipt.Missing != "" && ok:
			f.problem(Differs, records, key, receipt.Field, "sink %s lists this asset as missing (%s), and the record says where it is", archive, receipt.Missing)
		case receipt.Missing != "":
		case !ok:
			f.problem(Differs, records, key, receipt.Field, "sink %s has this asset, and the record does not say so", archive)
		case other.Location != receipt.Location:
			f.problem(Differs, records, key, receipt.Field, "the record says that sink %s has it elsewhere than it does", archive)
		case other.SHA256 != receipt.SHA256 || other.CRC64 != receipt.CRC64 || other.Size != receipt.Size:
			f.problem(Differs, records, key, receipt.Field, "the record has another size or digest than the manifest in sink %s", archive)
		}
	}
	for field := range told {
		f.problem(MissingObject, archive, key, field, "the record in sink %s tells of this asset, and the manifest does not list it", records)
	}
}

var ecma = crc64.MakeTable(crc64.ECMA)

// asset reads one asset whole.
func (r *run) asset(ctx context.Context, a sinks.ArchiveKeeper, key sinks.Key, receipt sinks.Receipt, f *finding) error {
	if receipt.Missing != "" {
		f.summary.Missing++
		return nil
	}
	content, err := a.OpenAsset(ctx, key, receipt)
	if errors.Is(err, sinks.ErrNotFound) && receipt.SHA256 == "" && receipt.CRC64 == "" {
		f.summary.Referred++
		return nil
	}
	var kind Kind
	var detail string
	if err == nil {
		kind = Damaged
		detail, err = read(content, receipt, f)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		kind, detail = judge(err)
	}
	if detail != "" {
		f.problem(kind, a.Name(), key, receipt.Field, "%s %s", receipt.Location, detail)
		return nil
	}
	return err
}

// judge says what an error means for the asset; detail is empty if it says nothing
// about it, as when the sink cannot be reached.
func judge(err error) (kind Kind, detail string) {
	var unknown *privacy.UnknownKeyError
	switch {
	case errors.Is(err, sinks.ErrNotFound):
		return MissingObject, "is gone"
	case errors.As(err, &unknown):
		return Unopenable, "is sealed: " + unknown.Error()
	case errors.Is(err, sinks.ErrDamaged):
		return Damaged, "has other bytes than were archived"
	case errors.Is(err, privacy.ErrNotAuthentic), errors.Is(err, privacy.ErrNotSealed):
		return Damaged, "is sealed, and was altered or cut off"
	}
	return "", ""
}

// read reads an asset to its end and says how it differs from its receipt, which
// need not say everything: a server's own copy has no SHA-256.
func read(content io.ReadCloser, receipt sinks.Receipt, f *finding) (wrong string, err error) {
	sha, crc := sha256.New(), crc64.New(ecma)
	size, err := io.Copy(io.MultiWriter(sha, crc), content)
	err = errors.Join(err, content.Close())
	f.summary.Assets++
	f.summary.Bytes += size
	switch {
	case receipt.Size >= 0 && size != receipt.Size:
		wrong = fmt.Sprintf("has %d bytes, not %d", size, receipt.Size)
	case receipt.SHA256 != "" && receipt.SHA256 != hex.EncodeToString(sha.Sum(nil)),
		receipt.CRC64 != "" && receipt.CRC64 != strconv.FormatUint(crc.Sum64(), 10):
		wrong = "has other bytes than its digest says"
	}
	return wrong, err
}

// record looks at one token of a record sink.
func (r *run) record(ctx context.Context, records sinks.RecordKeeper, key sinks.Key, f *finding) error {
	rec, err := records.Get(ctx, key)
	switch {
	case erasedMeanwhile(err):
		return nil
	case err != nil:
		return err
	}
	r.sealed(records.Name(), key, rec, f)
	for _, archive := range r.archives {
		if !tellsOf(rec, archive.Name()) {
			continue // it was configured later
		}
		_, err := archive.Manifest(ctx, key)
		switch {
		case errors.Is(err, sinks.ErrNotFound):
			f.later = append(f.later, doubt{MissingManifest, archive, records})
		case errors.Is(err, sinks.ErrDamaged):
			// Found when the archive is gone through.
		case err != nil:
			return err
		}
	}
	archived := slices.ContainsFunc(rec.Assets, func(a privacy.Asset) bool { return len(a.Stored) > 0 })
	for _, asset := range rec.Assets {
		known := slices.ContainsFunc(rec.Missing, func(m result.Missing) bool { return m.Field == asset.Field })
		if len(asset.Stored) == 0 && !known && archived && len(r.archives) > 0 { // else the archives were configured later
			f.problem(MissingObject, records.Name(), key, asset.Field, "the record does not say where this asset is")
		}
	}
	return nil
}

func tellsOf(rec *privacy.Record, archive string) bool {
	return slices.ContainsFunc(rec.Assets, func(a privacy.Asset) bool {
		return slices.ContainsFunc(a.Stored, func(r sinks.Receipt) bool { return r.Sink == archive })
	})
}

// sealed checks that the sealed values of a record are those that were stored. What
// is in them is dropped at once.
func (r *run) sealed(sink string, key sinks.Key, rec *privacy.Record, f *finding) {
	_ = rec.Each(func(field privacy.Field, position int, s *privacy.Stored) error {
		if !privacy.IsSealed(s.Value) {
			return nil
		}
		ref := privacy.Ref{Product: rec.Product, Token: rec.Token, Field: field, Position: position}
		if _, err := r.cfg.Policy.Open(ref, s.Value); err != nil {
			f.problem(Unopenable, sink, key, string(field), "%v", err)
		}
		return nil
	})
}

// doubt is something that was missing when it was looked for. A daemon that stores or
// erases at the same time makes such, so it is looked for once more when the batch
// is done.
type doubt struct {
	kind    Kind
	archive sinks.ArchiveKeeper
	records sinks.RecordKeeper
}

// settle looks again for what was missing.
func (d doubt) settle(ctx context.Context, key sinks.Key, f *finding) error {
	_, manifestErr := d.archive.Manifest(ctx, key)
	rec, recordErr := d.records.Get(ctx, key)
	noManifest, noRecord := errors.Is(manifestErr, sinks.ErrNotFound), errors.Is(recordErr, sinks.ErrNotFound)
	switch {
	case errors.Is(manifestErr, sinks.ErrDamaged):
		return nil // found when the archive is gone through
	case manifestErr != nil && !noManifest:
		return manifestErr
	case recordErr != nil && !noRecord:
		return recordErr
	case d.kind == MissingRecord && noRecord && !noManifest:
		f.problem(MissingRecord, d.records.Name(), key, "", "sink %s has assets of this token, and this one no record", d.archive.Name())
	case d.kind == MissingManifest && noManifest && !noRecord && tellsOf(rec, d.archive.Name()):
		f.problem(MissingManifest, d.archive.Name(), key, "", "the record in sink %s tells of assets there", d.records.Name())
	}
	return nil
}
