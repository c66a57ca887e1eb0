package envelope_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// invented is nobody.
var invented = struct{ name, number, json string }{
	"测试甲", "000000190001010000",
	`{"name":"测试甲","idtype":"01","idnum":"000000190001010000","later":12345678901234567890}`,
}

func openPerson(t testing.TB, key *envelope.PrivateKey, m *envelopetest.Merchant) (*envelope.UserInfo, error) {
	t.Helper()
	desKey, userInfo, err := m.SealEID([]byte(invented.json), envelopetest.Form{})
	if err != nil {
		t.Fatal(err)
	}
	return key.OpenEID(desKey, userInfo)
}

func newPrivateKey(t testing.TB, m *envelopetest.Merchant) *envelope.PrivateKey {
	t.Helper()
	key, err := envelope.ParsePrivateKey(m.PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOpenEIDInEveryForm(t *testing.T) {
	merchant := newMerchant(t)
	key := newPrivateKey(t, merchant)
	fills := map[string]func(int) []byte{
		"zeros":  nil,
		"spaces": func(n int) []byte { return bytes.Repeat([]byte(" "), n) },
		"PKCS#7": func(n int) []byte { n = atLeastOne(n); return bytes.Repeat([]byte{byte(n)}, n) },
		"ISO":    func(n int) []byte { return append([]byte{0x80}, make([]byte, atLeastOne(n)-1)...) },
		"buffer": func(n int) []byte { return make([]byte, n+160) },
		"lines":  func(n int) []byte { return bytes.Repeat([]byte("\n"), n+32) },
	}
	seen := map[string]bool{}
	for i := range 32 {
		for name, fill := range fills {
			form := envelopetest.Form{C1C2C3: i&1 > 0, ASN1: i&2 > 0, Bare: i&4 > 0, Hex: i&8 > 0, HexKey: i&16 > 0, Fill: fill}
			desKey, userInfo, err := merchant.SealEID([]byte(invented.json), form)
			if err != nil {
				t.Fatal(err)
			}
			u, err := key.OpenEID(desKey, userInfo)
			if err != nil {
				t.Fatalf("%+v, %s: %v", form, name, err)
			}
			if u.Name.Reveal() != invented.name || u.IDNumber.Reveal() != invented.number || u.IDType != "01" || string(u.JSON) != invented.json {
				t.Errorf("%+v, %s: opened wrongly", form, name)
			}
			if want := variant(form); u.Variant != want {
				t.Errorf("variant %q, want %q", u.Variant, want)
			}
			seen[u.Variant] = true
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d variants", len(seen))
	}
}

// atLeastOne is the length of fill that must not be missing.
func atLeastOne(n int) int {
	if n == 0 {
		return 16
	}
	return n
}

func variant(f envelopetest.Form) string {
	encoding, layout, key := "base64", "0x04", "16-byte key"
	if f.Hex {
		encoding = "hex"
	}
	if f.Bare {
		layout = "no 0x04"
	}
	if f.C1C2C3 {
		layout += ", C1C2C3"
	} else {
		layout += ", C1C3C2"
	}
	if f.ASN1 {
		layout = "ASN.1"
	}
	if f.HexKey {
		key = "hex key"
	}
	return strings.Join([]string{encoding, layout, key}, ", ")
}

func TestOpenEIDRefuses(t *testing.T) {
	merchant, other := newMerchant(t), newMerchant(t)
	key := newPrivateKey(t, merchant)
	seal := func(m *envelopetest.Merchant, person string, form envelopetest.Form) [2]string {
		desKey, userInfo, err := m.SealEID([]byte(person), form)
		if err != nil {
			t.Fatal(err)
		}
		return [2]string{desKey, userInfo}
	}
	good := seal(merchant, invented.json, envelopetest.Form{})
	another := seal(merchant, invented.json, envelopetest.Form{})
	flipped := flip(t, good[0], 100)
	offCurve := flip(t, good[0], 10)
	longKey := base64.StdEncoding.EncodeToString(sealSM2(t, merchant, make([]byte, 24)))
	cases := []struct {
		name  string
		parts [2]string
		want  error
	}{
		{"nothing", [2]string{}, envelope.ErrNoUserInfo},
		{"no DesKey", [2]string{"", good[1]}, envelope.ErrMalformed},
		{"no UserInfo", [2]string{good[0], ""}, envelope.ErrMalformed},
		{"another merchant", seal(other, invented.json, envelopetest.Form{}), envelope.ErrKeyMismatch},
		{"another merchant, ASN.1", seal(other, invented.json, envelopetest.Form{ASN1: true}), envelope.ErrKeyMismatch},
		{"a flipped bit", [2]string{flipped, good[1]}, envelope.ErrKeyMismatch},
		{"a point off the curve", [2]string{offCurve, good[1]}, envelope.ErrMalformed},
		{"not base64", [2]string{"!", good[1]}, envelope.ErrMalformed},
		{"short", [2]string{"BAAA", good[1]}, envelope.ErrMalformed},
		{"a key of 24 bytes", [2]string{longKey, good[1]}, envelope.ErrMalformed},
		{"another UserInfo", [2]string{another[0], good[1]}, envelope.ErrMalformed},
		{"UserInfo not base64", [2]string{good[0], "!"}, envelope.ErrMalformed},
		{"half a block", [2]string{good[0], base64.StdEncoding.EncodeToString(make([]byte, 24))}, envelope.ErrMalformed},
		{"not JSON", seal(merchant, "000000190001010000", envelopetest.Form{}), envelope.ErrMalformed},
		{"cut off", seal(merchant, invented.json[:40], envelopetest.Form{}), envelope.ErrMalformed},
		{"nobody", seal(merchant, `{"idtype":"01"}`, envelopetest.Form{}), envelope.ErrMalformed},
		{"a list for a name", seal(merchant, `{"name":["190001010000"]}`, envelopetest.Form{}), envelope.ErrMalformed},
		{"more JSON", seal(merchant, invented.json+invented.json, envelopetest.Form{}), envelope.ErrMalformed},
		{"not UTF-8", seal(merchant, "{\"name\":\"\xb2\xe2\"}", envelopetest.Form{}), envelope.ErrMalformed},
	}
	for _, c := range cases {
		u, err := key.OpenEID(c.parts[0], c.parts[1])
		if !errors.Is(err, c.want) || u != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "19000101") || strings.Contains(err.Error(), "测试")) {
			t.Errorf("%s: the error has data: %v", c.name, err)
		}
	}
}

// flip changes the first bit of a byte inside base64: text stops being UTF-8.
func flip(t testing.TB, text string, at int) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 0x80
	return base64.StdEncoding.EncodeToString(raw)
}

func ExamplePrivateKey_OpenEID() {
	merchant, err := envelopetest.GenerateMerchant()
	if err != nil {
		panic(err)
	}
	desKey, userInfo, err := merchant.SealEID([]byte(`{"name":"测试甲","idtype":"01","idnum":"000000190001010000"}`), envelopetest.Form{Bare: true})
	if err != nil {
		panic(err)
	}
	key, err := envelope.ParsePrivateKey(merchant.PEM(), nil)
	if err != nil {
		panic(err)
	}
	person, err := key.OpenEID(desKey, userInfo)
	if err != nil {
		panic(err)
	}
	fmt.Println(person.Name, person.IDType, "from", person.Variant)
	// Output: [redacted] 01 from base64, no 0x04, C1C3C2, 16-byte key
}
