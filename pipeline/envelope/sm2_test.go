package envelope_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/pem"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// sealSM2 encrypts anything for a merchant.
func sealSM2(t testing.TB, m *envelopetest.Merchant, plaintext []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(m.PublicPEM())
	key, err := smx509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, ok := key.(*ecdsa.PublicKey)
	if !ok {
		t.Fatalf("%T", key)
	}
	out, err := sm2.Encrypt(rand.Reader, public, plaintext, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
