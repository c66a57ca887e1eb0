// Package dir archives assets in a folder of the local file system, or of one
// that is mounted.
//
// In goes a result; out come its inline assets as files under a folder of their
// token, and a manifest beside them. The place depends on product and token
// alone, so that a redelivery finds what is there:
//
//	<path>/<product>/<aa>/<token hash>/<field>.<ext>
//	<path>/<product>/<aa>/<token hash>/manifest.json
//
// where the token hash is result.TokenHash and <aa> its first two digits, the
// shard. Assets that FaceID put in COS stay there: the manifest and the receipts
// name them. A file has its final name only when it is whole and on disk, and the
// manifest is written last: a manifest means complete. A file that the manifest
// lists is not written again. When an answer about a token differs from the one
// stored, the manifest goes before the first file changes.
//
// Files of an earlier answer that the latest one does not have stay where they
// are: evidence is not removed because it came only once. The manifest lists the
// latest answer.
//
// Several processes may use one folder at once. Writers of a shard take turns by
// an advisory lock (flock) on the file .lock in it, which also guards the shard's
// .tmp, where files are until they are whole. What a crash leaves in .tmp is
// removed by the next writer of the shard and by Open.
//
// Folders are of mode 0700 and files 0600. Media is sealed under the privacy policy's
// keyring (see privacy.Policy.SealMedia), or without Config.Seal stored as it is. Such a file has ".sealed" after its
// name, and the manifest tells its key, size and SHA-256 beside those of the asset.
// A file whose asset is stored in the other form is removed once the new one is
// in the manifest. What FaceID put in COS is not sealed.
//
// An erased token's folder holds a tombstone, erased.json, which says when and why,
// and nothing else. It is written before the first file goes, and as long as it is there nothing is
// stored. Removing it lets the token in again.
//
// No symbolic link below the archive folder is followed, for what is removed through it
// would be somebody else's: a folder that is one gives an error. The archive folder's
// own path may be a link, which its owner chose.
//
// What may go wrong is transient, since the folder's owner can mend it: a full
// disk, a folder that is gone, read-only or of another user. The error says
// which.
package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	lockName    = ".lock"
	tempName    = ".tmp"
	probePrefix = ".check-"
)

func init() {
	sinks.Register("dir", func() sinks.Config { return &Config{Seal: true} })
}

// Config is the configuration of a sink of type "dir".
type Config struct {
	// Path is the archive folder. It is made if it is not there, its parent is
	// not: a missing parent is more likely a misspelling or a volume that is not
	// mounted. A relative path is relative to the working directory.
	Path string `yaml:"path"`
	// Seal encrypts the files. Redelivered tokens change to the form that is
	// configured, others stay as they are; both can be read. Without it, whoever gets
	// hold of the disk or a copy of it sees faces and identity cards. Default true.
	Seal bool `yaml:"seal"`
}

// Validate implements sinks.Config.
func (c *Config) Validate() error {
	if c.Path == "" {
		return &sinks.InvalidFieldError{Field: "path", Problem: "must name the archive folder"}
	}
	if strings.ContainsRune(c.Path, 0) {
		return &sinks.InvalidFieldError{Field: "path", Problem: "must not contain a NUL character"}
	}
	return nil
}

// Open implements sinks.Config. It makes the folder and removes what a crash
// left in it.
func (c *Config) Open(ctx context.Context, env sinks.Env) (sinks.Sink, error) {
	return open(ctx, c, env, func(f files) files { return f })
}

// Sink archives assets in a folder. All methods but Close may be called by
// several goroutines at once.
type Sink struct {
	name   string
	root   string
	seal   bool
	policy *privacy.Policy
	log    *slog.Logger
	files  files
	// durable holds the shards that this process knows to be on disk, with the
	// folders above them.
	durable sync.Map
}

var _ sinks.ArchiveKeeper = (*Sink)(nil)

