// Package envelopetest is the other side of package envelope: what the FaceID
// service does. It makes key pairs, opens the key that a request carries, and
// encrypts fields, bodies and eid persons.
//
// It is for tests and stand-ins. It shares no cryptography with package envelope:
// SM2 and SM4 are those of emmansun/gmsm, GHASH is the textbook's, so that each
// proves the other.
package envelopetest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
)

// Keys is the service's key pair for one algorithm. It may be used by any number
// of goroutines.
type Keys struct {
	algorithm envelope.Algorithm
	// One of the two is set.
	rsa *rsa.PrivateKey
	sm2 *sm2.PrivateKey
}

// GenerateKeys makes a key pair: RSA of 1024 bits, as the service has (FACTS
// §1.4), or SM2.
func GenerateKeys(algorithm envelope.Algorithm) (*Keys, error) {
	k := &Keys{algorithm: algorithm}
	var err error
	if algorithm == envelope.SM4GCM {
		k.sm2, err = sm2.GenerateKey(rand.Reader)
	} else {
		k.rsa, err = rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // the service's size
	}
	if err != nil {
		return nil, fmt.Errorf("making a key pair for %s: %w", algorithm, err)
	}
	return k, nil
}

// PublicPEM returns the public key as PEM: PKCS#1 for RSA, PKIX for SM2.
func (k *Keys) PublicPEM() []byte {
	if k.rsa != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)})
	}
	return publicPEM(&k.sm2.PublicKey)
}

func publicPEM(key *ecdsa.PublicKey) []byte {
	der, err := smx509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // of a key that this package made
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Console returns the public key as the console shows it: base64 of PEM.
func (k *Keys) Console() string { return base64.StdEncoding.EncodeToString(k.PublicPEM()) }

// Open opens what a request carries and returns what encrypts its answer. The
// error is what the service calls DecryptSystemError.
func (k *Keys) Open(e envelope.Encryption) (*Sealer, error) {
	if e.Algorithm != k.algorithm {
		return nil, fmt.Errorf("the key pair is for %s", k.algorithm)
	}
	blob, err := base64.StdEncoding.DecodeString(e.CiphertextBlob)
	if err != nil {
		return nil, errors.New("CiphertextBlob is not base64")
	}
	iv, err := base64.StdEncoding.DecodeString(e.Iv)
	if err != nil {
		return nil, errors.New("the IV is not base64")
	}
	var key []byte
	if k.rsa != nil {
		//nolint:staticcheck // deprecated, and what the API uses (FACTS §1.4)
		key, err = rsa.DecryptPKCS1v15(nil, k.rsa, blob)
	} else {
		if len(blob) != 113 || blob[0] != 4 {
			return nil, errors.New("CiphertextBlob is not an uncompressed SM2 ciphertext of 113 bytes")
		}
		key, err = k.sm2.Decrypt(nil, blob, sm2.NewPlainDecrypterOpts(sm2.C1C3C2))
	}
	if err != nil {
		return nil, errors.New("CiphertextBlob does not open")
	}
	return NewSealer(k.algorithm, key, iv)
}

// Merchant is a key pair for eid results.
type Merchant struct{ key *sm2.PrivateKey }

// GenerateMerchant makes an SM2 key pair.
func GenerateMerchant() (*Merchant, error) {
	key, err := sm2.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key pair for eid: %w", err)
	}
	return &Merchant{key}, nil
}

// MerchantOf takes a key pair that is there.
func MerchantOf(key *sm2.PrivateKey) *Merchant { return &Merchant{key} }

// PublicPEM returns the public key in PKIX form.
func (m *Merchant) PublicPEM() []byte { return publicPEM(&m.key.PublicKey) }

// PEM returns the private key as "gmssl ecparam -genkey" writes it: the curve, and
// SEC1 (FACTS §2.4).
func (m *Merchant) PEM() []byte {
	curve, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301})
	if err != nil {
		panic(err) // of a constant
	}
	der, err := smx509.MarshalSM2PrivateKey(m.key)
	if err != nil {
		panic(err) // of a key that this package made
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: curve})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
}

// Hex returns the private number in 64 hex digits.
func (m *Merchant) Hex() string { return hex.EncodeToString(m.key.D.FillBytes(make([]byte, 32))) }

// PKCS8 returns the private key as PKCS#8 in PEM.
func (m *Merchant) PKCS8() []byte {
	der, err := smx509.MarshalPKCS8PrivateKey(m.key)
	if err != nil {
		panic(err) // of a key that this package made
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
