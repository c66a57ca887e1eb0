package cos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"iter"
	"sync"

	"github.com/faceid-ingest/faceid-ingest/pipeline/crash"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Erase implements sinks.Eraser. Of assets that were left where FaceID put them, it
// removes the objects there, since they are the archive; copies leave FaceID's own
// objects alone. In a bucket with versions, all versions go. What an object lock
// keeps cannot be removed before it ends: the error says so and until when, the
// tombstone stands, and Erase may be called again then.
//
// A key that no token can have gives a permanent error; every other error is
// transient or throttled.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, reason string) (sinks.Holding, error) {
	var held sinks.Holding
	if err := ctx.Err(); err != nil {
		return held, err
	}
	if !validKey(key) {
		return held, sinks.Permanent(errors.New("erase: no token has such a key"))
	}

	x, before, err := s.bury(ctx, key, sinks.NewTombstone(reason))
	if err == nil {
		held, err = s.holding(ctx, x)
	}
	if err == nil {
		err = s.sweep(ctx, x)
	}
	if err != nil {
		return sinks.Holding{}, fmt.Errorf("erase: %w", err)
	}
	held.Erased = before
	return held, nil
}

// Holds implements sinks.Keeper. Of a bucket with versions it counts the latest ones.
func (s *Sink) Holds(ctx context.Context, key sinks.Key) (sinks.Holding, error) {
	var held sinks.Holding
	if err := ctx.Err(); err != nil {
		return held, err
	}
	if !validKey(key) {
		return held, nil // such a key cannot be stored
	}

	x, err := s.readIndex(ctx, key)
	if errors.Is(err, errNoObject) {
		return held, nil
	}
	if err == nil {
		held, err = s.holding(ctx, x)
	}
	if err != nil {
		return sinks.Holding{}, fmt.Errorf("look for a result: %w", err)
	}
	return held, nil
}

// holding counts the objects of a token: those in its folder, and those that were left
// where FaceID put them, whose size nobody has noted.
func (s *Sink) holding(ctx context.Context, x index) (sinks.Holding, error) {
	held := sinks.Holding{Erased: x.tombstone()}
	if x.place == (place{}) {
		return held, nil // there never was anything
	}

	m, err := s.readManifest(ctx, x)
	if err != nil && !errors.Is(err, errNoObject) && !errors.Is(err, errManifest) {
		return held, err
	}
	if m != nil {
		for _, e := range m.Assets {
			if e.referenced() && e.Missing == "" {
				held.Assets++
			}
		}
	}

	for marker := ""; ; {
		objects, next, err := s.archive.list(ctx, x.Folder, marker)
		if err != nil {
			return held, err
		}
		for _, o := range objects {
			held.Bytes += o.size
			if o.key == x.manifest() {
				held.Records++
			} else {
				held.Assets++
			}
		}
		if next == "" {
			return held, nil
		}
		marker = next
	}
}

// sweep removes everything of a token but its index object. The manifest goes last:
// it tells of objects elsewhere.
func (s *Sink) sweep(ctx context.Context, x index) error {
	if x.place == (place{}) {
		return nil // there was nothing
	}
	m, err := s.readManifest(ctx, x)
	if err != nil && !errors.Is(err, errNoObject) && !errors.Is(err, errManifest) {
		return err
	}
	var problems []error
	if m != nil {
		problems = append(problems, s.removeReferenced(ctx, m))
	}
	problems = append(problems, s.archive.abortAll(ctx, x.Folder), s.removeFolder(ctx, x))
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return s.archive.remove(ctx, x.manifest(), "")
}

