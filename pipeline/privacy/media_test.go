package privacy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// chunk is how much plaintext a chunk of sealed media has, header and overhead
// what is added to it.
const (
	chunk    = 64 << 10
	header   = 56
	overhead = 28
)

// picture is content in memory.
type picture []byte

func (p picture) Open() (io.ReadSeekCloser, error) {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(p), io.NopCloser(nil)}, nil
}

// described is the digest of bytes, as far as sealing looks at it.
func described(b []byte) result.Digest {
	return result.Digest{Size: int64(len(b)), SHA256: sha256.Sum256(b)}
}

// noise is bytes of which no two chunks are alike.
func noise(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*3 ^ byte(i>>16)*5
	}
	return b
}

func mediaRef() privacy.MediaRef {
	return privacy.MediaRef{
		Product: result.Enhanced, TokenHash: result.TokenHash(result.Enhanced, "T-0001"), Field: "BestFrame.BestFrame",
	}
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

func seal(t fataler, policy *privacy.Policy, ref privacy.MediaRef, b []byte) []byte {
	t.Helper()
	media, err := policy.SealMedia(ref, described(b), picture(b))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := readMedia(media)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func readMedia(media *privacy.SealedMedia) ([]byte, error) {
	r, err := media.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func openMedia(policy *privacy.Policy, ref privacy.MediaRef, sealed []byte) ([]byte, error) {
	r, err := policy.OpenMedia(ref, bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestSealedMediaOpens(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(t, withCipher(c), newKeyring(t))
		for _, size := range []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 7} {
			t.Run(fmt.Sprintf("%s/%d", c, size), func(t *testing.T) {
				plain := noise(size)
				sealed := seal(t, policy, mediaRef(), plain)
				if n := privacy.SealedMediaSize(int64(size)); n != int64(len(sealed)) {
					t.Errorf("%d bytes, SealedMediaSize says %d", len(sealed), n)
				}
				if size >= 32 && bytes.Contains(sealed, plain[:32]) {
					t.Error("the plaintext shows")
				}
				if opened, err := openMedia(policy, mediaRef(), sealed); err != nil || !bytes.Equal(opened, plain) {
					t.Errorf("opened %d bytes, %v", len(opened), err)
				}
				if !bytes.Equal(seal(t, policy, mediaRef(), plain), sealed) {
					t.Error("sealed again, it differs")
				}
				h, err := privacy.ReadMediaHeader(bytes.NewReader(sealed))
				if err != nil || h.Size != int64(size) || h.Cipher != c || len(h.KeyID) != 8 {
					t.Errorf("the header says %+v, %v", h, err)
				}
			})
		}
	}
}

// Any content comes back, however it is read and from wherever, and nothing but
// what was sealed comes back.
func TestSealedMediaProperties(t *testing.T) {
	keys := newKeyring(t)
	rapid.Check(t, func(t *rapid.T) {
		policy, err := privacy.NewPolicy(withCipher(rapid.SampledFrom(privacy.Ciphers()).Draw(t, "cipher")), keys)
		if err != nil {
			t.Fatal(err)
		}
		near := rapid.SampledFrom([]int{0, chunk, 2 * chunk}).Draw(t, "near")
		plain := noise(near + rapid.IntRange(0, 300).Draw(t, "more"))
		if cut := rapid.IntRange(0, 300).Draw(t, "less"); cut < len(plain) {
			plain = plain[cut:]
		}
		ref := mediaRef()
		ref.Field = rapid.String().Draw(t, "field")
		sealed := seal(t, policy, ref, plain)
		opened, err := policy.OpenMedia(ref, &pieces{t: t, r: bytes.NewReader(sealed)})
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(opened, plain); err != nil {
			t.Fatal(err)
		}
		spoil(t, policy, ref, plain, sealed)
	})
}

// pieces gives as few bytes at a time as the test likes.
type pieces struct {
	t *rapid.T
	r io.Reader
}

func (p *pieces) Read(b []byte) (int, error) {
	n := rapid.SampledFrom([]int{1, 55, 1000, chunk, 1 << 20}).Draw(p.t, "piece")
	return p.r.Read(b[:min(n, len(b))])
}

// spoil alters sealed media in one of many ways; what is released of it must be a
// beginning of the plaintext, and never all of it without an error.
func spoil(t *rapid.T, policy *privacy.Policy, ref privacy.MediaRef, plain, sealed []byte) {
	b := bytes.Clone(sealed)
	switch rapid.SampledFrom([]string{"flip", "cut", "extend", "swap", "drop", "move"}).Draw(t, "spoil") {
	case "flip":
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
	case "cut":
		b = b[:rapid.IntRange(0, len(b)-1).Draw(t, "at")]
	case "extend":
		b = append(b, b[:rapid.IntRange(1, len(b)).Draw(t, "by")]...)
	case "swap":
		if len(plain) <= 2*chunk {
			return // there are no two whole chunks
		}
		copy(b[header:], sealed[header+chunk+overhead:header+2*(chunk+overhead)])
		copy(b[header+chunk+overhead:], sealed[header:header+chunk+overhead])
	case "drop":
		if len(plain) <= chunk {
			return
		}
		b = append(b[:header], b[header+chunk+overhead:]...)
	case "move":
		ref.Field += "x"
	}
	opened, err := openMedia(policy, ref, b)
	if err == nil {
		t.Fatal("it opened")
	}
	if !bytes.HasPrefix(plain, opened) || len(plain) > 0 && len(opened) == len(plain) {
		t.Fatalf("it released %d bytes: %v", len(opened), err)
	}
}

func TestMediaOpensNowhereElse(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	sealed := seal(t, policy, mediaRef(), noise(100))
	for name, move := range map[string]func(*privacy.MediaRef){
		"product":     func(r *privacy.MediaRef) { r.Product = result.EID },
		"token":       func(r *privacy.MediaRef) { r.TokenHash = result.TokenHash(result.Enhanced, "T-0002") },
		"field":       func(r *privacy.MediaRef) { r.Field = "BestFrame.BestFrames[0]" },
		"parts moved": func(r *privacy.MediaRef) { r.TokenHash, r.Field = r.TokenHash+"B", r.Field[1:] },
	} {
		ref := mediaRef()
		move(&ref)
		if opened, err := openMedia(policy, ref, sealed); !errors.Is(err, privacy.ErrNotAuthentic) || len(opened) > 0 {
			t.Errorf("%s: %v, want ErrNotAuthentic", name, err)
		}
	}
	other := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	var unknown *privacy.UnknownKeyError
	if _, err := openMedia(other, mediaRef(), sealed); !errors.As(err, &unknown) {
		t.Errorf("with another keyring: %v, want an UnknownKeyError", err)
	}
}

func TestOpenMediaOfWhatIsNotSealed(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	good := seal(t, policy, mediaRef(), noise(10))
	edit := func(at int, b byte) string { c := bytes.Clone(good); c[at] = b; return string(c) }
	for name, text := range map[string]string{
		"nothing": "", "a picture": "\xff\xd8\xff\xe0" + strings.Repeat("x", 100), "half a header": string(good[:40]),
		"another magic": edit(0, 'f'), "another version": edit(7, 2), "no cipher": edit(8, 0),
		"reserved byte": edit(9, 1), "too large": edit(16, 1),
	} {
		if _, err := policy.OpenMedia(mediaRef(), strings.NewReader(text)); !errors.Is(err, privacy.ErrNotSealed) {
			t.Errorf("%s: %v, want ErrNotSealed", name, err)
		}
	}
	broken := errors.New("the disk is broken")
	for _, at := range []int{0, 60} {
		r, err := policy.OpenMedia(mediaRef(), io.MultiReader(bytes.NewReader(good[:at]), iotest.ErrReader(broken)))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) {
			t.Errorf("a source that fails after %d bytes: %v", at, err)
		}
	}
}

// Sections read at once, in any order, are the parts of the whole.
func TestSealedMediaHasSections(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(t, withCipher(c), newKeyring(t))
		plain := noise(5*chunk + 11)
		media, err := policy.SealMedia(mediaRef(), described(plain), picture(plain))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := readMedia(media)
		if err != nil {
			t.Fatal(err)
		}
		parts := make([][]byte, 32)
		var group sync.WaitGroup
		for i := range parts {
			group.Go(func() {
				part, err := section(media, int64(i)*int64(len(whole))/32, int64(i+1)*int64(len(whole))/32)
				if err != nil {
					t.Error(err)
				}
				parts[i] = part
			})
		}
		group.Wait()
		if !bytes.Equal(bytes.Join(parts, nil), whole) {
			t.Errorf("%s: the sections are not the whole", c)
		}
		r, err := media.Open()
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, whole); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func section(media *privacy.SealedMedia, from, to int64) ([]byte, error) {
	r, err := media.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if _, err := r.Seek(from, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, to-from))
}

// Content that is not what its digest says is found before the last chunk leaves,
// and never repeats a nonce with other plaintext.
func TestWrongContentIsNotSealed(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	good := noise(2*chunk + 100)
	right := seal(t, policy, mediaRef(), good)
	altered := bytes.Clone(good)
	altered[10] ^= 1
	lastAltered := bytes.Clone(good)
	lastAltered[len(good)-1] ^= 1
	for name, b := range map[string][]byte{
		"altered": altered, "altered at the end": lastAltered, "short": good[:len(good)-1], "a chunk short": good[:2*chunk],
		"empty": {}, "long": append(bytes.Clone(good), 0),
	} {
		media, err := policy.SealMedia(mediaRef(), described(good), picture(b))
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := readMedia(media)
		if !errors.Is(err, privacy.ErrWrongContent) || len(sealed) > header+2*(chunk+overhead) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(sealed), len(right), err)
		}
		if name == "altered" && bytes.Equal(sealed[header:header+12], right[header:header+12]) {
			t.Error("a nonce repeats for other bytes")
		}
	}
	if _, err := policy.SealMedia(mediaRef(), result.Digest{Size: -1}, picture{}); !errors.Is(err, privacy.ErrWrongContent) {
		t.Errorf("a negative size: %v", err)
	}
	// A reader that failed can be read again once its content is right.
	flaky := &flakyContent{good: good, bad: altered}
	media, err := policy.SealMedia(mediaRef(), described(good), flaky)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readMedia(media); !errors.Is(err, privacy.ErrWrongContent) {
		t.Errorf("%v", err)
	}
	if sealed, err := readMedia(media); err != nil || !bytes.Equal(sealed, right) {
		t.Errorf("the second time: %v", err)
	}
}