// open lets tests put something before the archive folder.
func open(ctx context.Context, cfg *Config, env sinks.Env, wrap func(files) files) (sinks.Sink, error) {
	root, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("archive folder %s: %w", cfg.Path, err)
	}
	if cfg.Seal && !env.Policy.HasKeyring() {
		return nil, fmt.Errorf("archive folder %s: seal needs a keyring: set privacy.keyring_file, or seal: false", root)
	}
	s := &Sink{name: env.Name, root: root, seal: cfg.Seal, policy: env.Policy, log: env.Log, files: wrap(tree(root))}
	if err := s.makeFolder(root); err != nil {
		return nil, s.explain("open", err)
	}
	if err := s.sweep(ctx); err != nil {
		return nil, s.explain("open", err)
	}
	return s, nil
}

// tree is the archive folder for what changes nothing in it.
func (s *Sink) tree() tree { return tree(s.root) }

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink. There is nothing to release.
func (s *Sink) Close(context.Context) error { return nil }

// Check implements sinks.Sink: it writes a small file and removes it again, and looks
// whether there is room for larger ones.
func (s *Sink) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(s.root, probePrefix+rand.Text())
	f, err := s.files.Create(path)
	if err != nil {
		return s.explain("check", err)
	}
	_, err = f.Write(make([]byte, 4096)) // a full disk may still have room for names
	err = errors.Join(err, f.Sync(), f.Close())
	removed := s.files.Remove(path)
	if errors.Is(removed, fs.ErrNotExist) {
		removed = nil // another process is sweeping
	}
	if err = errors.Join(err, removed); err == nil {
		err = sinks.HasRoom(s.root)
	}
	if err != nil {
		return s.explain("check", err)
	}
	return nil
}

// makeFolder makes a folder whose parent is there, and sees to it that it lasts.
func (s *Sink) makeFolder(path string) error {
	stat := s.tree().Lstat
	if path == s.root {
		stat = os.Stat // its owner may have put a link there
	}
	info, err := stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.files.Mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return s.files.SyncDir(filepath.Dir(path))
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return &fs.PathError{Op: "open", Path: path, Err: errLink}
	case !info.IsDir():
		return &fs.PathError{Op: "open", Path: path, Err: errNotFolder}
	}
	return nil
}

// sweep removes what processes that crashed have left. A shard in which somebody
// writes is left to that writer.
func (s *Sink) sweep(ctx context.Context) error {
	entries, err := s.tree().ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), probePrefix) {
			continue
		}
		err := s.files.Remove(filepath.Join(s.root, entry.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	removed := 0
	for _, p := range result.Products() {
		n, err := s.sweepProduct(ctx, filepath.Join(s.root, string(p)))
		if err != nil {
			return err
		}
		removed += n
	}
	if removed > 0 {
		s.log.Info("removed files that a crash had left incomplete", "files", removed, "folder", s.root)
	}
	return nil
}

func (s *Sink) sweepProduct(ctx context.Context, product string) (removed int, err error) {
	shards, err := s.tree().ReadDir(product)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, shard := range shards {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		n, err := s.sweepShard(filepath.Join(product, shard.Name()))
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

func (s *Sink) sweepShard(shard string) (int, error) {
	unlock, err := s.tree().tryLock(filepath.Join(shard, lockName))
	switch {
	case errors.Is(err, errLocked), errors.Is(err, fs.ErrNotExist), errors.Is(err, errNotDir):
		return 0, nil // in use, or not a shard
	case err != nil:
		return 0, err
	}
	defer unlock()
	return s.emptyTemp(shard)
}

// emptyTemp removes leftovers from a shard; the shard is locked.
func (s *Sink) emptyTemp(shard string) (int, error) {
	entries, err := s.tree().ReadDir(filepath.Join(shard, tempName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, entry := range entries {
		if err := s.files.Remove(filepath.Join(shard, tempName, entry.Name())); err != nil {
			return 0, err
		}
	}
	return len(entries), nil
}
