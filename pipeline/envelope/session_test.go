package envelope_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var algorithms = []envelope.Algorithm{envelope.AES256CBC, envelope.SM4GCM}

func newKeys(t testing.TB, algorithm envelope.Algorithm) *envelopetest.Keys {
	t.Helper()
	keys, err := envelopetest.GenerateKeys(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newMerchant(t testing.TB) *envelopetest.Merchant {
	t.Helper()
	m, err := envelopetest.GenerateMerchant()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// newPair returns a session and what encrypts its answers.
func newPair(t testing.TB, algorithm envelope.Algorithm) (*envelope.Session, *envelopetest.Sealer) {
	t.Helper()
	keys := newKeys(t, algorithm)
	public, err := envelope.ParsePublicKey(algorithm, []byte(keys.Console()))
	if err != nil {
		t.Fatal(err)
	}
	session, err := envelope.NewSession(public)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := keys.Open(session.Request())
	if err != nil {
		t.Fatal(err)
	}
	return session, sealer
}

func TestRequestOnTheWire(t *testing.T) {
	for _, algorithm := range algorithms {
		session, _ := newPair(t, algorithm)
		wire, err := json.Marshal(session.Request())
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(wire, &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"EncryptList", "CiphertextBlob", "Iv", "Algorithm"} {
			if members[name] == nil {
				t.Errorf("%s: %s is missing", algorithm, name)
			}
		}
		if _, ok := members["TagList"]; ok || len(members) != 4 {
			t.Errorf("%s: members %v", algorithm, len(members))
		}
		blob, err := base64.StdEncoding.DecodeString(session.Request().CiphertextBlob)
		if err != nil {
			t.Fatal(err)
		}
		// FACTS §1.4: 128 bytes of RSA, 113 of SM2 with the prefix.
		if algorithm == envelope.AES256CBC && len(blob) != 128 || algorithm == envelope.SM4GCM && (len(blob) != 113 || blob[0] != 4) {
			t.Errorf("%s: a blob of %d bytes", algorithm, len(blob))
		}
		if list := session.Request("EncryptionBody").EncryptList; len(list) != 1 || list[0] != "EncryptionBody" {
			t.Errorf("%s: list %q", algorithm, list)
		}
	}
}

func TestSessionsDiffer(t *testing.T) {
	for _, algorithm := range algorithms {
		keys := newKeys(t, algorithm)
		public, err := envelope.ParsePublicKey(algorithm, keys.PublicPEM())
		if err != nil {
			t.Fatal(err)
		}
		if public.Algorithm() != algorithm {
			t.Error("the key forgot its algorithm")
		}
		a, errA := envelope.NewSession(public)
		b, errB := envelope.NewSession(public)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Request().Iv == b.Request().Iv || a.Request().CiphertextBlob == b.Request().CiphertextBlob {
			t.Errorf("%s: two sessions share an IV or a blob", algorithm)
		}
		sealer, err := keys.Open(a.Request())
		if err != nil {
			t.Fatal(err)
		}
		doc, e, err := sealer.Fields([]byte(`{"A":"甲"}`), "A")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.OpenFields(doc, e); err == nil || got != nil {
			t.Errorf("%s: the key of another session opens: %v", algorithm, err)
		}
	}
}

func TestWipe(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		doc, e, err := sealer.Fields([]byte(`{"A":"甲"}`), "A")
		if err != nil {
			t.Fatal(err)
		}
		session.Wipe()
		if got, err := session.OpenFields(doc, e); err == nil || got != nil {
			t.Errorf("%s: fields open after Wipe", algorithm)
		}
		if got, err := session.OpenBody(bytes.NewReader(nil), e); err == nil || got != nil {
			t.Errorf("%s: a body opens after Wipe", algorithm)
		}
	}
}

func TestNothingIsPrinted(t *testing.T) {
	key := bytes.Repeat([]byte("K"), 32)
	dataKey, err := envelope.NewDataKey(key, "blob")
	if err != nil {
		t.Fatal(err)
	}
	merchant := newMerchant(t)
	private, err := envelope.ParsePrivateKey(merchant.PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	person, err := openPerson(t, private, merchant)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{envelope.NewDataKeySession(dataKey), dataKey, private, person, *person, []any{*person}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
	}
	for _, secret := range []string{"KKKK", "75 75 75", "4b4b", "75,75", merchant.Hex(), invented.number, invented.name, "amV"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("printed %q", secret)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") || !strings.Contains(out.String(), "envelope.Session") {
		t.Error("nothing was printed")
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConsoleKeys reads the public keys that Tencent's own SDKs carry, in the form
// that the console shows.
func TestConsoleKeys(t *testing.T) {
	for algorithm, name := range map[envelope.Algorithm]string{envelope.AES256CBC: "console-rsa.txt", envelope.SM4GCM: "console-sm2.txt"} {
		console := read(t, name)
		inner, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(console)))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(inner)
		wrapped := string(console[:76]) + "\r\n" + string(console[76:])
		for form, data := range map[string][]byte{
			"console": console, "PEM": inner, "wrapped lines": []byte(wrapped),
			"DER": block.Bytes, "base64 of DER": []byte(base64.StdEncoding.EncodeToString(block.Bytes)),
		} {
			key, err := envelope.ParsePublicKey(algorithm, data)
			if err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
				continue
			}
			if _, err := envelope.NewSession(key); err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
			}
		}
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	const canary = "CANARY"
	rsa, sm2 := newKeys(t, envelope.AES256CBC), newKeys(t, envelope.SM4GCM)
	merchant := newMerchant(t)
	offCurve := "04" + strings.Repeat("11", 64)
	cases := []struct {
		name      string
		algorithm envelope.Algorithm
		data      string
		want      string
	}{
		{"no algorithm", "", sm2.Console(), "must be AES-256-CBC or SM4-GCM"},
		{"unknown algorithm", "CANARY", sm2.Console(), "must be AES-256-CBC or SM4-GCM"},
		{"empty", envelope.SM4GCM, "", "SM2 key in PKIX form"},
		{"text", envelope.SM4GCM, canary, "SM2 key in PKIX form"},
		{"text for RSA", envelope.AES256CBC, canary, "RSA key, PKCS#1 or PKIX"},
		{"RSA for SM4", envelope.SM4GCM, rsa.Console(), "SM2 key"},
		{"SM2 for AES", envelope.AES256CBC, sm2.Console(), "is an SM2 key"},
		{"private key", envelope.SM4GCM, string(merchant.PEM()), "private key"},
		{"broken PEM", envelope.SM4GCM, "-----BEGIN PUBLIC KEY-----\nCANARY", "PEM"},
		{"certificate", envelope.AES256CBC, "-----BEGIN CERTIFICATE-----\nQ0FOQVJZ\n-----END CERTIFICATE-----\n", "PEM"},
		{"point off the curve", envelope.SM4GCM, offCurve, "not on the curve"},
		{"coordinate beyond the field", envelope.SM4GCM, "04" + strings.Repeat("ff", 64), "not on the curve"},
		{"point at infinity", envelope.SM4GCM, strings.Repeat("00", 64), "not on the curve"},
		{"compressed point", envelope.SM4GCM, "02" + strings.Repeat("11", 65), "uncompressed"},
	}
	for _, c := range cases {
		key, err := envelope.ParsePublicKey(c.algorithm, []byte(c.data))
		if err == nil || key != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestHexPoint reads a public key as digits.
func TestHexPoint(t *testing.T) {
	keys := newKeys(t, envelope.SM4GCM)
	block, _ := pem.Decode(keys.PublicPEM())
	point := block.Bytes[len(block.Bytes)-65:]
	for _, digits := range []string{fmt.Sprintf("%x", point), fmt.Sprintf("%X\n", point[1:])} {
		key, err := envelope.ParsePublicKey(envelope.SM4GCM, []byte(digits))
		if err != nil {
			t.Fatal(err)
		}
		session, err := envelope.NewSession(key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Open(session.Request()); err != nil {
			t.Error(err)
		}
	}
}
