package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errLink is of a symbolic link where the archive has a file or folder of its own:
// what is done to it would be done to something else.
var errLink = errors.New("a symbolic link is in the way")

// tree is the archive folder, by its path. All access to what is in it goes through
// its methods, which take absolute paths. They follow no symbolic link below the
// folder, whose own path may be one, and os.Root keeps them inside even if one is put
// there at the same moment. The folder is opened for each call, so that one that was
// moved or unmounted is noticed.
type tree string

// below calls do with the name of a path relative to the archive folder, after a look
// at the folders on the way to it.
func (t tree) below(path string, do func(root *os.Root, name string) error) (err error) {
	name, err := filepath.Rel(string(t), path)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(string(t))
	if err != nil {
		if info, statErr := os.Stat(string(t)); statErr == nil && !info.IsDir() {
			err = &fs.PathError{Op: "open", Path: string(t), Err: errNotFolder} // which OpenRoot says in words only
		}
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()

	for i := range len(name) {
		if name[i] != filepath.Separator {
			continue
		}
		if err := noLink(root, name[:i]); err != nil {
			return t.absolute(err)
		}
	}
	return t.absolute(do(root, name))
}

// noLink returns an error if a name is of a symbolic link.
func noLink(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return &fs.PathError{Op: "open", Path: name, Err: errLink}
	}
	return nil
}

// absolute lets an error name the whole path.
func (t tree) absolute(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) && !filepath.IsAbs(failed.Path) {
		failed.Path = filepath.Join(string(t), failed.Path)
	}
	return err
}

// OpenFile is os.OpenFile.
func (t tree) OpenFile(path string, flag int, mode fs.FileMode) (f *os.File, err error) {
	err = t.below(path, func(root *os.Root, name string) error {
		if err := noLink(root, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err = root.OpenFile(name, flag, mode)
		return err
	})
	return f, err
}

// Open is os.Open.
func (t tree) Open(path string) (*os.File, error) { return t.OpenFile(path, os.O_RDONLY, 0) }

// Lstat is os.Lstat.
func (t tree) Lstat(path string) (info fs.FileInfo, err error) {
	err = t.below(path, func(root *os.Root, name string) error {
		info, err = root.Lstat(name)
		return err
	})
	return info, err
}

// ReadDir is os.ReadDir.
func (t tree) ReadDir(path string) (entries []fs.DirEntry, err error) {
	f, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	entries, err = f.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, errors.Join(err, f.Close())
}

// Mkdir implements files.
func (t tree) Mkdir(path string) error {
	if path == string(t) {
		return os.Mkdir(path, 0o700)
	}
	return t.below(path, func(root *os.Root, name string) error { return root.Mkdir(name, 0o700) })
}

// Create implements files.
func (t tree) Create(path string) (file, error) {
	f, err := t.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err // not a file that holds a nil *os.File
	}
	return f, nil
}

// Rename implements files.
func (t tree) Rename(from, to string) error {
	return t.below(from, func(root *os.Root, from string) error {
		return t.below(to, func(_ *os.Root, to string) error { return root.Rename(from, to) })
	})
}

// Remove implements files. Of a link, it removes the link.
func (t tree) Remove(path string) error {
	return t.below(path, func(root *os.Root, name string) error { return root.Remove(name) })
}

// SyncDir implements files. The folder above the archive's own is synced, too.
func (t tree) SyncDir(path string) error {
	open := t.Open
	if !strings.HasPrefix(path, string(t)) {
		open = os.Open
	}
	d, err := open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
