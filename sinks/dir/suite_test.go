package dir_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	for name, seal := range map[string]bool{"plain": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			sinktest.Run(t, sinktest.Factory{
				New: func(t testing.TB) sinktest.Destination {
					return &folder{cfg: dir.Config{Path: filepath.Join(t.TempDir(), "media"), Seal: seal}}
				},
				Troubles: troubles(),
			})
		})
	}
}

// folder is an archive folder.
type folder struct {
	cfg dir.Config
	// policy opens what is sealed.
	policy *privacy.Policy
}

func (f *folder) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	f.policy = env.Policy
	sink, err := dir.OpenWith(t.Context(), &f.cfg, env, func(f dir.Files) dir.Files { return faultyFiles{f, faults} })
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

func (f *folder) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	place := dir.Folder(p, token)
	s := sinktest.Stored{
		Objects: map[string][]byte{},
		State:   f.listing(t, path.Join(path.Dir(place), ".tmp")),
		Dump:    []byte(f.listing(t, ".")),
	}
	for _, name := range f.names(t, place) {
		b, err := os.ReadFile(filepath.Join(f.cfg.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		if path.Base(name) == "erased.json" {
			s.State += string(b)
			continue
		}
		s.Objects[name] = b
	}
	m, err := dir.ReadManifest(f.cfg.Path, p, token)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, sinks.ErrErased) {
		return s
	} else if err != nil {
		t.Fatal(err)
	}
	s.Manifest = []result.Receipt{}
	for _, e := range m.Assets {
		location := e.Location
		if e.File != "" {
			location = path.Join(place, e.File)
			f.open(t, s.Objects, location, privacy.MediaRef{Product: p, TokenHash: m.TokenHash, Field: e.Field}, e)
		}
		s.Manifest = append(s.Manifest, result.Receipt{
			Field: e.Field, Location: location, Size: e.Size, SHA256: e.SHA256, CRC64: e.CRC64,
		})
	}
	if f.cfg.Seal {
		delete(s.Objects, path.Join(place, "manifest.json")) // it names keys, which differ from run to run
	}
	return s
}

// open puts what a sealed file holds in its place. A file that does not open stays
// what it is.
func (f *folder) open(t testing.TB, objects map[string][]byte, location string, ref privacy.MediaRef, e dir.Entry) {
	t.Helper()
	sealed, there := objects[location]
	if !there || e.Sealed == nil {
		return
	}
	if e.Sealed.Size != int64(len(sealed)) {
		t.Errorf("the manifest says that %s has %d bytes, not %d", location, e.Sealed.Size, len(sealed))
	}
	if r, err := f.policy.OpenMedia(ref, bytes.NewReader(sealed)); err == nil {
		if plain, err := io.ReadAll(r); err == nil {
			objects[location] = plain
		}
	}
}

