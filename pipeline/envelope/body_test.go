package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/emmansun/gmsm/sm4"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// text returns n bytes of UTF-8 with characters of every length at every offset.
func text(n int) []byte {
	const pattern = "aé测𠮷{}\"0123"
	b := []byte(strings.Repeat(pattern, n/len(pattern)+1))[:n]
	for len(b) > 0 && !bytes.HasSuffix([]byte(string([]rune(string(b)))), b) {
		b = b[:len(b)-1] // a character was cut
	}
	return append(b, bytes.Repeat([]byte("."), n-len(b))...)
}

func sealBody(t testing.TB, sealer *envelopetest.Sealer, plaintext []byte) ([]byte, envelope.Encryption) {
	t.Helper()
	var out bytes.Buffer
	e, err := sealer.Body(&out, bytes.NewReader(plaintext))
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), e
}

// wrapped reads source in the way of a wrapper, a new one after each Seek.
type wrapped struct {
	source io.ReadSeeker
	wrap   func(io.Reader) io.Reader
	io.Reader
}

// Read spares the wrappers an empty buffer: iotest.DataErrReader never returns
// from one.
func (w *wrapped) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return w.Reader.Read(p)
}

func (w *wrapped) Seek(offset int64, whence int) (int64, error) {
	w.Reader = w.wrap(w.source)
	return w.source.Seek(offset, whence)
}

func TestOpenBody(t *testing.T) {
	sizes := []int{0, 1, 15, 16, 17, 31, 32, 33, 100, 65519, 65520, 65521, 65535, 65536, 65537, 65552, 131071, 131072, 131088, 200000}
	readers := map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader,
		"halves": iotest.HalfReader, "early end": iotest.DataErrReader,
	}
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		for _, size := range sizes {
			plaintext := text(size)
			ciphertext, e := sealBody(t, sealer, plaintext)
			for name, wrap := range readers {
				// The body may begin anywhere in what holds it.
				source := bytes.NewReader(append([]byte("before"), ciphertext...))
				if _, err := source.Seek(6, io.SeekStart); err != nil {
					t.Fatal(err)
				}
				opened, err := session.OpenBody(&wrapped{source: source, wrap: wrap}, e)
				if err != nil {
					t.Fatalf("%s, %d, %s: %v", algorithm, size, name, err)
				}
				if err := iotest.TestReader(opened, plaintext); err != nil {
					t.Errorf("%s, %d, %s: %.200s", algorithm, size, name, err)
				}
			}
		}
	}
}

func TestOpenBodyRefuses(t *testing.T) {
	const size = 150000
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		other, _ := newPair(t, algorithm)
		ciphertext, good := sealBody(t, sealer, text(size))
		changed := func(f func(c []byte) []byte) []byte { return f(bytes.Clone(ciphertext)) }
		type wrong struct {
			name       string
			session    *envelope.Session
			ciphertext []byte
			e          func(e *envelope.Encryption)
			want       error
		}
		keep := func(*envelope.Encryption) {}
		cases := []wrong{
			{"another key", other, ciphertext, keep, envelope.ErrKeyMismatch},
			{"first bit", session, changed(func(c []byte) []byte { c[0] ^= 0x80; return c }), keep, envelope.ErrKeyMismatch},
			{"bit in the middle", session, changed(func(c []byte) []byte { c[size/2] ^= 1; return c }), keep, envelope.ErrKeyMismatch},
			{"last bit", session, changed(func(c []byte) []byte { c[len(c)-1] ^= 1; return c }), keep, envelope.ErrKeyMismatch},
			{"a block short", session, ciphertext[:len(ciphertext)-16], keep, envelope.ErrKeyMismatch},
			{"another IV", session, ciphertext, func(e *envelope.Encryption) { e.Iv = flip(t, e.Iv, 0) }, envelope.ErrKeyMismatch},
			{"IV not base64", session, ciphertext, func(e *envelope.Encryption) { e.Iv = "!" }, envelope.ErrMalformed},
			{"another algorithm", session, ciphertext, func(e *envelope.Encryption) { e.Algorithm = "ROT13" }, envelope.ErrMalformed},
		}
		if algorithm == envelope.SM4GCM {
			cases = append(cases,
				wrong{"a byte short", session, ciphertext[:size-1], keep, envelope.ErrKeyMismatch},
				wrong{"a zero more", session, changed(func(c []byte) []byte { return append(c, 0) }), keep, envelope.ErrKeyMismatch},
				wrong{"empty", session, nil, keep, envelope.ErrKeyMismatch},
				wrong{"another tag", session, ciphertext, func(e *envelope.Encryption) { e.TagList = []string{flip(t, e.TagList[0], 15)} }, envelope.ErrKeyMismatch},
				wrong{"short tag", session, ciphertext, func(e *envelope.Encryption) { e.TagList = []string{"AAAA"} }, envelope.ErrMalformed},
				wrong{"no tag", session, ciphertext, func(e *envelope.Encryption) { e.TagList = nil }, envelope.ErrMalformed},
				wrong{"two tags", session, ciphertext, func(e *envelope.Encryption) { e.TagList = append(e.TagList, e.TagList[0]) }, envelope.ErrMalformed},
				wrong{"tag not base64", session, ciphertext, func(e *envelope.Encryption) { e.TagList = []string{"!"} }, envelope.ErrMalformed},
			)
		} else {
			notText, _ := sealBody(t, sealer, append(text(70000), 0xe6, 0xb5))
			cases = append(cases,
				wrong{"a byte short", session, ciphertext[:len(ciphertext)-1], keep, envelope.ErrMalformed},
				wrong{"empty", session, nil, keep, envelope.ErrMalformed},
				wrong{"ends in a character", session, notText, keep, envelope.ErrKeyMismatch},
			)
		}
		for _, c := range cases {
			e := good
			c.e(&e)
			opened, err := c.session.OpenBody(bytes.NewReader(c.ciphertext), e)
			if !errors.Is(err, c.want) || opened != nil {
				t.Errorf("%s, %s: %v, want %v", algorithm, c.name, err, c.want)
			}
		}
	}
}

