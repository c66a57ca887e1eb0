package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Archive implements sinks.Archiver. A receipt's location is a path relative to
// the archive folder, with forward slashes, or "cos://bucket/key" of an asset
// that FaceID put in COS, whose size is then -1.
//
// A result of an unknown product, with two assets of one field, or with an asset
// that is neither inline nor in COS gives a permanent error; every other error is
// transient.
func (s *Sink) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	manifest, err := newManifest(r)
	if err != nil {
		return nil, sinks.Permanent(fmt.Errorf("archive a result: %w", err))
	}
	folder := filepath.Join(s.root, filepath.FromSlash(Folder(r.Product, r.Token)))
	if err := s.archive(ctx, folder, r, manifest); err != nil {
		s.durable.Delete(filepath.Dir(folder)) // it may be gone
		return nil, s.explain("archive", err)
	}
	return s.receipts(r, manifest), nil
}

func (s *Sink) archive(ctx context.Context, folder string, r *result.Result, m *Manifest) error {
	shard := filepath.Dir(folder)
	if err := s.makeShard(shard); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(shard, lockName))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.emptyTemp(shard); err != nil {
		return err
	}
	old, err := readManifest(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errManifest) {
		return err
	}
	t := &token{sink: s, temp: filepath.Join(shard, tempName), folder: folder}
	return t.write(ctx, r, m, old)
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
	temp, folder string
}

// write brings the folder to what m lists. old is the manifest that is there, or
// nil.
func (t *token) write(ctx context.Context, r *result.Result, m, old *Manifest) error {
	text := m.encode()
	var missing []int
	for i, entry := range m.Assets {
		if entry.File != "" && !t.has(entry, old) {
			missing = append(missing, i)
		}
	}
	if old != nil && len(missing) == 0 && bytes.Equal(old.encode(), text) {
		// The process that wrote the manifest may have crashed before this.
		return t.sink.files.SyncDir(t.folder)
	}
	if err := t.prepare(old != nil && len(missing) > 0); err != nil {
		return err
	}
	for _, i := range missing {
		if err := t.writeAsset(ctx, r.Assets[i], m.Assets[i].File); err != nil {
			return fmt.Errorf("asset %d (%s): %w", i, m.Assets[i].File, err)
		}
	}
	if err := t.sink.files.SyncDir(t.folder); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	put := func(f file) error { _, err := f.Write(text); return err }
	if err := t.put(manifestName, put); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return t.sink.files.SyncDir(t.folder)
}

// has tells whether the file of an entry is there with the same bytes. The
// manifest is believed: files are whole when it is written, and Verify is there
// to find what happened to them later.
func (t *token) has(e Entry, old *Manifest) bool {
	if old == nil {
		return false
	}
	for _, o := range old.Assets {
		if o.File == e.File {
			info, err := os.Stat(filepath.Join(t.folder, e.File))
			return err == nil && info.Mode().IsRegular() && info.Size() == e.Size &&
				o.Size == e.Size && o.SHA256 == e.SHA256
		}
	}
	return false
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

func (t *token) writeAsset(ctx context.Context, a result.Asset, name string) (err error) {
	content, err := a.Content.Open()
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	return t.put(name, func(f file) error { return copyAsset(ctx, f, content, a.Digest) })
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
func (s *Sink) receipts(r *result.Result, m *Manifest) []sinks.Receipt {
	folder := Folder(r.Product, r.Token)
	receipts := make([]sinks.Receipt, len(m.Assets))
	for i, e := range m.Assets {
		receipts[i] = sinks.Receipt{
			Sink: s.name, Field: r.Assets[i].Field,
			Location: e.Location, Size: e.Size, SHA256: e.SHA256, CRC64: e.CRC64,
		}
		if e.File != "" {
			receipts[i].Location = path.Join(folder, e.File)
		}
	}
	return receipts
}
