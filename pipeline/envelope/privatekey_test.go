package envelope_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/pkcs8"
	"github.com/emmansun/gmsm/smx509"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// colons writes digits as "gmssl pkey -text" does: in lines, 15 bytes each.
func colons(digits string) string {
	digits = "00" + digits
	var out strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			out.WriteString(":")
		}
		if i%30 == 0 {
			out.WriteString("\n    ")
		}
		out.WriteString(digits[i : i+2])
	}
	return out.String() + "\n"
}

var passphrase = []byte("correct horse")

func encryptedPKCS8(t testing.TB, m *envelopetest.Merchant, opts *pkcs8.Opts) []byte {
	t.Helper()
	block, _ := pem.Decode(m.PKCS8())
	key, err := smx509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, opts)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
}

func encryptedPEM(t testing.TB, m *envelopetest.Merchant, c x509.PEMCipher) []byte {
	t.Helper()
	_, rest := pem.Decode(m.PEM())
	block, _ := pem.Decode(rest)
	//nolint:staticcheck // what old tools write is tested
	sealed, err := x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, passphrase, c)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(sealed)
}

// encryptedKeys are a key in all the encrypted forms that are read.
func encryptedKeys(t testing.TB, m *envelopetest.Merchant) map[string][]byte {
	t.Helper()
	kdf := func(h pkcs8.Hash) pkcs8.PBKDF2Opts {
		return pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1000, HMACHash: h}
	}
	return map[string][]byte{
		"PBES2 SHA-256 AES-256": encryptedPKCS8(t, m, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: kdf(pkcs8.SHA256)}),
		"PBES2 SHA-512 AES-192": encryptedPKCS8(t, m, &pkcs8.Opts{Cipher: pkcs8.AES192CBC, KDFOpts: kdf(pkcs8.SHA512)}),
		"PBES2 SHA-1 AES-128":   encryptedPKCS8(t, m, &pkcs8.Opts{Cipher: pkcs8.AES128CBC, KDFOpts: kdf(pkcs8.SHA1)}),
		"PBES2 SM3 SM4":         encryptedPKCS8(t, m, &pkcs8.Opts{Cipher: pkcs8.SM4CBC, KDFOpts: kdf(pkcs8.SM3)}),
		"PBES2 SHA-1 3DES":      encryptedPKCS8(t, m, &pkcs8.Opts{Cipher: pkcs8.TripleDESCBC, KDFOpts: kdf(pkcs8.SHA1)}),
		"DEK-Info AES-256":      encryptedPEM(t, m, x509.PEMCipherAES256),
		"DEK-Info 3DES":         encryptedPEM(t, m, x509.PEMCipher3DES),
	}
}