// TestOpenBodyPassesErrorsOn has a source that fails, also as if it were cut off.
func TestOpenBodyPassesErrorsOn(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		ciphertext, e := sealBody(t, sealer, text(150000))
		for _, failure := range []error{errors.New("broken disk"), io.ErrUnexpectedEOF} {
			for _, at := range []int{0, 16, 70000, len(ciphertext)} {
				source := &wrapped{source: bytes.NewReader(ciphertext), wrap: func(r io.Reader) io.Reader {
					return io.MultiReader(io.LimitReader(r, int64(at)), iotest.ErrReader(failure))
				}}
				if opened, err := session.OpenBody(source, e); !errors.Is(err, failure) || opened != nil {
					t.Errorf("%s, %d: %v, want %v", algorithm, at, err, failure)
				}
				// The same in the second pass.
				later := &laterError{ReadSeeker: bytes.NewReader(ciphertext), at: at, err: failure}
				opened, err := session.OpenBody(later, e)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, opened); !errors.Is(err, failure) {
					t.Errorf("%s, %d: %v, want %v", algorithm, at, err, failure)
				}
			}
		}
		if opened, err := session.OpenBody(failingSeeker{}, e); !errors.Is(err, errSeek) || opened != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

var errSeek = errors.New("cannot seek")

type failingSeeker struct{ io.Reader }

func (failingSeeker) Seek(int64, int) (int64, error) { return 0, errSeek }

// laterError fails at an offset once it has been rewound.
type laterError struct {
	io.ReadSeeker
	at  int
	err error
	cut io.Reader
}

func (l *laterError) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		l.cut = io.MultiReader(io.LimitReader(l.ReadSeeker, int64(l.at)), iotest.ErrReader(l.err))
	}
	return l.ReadSeeker.Seek(offset, whence)
}

func (l *laterError) Read(p []byte) (int, error) {
	if l.cut != nil {
		return l.cut.Read(p)
	}
	return l.ReadSeeker.Read(p)
}

// TestTagAgreesWithOthers compares the streaming tag with the GCM of the standard
// library, under its AES, and with that of emmansun/gmsm, under its SM4.
func TestTagAgreesWithOthers(t *testing.T) {
	key, iv := make([]byte, 16), make([]byte, 12)
	data := make([]byte, 140000)
	_, _ = rand.Read(key)
	_, _ = rand.Read(iv)
	_, _ = rand.Read(data)
	for name, newBlock := range map[string]func([]byte) (cipher.Block, error){"AES": aes.NewCipher, "SM4": sm4.NewCipher} {
		block, err := newBlock(key)
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 1, 15, 16, 17, 255, 65535, 65536, 65537, len(data)} {
			sealed := aead.Seal(nil, iv, data[:size], nil)
			tag, err := envelope.GCMTag(block, iv, sealed[:size])
			if err != nil || !bytes.Equal(tag, sealed[size:]) {
				t.Errorf("%s, %d bytes: another tag, %v", name, size, err)
			}
		}
	}
}

// TestBodyMemoryStaysFlat opens a small body and a large one, and compares what is
// allocated.
func TestBodyMemoryStaysFlat(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		used := func(size int) uint64 {
			ciphertext, e := sealBody(t, sealer, text(size))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			opened, err := session.OpenBody(bytes.NewReader(ciphertext), e)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, opened, make([]byte, 32<<10))
			if err != nil || n != int64(size) {
				t.Fatal(n, err)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		small, large := used(64<<10), used(8<<20)
		const limit = 512 << 10
		if small > limit || large > limit {
			t.Errorf("%s: %d bytes for 64 KiB, %d for 8 MiB", algorithm, small, large)
		}
	}
}

func BenchmarkOpenBody(b *testing.B) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(b, algorithm)
		ciphertext, e := sealBody(b, sealer, text(8<<20))
		b.Run(fmt.Sprintf("%s/8MiB", algorithm), func(b *testing.B) {
			b.SetBytes(int64(len(ciphertext)))
			b.ReportAllocs()
			for b.Loop() {
				opened, err := session.OpenBody(bytes.NewReader(ciphertext), e)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, opened); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTag is the first pass alone, under a cipher that costs nothing here.
func BenchmarkTag(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 8<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := envelope.GCMTag(block, make([]byte, 12), data); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleSession_OpenBody() {
	keys, err := envelopetest.GenerateKeys(envelope.AES256CBC) // the service's
	if err != nil {
		panic(err)
	}
	public, err := envelope.ParsePublicKey(envelope.AES256CBC, keys.PublicPEM())
	if err != nil {
		panic(err)
	}
	session, err := envelope.NewSession(public)
	if err != nil {
		panic(err)
	}
	defer session.Wipe()
	service, err := keys.Open(session.Request("EncryptionBody"))
	if err != nil {
		panic(err)
	}
	var body bytes.Buffer
	encryption, err := service.Body(&body, strings.NewReader(`{"Text":{"ErrCode":0}}`))
	if err != nil {
		panic(err)
	}

	opened, err := session.OpenBody(bytes.NewReader(body.Bytes()), encryption)
	if err != nil {
		panic(err)
	}
	plaintext, err := io.ReadAll(opened)
	fmt.Println(string(plaintext), err)
	// Output: {"Text":{"ErrCode":0}} <nil>
}
