package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// markName is the file at the root that names the keyring, markTemp where it is
	// until it is whole.
	markName = "keyring-fingerprint.json"
	markTemp = ".keyring.tmp"
	// maxMark bounds what is read of it, in bytes.
	maxMark = 4 << 10
)

// Keyring implements sinks.Keeper.
func (s *Sink) Keyring(ctx context.Context) (privacy.Mark, error) {
	if err := ctx.Err(); err != nil {
		return privacy.Mark{}, err
	}
	mark, err := s.mark()
	if err != nil {
		return privacy.Mark{}, s.explain("read the keyring's fingerprint", err)
	}
	return mark, nil
}

func (s *Sink) mark() (privacy.Mark, error) {
	path := filepath.Join(s.root, markName)
	f, err := s.tree().Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(s.root) // or the whole archive is not there
		return privacy.Mark{}, err
	}
	if err != nil {
		return privacy.Mark{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMark))
	if err = errors.Join(err, f.Close()); err != nil {
		return privacy.Mark{}, err
	}

	mark, err := privacy.ParseMark(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return mark, err
}

// MarkKeyring implements sinks.Keeper.
func (s *Sink) MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	err := s.markKeyring(ctx, mark, instead)
	if err != nil && !errors.Is(err, sinks.ErrOtherKeyring) {
		return s.explain("note the keyring's fingerprint", err)
	}
	return err
}

func (s *Sink) markKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	unlock, err := s.tree().lock(ctx, filepath.Join(s.root, lockName))
	if err != nil {
		return err
	}
	defer unlock()

	there, err := s.mark()
	switch {
	case err != nil && instead == "":
		return err
	case err == nil && there == mark:
		return nil
	case err == nil && !there.IsZero() && there.Fingerprint != mark.Fingerprint && there.Fingerprint != instead:
		return sinks.ErrOtherKeyring
	}

	temp := filepath.Join(s.root, markTemp) // under the lock: a leftover is nobody's
	if err := s.files.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.files.Create(temp)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(mark.Encode()))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.files.Rename(temp, filepath.Join(s.root, markName)); err != nil {
		return err
	}
	return s.files.SyncDir(s.root)
}

// KeyUse implements sinks.Keeper. It asks every sealed file of the token, also those of
// earlier answers, which no manifest lists.
func (s *Sink) KeyUse(ctx context.Context, key sinks.Key) (map[string]int, error) {
	if _, err := s.manifest(ctx, key); err != nil {
		return nil, s.explain("look for sealed files", err)
	}
	use, err := s.keyUse(filepath.Join(s.root, filepath.FromSlash(folder(key))))
	if err != nil {
		return nil, s.explain("look for sealed files", err)
	}
	return use, nil
}

func (s *Sink) keyUse(folder string) (map[string]int, error) {
	files, err := s.tree().names(folder)
	if err != nil {
		return nil, err
	}
	use := map[string]int{}
	for _, name := range files {
		if !strings.HasSuffix(name, sealedSuffix) {
			continue
		}
		f, err := s.tree().Open(filepath.Join(folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // erased or replaced meanwhile
		}
		if err != nil {
			return nil, err
		}
		header, err := privacy.ReadMediaHeader(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		use[header.KeyID]++
	}
	return use, nil
}