// removeReferenced removes the objects that were left where FaceID put them.
func (s *Sink) removeReferenced(ctx context.Context, m *Manifest) error {
	var problems []error
	for _, e := range m.Assets {
		if !e.referenced() {
			continue
		}
		name, key, _ := split(e.Location)
		if err := s.links.bucket(name, e.Region, s.links.source).remove(ctx, key, ""); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// removeFolder removes the objects in the folder of a token but for the manifest. One
// that cannot be removed does not keep the others.
func (s *Sink) removeFolder(ctx context.Context, x index) error {
	var problems []error
	remove := func(key, version string) {
		if key == x.manifest() || ctx.Err() != nil {
			return
		}
		if err := s.archive.remove(ctx, key, version); err != nil {
			problems = append(problems, err)
		}
	}
	if x.versioned {
		// Also what an Erase that did not come to its end has only hidden.
		versions, err := s.archive.versions(ctx, x.Folder)
		for _, v := range versions {
			remove(v.key, v.id)
		}
		return errors.Join(append(problems, err, ctx.Err())...)
	}
	for marker := ""; ; {
		objects, next, err := s.archive.list(ctx, x.Folder, marker)
		for _, o := range objects {
			remove(o.key, "")
		}
		if err = errors.Join(err, ctx.Err()); err != nil || next == "" {
			return errors.Join(append(problems, err)...)
		}
		marker = next
	}
}

// keysAtOnce is how many tokens Keys asks about at the same time.
const keysAtOnce = 16

// Keys implements sinks.Keeper: it lists the index objects, and asks of each whether
// it is a tombstone and of its token whether there is a manifest.
func (s *Sink) Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error] {
	return func(yield func(sinks.Key, error) bool) {
		marker := ""
		if after != (sinks.Key{}) {
			marker = indexKey(after)
		}
		for {
			objects, next, err := s.archive.list(ctx, indexPrefix, marker)
			if err != nil {
				yield(sinks.Key{}, fmt.Errorf("list: %w", err))
				return
			}
			if !s.eachWhole(ctx, objects, after, yield) || next == "" {
				return
			}
			marker = next
		}
	}
}

// eachWhole yields those of a page's tokens that are whole, and tells whether to go
// on.
func (s *Sink) eachWhole(ctx context.Context, objects []listed, after sinks.Key, yield func(sinks.Key, error) bool) bool {
	for len(objects) > 0 {
		some := objects[:min(keysAtOnce, len(objects))]
		objects = objects[len(some):]
		whole, errs := make([]bool, len(some)), make([]error, len(some))
		var wg sync.WaitGroup
		for i, object := range some {
			if key, ours := keyOfIndex(object.key); ours && key.Compare(after) > 0 {
				wg.Go(func() {
					errs[i] = crash.Guard(func() (err error) {
						whole[i], err = s.whole(ctx, key)
						return err
					})
				})
			}
		}
		wg.Wait()
		for i, object := range some {
			if errs[i] != nil {
				yield(sinks.Key{}, fmt.Errorf("list: %w", errs[i]))
				return false
			}
			if key, _ := keyOfIndex(object.key); whole[i] && !yield(key, nil) {
				return false
			}
		}
	}
	return true
}

// whole tells whether a token is archived and not erased.
func (s *Sink) whole(ctx context.Context, key sinks.Key) (bool, error) {
	x, err := s.readIndex(ctx, key)
	switch {
	case errors.Is(err, errNoObject), err == nil && x.Erased:
		return false, nil
	case errors.Is(err, errIndex):
		return true, nil // whoever looks at the token finds that out
	case err != nil:
		return false, err
	}
	_, err = s.archive.head(ctx, x.manifest())
	if errors.Is(err, errNoObject) {
		return false, nil
	}
	return err == nil, err
}

// Manifest implements sinks.ArchiveKeeper. Receipts are those of Archive.
func (s *Sink) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	_, m, err := s.manifestOf(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read a manifest: %w", err)
	}
	return s.receipts(m), nil
}

// manifestOf reads the manifest of a token that is not erased.
func (s *Sink) manifestOf(ctx context.Context, key sinks.Key) (index, *Manifest, error) {
	if err := ctx.Err(); err != nil {
		return index{}, nil, err
	}
	if !validKey(key) {
		return index{}, nil, sinks.ErrNotFound // such a key cannot be stored
	}
	x, err := s.readIndex(ctx, key)
	if err == nil && x.Erased {
		err = errNoObject
	}
	var m *Manifest
	if err == nil {
		m, err = s.readManifest(ctx, x)
	}
	if errors.Is(err, errNoObject) {
		err = sinks.ErrNotFound
	}
	return x, m, err
}

// OpenAsset implements sinks.ArchiveKeeper. It goes by the receipt's field and
// location. Read fails at the end if the bytes are not those that the manifest
// describes, and if they are not those of the receipt, as far as it has a SHA-256.
func (s *Sink) OpenAsset(ctx context.Context, key sinks.Key, receipt sinks.Receipt) (io.ReadCloser, error) {
	asset, err := s.openAsset(ctx, key, receipt)
	if err != nil {
		return nil, fmt.Errorf("read an asset: %w", err)
	}
	return asset, nil
}

func (s *Sink) openAsset(ctx context.Context, key sinks.Key, receipt sinks.Receipt) (io.ReadCloser, error) {
	x, m, err := s.manifestOf(ctx, key)
	if err != nil {
		return nil, err
	}
	for i := range m.Assets {
		e := &m.Assets[i]
		if e.Field != receipt.Field {
			continue
		}
		if receipt.Location != "" && receipt.Location != e.Location ||
			receipt.SHA256 != "" && e.SHA256 != "" && receipt.SHA256 != e.SHA256 {
			return nil, fmt.Errorf("%w: what there is, is of another answer than the receipt", sinks.ErrNotFound)
		}
		return s.openEntry(ctx, x, e)
	}
	return nil, sinks.ErrNotFound
}

