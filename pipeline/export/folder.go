package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// folder is an export in clear. Until it is finished it has another name.
type folder struct {
	path string
	// lock is the folder itself.
	lock *os.File
	root *os.Root
	// old is the manifest of the export that is there already; nil if none is.
	old *Manifest
	// done says that nothing is to be taken away.
	done bool
}

func openFolder(ctx context.Context, path string, found *Found) (place, error) {
	old, err := existing(ctx, path, found)
	if err != nil {
		return nil, err
	}

	part := path + partSuffix
	if err := os.Mkdir(part, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("begin an export: %w", err)
	}
	lock, err := claim(part, os.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(part)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("begin an export: %w", err), lock.Close())
	}
	f := &folder{path: path, lock: lock, root: root, old: old}

	// What an export left here that was cut off.
	if err := errors.Join(lock.Chmod(0o700), f.empty()); err != nil {
		return nil, errors.Join(fmt.Errorf("begin an export: %w", err), root.Close(), lock.Close())
	}
	return f, nil
}

// existing returns the manifest of the export that is at path already; nil if there is
// nothing. The error is ErrExists if it is something else than a whole export.
func existing(ctx context.Context, path string, found *Found) (*Manifest, error) {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for an earlier export: %w", err)
	}

	m, err := readExport(ctx, path, entries)
	if err == nil && (m.TokenHash != found.Key.Hash || m.Product != found.Key.Product) {
		err = errors.New("it is of another token")
	}
	if err != nil {
		return nil, fmt.Errorf("%s %w, and is no complete export of this token (%w): move it away, or name another folder with --to", path, ErrExists, err)
	}
	return m, nil
}

// readExport reads an export back and compares every file with its digest.
func readExport(ctx context.Context, path string, entries []fs.DirEntry) (*Manifest, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read

	text, err := readLimited(root, manifestName)
	if err != nil {
		return nil, err
	}
	var m Manifest
	if json.Unmarshal(text, &m) != nil || m.Version != manifestVersion || !m.Complete || len(m.Files) != len(entries)-1 {
		return nil, errors.New("its manifest is not that of a complete export")
	}
	for _, file := range m.Files {
		src := source{open: func() (io.ReadCloser, error) { return root.Open(file.Name) }}
		got, err := src.copyTo(ctx, io.Discard)
		if err != nil || got.size != file.Size || got.sha256 != file.SHA256 {
			return nil, fmt.Errorf("its file %q is not what its manifest says", file.Name)
		}
	}
	return &m, nil
}

func readLimited(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	return text, errors.Join(err, f.Close())
}

func (f *folder) add(ctx context.Context, name string, src source) (got digest, err error) {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return digest{}, fmt.Errorf("write an export: %w", err)
	}
	got, err = src.copyTo(ctx, file)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return digest{}, errors.Join(err, f.root.Remove(name))
	}
	return got, nil
}

func (f *folder) finish(m *Manifest) (path string, unchanged bool, err error) {
	if f.old != nil {
		if !f.old.equal(m) {
			return "", false, fmt.Errorf("%s %w, of %s and with another content: move it away, or name another folder with --to",
				f.path, ErrExists, f.old.ExportedAt.Format("2006-01-02"))
		}
		return f.path, true, nil
	}

	part := f.path + partSuffix
	err = f.lock.Sync()
	if err == nil {
		err = unix.Rename(part, f.path) // which replaces an empty folder, too
	}
	if err != nil {
		return "", false, fmt.Errorf("finish an export: %w", err)
	}
	f.done = true
	return f.path, false, syncFolder(filepath.Dir(f.path))
}

func (f *folder) close() error {
	var err error
	if !f.done {
		err = errors.Join(f.empty(), os.Remove(f.path+partSuffix))
	}
	return errors.Join(err, f.root.Close(), f.lock.Close())
}

// empty takes away all that is in the folder.
func (f *folder) empty() error {
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	err = errors.Join(err, dir.Close())
	for _, name := range names {
		err = errors.Join(err, f.root.RemoveAll(name))
	}
	return err
}
