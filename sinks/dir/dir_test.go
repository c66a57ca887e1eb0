package dir_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func env(log *strings.Builder) sinks.Env {
	return sinks.Env{Name: "media", Log: slog.New(slog.NewTextHandler(log, nil))}
}

func archive(t testing.TB, sink sinks.Sink, r *result.Result) []sinks.Receipt {
	t.Helper()
	receipts, err := sink.(sinks.Archiver).Archive(t.Context(), r)
	must(t, err)
	return receipts
}

func TestLayout(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "media")
	r := sinktest.Result(0)
	receipts := archive(t, open(t, root, env(&strings.Builder{})), r)

	place := "enhanced/" + r.TokenHash()[:2] + "/" + r.TokenHash()
	for i, want := range []string{
		place + "/IdCardData.OcrFront.jpg",
		place + "/BestFrame.BestFrame.png",
		place + "/BestFrame.BestFrames-0.png",
		"cos://faceid-1250000000/liveness/2026/0.mp4",
		place + "/IntentionQuestionResult.Audios-10.wav",
	} {
		if receipts[i].Location != want {
			t.Errorf("asset %d is at %q, want %q", i, receipts[i].Location, want)
		}
	}
	if size := receipts[3].Size; size != -1 {
		t.Errorf("the asset in COS has the size %d, want -1", size)
	}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = fs.ModeDir | 0o700
		}
		if info.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", name, info.Mode(), want)
		}
		return nil
	})
	must(t, err)
}

// A redelivery finds its files and leaves them alone, even those that it would
// write the same.
func TestNothingIsWrittenTwice(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "media")
	sink := open(t, root, env(&strings.Builder{}))
	r := sinktest.Result(0)
	archive(t, sink, r)
	folder := filepath.Join(root, dir.Folder(r.Product, r.Token))
	before := inodes(t, folder)
	archive(t, sink, r)
	for name, info := range inodes(t, folder) {
		if !os.SameFile(info, before[name]) {
			t.Errorf("%s was written again", name)
		}
	}

	// One file that differs is written again, the others are not.
	damaged := filepath.Join(folder, "BestFrame.BestFrame.png")
	must(t, os.Truncate(damaged, 10))
	archive(t, sink, r)
	for name, info := range inodes(t, folder) {
		again := name == "BestFrame.BestFrame.png" || name == "manifest.json"
		if os.SameFile(info, before[name]) == again {
			t.Errorf("%s: written again: %v, want %v", name, !again, again)
		}
	}
	if _, err := dir.Verify(t.Context(), root, r.Product, r.Token); err != nil {
		t.Error(err)
	}
}

func inodes(t testing.TB, folder string) map[string]fs.FileInfo {
	t.Helper()
	entries, err := os.ReadDir(folder)
	must(t, err)
	all := map[string]fs.FileInfo{}
	for _, entry := range entries {
		all[entry.Name()], err = entry.Info()
		must(t, err)
	}
	return all
}

// Evidence of an earlier answer stays, but the manifest is of the latest.
func TestEarlierFilesStay(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "media")
	sink := open(t, root, env(&strings.Builder{}))
	r := sinktest.Result(0)
	archive(t, sink, r)
	r.Assets = r.Assets[:1]
	archive(t, sink, r)
	m, err := dir.ReadManifest(root, r.Product, r.Token)
	must(t, err)
	if len(m.Assets) != 1 {
		t.Errorf("the manifest lists %d assets, want 1", len(m.Assets))
	}
	if files := inodes(t, filepath.Join(root, dir.Folder(r.Product, r.Token))); len(files) != 5 {
		t.Errorf("%d files are left, want 4 assets and a manifest", len(files))
	}
}

