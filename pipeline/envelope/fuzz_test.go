package envelope_test

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm4"
	"github.com/emmansun/gmsm/smx509"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// classed fails unless err is of one of the two classes that callers decide on.
func classed(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, envelope.ErrMalformed) && !errors.Is(err, envelope.ErrKeyMismatch) {
		t.Fatalf("an error of no class: %v", err)
	}
}

// fixed returns a session and a sealer with a key that is the same in every run,
// so that a corpus keeps its meaning.
func fixed(t testing.TB, algorithm envelope.Algorithm) (*envelope.Session, *envelopetest.Sealer, string) {
	t.Helper()
	key, iv := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210")
	if algorithm == envelope.SM4GCM {
		key, iv = key[:16], iv[:12]
	}
	sealer, err := envelopetest.NewSealer(algorithm, key, iv)
	if err != nil {
		t.Fatal(err)
	}
	return envelope.NewFixedSession(algorithm, key, iv), sealer, base64.StdEncoding.EncodeToString(iv)
}

// FuzzOpenFields gives any list, IV and tags to a document whose ciphertexts are
// real. What opens is JSON with the same structure; what does not opens nothing.
func FuzzOpenFields(f *testing.F) {
	_, _, iv := fixed(f, envelope.SM4GCM)
	_, sealer, _ := fixed(f, envelope.SM4GCM)
	_, e := sealDoc(f, sealer, answerPaths)
	f.Add(true, strings.Join(e.EncryptList, "\n"), iv, strings.Join(e.TagList, "\n"), []byte(nil))
	f.Add(true, "Response.Text.Name", iv, "AAAAAAAAAAAAAAAAAAAAAA==", []byte(nil))
	f.Add(true, "Response.Text.LivenessDetail[0].Idcard\nResponse.Text.LivenessDetail[0].Idcard", "", "\n", []byte(nil))
	f.Add(false, "Response.Text.LivenessDetail[9999].Idcard", "fedcba9876543210", "", []byte(nil))
	f.Add(false, "Text", iv, "", []byte(`{"Text":"H+ZwsBfYVgbBWaHStriUV2GF0wX7MzYy0XMWNKZjZjQ="}`))
	f.Add(false, "Response", iv, "", []byte(`{"Response":{"Response":"AAAA"}}`))
	f.Add(true, "a[0][0]", iv, "", []byte(`{"a":[[null]],"a":[[""]]}`))
	f.Fuzz(func(t *testing.T, gcm bool, list, iv, tags string, doc []byte) {
		algorithm := envelope.AES256CBC
		if gcm {
			algorithm = envelope.SM4GCM
		}
		session, sealer, _ := fixed(t, algorithm)
		if doc == nil {
			doc, _ = sealDoc(t, sealer, answerPaths)
		}
		given := bytes.Clone(doc)
		opened, err := session.OpenFields(doc, envelope.Encryption{EncryptList: lines(list), TagList: lines(tags), Iv: iv, Algorithm: algorithm})
		classed(t, err)
		if !bytes.Equal(doc, given) {
			t.Fatal("the document that was given has changed")
		}
		switch {
		case err != nil && opened != nil:
			t.Fatal("something came out beside an error")
		case err == nil && !json.Valid(opened):
			t.Fatalf("what came out is not JSON: %q", opened)
		case err == nil && len(lines(list)) == 0 && !bytes.Equal(opened, doc):
			t.Fatal("nothing was to be opened, and the document changed")
		}
	})
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// FuzzOpenBody gives any ciphertext, IV and tag. With SM4GCM nothing may come out
// of what was not sealed so; with AES256CBC only text.
func FuzzOpenBody(f *testing.F) {
	for _, algorithm := range algorithms {
		_, sealer, iv := fixed(f, algorithm)
		ciphertext, e := sealBody(f, sealer, []byte(`{"Text":{"ErrCode":0}}`))
		f.Add(algorithm == envelope.SM4GCM, ciphertext, iv, strings.Join(e.TagList, "\n"))
		f.Add(algorithm == envelope.SM4GCM, ciphertext[:16], iv, "AAAAAAAAAAAAAAAAAAAAAA==")
		f.Add(algorithm == envelope.SM4GCM, []byte{}, "", "")
	}
	f.Fuzz(func(t *testing.T, gcm bool, ciphertext []byte, iv, tags string) {
		algorithm := envelope.AES256CBC
		if gcm {
			algorithm = envelope.SM4GCM
		}
		session, sealer, right := fixed(t, algorithm)
		e := envelope.Encryption{TagList: lines(tags), Iv: iv, Algorithm: algorithm}
		opened, err := session.OpenBody(bytes.NewReader(ciphertext), e)
		classed(t, err)
		if err != nil {
			if opened != nil {
				t.Fatal("a reader beside an error")
			}
			return
		}
		plaintext, err := io.ReadAll(opened)
		if err != nil {
			t.Fatalf("what was checked does not open: %v", err)
		}
		if gcm && (iv == "" || iv == right) {
			if again, want := sealBody(t, sealer, plaintext); !bytes.Equal(again, ciphertext) || want.TagList[0] != tags && base64Of(tags) != base64Of(want.TagList[0]) {
				t.Fatal("something came out that was not sealed so")
			}
		}
	})
}

// base64Of returns what a text decodes to: the decoder skips line breaks.
func base64Of(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "not base64"
	}
	return string(b)
}

