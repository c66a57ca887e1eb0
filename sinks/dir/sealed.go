package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// seal makes the manifest one of sealed files, which are still to be written.
func (m *Manifest) seal() {
	for i := range m.Assets {
		if e := &m.Assets[i]; e.File != "" {
			e.File += sealedSuffix
			e.Sealed = &Sealed{}
		}
	}
}

// ref is what the file of an entry is bound to.
func (t *token) ref(e Entry) privacy.MediaRef {
	return privacy.MediaRef{Product: t.key.Product, TokenHash: t.key.Hash, Field: e.Field}
}

// putSealed writes the file of an entry and lets the entry describe it.
func (t *token) putSealed(ctx context.Context, media *privacy.SealedMedia, e *Entry) (err error) {
	content, err := media.Open()
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	var sum string
	err = t.put(e.File, func(f file) error {
		sum, err = copySealed(ctx, f, content)
		return err
	})
	h := media.Header()
	e.Sealed = &Sealed{KeyID: h.KeyID, Cipher: h.Cipher, Size: media.Size(), SHA256: sum}
	return err
}

// copySealed copies everything and returns its SHA-256. What it copies fails where
// the plaintext is not what it should be.
func copySealed(ctx context.Context, to io.Writer, from io.Reader) (string, error) {
	hash := sha256.New()
	buf := make([]byte, chunkSize)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, readErr := from.Read(buf)
		_, _ = hash.Write(buf[:n]) // never fails
		if _, err := to.Write(buf[:n]); err != nil {
			return "", err
		}
		if errors.Is(readErr, io.EOF) {
			return hex.EncodeToString(hash.Sum(nil)), nil
		}
		if readErr != nil {
			return "", fmt.Errorf("read it: %w", readErr)
		}
	}
}

// Reseal implements sinks.Keeper. A file is replaced by a rename, and the manifest
// follows when all are: after a crash in between, the manifest still tells the key
// and digest that some files had before. Reseal mends that, and what is read does
// not depend on it.
func (s *Sink) Reseal(ctx context.Context, key sinks.Key) (changed bool, err error) {
	if _, err := s.manifest(ctx, key); err != nil {
		return false, s.explain("reseal", err) // nothing is made for a token that is not there
	}
	err = s.locked(ctx, key, func(t *token) error {
		changed, err = t.reseal(ctx)
		return err
	})
	if err != nil {
		return false, s.explain("reseal", err)
	}
	return changed, nil
}

func (t *token) reseal(ctx context.Context) (bool, error) {
	m, err := t.sink.manifest(ctx, t.key)
	if err != nil {
		return false, err
	}
	outdated, some := false, false
	for i := range m.Assets {
		e := &m.Assets[i]
		if e.Sealed == nil {
			continue
		}
		some = true
		changed, err := t.resealFile(ctx, e)
		if err != nil {
			return false, fmt.Errorf("asset %d (%s): %w", i, e.File, err)
		}
		outdated = outdated || changed
	}
	switch {
	case outdated:
		return true, t.putManifest(ctx, m)
	case some:
		// The process that wrote the manifest may have crashed before this.
		return false, t.sink.files.SyncDir(t.folder)
	}
	return false, nil
}

// resealFile seals the file of an entry anew if need be, and tells whether the
// entry has changed.
func (t *token) resealFile(ctx context.Context, e *Entry) (bool, error) {
	digest, err := e.digest()
	if err != nil {
		return false, err
	}
	name := filepath.Join(t.folder, e.File)
	open := func() (io.ReadCloser, error) { return t.sink.tree().Open(name) }
	media, changed, err := t.sink.policy.ResealMedia(t.ref(*e), digest, open)
	if err != nil {
		return false, err
	}
	if changed {
		return true, t.putSealed(ctx, media, e)
	}
	return t.describe(ctx, name, e)
}

// describe lets an entry say of its file what the file says of itself.
func (t *token) describe(ctx context.Context, name string, e *Entry) (changed bool, err error) {
	f, err := t.sink.tree().Open(name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, err := privacy.ReadMediaHeader(f)
	if err != nil || h.KeyID == e.Sealed.KeyID && h.Cipher == e.Sealed.Cipher {
		return false, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	sum, err := copySealed(ctx, io.Discard, f)
	e.Sealed = &Sealed{KeyID: h.KeyID, Cipher: h.Cipher, Size: privacy.SealedMediaSize(h.Size), SHA256: sum}
	return true, err
}

// OpenAsset implements sinks.ArchiveKeeper. It goes by the receipt's field. Read
// fails at the end if the bytes are not those that the manifest describes, and if
// they are not those of the receipt, as far as it has a SHA-256.
func (s *Sink) OpenAsset(ctx context.Context, key sinks.Key, receipt sinks.Receipt) (io.ReadCloser, error) {
	asset, err := s.openAsset(ctx, key, receipt)
	if err != nil {
		return nil, s.explain("read an asset", err)
	}
	return asset, nil
}

func (s *Sink) openAsset(ctx context.Context, key sinks.Key, receipt sinks.Receipt) (io.ReadCloser, error) {
	m, err := s.manifest(ctx, key)
	if err != nil {
		return nil, err
	}
	for _, e := range m.Assets {
		if e.Field != receipt.Field {
			continue
		}
		if e.File == "" {
			return nil, fmt.Errorf("%w: %s is in COS", sinks.ErrNotFound, e.Location)
		}
		if receipt.SHA256 != "" && receipt.SHA256 != e.SHA256 {
			return nil, fmt.Errorf("%w: %s is of another answer than the receipt", sinks.ErrNotFound, e.File)
		}
		return s.openFile(ctx, key, e)
	}
	return nil, sinks.ErrNotFound
}

func (s *Sink) openFile(ctx context.Context, key sinks.Key, e Entry) (io.ReadCloser, error) {
	digest, err := e.digest()
	if err != nil {
		return nil, err
	}
	f, err := s.tree().Open(filepath.Join(s.root, filepath.FromSlash(folder(key)), e.File))
	if err != nil {
		return nil, s.absent(err)
	}
	asset := &checkedFile{ctx: ctx, file: f, plain: f, hash: sha256.New(), want: digest}
	if e.Sealed == nil {
		return asset, nil
	}
	ref := privacy.MediaRef{Product: key.Product, TokenHash: key.Hash, Field: e.Field}
	asset.plain, err = s.policy.OpenMedia(ref, f)
	if errors.Is(err, privacy.ErrNotSealed) {
		err = fmt.Errorf("%w: %w", sinks.ErrDamaged, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return asset, nil
}

// checkedFile reads an asset, and fails at the end if it is another.
type checkedFile struct {
	ctx   context.Context // of the call that opened it
	file  *os.File
	plain io.Reader
	hash  interface {
		io.Writer
		Sum([]byte) []byte
	}
	want result.Digest
	read int64
}

func (c *checkedFile) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.plain.Read(p)
	_, _ = c.hash.Write(p[:n]) // never fails
	c.read += int64(n)
	if c.read > c.want.Size || errors.Is(err, io.EOF) &&
		(c.read != c.want.Size || [sha256.Size]byte(c.hash.Sum(nil)) != c.want.SHA256) {
		return 0, sinks.ErrDamaged
	}
	return n, err
}

func (c *checkedFile) Close() error { return c.file.Close() }