func TestOpenRemovesLeftovers(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "media")
	r := sinktest.Result(0)
	archive(t, open(t, root, env(&strings.Builder{})), r)
	shard := filepath.Dir(filepath.Join(root, dir.Folder(r.Product, r.Token)))
	leftovers := []string{filepath.Join(shard, ".tmp", "BestFrame.BestFrame.png"), filepath.Join(root, ".check-1")}
	put := func() {
		for _, name := range leftovers {
			must(t, os.WriteFile(name, []byte("half"), 0o600))
		}
	}
	put()
	must(t, os.WriteFile(filepath.Join(root, "enhanced", "note.txt"), nil, 0o600)) // not ours

	var log strings.Builder
	open(t, root, env(&log))
	for _, name := range leftovers {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if !strings.Contains(log.String(), "files=1") {
		t.Errorf("the log does not say how many files were removed: %s", log.String())
	}

	// A shard in which another process writes is left alone.
	put()
	busy, err := os.OpenFile(filepath.Join(shard, ".lock"), os.O_RDWR, 0)
	must(t, err)
	defer busy.Close()
	must(t, unix.Flock(int(busy.Fd()), unix.LOCK_EX))
	sink := open(t, root, env(&log))
	if _, err := os.Stat(leftovers[0]); err != nil {
		t.Errorf("a file of a living process was removed: %v", err)
	}

	// And a writer waits for its turn, as long as its context lets it.
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan error)
	go func() {
		_, err := sink.(sinks.Archiver).Archive(ctx, r)
		waited <- err
	}()
	cancel()
	if class, _ := sinks.ClassOf(<-waited); class != sinks.ClassCanceled {
		t.Errorf("waiting for a lock ends with the class %q", class)
	}
}

