package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Archive implements sinks.Archiver. A receipt's location is a path relative to
// the archive folder, with forward slashes, or "cos://bucket/key" of an asset
// that FaceID put in COS, whose size is then -1. Size and digests are those of the
// asset, also where its file is sealed.
//
// A result of an unknown product, with two assets of one field, or with an asset
// that is neither inline nor in COS gives a permanent error, an erased token
// sinks.ErrErased; every other error is transient.
func (s *Sink) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	manifest, err := newManifest(r)
	if err != nil {
		return nil, sinks.Permanent(fmt.Errorf("archive a result: %w", err))
	}
	key := sinks.Key{Product: r.Product, Hash: manifest.TokenHash}
	err = s.locked(ctx, key, func(t *token) error { return t.archive(ctx, r, manifest) })
	if err != nil {
		return nil, s.explain("archive", err)
	}
	return s.receipts(key, manifest), nil
}

// locked calls do with the folder of a token while its shard is locked.
func (s *Sink) locked(ctx context.Context, key sinks.Key, do func(*token) error) error {
	folder, err := s.folder(key)
	if err != nil {
		return sinks.Permanent(err)
	}
	shard := filepath.Dir(folder)
	if err := s.inShard(ctx, shard, func() error {
		return do(&token{sink: s, key: key, temp: filepath.Join(shard, tempName), folder: folder})
	}); err != nil {
		s.durable.Delete(shard) // it may be gone
		return err
	}
	return nil
}

func (s *Sink) inShard(ctx context.Context, shard string, do func() error) error {
	if err := s.makeShard(shard); err != nil {
		return err
	}
	unlock, err := s.tree().lock(ctx, filepath.Join(shard, lockName))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.emptyTemp(shard); err != nil {
		return err
	}
	return do()
}

// makeShard makes a shard with the folders above and in it. It asks the file
// system until all of them are on disk, and then no more.
func (s *Sink) makeShard(shard string) error {
	if _, done := s.durable.Load(shard); done {
		return nil
	}
	product := filepath.Dir(shard)
	for _, folder := range []string{product, shard, filepath.Join(shard, tempName)} {
		if err := s.makeFolder(folder); err != nil {
			return err
		}
	}
	// A process that crashed may have made them without making them last.
	for _, folder := range []string{s.root, product} {
		if err := s.files.SyncDir(folder); err != nil {
			return err
		}
	}
	s.durable.Store(shard, struct{}{})
	return nil
}

// token is the folder of one token while its shard is locked.
type token struct {
	sink         *Sink
	key          sinks.Key
	temp, folder string
}

// archive brings the folder to what m lists, unless the token was erased.
func (t *token) archive(ctx context.Context, r *result.Result, m *Manifest) error {
	gone, err := t.sink.tree().erased(t.folder)
	if err != nil {
		return err
	}
	if gone {
		return sinks.ErrErased
	}
	old, err := t.sink.tree().readManifest(t.folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errManifest) {
		return err
	}
	if t.sink.seal {
		m.seal()
	}
	if err := t.write(ctx, r, m, old); err != nil {
		return err
	}
	return t.removeTwins(m)
}

// write brings the folder to what m lists. old is the manifest that is there, or
// nil.
func (t *token) write(ctx context.Context, r *result.Result, m, old *Manifest) error {
	var missing []int
	for i := range m.Assets {
		if e := &m.Assets[i]; e.File != "" && !t.has(e, old) {
			missing = append(missing, i)
		}
	}
	if old != nil && len(missing) == 0 && bytes.Equal(old.encode(), m.encode()) {
		// The process that wrote the manifest may have crashed before this.
		return t.sink.files.SyncDir(t.folder)
	}
	if err := t.prepare(old != nil && len(missing) > 0); err != nil {
		return err
	}
	for _, i := range missing {
		if err := t.writeAsset(ctx, r.Assets[i], &m.Assets[i]); err != nil {
			return fmt.Errorf("asset %d (%s): %w", i, m.Assets[i].File, err)
		}
	}
	return t.putManifest(ctx, m)
}