func (s *Sink) openEntry(ctx context.Context, x index, e *Entry) (io.ReadCloser, error) {
	if e.Missing != "" {
		return nil, fmt.Errorf("%w: it was missing when the result was archived (%s)", sinks.ErrNotFound, e.Missing)
	}
	from := s.archive
	name, key, _ := split(e.Location)
	if e.referenced() {
		from = s.links.bucket(name, e.Region, s.links.source)
	}
	body, err := from.get(ctx, key, 0, -1)
	if errors.Is(err, errNoObject) || e.referenced() && errors.Is(err, errForbidden) {
		return nil, fmt.Errorf("%w: %w", sinks.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	asset := &checked{body: body, plain: body, entry: e, sha: sha256.New(), crc: crc64.New(ecma)}
	if e.Sealed == nil {
		return asset, nil
	}
	if asset.plain, err = s.policy.OpenMedia(x.ref(e), body); err != nil {
		return nil, errors.Join(err, body.Close())
	}
	return asset, nil
}

// checked reads an asset, and fails at the end if it is another.
type checked struct {
	body  io.Closer
	plain io.Reader
	entry *Entry
	sha   hash.Hash
	crc   hash.Hash64
	read  int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.plain.Read(p)
	_, _ = c.sha.Write(p[:n]) // never fails
	_, _ = c.crc.Write(p[:n]) // never fails
	if c.read += int64(n); c.read > c.entry.Size || errors.Is(err, io.EOF) && !c.right() {
		return 0, sinks.ErrDamaged
	}
	return n, err
}

// right tells whether what was read is what the entry describes.
func (c *checked) right() bool {
	crc, known := c.entry.wanted()
	return c.read == c.entry.Size && (!known || crc == c.crc.Sum64()) &&
		(c.entry.SHA256 == "" || c.entry.SHA256 == hex.EncodeToString(c.sha.Sum(nil)))
}

func (c *checked) Close() error { return c.body.Close() }

// Reseal implements sinks.Keeper. COS replaces an object at once, when the new one is
// there as a whole. The manifest follows when all are replaced: after a crash in
// between, it still tells the key and digests that some objects had before, which
// Reseal mends.
func (s *Sink) Reseal(ctx context.Context, key sinks.Key) (changed bool, err error) {
	x, m, err := s.manifestOf(ctx, key)
	if err != nil {
		return false, fmt.Errorf("reseal: %w", err)
	}
	t := &token{sink: s, index: x}
	for i := range m.Assets {
		if m.Assets[i].Sealed == nil {
			continue
		}
		one, err := t.reseal(ctx, &m.Assets[i])
		if err != nil {
			return false, fmt.Errorf("reseal: asset %d (%s): %w", i, result.FieldName(m.Assets[i].Field), err)
		}
		changed = changed || one
	}
	if !changed {
		return false, nil
	}
	if err := t.putManifest(ctx, m); err != nil {
		return false, fmt.Errorf("reseal: manifest: %w", err)
	}
	if err = t.outlived(ctx); errors.Is(err, sinks.ErrErased) {
		err = sinks.ErrNotFound
	}
	if err != nil {
		return false, fmt.Errorf("reseal: %w", err)
	}
	return true, nil
}

// reseal seals the object of an entry anew if need be, and tells whether the entry
// has changed.
func (t *token) reseal(ctx context.Context, e *Entry) (bool, error) {
	digest, err := e.digest()
	if err != nil {
		return false, err
	}
	_, key, _ := split(e.Location)
	open := func() (io.ReadCloser, error) { return t.sink.archive.get(ctx, key, 0, -1) }
	media, changed, err := t.sink.policy.ResealMedia(t.ref(e), digest, open)
	if err != nil {
		return false, err
	}
	if !changed {
		return t.describe(ctx, key, e)
	}
	p, err := t.sink.measure(ctx, media, media.Size())
	if err != nil {
		return false, t.unmeasured(err)
	}
	whole, err := media.Open()
	if err != nil {
		return false, err
	}
	// The reader cannot seek: parts are taken from it one after the other.
	inOrder := func(context.Context, int64, int64) (io.ReadCloser, error) { return io.NopCloser(whole), nil }
	err = t.sink.upload(ctx, key, p, inOrder, 1, object{tokenHash: t.TokenHash, field: e.Field, contentType: sealedType})
	if err = errors.Join(err, whole.Close()); err != nil {
		return false, t.sink.archive.whyLocked(ctx, key, "", err)
	}
	e.Sealed = sealedAs(media, p)
	return true, t.retain(ctx, key)
}

// describe lets an entry say of its object what the object says of itself.
func (t *token) describe(ctx context.Context, key string, e *Entry) (changed bool, err error) {
	there, err := t.sink.archive.head(ctx, key)
	if err != nil || there.size == e.Sealed.Size && there.crc == e.Sealed.CRC64 {
		return false, err
	}
	content := remote{ctx, t.sink.archive, key}
	p, err := t.sink.measure(ctx, content, there.size)
	if err != nil {
		return false, err
	}
	head, err := t.sink.archive.get(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	h, err := privacy.ReadMediaHeader(head)
	if err = errors.Join(err, head.Close()); err != nil {
		return false, err
	}
	e.Sealed = &Sealed{
		KeyID: h.KeyID, Cipher: h.Cipher,
		Size: p.digest.Size, SHA256: p.digest.SHA256Hex(), CRC64: p.digest.CRC64String(),
	}
	return true, nil
}
