package privacy_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// inline makes an asset's content of bytes.
func inline(a *result.Asset, b []byte) {
	a.Content, a.Digest = picture(b), digestOf(b)
}

func digestOf(b []byte) result.Digest {
	return result.Digest{
		Size: int64(len(b)), SHA256: sha256.Sum256(b), CRC64: crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)),
	}
}

// keep keeps media in memory.
func keep(medium io.Reader) (result.Content, result.Digest, error) {
	b, err := io.ReadAll(medium)
	return picture(b), digestOf(b), err
}

func sealParcel(t fataler, policy *privacy.Policy, r *result.Result) []byte {
	t.Helper()
	parcel, err := policy.SealParcel(r)
	if err != nil {
		t.Fatal(err)
	}
	sealed := parcel.Open()
	b, err := io.ReadAll(sealed)
	if err = errors.Join(err, sealed.Close()); err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != parcel.Size() {
		t.Fatal(fmt.Sprintf("%d bytes, Size says %d", len(b), parcel.Size()))
	}
	return b
}

func openParcel(policy *privacy.Policy, r *result.Result, sealed []byte) (*result.Result, error) {
	return policy.OpenParcel(r.Product, r.TokenHash(), bytes.NewReader(sealed), keep)
}

// parcelTo compares two results by reflection, revealed, and says where they differ.
// Receipts are no part of a parcel.
func parcelTo(path string, want, got reflect.Value) error {
	switch w := want.Interface().(type) {
	case result.Sensitive:
		if w.Reveal() != got.Interface().(result.Sensitive).Reveal() {
			return fmt.Errorf("%s has another value", path)
		}
		return nil
	case time.Time:
		if !w.Equal(got.Interface().(time.Time)) {
			return fmt.Errorf("%s is %v, want %v", path, got, want)
		}
		return nil
	case []result.Receipt:
		if !got.IsNil() {
			return fmt.Errorf("%s is kept", path)
		}
		return nil
	case picture:
		if !bytes.Equal(w, got.Interface().(picture)) {
			return fmt.Errorf("%s has other bytes", path)
		}
		return nil
	}
	switch want.Kind() {
	case reflect.Struct:
		for i := range want.NumField() {
			if err := parcelTo(path+"."+want.Type().Field(i).Name, want.Field(i), got.Field(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Slice:
		if want.Len() != got.Len() || want.IsNil() != got.IsNil() {
			return fmt.Errorf("%s has %d items, want %d", path, got.Len(), want.Len())
		}
		for i := range want.Len() {
			if err := parcelTo(fmt.Sprintf("%s[%d]", path, i), want.Index(i), got.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Pointer, reflect.Interface:
		if want.IsNil() || got.IsNil() {
			if want.IsNil() != got.IsNil() {
				return fmt.Errorf("%s: nil is %v, want %v", path, got.IsNil(), want.IsNil())
			}
			return nil
		}
		return parcelTo(path, want.Elem(), got.Elem())
	}
	if !reflect.DeepEqual(want.Interface(), got.Interface()) {
		return fmt.Errorf("%s is %v, want %v", path, got, want)
	}
	return nil
}

func sameParcel(want, got *result.Result) error {
	return parcelTo("Result", reflect.ValueOf(*want), reflect.ValueOf(*got))
}

// TestParcelKeepsEveryField fills all there is in package result, so that a field
// which somebody adds has to survive as well.
func TestParcelKeepsEveryField(t *testing.T) {
	r, marks := markedResult(t)
	inline(&r.Assets[0], noise(3*chunk+1))
	policy := newPolicy(t, everywhere(privacy.Drop), newKeyring(t))
	sealed := sealParcel(t, policy, r)
	for path, value := range marks.personal {
		if bytes.Contains(sealed, []byte(value)) {
			t.Errorf("%s shows", path)
		}
	}
	for path, value := range marks.shown {
		if strings.HasPrefix(value, "shown-") && bytes.Contains(sealed, []byte(value)) {
			t.Errorf("%s shows", path)
		}
	}
	got, err := openParcel(policy, r, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameParcel(r, got); err != nil {
		t.Error(err)
	}
	if r.Assets[0].Stored == nil || r.Assets[0].Content == nil {
		t.Error("sealing has changed the result")
	}
}

func TestEmptyParcel(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		policy := newPolicy(t, withCipher(c), newKeyring(t))
		r := &result.Result{Product: result.EID, Token: "T-1", Attempts: []result.Attempt{}, Assets: []result.Asset{{Field: "a"}, {Field: "b"}}}
		inline(&r.Assets[1], nil)
		got, err := openParcel(policy, r, sealParcel(t, policy, r))
		if err != nil {
			t.Fatal(err)
		}
		if err := sameParcel(r, got); err != nil {
			t.Error(err)
		}
	}
}

// drawResult draws a result; its media are small.
func drawResult(t *rapid.T) *result.Result {
	text := func(label string) string { return rapid.String().Draw(t, label) }
	personal := func(label string) result.Sensitive {
		return result.NewSensitive(string(rapid.SliceOf(rapid.Byte()).Draw(t, label)))
	}
	code := func(label string) *int64 { return rapid.Ptr(rapid.Int64(), true).Draw(t, label) }
	r := &result.Result{
		Product: rapid.SampledFrom(result.Products()).Draw(t, "product"), Token: text("token"), Account: text("account"),
		FetchedAt: time.Unix(rapid.Int64Range(-1e9, 1e10).Draw(t, "time"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")),
		Verdict:   result.Verdict{Passed: rapid.Bool().Draw(t, "passed"), Code: rapid.Int64().Draw(t, "code"), Liveness: code("liveness"), IntentionCode: code("intention")},
		Person:    result.Person{Name: personal("name"), Extra: personal("extra")},
		Raw:       personal("raw"),
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "attempts") {
		r.Attempts = append(r.Attempts, result.Attempt{Name: personal("attempt"), Code: code("attempt code"), Charged: i == 1})
		r.Intention.Answers = append(r.Intention.Answers, personal("answer"))
	}
	for range rapid.IntRange(0, 4).Draw(t, "assets") {
		a := result.Asset{Field: text("field"), Kind: result.Image}
		if rapid.Bool().Draw(t, "inline") {
			inline(&a, noise(rapid.SampledFrom([]int{0, 1, 100, chunk, chunk + 1}).Draw(t, "size")))
		} else {
			a.COS = &result.COSObject{Bucket: text("bucket"), Key: text("key")}
		}
		r.Assets = append(r.Assets, a)
	}
	return r
}

// Any result comes back, however its parcel is read, and an altered parcel is an
// error.
func TestParcelProperties(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	rapid.Check(t, func(t *rapid.T) {
		r := drawResult(t)
		sealed := sealParcel(t, policy, r)
		got, err := policy.OpenParcel(r.Product, r.TokenHash(), &pieces{t: t, r: bytes.NewReader(sealed)}, keep)
		if err != nil {
			t.Fatal(err)
		}
		if err := sameParcel(r, got); err != nil {
			t.Fatal(err)
		}
		spoilt := bytes.Clone(sealed)
		switch rapid.SampledFrom([]string{"flip", "cut", "extend"}).Draw(t, "spoil") {
		case "flip":
			spoilt[rapid.IntRange(0, len(spoilt)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "cut":
			spoilt = spoilt[:rapid.IntRange(0, len(spoilt)-1).Draw(t, "at")]
		case "extend":
			spoilt = append(spoilt, spoilt[:rapid.IntRange(1, len(spoilt)).Draw(t, "by")]...)
		}
		_, err = openParcel(policy, r, spoilt)
		var unknown *privacy.UnknownKeyError // the flipped bit may be one of the key's id
		if !errors.Is(err, privacy.ErrDamagedParcel) && !errors.As(err, &unknown) {
			t.Fatalf("an altered parcel: %v", err)
		}
	})
}

// The size of the head stands in clear. In a parcel without media nothing follows the
// head, and yet no other size opens it.
func TestSizeOfParcelHead(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	r := someone()
	r.Assets = nil
	sealed := sealParcel(t, policy, r)
	if _, err := openParcel(policy, r, sealed); err != nil {
		t.Fatal(err)
	}
	for at := 8; at < parcelHeaderSize; at++ {
		for bit := range 8 {
			spoilt := bytes.Clone(sealed)
			spoilt[at] ^= 1 << bit
			if _, err := openParcel(policy, r, spoilt); !errors.Is(err, privacy.ErrDamagedParcel) {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
}

// parcelHeaderSize is how much of a parcel is in clear.
const parcelHeaderSize = 16

// TestPartsOfParcelsDoNotMove exchanges parts of equal sizes: within a parcel, between
// two of one token and between tokens.
func TestPartsOfParcelsDoNotMove(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	make2 := func(token string, a, b byte) (*result.Result, []byte) {
		r := someone()
		r.Token = token
		r.Assets = []result.Asset{{Field: "A"}, {Field: "B"}}
		inline(&r.Assets[0], bytes.Repeat([]byte{a}, 100))
		inline(&r.Assets[1], bytes.Repeat([]byte{b}, 100))
		return r, sealParcel(t, policy, r)
	}
	part := header + 100 + overhead
	r, sealed := make2("T-0001", 1, 1)
	_, older := make2("T-0001", 2, 1)
	_, other := make2("T-0002", 1, 1)
	n := len(sealed)
	for name, moved := range map[string][]byte{
		"exchanged":      slicesOf(sealed[:n-2*part], sealed[n-part:], sealed[n-2*part:n-part]),
		"twice the same": slicesOf(sealed[:n-part], sealed[n-2*part:n-part]),
		"of an older":    slicesOf(sealed[:n-2*part], older[len(older)-2*part:len(older)-part], sealed[n-part:]),
		"of another":     slicesOf(sealed[:n-part], other[len(other)-part:]),
		"another's head": slicesOf(other[:len(other)-2*part], sealed[n-2*part:]),
		"without one":    sealed[:n-part],
		"another parcel": other,
		"only a head":    sealed[:n-2*part],
		"no head":        slicesOf(sealed[:parcelHeaderSize], sealed[n-2*part:]),
		"media":          seal(t, policy, mediaRef(), noise(100)),
		"nothing":        nil,
	} {
		if _, err := openParcel(policy, r, moved); !errors.Is(err, privacy.ErrDamagedParcel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := policy.OpenParcel(result.EID, r.TokenHash(), bytes.NewReader(sealed), keep); !errors.Is(err, privacy.ErrDamagedParcel) {
		t.Errorf("of another product: %v", err)
	}
	if _, err := openParcel(policy, r, sealed); err != nil {
		t.Error(err)
	}
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestParcelErrors: what is wrong outside of the parcel is not called damage.
func TestParcelErrors(t *testing.T) {
	keys := newKeyring(t)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	r := someone()
	r.Assets = []result.Asset{{Field: "A"}}
	inline(&r.Assets[0], noise(2*chunk))
	sealed := sealParcel(t, policy, r)
	broken := errors.New("the line is cut")
	for name, open := range map[string]func() error{
		"reader": func() error {
			in := io.MultiReader(bytes.NewReader(sealed[:len(sealed)-chunk]), iotest.ErrReader(broken))
			_, err := policy.OpenParcel(r.Product, r.TokenHash(), in, keep)
			return err
		},
		"reader at once": func() error {
			_, err := policy.OpenParcel(r.Product, r.TokenHash(), iotest.ErrReader(broken), keep)
			return err
		},
		"keeper": func() error {
			_, err := policy.OpenParcel(r.Product, r.TokenHash(), bytes.NewReader(sealed), func(io.Reader) (result.Content, result.Digest, error) {
				return nil, result.Digest{}, broken
			})
			return err
		},
	} {
		if err := open(); !errors.Is(err, broken) || errors.Is(err, privacy.ErrDamagedParcel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := policy.OpenParcel(r.Product, r.TokenHash(), bytes.NewReader(sealed), func(medium io.Reader) (result.Content, result.Digest, error) {
		content, digest, err := keep(medium)
		digest.CRC64++
		return content, digest, err
	})
	if !errors.Is(err, privacy.ErrDamagedParcel) {
		t.Errorf("a keeper that keeps other bytes: %v", err)
	}
	old := policyKey(t, policy, r)
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	if _, err := openParcel(policy, r, sealed); err != nil || policyKey(t, policy, r) == old {
		t.Errorf("after a rotation: %v", err)
	}
	if err := keys.Remove(old); err != nil {
		t.Fatal(err)
	}
	var unknown *privacy.UnknownKeyError
	if _, err := openParcel(policy, r, sealed); !errors.As(err, &unknown) || unknown.ID != old {
		t.Errorf("without its key: %v", err)
	}
}

// policyKey is the key that a parcel of r is sealed under now.
func policyKey(t *testing.T, policy *privacy.Policy, r *result.Result) string {
	t.Helper()
	parcel, err := policy.SealParcel(r)
	if err != nil {
		t.Fatal(err)
	}
	id, c := parcel.Seal()
	if c != privacy.AES256GCM {
		t.Errorf("sealed with %s", c)
	}
	return id
}

func TestParcelRefuses(t *testing.T) {
	if _, err := newPolicy(t, everywhere(privacy.Plain), nil).SealParcel(someone()); err == nil || !strings.Contains(err.Error(), "set privacy.keyring_file") {
		t.Errorf("without a keyring: %v", err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	r := someone()
	r.Raw = result.NewSensitive(strings.Repeat("x", 16<<20))
	if _, err := policy.SealParcel(r); err == nil {
		t.Error("a result that could not be opened is sealed")
	}
	r = someone()
	r.FetchedAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := policy.SealParcel(r); err == nil {
		t.Error("a time that JSON does not have is sealed")
	}
	r = someone()
	r.Assets = []result.Asset{{Content: picture("other"), Digest: digestOf([]byte("bytes"))}}
	parcel, err := policy.SealParcel(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(parcel.Open()); !errors.Is(err, privacy.ErrWrongContent) {
		t.Errorf("content of another digest: %v", err)
	}
}

// parcelOf1 is the result whose parcel of version 1 is in testdata.
func parcelOf1() *result.Result {
	code := int64(-1)
	r := someone()
	r.FetchedAt = r.FetchedAt.UTC()
	r.Attempts[1].Code = &code
	r.Warnings = []result.Warning{{Side: "front", Code: -9100}}
	r.Assets = []result.Asset{
		{Field: "BestFrame.BestFrame", Kind: result.Image, ContentType: "image/jpeg"},
		{Field: "VideoData.LivenessVideo", Kind: result.Video, COS: &result.COSObject{Bucket: "faceid-1250000000", Region: "ap-guangzhou", Key: "a/b.mp4"}},
		{Field: "odd", Kind: result.Unknown},
	}
	inline(&r.Assets[0], noise(300))
	inline(&r.Assets[2], nil)
	return r
}

// TestParcelOfVersion1: a parcel may be opened by a later version than has sealed it.
func TestParcelOfVersion1(t *testing.T) {
	keys, err := privacy.OpenKeyring(writeKeyring(t, validKeyring, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	sealed, err := os.ReadFile("testdata/parcel-v1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := openParcel(policy, parcelOf1(), sealed)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameParcel(parcelOf1(), got); err != nil {
		t.Error(err)
	}
}

func FuzzOpenParcel(f *testing.F) {
	keys, err := privacy.OpenKeyring(writeKeyring(f, validKeyring, 0o600))
	if err != nil {
		f.Fatal(err)
	}
	policy := newPolicy(f, privacy.DefaultConfig(), keys)
	r := parcelOf1()
	sealed := sealParcel(f, policy, r)
	f.Add(sealed)
	f.Add(sealed[:parcelHeaderSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := openParcel(policy, r, b)
		if err == nil {
			err = sameParcel(r, got)
			if err != nil {
				t.Fatalf("it opened to what was never sealed: %v", err)
			}
			return
		}
		var unknown *privacy.UnknownKeyError
		if !errors.Is(err, privacy.ErrDamagedParcel) && !errors.As(err, &unknown) {
			t.Fatal(err)
		}
	})
}