// putManifest writes the manifest once the files that it lists last.
func (t *token) putManifest(ctx context.Context, m *Manifest) error {
	if err := t.sink.files.SyncDir(t.folder); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	put := func(f file) error { _, err := f.Write(m.encode()); return err }
	if err := t.put(manifestName, put); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return t.sink.files.SyncDir(t.folder)
}

// has tells whether the file of an entry is there with the same bytes, and lets
// the entry say how they are sealed. The manifest is believed: files are whole
// when it is written, and Verify is there to find what happened to them later.
func (t *token) has(e *Entry, old *Manifest) bool {
	if old == nil {
		return false
	}
	for _, o := range old.Assets {
		if o.File != e.File {
			continue
		}
		size := e.Size
		if o.Sealed != nil {
			size = o.Sealed.Size
		}
		info, err := t.sink.tree().Lstat(filepath.Join(t.folder, e.File))
		if err != nil || !info.Mode().IsRegular() || info.Size() != size || o.Size != e.Size || o.SHA256 != e.SHA256 {
			return false
		}
		e.Sealed = o.Sealed
		return true
	}
	return false
}

// removeTwins removes files whose assets the manifest lists in the other form. It
// does not ask whether this call wrote the manifest: that may have been a process
// which crashed before this.
func (t *token) removeTwins(m *Manifest) error {
	removed := false
	for _, e := range m.Assets {
		if e.File == "" {
			continue
		}
		other := filepath.Join(t.folder, twin(e.File))
		if _, err := t.sink.tree().Lstat(other); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := t.sink.files.Remove(other); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return t.sink.files.SyncDir(t.folder)
}

// prepare makes the folder. If files that a manifest lists are about to change,
// the manifest goes first, for good.
func (t *token) prepare(outdated bool) error {
	if err := t.sink.makeFolder(t.folder); err != nil {
		return err
	}
	if err := t.sink.files.SyncDir(filepath.Dir(t.folder)); err != nil {
		return err
	}
	if !outdated {
		return nil
	}
	if err := t.sink.files.Remove(filepath.Join(t.folder, manifestName)); err != nil {
		return err
	}
	return t.sink.files.SyncDir(t.folder)
}

// put writes a file whole or not at all. It still has to be made to last by
// SyncDir of the folder.
func (t *token) put(name string, write func(file) error) (err error) {
	temp := filepath.Join(t.temp, name)
	f, err := t.sink.files.Create(temp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = t.sink.files.Remove(temp)
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.sink.files.Rename(temp, filepath.Join(t.folder, name))
}

// chunkSize is how much of an asset is in memory at a time, in bytes.
const chunkSize = 128 << 10

func (t *token) writeAsset(ctx context.Context, a result.Asset, e *Entry) (err error) {
	if e.Sealed != nil {
		media, err := t.sink.policy.SealMedia(t.ref(*e), a.Digest, a.Content)
		if err != nil {
			return err
		}
		return t.putSealed(ctx, media, e)
	}
	content, err := a.Content.Open()
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	return t.put(e.File, func(f file) error { return copyAsset(ctx, f, content, a.Digest) })
}

// copyAsset copies exactly the bytes that want describes.
func copyAsset(ctx context.Context, to io.Writer, from io.Reader, want result.Digest) error {
	if want.Size < 0 {
		return errContent
	}
	hash := sha256.New()
	buf := make([]byte, min(chunkSize, want.Size+1))
	for left := want.Size; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, readErr := from.Read(buf)
		if left -= int64(n); left < 0 {
			return errContent
		}
		_, _ = hash.Write(buf[:n]) // never fails
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) {
			if left > 0 || [32]byte(hash.Sum(nil)) != want.SHA256 {
				return errContent
			}
			return nil
		}
		if readErr != nil {
			return fmt.Errorf("read it: %w", readErr)
		}
	}
}

// receipts says of each asset where it is.
func (s *Sink) receipts(key sinks.Key, m *Manifest) []sinks.Receipt {
	receipts := make([]sinks.Receipt, len(m.Assets))
	for i, e := range m.Assets {
		receipts[i] = sinks.Receipt{
			Sink: s.name, Field: e.Field,
			Location: e.Location, Size: e.Size, SHA256: e.SHA256, CRC64: e.CRC64,
		}
		if e.File != "" {
			receipts[i].Location = path.Join(folder(key), e.File)
		}
	}
	return receipts
}