// flakyContent is wrong the first time.
type flakyContent struct {
	good, bad picture
	calls     int
}

func (f *flakyContent) Open() (io.ReadSeekCloser, error) {
	if f.calls++; f.calls == 1 {
		return f.bad.Open()
	}
	return f.good.Open()
}

func TestResealMedia(t *testing.T) {
	keys := newKeyring(t)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	plain := noise(chunk + 5)
	sealed := seal(t, policy, mediaRef(), plain)
	stored := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(sealed)), nil }
	if media, changed, err := policy.ResealMedia(mediaRef(), described(plain), stored); media != nil || changed || err != nil {
		t.Errorf("sealed under the active key: %v, %v", changed, err)
	}
	old := keys.List()[0].ID
	for name, next := range map[string]*privacy.Policy{"key": rotated(t, policy, keys), "cipher": newPolicy(t, withCipher(privacy.SM4GCM), keys)} {
		media, changed, err := next.ResealMedia(mediaRef(), described(plain), stored)
		if err != nil || !changed || media.Header().KeyID != keys.List()[1].ID {
			t.Fatalf("another %s: %v, %v", name, changed, err)
		}
		anew, err := readMedia(media)
		if err != nil || !bytes.Equal(anew, seal(t, next, mediaRef(), plain)) || media.Size() != int64(len(anew)) {
			t.Errorf("another %s: it is not as if sealed for the first time: %v", name, err)
		}
	}
	// The bytes that are resealed must be those of the manifest.
	media, _, err := policy.ResealMedia(mediaRef(), described(noise(chunk+4)), stored)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readMedia(media); !errors.Is(err, privacy.ErrWrongContent) {
		t.Errorf("other bytes: %v", err)
	}
	if err := keys.Remove(old); err != nil {
		t.Fatal(err)
	}
	_, _, err = policy.ResealMedia(mediaRef(), described(plain), stored)
	wantUnknownKey(t, err, old)
}

