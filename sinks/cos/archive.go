package cos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Archive implements sinks.Archiver. A receipt's location is "cos://bucket/key". Its
// size and digests are those of the asset, also where its object is sealed; of an
// asset that did not pass through this process, size and CRC-64 are those that COS
// tells. What FaceID put into COS and is not there is waited for, and then missing: see
// Config.MissingAfter.
//
// A result of an unknown product, with two assets of one field, or with an asset that
// is neither inline nor at a usable place in COS gives a permanent error, and so does
// one that differs from what an object lock keeps. An erased token gives
// sinks.ErrErased.
func (s *Sink) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := acceptable(r); err != nil {
		return nil, sinks.Permanent(fmt.Errorf("archive a result: %w", err))
	}
	m, err := s.archiveToken(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("archive a result: %w", err)
	}
	return s.receipts(m), nil
}

// acceptable tells whether there is a way to archive r.
func acceptable(r *result.Result) error {
	if !r.Product.Valid() {
		return errors.New("unknown product")
	}
	fields := make(map[string]bool, len(r.Assets))
	for i, a := range r.Assets {
		switch {
		case fields[a.Field]:
			return fmt.Errorf("asset %d has the field of another", i)
		case a.Content != nil:
		case a.COS == nil:
			return fmt.Errorf("asset %d is neither inline nor in COS", i)
		case !bucketName.MatchString(a.COS.Bucket) || !regionName.MatchString(a.COS.Region) || !usable(a.COS.Key):
			return fmt.Errorf("asset %d lies in COS where nothing can be", i)
		}
		fields[a.Field] = true
	}
	return nil
}

// token is one token that is being archived.
type token struct {
	sink *Sink
	index
	// fresh says that the index object has just been made: nothing else is there.
	fresh bool
}