// fuzzMerchant is the same in every run.
func fuzzMerchant(t testing.TB) (*envelope.PrivateKey, *sm2.PrivateKey) {
	t.Helper()
	const number = "1111111111111111111111111111111111111111111111111111111111111111"
	ours, err := envelope.ParsePrivateKey([]byte(number), nil)
	if err != nil {
		t.Fatal(err)
	}
	theirs := &sm2.PrivateKey{}
	theirs.D, theirs.Curve = new(big.Int).SetBytes(bytes.Repeat([]byte{0x11}, 32)), sm2.P256()
	theirs.X, theirs.Y = theirs.ScalarBaseMult(theirs.D.Bytes())
	return ours, theirs
}

// FuzzOpenEID gives any DesKey and UserInfo.
func FuzzOpenEID(f *testing.F) {
	_, key := fuzzMerchant(f)
	sealed, err := sm2.Encrypt(rand.Reader, &key.PublicKey, []byte("0123456789abcdef"), nil)
	if err != nil {
		f.Fatal(err)
	}
	block, err := sm4.NewCipher([]byte("0123456789abcdef"))
	if err != nil {
		f.Fatal(err)
	}
	person := []byte(invented.json)
	person = append(person, make([]byte, 16-len(person)%16)...)
	for i := 0; i < len(person); i += 16 {
		block.Encrypt(person[i:i+16], person[i:i+16])
	}
	desKey, userInfo := base64.StdEncoding.EncodeToString(sealed), base64.StdEncoding.EncodeToString(person)
	f.Add(desKey, userInfo)
	f.Add(desKey[:100], userInfo)
	f.Add(desKey, userInfo[:24])
	f.Add("", "")
	f.Add("04", "AAAAAAAAAAAAAAAAAAAAAA==")
	f.Add(strings.Repeat("0", 194), userInfo)
	f.Fuzz(func(t *testing.T, desKey, userInfo string) {
		key, _ := fuzzMerchant(t)
		user, err := key.OpenEID(desKey, userInfo)
		if errors.Is(err, envelope.ErrNoUserInfo) {
			return
		}
		classed(t, err)
		switch {
		case err != nil && user != nil:
			t.Fatal("a person beside an error")
		case err == nil && !json.Valid(user.JSON):
			t.Fatal("a person that is not JSON")
		case err != nil && strings.Contains(err.Error(), invented.number):
			t.Fatal("an error tells the person")
		}
	})
}

// FuzzParseKeys gives any text to the parsers of key files. A private key that one
// reads opens what is sealed for it.
func FuzzParseKeys(f *testing.F) {
	merchant := newMerchant(f)
	for _, text := range [][]byte{merchant.PEM(), merchant.PKCS8(), []byte(merchant.Hex()), merchant.PublicPEM(),
		newKeys(f, envelope.AES256CBC).PublicPEM(), []byte(newKeys(f, envelope.SM4GCM).Console()),
		[]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n")} {
		f.Add(text, []byte("passphrase"))
		f.Add(text, []byte(nil))
	}
	f.Fuzz(func(t *testing.T, text, passphrase []byte) {
		for _, algorithm := range algorithms {
			public, err := envelope.ParsePublicKey(algorithm, text)
			if err != nil {
				continue
			}
			session, err := envelope.NewSession(public)
			if err != nil {
				t.Fatalf("a key that was read wraps nothing: %v", err)
			}
			session.Wipe()
		}
		// The iterations of PBKDF2 are the file's choice and bounded; a text that
		// says many is merely slow.
		key, err := envelope.ParsePrivateKey(text, passphrase)
		if (err == nil) == (key == nil) {
			t.Fatalf("%v, %v", key, err)
		}
		if err != nil && len(text) > 40 && strings.Contains(err.Error(), string(text)) {
			t.Fatal("an error repeats the key file")
		}
	})
}