// names lists the files below a folder, relative to the archive.
func (f *folder) names(t testing.TB, below string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS(f.cfg.Path), below, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// listing shows names and modes.
func (f *folder) listing(t testing.TB, below string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range f.names(t, below) {
		info, err := os.Stat(filepath.Join(f.cfg.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, name, info.Mode())
	}
	return b.String()
}

// faultyFiles asks for a fault before every operation; a write has one half way.
type faultyFiles struct {
	dir.Files
	faults *sinktest.Faults
}

func (f faultyFiles) step(do func() error) error {
	if err := f.faults.Step(); err != nil {
		return err
	}
	return do()
}

func (f faultyFiles) Mkdir(path string) error {
	return f.step(func() error { return f.Files.Mkdir(path) })
}

func (f faultyFiles) Rename(from, to string) error {
	return f.step(func() error { return f.Files.Rename(from, to) })
}

func (f faultyFiles) Remove(path string) error {
	return f.step(func() error { return f.Files.Remove(path) })
}

func (f faultyFiles) SyncDir(path string) error {
	return f.step(func() error { return f.Files.SyncDir(path) })
}

func (f faultyFiles) Create(path string) (file dir.File, err error) {
	err = f.step(func() error { file, err = f.Files.Create(path); return err })
	return faultyFile{file, f}, err
}

type faultyFile struct {
	dir.File
	files faultyFiles
}

func (f faultyFile) Write(p []byte) (n int, err error) {
	for _, half := range [][]byte{p[:len(p)/2], p[len(p)/2:]} {
		err := f.files.step(func() error {
			m, err := f.File.Write(half)
			n += m
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f faultyFile) Sync() error { return f.files.step(f.File.Sync) }

// troubles are what the owner of a folder has.
func troubles() []sinktest.Trouble {
	list := []sinktest.Trouble{
		{
			Name: "the folder is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"media", "is not there", "mount"},
			Provoke: withFolder(func(t testing.TB, root string) func() {
				must(t, os.Rename(root, root+".gone"))
				return func() { must(t, os.Rename(root+".gone", root)) }
			}),
		},
		{
			Name: "a file is in the way", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"media", "a file is in the way"},
			Provoke: withFolder(func(t testing.TB, root string) func() {
				must(t, os.Rename(root, root+".moved"))
				must(t, os.WriteFile(root, nil, 0o600))
				return func() {
					must(t, os.Remove(root))
					must(t, os.Rename(root+".moved", root))
				}
			}),
		},
		{
			Name: "two assets of one field", Class: sinks.ClassPermanent,
			Words: []string{"asset 1 has the field of another"},
			Provoke: withResult(func(r *result.Result) {
				r.Assets[1].Field = r.Assets[0].Field
			}),
		},
		{
			Name: "an asset without bytes or place", Class: sinks.ClassPermanent,
			Words: []string{"asset 0 is neither inline nor in COS"},
			Provoke: withResult(func(r *result.Result) {
				r.Assets[0].Content = nil
			}),
		},
		{
			Name: "an unknown product", Class: sinks.ClassPermanent,
			Words:   []string{"unknown product"},
			Provoke: withResult(func(r *result.Result) { r.Product = "../../.." }),
		},
	}
	for errno, words := range map[syscall.Errno]string{
		syscall.ENOSPC: "the disk is full",
		syscall.EDQUOT: "quota",
		syscall.EROFS:  "read-only",
		syscall.EACCES: "the right to write",
		syscall.EPERM:  "the right to write",
		syscall.EIO:    "the disk reports an error",
		syscall.ESTALE: "mount it again",
		syscall.EMFILE: "raise the limit",
	} {
		list = append(list, sinktest.Trouble{
			Name: errno.Error(), Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"archive folder", "media", words}, Provoke: withErrno(errno),
		})
	}
	return list
}

func withFolder(trouble func(t testing.TB, root string) (heal func())) func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		root := filepath.Join(t.TempDir(), "media")
		sink := open(t, root, env)
		return sinktest.Troubled{Sink: sink, Heal: trouble(t, root)}
	}
}

func withResult(change func(*result.Result)) func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled {
	return func(t testing.TB, env sinks.Env, r *result.Result) sinktest.Troubled {
		t.Helper()
		change(r)
		return sinktest.Troubled{Sink: open(t, filepath.Join(t.TempDir(), "media"), env)}
	}
}

func withErrno(errno syscall.Errno) func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		broken := &brokenFiles{}
		sink, err := dir.OpenWith(t.Context(), &dir.Config{Path: filepath.Join(t.TempDir(), "media")}, env, func(f dir.Files) dir.Files {
			broken.Files = f
			return broken
		})
		must(t, err)
		broken.errno = errno
		return sinktest.Troubled{Sink: sink, Heal: func() { broken.errno = 0 }}
	}
}

// brokenFiles are on a disk that takes nothing new.
type brokenFiles struct {
	dir.Files
	errno syscall.Errno
}

func (f *brokenFiles) Create(path string) (dir.File, error) {
	if f.errno != 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: f.errno}
	}
	return f.Files.Create(path)
}

func open(t testing.TB, root string, env sinks.Env) sinks.Sink {
	t.Helper()
	sink, err := (&dir.Config{Path: root}).Open(t.Context(), env)
	must(t, err)
	return sink
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