func (s *Sink) archiveToken(ctx context.Context, r *result.Result) (*Manifest, error) {
	x, fresh, err := s.settle(ctx, index{
		Version: indexVersion, Product: r.Product, TokenHash: r.TokenHash(), Since: r.FetchedAt.UTC(), place: s.keys.place(r),
	})
	if err != nil {
		return nil, err
	}
	t := &token{s, x, fresh}
	if x.Erased {
		return nil, t.lose(ctx)
	}
	var old *Manifest
	if !fresh {
		old, err = s.readManifest(ctx, x)
		if err != nil && !errors.Is(err, errNoObject) && !errors.Is(err, errManifest) {
			return nil, err
		}
	}
	m, open := t.compare(r, old)
	if old != nil && len(open) == 0 && bytes.Equal(old.encode(), m.encode()) {
		return m, nil
	}
	if err := t.store(ctx, r, m, open, old); err != nil {
		return nil, err
	}
	if err := t.outlived(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// outlived looks whether the token was erased while something of it was written.
// Who erased it before the manifest was there is seen now, and who does later sees
// all of it.
func (t *token) outlived(ctx context.Context) error {
	gone, err := t.sink.buried(ctx, t.index)
	if err != nil {
		return fmt.Errorf("look whether the token was erased: %w", err)
	}
	if gone {
		return t.lose(ctx)
	}
	return nil
}

// lose removes what there is of an erased token, which another call that ran at the
// same time may have written, and returns ErrErased once it is gone.
func (t *token) lose(ctx context.Context) error {
	if err := t.sink.sweep(ctx, t.index); err != nil {
		return fmt.Errorf("the token was erased, but something of it is still there: %w", err)
	}
	return sinks.ErrErased
}

// compare returns the manifest that r is to have, and which of its assets the old
// one, which may be nil, does not list as they are.
func (t *token) compare(r *result.Result, old *Manifest) (*Manifest, []int) {
	m := &Manifest{
		Version: manifestVersion, Product: r.Product, TokenHash: t.TokenHash,
		Account: r.Account, RuleID: r.RuleID, Assets: make([]Entry, len(r.Assets)),
	}
	listed := map[string]Entry{}
	if old != nil {
		for _, e := range old.Assets {
			listed[e.Field] = e
		}
	}
	var open []int
	for i, a := range r.Assets {
		e := t.entry(a)
		if o, ok := listed[a.Field]; ok && t.same(o, e, a) {
			// The same asset; its type and kind may be told in another way now.
			o.Kind, o.ContentType = e.Kind, e.ContentType
			e = o
		} else {
			open = append(open, i)
		}
		m.Assets[i] = e
	}
	return m, open
}

// entry returns what is known of an asset before it is stored.
func (t *token) entry(a result.Asset) Entry {
	e := Entry{Field: a.Field, Kind: a.Kind, ContentType: a.ContentType}
	if a.Content == nil && t.sink.cfg.Mode == modeReference {
		e.Location, e.Region = locate(a.COS.Bucket, a.COS.Key), a.COS.Region
		return e
	}
	e.Location = locate(t.sink.cfg.Bucket, t.place.key(a.Field, a.ContentType))
	if a.Content == nil {
		e.Source = locate(a.COS.Bucket, a.COS.Key)
	} else {
		e.describe(a.Digest)
	}
	return e
}

// same tells whether the old entry is of the asset that the new one describes. The
// manifest is believed: objects are whole when it is written.
func (t *token) same(old, e Entry, a result.Asset) bool {
	if old.Missing != "" || old.Location != e.Location || old.Source != e.Source || old.Region != e.Region {
		return false
	}
	// What is locked keeps the form that it has.
	if !e.referenced() && t.sink.cfg.Retention.Mode == "" && (old.Sealed != nil) != (t.sink.cfg.Seal && !t.copies(a)) {
		return false
	}
	return a.Content == nil || old.Size == e.Size && old.SHA256 == e.SHA256
}

// copies reports whether an asset is copied on COS's side. A copy's source with a
// question mark in its key cannot be named to the SDK.
func (t *token) copies(a result.Asset) bool {
	return a.Content == nil && t.sink.cfg.Mode == modeCopy && !strings.Contains(a.COS.Key, "?")
}

// store brings the folder to what m lists, and completes m: open are the assets to be
// stored. If objects that the old manifest lists are about to change, that goes first;
// it is nil if there is none.
func (t *token) store(ctx context.Context, r *result.Result, m *Manifest, open []int, old *Manifest) error {
	if old != nil && old.changes(m, open) {
		// In a bucket with versions it is only hidden, and stays as evidence.
		if _, err := t.sink.archive.removeVersion(ctx, t.manifest(), ""); err != nil {
			return t.final(fmt.Errorf("the manifest of an earlier answer: %w", err))
		}
		old = nil
	}

	var waiting error
	for _, i := range open {
		err := t.storeAsset(ctx, r.Assets[i], &m.Assets[i])
		if err != nil {
			err = fmt.Errorf("asset %d (%s): %w", i, result.FieldName(r.Assets[i].Field), err)
		}
		switch left, after := t.patience(r); {
		case err == nil:
		case !errors.Is(err, errMissing):
			return t.final(err)
		case left > 0:
			waiting = sinks.Waiting(fmt.Errorf("%w; FaceID may still be writing it: it is asked for again for %s", err, left.Round(time.Second)), after)
		default:
			m.Assets[i].Missing = result.NotFound
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if waiting != nil {
		return waiting // what is there is stored
	}

	if old != nil && bytes.Equal(old.encode(), m.encode()) {
		return nil // what was missing still is
	}
	if err := t.putManifest(ctx, m); err != nil {
		return t.final(fmt.Errorf("manifest: %w", err))
	}
	return nil
}

// maxPause is the longest time between two looks for what is not there.
const maxPause = 10 * time.Minute

// patience returns how much longer what is not there is waited for, 0 or less if that is
// over, and after what time it is looked for again: the longer it is not there, the later.
func (t *token) patience(r *result.Result) (left, after time.Duration) {
	since := t.Since
	if since.IsZero() {
		since = r.FetchedAt
	}

	// A clock that was set must not have anybody wait for days.
	waited := t.sink.links.edges.now().Sub(since).Abs()
	left = t.sink.cfg.MissingAfter.Duration() - waited
	return left, min(waited/2, maxPause, left)
}

// changes reports whether objects that m lists change when some assets of the next
// manifest are stored. What was missing has none.
func (m *Manifest) changes(next *Manifest, open []int) bool {
	return slices.ContainsFunc(open, func(i int) bool {
		return !slices.ContainsFunc(m.Assets, func(e Entry) bool { return e.Field == next.Assets[i].Field && e.Missing != "" })
	})
}

// final makes an object lock a permanent error: what it keeps differs from this
// result until it ends, years from now.
func (t *token) final(err error) error {
	var locked *lockedError
	if errors.As(err, &locked) {
		return sinks.Permanent(fmt.Errorf("%w; this answer differs from the one that is kept", err))
	}
	return err
}

// putManifest writes the manifest. One that is the same and locked already is as
// good. One that lists something missing is not locked, for it may be found.
func (t *token) putManifest(ctx context.Context, m *Manifest) error {
	b := t.sink.archive
	_, err := b.putSmall(ctx, t.manifest(), m.encode(), plainHeaders())
	if errors.Is(err, errForbidden) {
		if there, _, readErr := b.getSmall(ctx, t.manifest(), maxManifest); readErr == nil && bytes.Equal(there, m.encode()) {
			return nil
		}
		return b.whyLocked(ctx, t.manifest(), "", err)
	}
	if err != nil {
		return err
	}
	if !m.whole() {
		return nil
	}
	return t.retain(ctx, t.manifest())
}

// retain locks an object as the configuration says.
func (t *token) retain(ctx context.Context, key string) error {
	if t.sink.cfg.Retention.Mode == "" {
		return nil
	}
	until := t.sink.links.edges.now().Add(time.Duration(t.sink.cfg.Retention.Days) * 24 * time.Hour)
	return t.sink.archive.retain(ctx, key, until)
}

// storeAsset stores one asset and completes its entry.
func (t *token) storeAsset(ctx context.Context, a result.Asset, e *Entry) error {
	if a.Content == nil {
		return t.storeForeign(ctx, a, e)
	}
	p, err := t.sink.measure(ctx, a.Content, a.Digest.Size)
	if err != nil {
		return err
	}
	if p.digest != a.Digest {
		return errContent
	}
	return t.put(ctx, a.Content, p, opening(a.Content), e)
}

// put uploads measured content as it is, or sealed.
func (t *token) put(ctx context.Context, content result.Content, p *plan, open opener, e *Entry) error {
	if !t.sink.cfg.Seal {
		return t.keep(ctx, e, p, open, mediaType(e.ContentType))
	}
	media, err := t.sink.policy.SealMedia(t.ref(e), p.digest, content)
	if err != nil {
		return err
	}
	if p, err = t.sink.measure(ctx, media, media.Size()); err != nil {
		return t.unmeasured(err)
	}
	e.Sealed = sealedAs(media, p)
	return t.keep(ctx, e, p, opening(media), sealedType)
}

// sealedType is the content type of sealed objects, which are nothing that anybody
// could show.
const sealedType = "application/octet-stream"

func sealedAs(media *privacy.SealedMedia, p *plan) *Sealed {
	h := media.Header()
	return &Sealed{
		KeyID: h.KeyID, Cipher: h.Cipher,
		Size: p.digest.Size, SHA256: p.digest.SHA256Hex(), CRC64: p.digest.CRC64String(),
	}
}

// unmeasured gives what the reader of sealed media says of wrong bytes the words of
// this package.
func (t *token) unmeasured(err error) error {
	if errors.Is(err, privacy.ErrWrongContent) {
		return errContent
	}
	return err
}

// ref is what the object of an entry is bound to.
func (x index) ref(e *Entry) privacy.MediaRef {
	return privacy.MediaRef{Product: x.Product, TokenHash: x.TokenHash, Field: e.Field}
}

// keep uploads measured bytes to where the entry says, unless they are there already:
// a process that crashed may have left them, and they may be locked.
func (t *token) keep(ctx context.Context, e *Entry, p *plan, open opener, contentType string) error {
	_, key, _ := split(e.Location)
	if !t.fresh {
		there, err := t.has(ctx, key, p)
		if err != nil {
			return err
		}
		if there {
			return t.retain(ctx, key)
		}
	}
	err := t.sink.upload(ctx, key, p, open, t.sink.cfg.PartWorkers, object{
		tokenHash: t.TokenHash, field: e.Field, contentType: contentType,
	})
	if errors.Is(err, errForbidden) {
		if there, hasErr := t.has(ctx, key, p); hasErr == nil && there {
			return nil // another replica was faster, and has locked it
		}
		return t.sink.archive.whyLocked(ctx, key, "", err)
	}
	if err != nil {
		return err
	}
	return t.retain(ctx, key)
}

// has tells whether the bytes that were measured are under a key.
func (t *token) has(ctx context.Context, key string, p *plan) (bool, error) {
	there, err := t.sink.archive.head(ctx, key)
	if errors.Is(err, errNoObject) {
		return false, nil
	}
	want := stat{p.digest.Size, p.digest.CRC64String(), p.digest.SHA256Hex()}
	return err == nil && there == want, err
}