// FuzzAgainstAnother seals with an independent implementation and opens with ours,
// and the other way round.
func FuzzAgainstAnother(f *testing.F) {
	f.Add([]byte("测试"), uint8(0))
	f.Add([]byte{}, uint8(16))
	f.Add(bytes.Repeat([]byte("x"), 300), uint8(255))
	f.Fuzz(func(t *testing.T, plaintext []byte, seed uint8) {
		key, iv := bytes.Repeat([]byte{seed}, 16), bytes.Repeat([]byte{^seed}, 12)
		block, err := sm4.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		sealed := aead.Seal(nil, iv, plaintext, nil)
		session := envelope.NewFixedSession(envelope.SM4GCM, key, iv)
		opened, err := session.OpenBody(bytes.NewReader(sealed[:len(plaintext)]),
			envelope.Encryption{TagList: []string{base64.StdEncoding.EncodeToString(sealed[len(plaintext):])}})
		if err != nil {
			t.Fatalf("SM4-GCM: %v", err)
		}
		if got, err := io.ReadAll(opened); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("SM4-GCM: %v", err)
		}

		ours, theirs := fuzzMerchant(t)
		person, err := json.Marshal(map[string]string{"name": string(plaintext) + ".", "idtype": "01", "idnum": "000000190001010000"})
		if err != nil {
			t.Fatal(err)
		}
		form := envelopetest.Form{C1C2C3: seed&1 > 0, ASN1: seed&2 > 0, Bare: seed&4 > 0, Hex: seed&8 > 0, HexKey: seed&16 > 0}
		desKey, userInfo, err := envelopetest.MerchantOf(theirs).SealEID(person, form)
		if err != nil {
			t.Fatal(err)
		}
		user, err := ours.OpenEID(desKey, userInfo)
		if err != nil || !bytes.Equal(user.JSON, person) {
			t.Fatalf("SM2 and SM4: %+v: %v", form, err)
		}

		der, err := smx509.MarshalPKIXPublicKey(&theirs.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		public, err := envelope.ParsePublicKey(envelope.SM4GCM, []byte(base64.StdEncoding.EncodeToString(der)))
		if err != nil {
			t.Fatal(err)
		}
		wrapped, err := envelope.NewSession(public)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := base64.StdEncoding.DecodeString(wrapped.Request().CiphertextBlob)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := theirs.Decrypt(nil, blob, sm2.NewPlainDecrypterOpts(sm2.C1C3C2)); err != nil || len(key) != 16 {
			t.Fatalf("SM2: the other does not open what ours wrapped: %v", err)
		}
	})
}

// TestManyGoroutines shares keys and sessions: the race detector and the results
// tell whether that is allowed.
func TestManyGoroutines(t *testing.T) {
	const goroutines, rounds = 32, 4
	merchant := newMerchant(t)
	private := newPrivateKey(t, merchant)
	keys := newKeys(t, envelope.SM4GCM)
	public, err := envelope.ParsePublicKey(envelope.SM4GCM, keys.PublicPEM())
	if err != nil {
		t.Fatal(err)
	}
	shared, sealer := newPair(t, envelope.SM4GCM)
	doc, e := sealDoc(t, sealer, answerPaths)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				if _, err := shared.OpenFields(doc, e); err != nil {
					t.Errorf("a shared session: %v", err)
				}
				own, err := envelope.NewSession(public)
				if err != nil {
					t.Errorf("a shared public key: %v", err)
					return
				}
				theirs, err := keys.Open(own.Request())
				if err != nil {
					t.Errorf("what it wrapped: %v", err)
					return
				}
				ciphertext, sealed := sealBody(t, theirs, []byte("{}"))
				if _, err := own.OpenBody(bytes.NewReader(ciphertext), sealed); err != nil {
					t.Errorf("a session's own body: %v", err)
				}
				if u, err := openPerson(t, private, merchant); err != nil || u.Name.Reveal() != invented.name {
					t.Errorf("a shared private key: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