func rotated(t *testing.T, policy *privacy.Policy, keys *privacy.Keyring) *privacy.Policy {
	t.Helper()
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	return policy
}

// A running daemon seals under the key that is active on disk.
func TestSealMediaFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	daemon, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), daemon)
	command, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := command.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := privacy.ReadMediaHeader(bytes.NewReader(seal(t, policy, mediaRef(), noise(1)))); err != nil || h.KeyID != fresh.ID {
		t.Errorf("sealed under %s, want %s", h.KeyID, fresh.ID)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.SealMedia(mediaRef(), described(nil), picture{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	none := newPolicy(t, everywhere(privacy.Plain), nil)
	if _, err := none.SealMedia(mediaRef(), described(nil), picture{}); err == nil || !strings.Contains(err.Error(), "privacy.keyring_file") || none.HasKeyring() {
		t.Errorf("without a keyring: %v", err)
	}
}

func TestSealMediaFromManyGoroutines(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(t, withCipher(c), newKeyring(t))
		plain := noise(chunk + 99)
		media, err := policy.SealMedia(mediaRef(), described(plain), picture(plain))
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 32 {
			group.Go(func() {
				sealed, err := readMedia(media)
				if err != nil {
					t.Error(err)
				}
				if opened, err := openMedia(policy, mediaRef(), sealed); err != nil || !bytes.Equal(opened, plain) {
					t.Errorf("%s: %v", c, err)
				}
			})
		}
		group.Wait()
	}
}

// However large the media, a few chunks of it are in memory.
func TestSealedMediaMemory(t *testing.T) {
	const size = 256 << 20
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	media, err := policy.SealMedia(mediaRef(), result.Digest{Size: size, SHA256: zerosDigest(size)}, zeros(size))
	if err != nil {
		t.Fatal(err)
	}
	r, err := media.Open()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	opened, err := policy.OpenMedia(mediaRef(), r)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(struct{ io.Writer }{io.Discard}, opened)
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4<<20 {
		t.Errorf("sealing and opening %d MiB allocated %d KiB", size>>20, allocated>>10)
	}
}

// zeros is that many bytes of zero.
type zeros int64

func (z zeros) Open() (io.ReadSeekCloser, error) {
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(zeroAt{}, 0, int64(z)), io.NopCloser(nil)}, nil
}