func TestParsePrivateKey(t *testing.T) {
	merchant := newMerchant(t)
	sec1 := merchant.PEM()
	_, rest := pem.Decode(sec1)
	block, _ := pem.Decode(rest)
	files := encryptedKeys(t, merchant)
	for name, data := range otherForms(t, block.Bytes) {
		files[name] = data
	}
	for name, data := range map[string][]byte{
		"SEC1 behind its parameters": sec1,
		"SEC1 alone":                 rest,
		"SEC1 behind a comment":      append([]byte("Private-Key: (256 bit)\n"), rest...),
		"DER":                        block.Bytes,
		"PKCS#8":                     merchant.PKCS8(),
		"base64 of PEM":              []byte(base64.StdEncoding.EncodeToString(sec1)),
		"hex":                        []byte(merchant.Hex()),
		"upper-case hex":             []byte(strings.ToUpper(merchant.Hex()) + "\n"),
		"hex with colons":            []byte(colons(merchant.Hex())),
	} {
		files[name] = data
	}
	for name, data := range files {
		before := bytes.Clone(data)
		key, err := envelope.ParsePrivateKey(data, passphrase)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(before, data) {
			t.Errorf("%s: the caller's file was changed", name)
		}
		if _, err := openPerson(t, key, merchant); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncryptedPrivateKeyRefuses(t *testing.T) {
	merchant := newMerchant(t)
	for name, data := range encryptedKeys(t, merchant) {
		if key, err := envelope.ParsePrivateKey(data, nil); err == nil || key != nil || !strings.Contains(err.Error(), "needs a passphrase") {
			t.Errorf("%s without a passphrase: %v", name, err)
		}
		if key, err := envelope.ParsePrivateKey(data, []byte("wrong")); err == nil || key != nil || !strings.Contains(err.Error(), "the passphrase does not open it") {
			t.Errorf("%s with a wrong one: %v", name, err)
		}
	}
	for name, data := range map[string][]byte{
		"GCM":    encryptedPKCS8(t, merchant, &pkcs8.Opts{Cipher: pkcs8.AES256GCM, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 1000, HMACHash: pkcs8.SHA256}}),
		"scrypt": encryptedPKCS8(t, merchant, &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 2, BlockSize: 8, ParallelizationParameter: 1}}),
	} {
		if key, err := envelope.ParsePrivateKey(data, passphrase); err == nil || key != nil || !strings.Contains(err.Error(), "PBES2 with PBKDF2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	sms4 := bytes.Replace(encryptedPEM(t, merchant, x509.PEMCipherAES256), []byte("AES-256-CBC"), []byte("SMS4-CBC"), 1)
	if key, err := envelope.ParsePrivateKey(sms4, passphrase); err == nil || key != nil || !strings.Contains(err.Error(), "DEK-Info") {
		t.Errorf("SMS4: %v", err)
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	merchant, other := newMerchant(t), newMerchant(t)
	_, rest := pem.Decode(merchant.PEM())
	block, _ := pem.Decode(rest)
	_, otherRest := pem.Decode(other.PEM())
	otherBlock, _ := pem.Decode(otherRest)
	// The private number of one key and the point of the other.
	mixed := bytes.Clone(block.Bytes)
	copy(mixed[len(mixed)-64:], otherBlock.Bytes[len(otherBlock.Bytes)-64:])
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256SEC1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	p256PKCS8, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaPKCS8, err := x509.MarshalPKCS8PrivateKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	order := "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "must be PEM"},
		{"text", []byte("CANARY CANARY"), "must be PEM"},
		{"broken PEM", []byte("-----BEGIN EC PRIVATE KEY-----\nCANARY"), "must be PEM"},
		{"parameters only", merchant.PEM()[:len(merchant.PEM())-len(rest)], "must be PEM"},
		{"a public key", merchant.PublicPEM(), "must be PEM"},
		{"a short number", []byte(merchant.Hex()[:62]), "must be PEM"},
		{"zero", []byte(strings.Repeat("0", 64)), "out of range"},
		{"n-1", []byte(order[:63] + "2"), "out of range"},
		{"beyond n", []byte(strings.Repeat("f", 64)), "out of range"},
		{"halves of two keys", mixed, "does not belong"},
		{"P-256, SEC1", p256SEC1, "sm2p256v1"},
		{"P-256, PKCS#8", p256PKCS8, "sm2p256v1"},
		{"RSA", rsaPKCS8, "sm2p256v1"},
		{"trailing bytes", append(bytes.Clone(block.Bytes), 0), "must be PEM"},
	} {
		key, err := envelope.ParsePrivateKey(c.data, nil)
		if err == nil || key != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// otherForms are a key, given as SEC1, in forms that programs write which do not keep to
// the letter of the standards.
func otherForms(t testing.TB, der []byte) map[string][]byte {
	t.Helper()
	var key struct {
		Version int
		Number  []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Point   asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &key); err != nil {
		t.Fatal(err)
	}
	encode := func(v any) []byte {
		out, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	type algorithm struct {
		Name      asn1.ObjectIdentifier
		Parameter asn1.RawValue `asn1:"optional"`
	}
	oid := asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}
	forms := map[string][]byte{}
	for name, parameter := range map[string]asn1.RawValue{
		"nothing": {}, "NULL": asn1.NullRawValue, "the curve": {FullBytes: encode(oid)},
	} {
		forms["PKCS#8 of SM2 itself with "+name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encode(struct {
			Version   int
			Algorithm algorithm
			SEC1      []byte
		}{0, algorithm{oid, parameter}, der})})
	}

	key.Number = append([]byte{0}, key.Number...)
	signed := encode(key)
	forms["SEC1 with a zero byte before its number"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: signed})
	key.Point = asn1.BitString{}
	forms["the same without its point"] = encode(key)
	return forms
}
