package spool_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// childEnv makes the test binary play a process that dies with media in flight.
const childEnv = "SPOOL_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func child(dir string) {
	s, err := spool.Open(spool.Config{Dir: dir, MemoryLimit: 10, Quota: 1 << 20})
	if err != nil {
		panic(err)
	}
	b, err := s.Begin(context.Background())
	if err != nil {
		panic(err)
	}
	if _, err := b.Create(context.Background()).Write(make([]byte, 200_000)); err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// open opens a spool and checks at the end that it leaves nothing behind.
func open(t testing.TB, cfg spool.Config) *spool.Spool {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "spool")
	}
	s, err := spool.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if used := s.Usage().Bytes; used != 0 {
			t.Errorf("%d bytes are still accounted for", used)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if left := media(t, cfg.Dir); len(left) > 0 {
			t.Errorf("files left behind: %v", left)
		}
	})
	return s
}

func media(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.sealed"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func begin(t testing.TB, s *spool.Spool) *spool.Batch {
	t.Helper()
	b, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func put(t testing.TB, b *spool.Batch, content []byte) *spool.Item {
	t.Helper()
	w := b.Create(t.Context())
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	item, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func read(t testing.TB, c result.Content) []byte {
	t.Helper()
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// pattern returns n bytes that are the same in every run and repeat nowhere soon.
func pattern(n int) []byte {
	out := make([]byte, 0, n+8)
	for i := 0; len(out) < n; i++ {
		out = fmt.Appendf(out, "%d,", i)
	}
	return out[:n]
}

const chunk = 64 << 10

func TestWhatIsWrittenIsRead(t *testing.T) {
	s := open(t, spool.Config{MemoryLimit: 1000, Quota: 1 << 30})
	sizes := rapid.OneOf(
		rapid.SampledFrom([]int{0, 1, 999, 1000, 1001, chunk - 1, chunk, chunk + 1, 2 * chunk, 2*chunk + 1}),
		rapid.IntRange(0, 4*chunk))
	rapid.Check(t, func(rt *rapid.T) {
		content := pattern(sizes.Draw(rt, "size"))
		b, err := s.Begin(context.Background())
		if err != nil {
			rt.Fatal(err)
		}
		defer b.Close()
		w := b.Create(context.Background())
		for rest := content; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "piece")
			if _, err := w.Write(rest[:n]); err != nil {
				rt.Fatal(err)
			}
			rest = rest[n:]
		}
		item, err := w.Finish()
		if err != nil {
			rt.Fatal(err)
		}
		want := result.Digest{Size: int64(len(content)), SHA256: sha256.Sum256(content), CRC64: crc64.Checksum(content, crc64.MakeTable(crc64.ECMA))}
		if item.Digest() != want {
			rt.Fatalf("digest %+v, want %+v", item.Digest(), want)
		}
		r, err := item.Open()
		if err != nil {
			rt.Fatal(err)
		}
		defer r.Close()
		start := rapid.IntRange(0, len(content)).Draw(rt, "start")
		if _, err := r.Seek(int64(start), io.SeekStart); err != nil {
			rt.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content[start:]) {
			rt.Fatalf("read %d bytes from %d, %v", len(got), start, err)
		}
	})
}

func TestSeek(t *testing.T) {
	b := begin(t, open(t, spool.Config{MemoryLimit: 0, Quota: 1 << 20}))
	r, err := put(t, b, pattern(3*chunk)).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, tt := range []struct {
		offset int64
		whence int
		want   int64
	}{{10, io.SeekStart, 10}, {5, io.SeekCurrent, 15}, {-1, io.SeekEnd, 3*chunk - 1}, {7, io.SeekEnd, 3*chunk + 7}} {
		if got, err := r.Seek(tt.offset, tt.whence); err != nil || got != tt.want {
			t.Errorf("Seek(%d, %d) = %d, %v", tt.offset, tt.whence, got, err)
		}
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("reading past the end: %v", err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("took a negative position")
	}
	if _, err := r.Seek(0, 9); err == nil {
		t.Error("took an unknown whence")
	}
}

func TestManyReaders(t *testing.T) {
	b := begin(t, open(t, spool.Config{MemoryLimit: 100, Quota: 1 << 24}))
	content := pattern(5*chunk + 100)
	item := put(t, b, content)
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			if !bytes.Equal(read(t, item), content) {
				t.Error("a reader got other bytes")
			}
		})
	}
	readers.Wait()
}

func TestNothingReadableOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	b := begin(t, open(t, spool.Config{Dir: dir, MemoryLimit: 10, Quota: 1 << 24}))
	mark := []byte("a face nobody may see")
	item := put(t, b, bytes.Repeat(mark, 10_000))
	names := media(t, dir)
	if len(names) != 1 {
		t.Fatalf("files: %v", names)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if d.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, mark[:8]) {
			t.Errorf("%s holds plaintext", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if len(read(t, item)) != 10_000*len(mark) {
		t.Error("the item itself is damaged")
	}
}

func TestChangedFilesAreNotRead(t *testing.T) {
	const sealed = chunk + 16
	tests := []struct {
		name   string
		change func(content []byte) []byte
	}{
		{"a flipped bit", func(c []byte) []byte { c[100] ^= 1; return c }},
		{"swapped chunks", func(c []byte) []byte {
			first := bytes.Clone(c[:sealed])
			copy(c, c[sealed:2*sealed])
			copy(c[sealed:], first)
			return c
		}},
		{"the last chunk as another one", func(c []byte) []byte { copy(c[:sealed], c[2*sealed:3*sealed]); return c }},
		{"cut off", func(c []byte) []byte { return c[:2*sealed] }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			b := begin(t, open(t, spool.Config{Dir: dir, MemoryLimit: 10, Quota: 1 << 24}))
			item := put(t, b, pattern(3*chunk))
			name := media(t, dir)[0]
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, tt.change(content), 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := item.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err == nil {
				t.Errorf("read %d bytes of a changed file", len(got))
			}
		})
	}
}

func TestClosedBatch(t *testing.T) {
	for name, limit := range map[string]int64{"in memory": 1 << 20, "in a file": 0} {
		t.Run(name, func(t *testing.T) {
			b := begin(t, open(t, spool.Config{MemoryLimit: limit, Quota: 1 << 24}))
			item := put(t, b, pattern(2*chunk))
			r, err := item.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			writing := b.Create(t.Context())
			if _, err := writing.Write([]byte("half")); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 10)); !errors.Is(err, spool.ErrClosed) {
				t.Errorf("reading: %v", err)
			}
			if _, err := item.Open(); !errors.Is(err, spool.ErrClosed) {
				t.Errorf("opening: %v", err)
			}
			if _, err := writing.Write([]byte("more")); !errors.Is(err, spool.ErrClosed) {
				t.Errorf("writing: %v", err)
			}
		})
	}
}

// Many results that together are far over the quota all get done.
func TestQuotaWaitsAndNeverBlocksAll(t *testing.T) {
	const quota = 100_000
	s := open(t, spool.Config{MemoryLimit: 1 << 20, Quota: quota})
	var results sync.WaitGroup
	for range 20 {
		results.Go(func() {
			b, err := s.Begin(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			w := b.Create(t.Context())
			for range 60 {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					t.Error(err)
				}
				if used := s.Usage().Bytes; used > quota+60_000 {
					t.Errorf("%d bytes in flight", used)
				}
			}
			if _, err := w.Finish(); err != nil {
				t.Error(err)
			}
		})
	}
	results.Wait()
}

func TestWaitingHearsTheContext(t *testing.T) {
	s := open(t, spool.Config{MemoryLimit: 1 << 20, Quota: 1000})
	older := begin(t, s)
	younger := begin(t, s)
	put(t, older, make([]byte, 1000))
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := younger.Create(ctx).Write([]byte("x")); !errors.Is(err, gone) || !errors.Is(err, spool.ErrFull) {
		t.Errorf("writing: %v", err)
	}
	if _, err := s.Begin(ctx); !errors.Is(err, gone) {
		t.Errorf("beginning: %v", err)
	}
	put(t, older, make([]byte, 5000)) // the oldest goes on
}