type zeroAt struct{}

func (zeroAt) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func zerosDigest(size int64) [32]byte {
	sum := sha256.New()
	_, _ = io.Copy(sum, io.NewSectionReader(zeroAt{}, 0, size)) // never fails
	return [32]byte(sum.Sum(nil))
}

func TestMediaKeysAreNeverPrinted(t *testing.T) {
	keys, err := privacy.OpenKeyring(writeKeyring(t, validKeyring, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	media, err := policy.SealMedia(mediaRef(), described(nil), picture{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := media.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{media, *media, r} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
			text := fmt.Sprintf(verb, v)
			// Keys are derived anew each time, so what prints them prints long slices.
			if strings.Count(text, ", ") > 200 || len(text) > 2000 {
				t.Errorf("%s of %T prints %d characters", verb, v, len(text))
			}
		}
		if text, err := json.Marshal(v); err == nil && string(text) != "{}" {
			t.Errorf("JSON of %T: %s", v, text)
		}
	}
}

func FuzzOpenMedia(f *testing.F) {
	keys, err := privacy.OpenKeyring(writeKeyring(f, validKeyring, 0o600))
	if err != nil {
		f.Fatal(err)
	}
	plain := noise(chunk + 3)
	policies := map[bool]*privacy.Policy{
		false: newPolicy(f, withCipher(privacy.AES256GCM), keys), true: newPolicy(f, withCipher(privacy.SM4GCM), keys),
	}
	for _, policy := range policies {
		f.Add(seal(f, policy, mediaRef(), plain))
		f.Add(seal(f, policy, mediaRef(), plain[:7]))
		f.Add(seal(f, policy, mediaRef(), nil))
	}
	f.Fuzz(func(t *testing.T, sealed []byte) {
		opened, err := openMedia(policies[false], mediaRef(), sealed)
		if !bytes.HasPrefix(plain, opened) {
			t.Fatal("released what was never sealed")
		}
		if err == nil && len(opened) != 0 && len(opened) != 7 && len(opened) != len(plain) {
			t.Fatalf("%d bytes opened as a whole", len(opened))
		}
	})
}

func BenchmarkSealMedia(b *testing.B) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(b, withCipher(c), newKeyring(b))
		plain := noise(16 << 20)
		media, err := policy.SealMedia(mediaRef(), described(plain), picture(plain))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				r, err := media.Open()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(struct{ io.Writer }{io.Discard}, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenMedia(b *testing.B) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(b, withCipher(c), newKeyring(b))
		sealed := seal(b, policy, mediaRef(), noise(16<<20))
		b.Run(string(c), func(b *testing.B) {
			b.SetBytes(16 << 20)
			for b.Loop() {
				r, err := policy.OpenMedia(mediaRef(), bytes.NewReader(sealed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(struct{ io.Writer }{io.Discard}, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