func TestDamagedManifestIsReplaced(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":         "",
		"cut":           `{"version": 1, "assets": [`,
		"newer":         `{"version": 2}`,
		"climbing":      `{"version": 1, "assets": [{"file": "../../../../etc/passwd"}]}`,
		"absolute":      `{"version": 1, "assets": [{"file": "/etc/passwd"}]}`,
		"pointing to .": `{"version": 1, "assets": [{"file": "."}]}`,
		"null":          `null`,
		"binary":        "\x00\xff",
		"without place": `{"version": 1, "assets": [{"field": "a"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "media")
			sink := open(t, root, env(&strings.Builder{}))
			r := sinktest.Result(0)
			archive(t, sink, r)
			manifest := filepath.Join(root, dir.Folder(r.Product, r.Token), "manifest.json")
			good, err := os.ReadFile(manifest)
			must(t, err)
			must(t, os.WriteFile(manifest, []byte(text), 0o600))
			if _, err := dir.Verify(t.Context(), root, r.Product, r.Token); err == nil {
				t.Error("Verify believes a damaged manifest")
			}
			archive(t, sink, r)
			mended, err := os.ReadFile(manifest)
			must(t, err)
			if string(mended) != string(good) {
				t.Errorf("the manifest is %s, want %s", mended, good)
			}
		})
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"gone":    os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 3) },
		"altered": flip,
		"longer":  func(path string) error { return os.Truncate(path, 5000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "media")
			r := sinktest.Result(0)
			archive(t, open(t, root, env(&strings.Builder{})), r)
			must(t, damage(filepath.Join(root, dir.Folder(r.Product, r.Token), "BestFrame.BestFrame.png")))
			_, err := dir.Verify(t.Context(), root, r.Product, r.Token)
			if err == nil || !strings.Contains(err.Error(), "BestFrame.BestFrame.png") {
				t.Errorf("Verify says %v", err)
			}
			if strings.Contains(fmt.Sprint(err), "OcrFront") {
				t.Errorf("Verify complains about a good file: %v", err)
			}
		})
	}
}

// flip changes a byte of a file and leaves its size.
func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o600)
}

func TestVerifyWithoutManifest(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := dir.Verify(t.Context(), root, result.EID, "TOKEN"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v, want one that is fs.ErrNotExist", err)
	}
	r := sinktest.Result(0)
	archive(t, open(t, root, env(&strings.Builder{})), r)
	other := sinktest.Result(2)
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, dir.Folder(other.Product, other.Token))), 0o700))
	must(t, os.Rename(filepath.Join(root, dir.Folder(r.Product, r.Token)), filepath.Join(root, dir.Folder(other.Product, other.Token))))
	if _, err := dir.ReadManifest(root, other.Product, other.Token); err == nil {
		t.Error("the manifest of another token is believed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	archive(t, open(t, root, env(&strings.Builder{})), r)
	if _, err := dir.Verify(ctx, root, r.Product, r.Token); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Verify says %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for path, words := range map[string][]string{
		filepath.Join(parent, "missing", "media"): {"missing/media", "create it, or mount its volume"},
		file:                         {"file", "a file is in the way"},
		filepath.Join(file, "media"): {"media", "a file is in the way"},
	} {
		_, err := (&dir.Config{Path: path}).Open(t.Context(), env(&strings.Builder{}))
		if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient {
			t.Errorf("%s: the class is %q", path, class)
		}
		for _, word := range words {
			if !strings.Contains(fmt.Sprint(err), word) {
				t.Errorf("%s: the error does not say %q: %v", path, word, err)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	cfg, ok := sinks.NewConfig("dir")
	if !ok {
		t.Fatal("the type is not registered")
	}
	for path, field := range map[string]string{"": "path", "a\x00b": "path", "./data/media": ""} {
		cfg.(*dir.Config).Path = path
		var invalid *sinks.InvalidFieldError
		if err := cfg.Validate(); (err != nil) != (field != "") || err != nil && (!errors.As(err, &invalid) || invalid.Field != field) {
			t.Errorf("%q: %v, want a problem of %q", path, err, field)
		}
	}
}

// Names are safe on every file system and different for different fields.
func TestFileNames(t *testing.T) {
	t.Parallel()
	field := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[A-Za-z][A-Za-z0-9]{0,3}(\[[0-9]{1,3}\]|-[0-9]|\.[A-Za-z]{1,2}|[/\\ _%]){0,3}`),
		rapid.SampledFrom([]string{"..", ".", "", "manifest", "manifest.json", "CON", "a/../b"}),
	)
	contentType := rapid.OneOf(rapid.SampledFrom([]string{"image/jpeg", "image/png; q=1", "video/mp4", "application/json", ""}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		a := result.Asset{Field: field.Draw(t, "a"), ContentType: contentType.Draw(t, "type")}
		b := result.Asset{Field: field.Draw(t, "b"), ContentType: a.ContentType}
		name := dir.FileName(a)
		if !filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 200 || name == "manifest.json" ||
			strings.ContainsFunc(name, func(r rune) bool {
				return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", r)
			}) || name[0] == '.' {
			t.Fatalf("the name of %q is %q", a.Field, name)
		}
		if (name == dir.FileName(b)) != (a.Field == b.Field) {
			t.Fatalf("%q and %q are both %q", a.Field, b.Field, name)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"product":"eid","assets":[{"field":"a","file":"a.jpg","size":3}]}`))
	f.Add([]byte(`{"version":1,"assets":[{"location":"cos://b/k","size":-1}]}`))
	f.Add([]byte(`{"version":1,"assets":[{"file":"../a"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dir.ParseManifest(b)
		if err != nil {
			return
		}
		for _, e := range m.Assets {
			if e.File == "" && e.Location == "" || strings.ContainsAny(e.File, "/") || e.File == ".." || e.File == "." {
				t.Fatalf("an entry points to %q", e.File)
			}
		}
	})
}

// TestKilled archives in a process of its own, which is killed while it works.
// What it had said was archived is whole; what it had not is made whole.
func TestKilled(t *testing.T) {
	if root := os.Getenv("DIR_TEST_ARCHIVE"); root != "" {
		archiveForever(t, root)
		return
	}
	t.Parallel()
	root := filepath.Join(t.TempDir(), "media")
	const before = 20
	seeds := killAfter(t, "TestKilled", "DIR_TEST_ARCHIVE="+root, before)
	for seed := range seeds {
		r := sinktest.Result(seed)
		if _, err := dir.Verify(t.Context(), root, r.Product, r.Token); err != nil {
			t.Errorf("token %d had been archived: %v", seed, err)
		}
	}
	sink := open(t, root, env(&strings.Builder{}))
	for seed := range seeds + 2 {
		r := sinktest.Result(seed)
		archive(t, sink, r)
		if _, err := dir.Verify(t.Context(), root, r.Product, r.Token); err != nil {
			t.Errorf("token %d: %v", seed, err)
		}
	}
	if leftovers, err := filepath.Glob(filepath.Join(root, "*", "*", ".tmp", "*")); err != nil || len(leftovers) > 0 {
		t.Errorf("left over: %v %v", leftovers, err)
	}
}

// archiveForever archives one result after the other and says so of each.
func archiveForever(t *testing.T, root string) {
	sink := open(t, root, env(&strings.Builder{}))
	for seed := 0; t.Context().Err() == nil; seed++ {
		archive(t, sink, sinktest.Result(seed))
		if _, err := fmt.Println("archived", seed); err != nil {
			return // nobody listens any more
		}
	}
}

// killAfter runs a test in another process, kills it when it has said a number of
// lines, and returns how many it has said in all.
func killAfter(t *testing.T, test, setting string, lines int) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), setting)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := 0
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		if scanner.Text() == "archived "+strconv.Itoa(said) {
			said++
		}
		if said == lines {
			must(t, cmd.Process.Kill())
		}
	}
	var killed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &killed) || said < lines {
		t.Fatalf("the process ended with %v after %d lines", err, said)
	}
	return said
}