// Very many small items do not take all memory: most go to files.
func TestManyItemsGoToFiles(t *testing.T) {
	const limit = 1000
	dir := t.TempDir()
	s := open(t, spool.Config{Dir: dir, MemoryLimit: limit, Quota: 1 << 30})
	b := begin(t, s)
	var items []*spool.Item
	for i := range 100 {
		items = append(items, put(t, b, bytes.Repeat([]byte{byte(i)}, limit)))
	}
	if files := media(t, dir); len(files) < 90 {
		t.Errorf("only %d files", len(files))
	}
	for i, item := range items {
		if got := read(t, item); !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, limit)) {
			t.Errorf("item %d has other bytes", i)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	process := exec.CommandContext(t.Context(), os.Args[0])
	process.Env = append(os.Environ(), childEnv+"="+dir)
	stdin, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}

	open(t, spool.Config{Dir: filepath.Join(t.TempDir(), "other"), MemoryLimit: 10, Quota: 1})
	living, err := spool.Open(spool.Config{Dir: dir, MemoryLimit: 10, Quota: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if len(media(t, dir)) != 1 {
		t.Error("the file of a living process was swept")
	}
	if err := living.Close(); err != nil {
		t.Error(err)
	}

	if err := process.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // reports the signal
	open(t, spool.Config{Dir: dir, MemoryLimit: 10, Quota: 1 << 20})
	if left := media(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cfg  spool.Config
		want string
	}{
		{spool.Config{Quota: 1}, "folder is missing"},
		{spool.Config{Dir: "x", MemoryLimit: -1, Quota: 1}, "memory limit"},
		{spool.Config{Dir: "x"}, "quota"},
		{spool.Config{Dir: file, Quota: 1}, "make the spool folder"},
		{spool.Config{Dir: "/proc/spool", Quota: 1}, "make the spool folder"},
	} {
		if _, err := spool.Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
	}
}

func TestContentType(t *testing.T) {
	b := begin(t, open(t, spool.DefaultConfig()))
	for _, tt := range []struct {
		head, want string
		kind       result.Kind
	}{
		{"\xff\xd8\xff\xe0", "image/jpeg", result.Image},
		{"\x89PNG\r\n\x1a\n", "image/png", result.Image},
		{"\x00\x00\x00\x18ftypmp42", "video/mp4", result.Video},
		{"\x00\x00\x00\x14ftypqt  ", "video/quicktime", result.Video},
		{"\x00\x00\x00\x18ftypheic", "image/heic", result.Image},
		{"\x00\x00\x00\x18ftypM4A ", "audio/mp4", result.Audio},
		{"\x1aE\xdf\xa3", "video/webm", result.Video},
		{"RIFF\x00\x00\x00\x00WAVE", "audio/wav", result.Audio},
		{"#!AMR\n", "audio/amr", result.Audio},
		{"\xff\xf1\x50\x80", "audio/aac", result.Audio},
		{"\xff\xfb\x90\x00", "audio/mpeg", result.Audio},
		{"ID3\x03", "audio/mpeg", result.Audio},
		{"hello", "text/plain", result.Unknown},
		{"", "text/plain", result.Unknown},
	} {
		item := put(t, b, []byte(tt.head))
		if item.ContentType() != tt.want || item.Kind() != tt.kind {
			t.Errorf("%q: %s, %s; want %s, %s", tt.head, item.ContentType(), item.Kind(), tt.want, tt.kind)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s := open(b, spool.Config{MemoryLimit: 256 << 10, Quota: 1 << 40})
	content := pattern(8 << 20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		batch, err := s.Begin(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		put(b, batch, content)
		if err := batch.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleSpool() {
	dir, _ := os.MkdirTemp("", "spool")
	defer os.RemoveAll(dir)
	cfg := spool.DefaultConfig()
	cfg.Dir = dir
	s, err := spool.Open(cfg)
	if err != nil {
		panic(err)
	}
	defer s.Close()
	batch, err := s.Begin(context.Background())
	if err != nil {
		panic(err)
	}
	defer batch.Close()
	w := batch.Create(context.Background())
	_, _ = io.WriteString(w, "\xff\xd8\xff\xe0 a photo")
	item, err := w.Finish()
	fmt.Println(item.ContentType(), item.Digest().Size, err)
	// Output: image/jpeg 12 <nil>
}
