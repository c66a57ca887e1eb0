package dir

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// tombstoneName is the file of a token that was erased. No asset's file has a name
// that ends like this.
const tombstoneName = "erased.json"

// erased tells whether there is a tombstone in a folder.
func (t tree) erased(folder string) (bool, error) {
	_, err := t.Lstat(filepath.Join(folder, tombstoneName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Erase implements sinks.Eraser. A key that no token can have gives a permanent
// error; every other error is transient. The files are removed, not overwritten:
// where their blocks must not outlive them, seal them, or encrypt the volume.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, reason string) (sinks.Holding, error) {
	var held sinks.Holding
	if err := ctx.Err(); err != nil {
		return held, err
	}

	err := s.locked(ctx, key, func(t *token) (err error) {
		if held, err = t.sink.tree().holdingOf(t.folder); err != nil {
			return err
		}
		return t.erase(ctx, held.Erased != nil, sinks.NewTombstone(reason))
	})
	if err != nil {
		return sinks.Holding{}, s.explain("erase", err)
	}
	return held, nil
}

// erase puts the tombstone up, unless there is one, and then removes all else.
// Whoever comes in between, after a crash, sees an erased token.
func (t *token) erase(ctx context.Context, gone bool, tombstone sinks.Tombstone) error {
	if err := t.prepare(false); err != nil {
		return err
	}
	if !gone {
		if err := t.put(tombstoneName, func(f file) error { return t.writeTombstone(f, tombstone) }); err != nil {
			return err
		}
	}
	if err := t.sink.files.SyncDir(t.folder); err != nil {
		return err
	}

	entries, err := t.sink.tree().ReadDir(t.folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if entry.Name() == tombstoneName {
			continue
		}
		if err := t.sink.files.Remove(filepath.Join(t.folder, entry.Name())); err != nil {
			return err
		}
	}
	return t.sink.files.SyncDir(t.folder)
}

// erasedFile is the content of a tombstone. It says which token it was by its hash
// alone.
type erasedFile struct {
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
	ErasedAt  time.Time      `json:"erased_at,omitzero"`
	Reason    string         `json:"reason,omitempty"`
}

func (t *token) writeTombstone(f file, tombstone sinks.Tombstone) error {
	return json.NewEncoder(f).Encode(erasedFile{t.key.Product, t.key.Hash, tombstone.At, tombstone.Reason})
}

// maxTombstone bounds what is read of a tombstone, in bytes.
const maxTombstone = 16 << 10

// readTombstone returns the tombstone in a folder; nil if there is none. One that
// cannot be read is a tombstone all the same, and one that does not say when it was
// put up is as old as its file.
func (t tree) readTombstone(folder string) (*sinks.Tombstone, error) {
	f, err := t.Open(filepath.Join(folder, tombstoneName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxTombstone))
	if err != nil {
		return nil, err
	}

	var text erasedFile
	_ = json.Unmarshal(content, &text) // what it lacks stays empty
	if text.ErasedAt.IsZero() {
		text.ErasedAt = info.ModTime()
	}
	return &sinks.Tombstone{At: text.ErasedAt.UTC(), Reason: text.Reason}, nil
}

// Holds implements sinks.Keeper. An asset that FaceID put in COS is not held here.
func (s *Sink) Holds(ctx context.Context, key sinks.Key) (sinks.Holding, error) {
	if err := ctx.Err(); err != nil {
		return sinks.Holding{}, err
	}
	if _, err := os.Stat(s.root); err != nil {
		return sinks.Holding{}, s.explain("look for a result", err)
	}
	folder, err := s.folder(key)
	if err != nil {
		return sinks.Holding{}, nil //nolint:nilerr // such a key cannot be stored
	}

	held, err := s.tree().holdingOf(folder)
	if err != nil {
		return sinks.Holding{}, s.explain("look for a result", err)
	}
	return held, nil
}

// holdingOf counts the files of a token.
func (t tree) holdingOf(folder string) (held sinks.Holding, err error) {
	if held.Erased, err = t.readTombstone(folder); err != nil {
		return held, err
	}
	entries, err := t.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return held, nil
	}
	if err != nil {
		return held, err
	}

	for _, entry := range entries {
		if entry.Name() == tombstoneName {
			continue
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody else is erasing
		}
		if err != nil {
			return held, err
		}
		held.Bytes += info.Size()
		if entry.Name() == manifestName {
			held.Records++
		} else {
			held.Assets++
		}
	}
	return held, nil
}

// Keys implements sinks.Keeper: it lists the tokens that have a manifest.
func (s *Sink) Keys(ctx context.Context, after sinks.Key) iter.Seq2[sinks.Key, error] {
	return func(yield func(sinks.Key, error) bool) {
		more := true
		err := s.eachFolder(ctx, after, func(key sinks.Key) bool {
			more = yield(key, nil)
			return more
		})
		if err != nil && more {
			yield(sinks.Key{}, s.explain("list", err))
		}
	}
}

// eachFolder calls visit with every whole token behind after, until it has enough.
func (s *Sink) eachFolder(ctx context.Context, after sinks.Key, visit func(sinks.Key) bool) error {
	if _, err := os.Stat(s.root); err != nil {
		return err
	}
	products := result.Products()
	slices.Sort(products)
	for _, p := range products {
		if p < after.Product {
			continue
		}
		shards, err := s.tree().names(filepath.Join(s.root, string(p)))
		if err != nil {
			return err
		}
		for _, shard := range shards {
			if p == after.Product && shard < after.Hash[:min(2, len(after.Hash))] {
				continue
			}
			if enough, err := s.eachInShard(ctx, p, shard, after, visit); enough || err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sink) eachInShard(ctx context.Context, p result.Product, shard string, after sinks.Key, visit func(sinks.Key) bool) (enough bool, err error) {
	hashes, err := s.tree().names(filepath.Join(s.root, string(p), shard))
	if err != nil {
		return false, err
	}
	for _, hash := range hashes {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		key := sinks.Key{Product: p, Hash: hash}
		if !tokenHash.MatchString(hash) || hash[:2] != shard || key.Compare(after) <= 0 {
			continue
		}
		whole, err := s.whole(key)
		if err != nil {
			return false, err
		}
		if whole && !visit(key) {
			return true, nil
		}
	}
	return false, nil
}

// whole tells whether a token is archived and not erased.
func (s *Sink) whole(key sinks.Key) (bool, error) {
	folder := filepath.Join(s.root, filepath.FromSlash(folder(key)))
	gone, err := s.tree().erased(folder)
	if errors.Is(err, errLink) {
		return true, nil // who reads it is told what is wrong with it
	}
	if gone || err != nil {
		return false, err
	}
	_, err = s.tree().Lstat(filepath.Join(folder, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// names lists a folder in order. What is no folder has none.
func (t tree) names(folder string) ([]string, error) {
	entries, err := t.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return nil, nil
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// Manifest implements sinks.ArchiveKeeper. Receipts are those of Archive.
func (s *Sink) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	m, err := s.manifest(ctx, key)
	if err != nil {
		return nil, s.explain("read a manifest", err)
	}
	return s.receipts(key, m), nil
}

// manifest reads the manifest of a token that is not erased.
func (s *Sink) manifest(ctx context.Context, key sinks.Key) (*Manifest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	folder, err := s.folder(key)
	if err != nil {
		return nil, sinks.ErrNotFound // such a key cannot be stored
	}
	gone, err := s.tree().erased(folder)
	if gone {
		err = sinks.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	m, err := s.tree().readManifestOf(key, folder)
	if err != nil {
		return nil, s.absent(err)
	}
	return m, nil
}

// absent makes an fs.ErrNotExist an ErrNotFound, unless the whole archive is not
// there.
func (s *Sink) absent(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(s.root); err != nil {
		return err
	}
	return sinks.ErrNotFound
}
