package envelope

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/tjfoc/gmsm/sm2"
)

// PublicKey is the service's key, which the console shows. It wraps the key of a
// session. Any number of goroutines may use it.
type PublicKey struct {
	algorithm Algorithm
	// One of the two is set.
	rsa *rsa.PublicKey
	sm2 *sm2.PublicKey
}

// Algorithm returns the algorithm that the key is for.
func (k *PublicKey) Algorithm() Algorithm { return k.algorithm }

// ParsePublicKey reads the public key of an algorithm: RSA, PKCS#1 or PKIX, for
// AES256CBC; SM2, PKIX, for SM4GCM. The console shows base64 of PEM (FACTS §1.4);
// PEM itself and base64 of DER are read too, and the hex digits of an SM2 point.
// The error says what was expected.
func ParsePublicKey(algorithm Algorithm, data []byte) (*PublicKey, error) {
	if err := algorithm.check(); err != nil {
		return nil, err
	}
	key := &PublicKey{algorithm: algorithm}
	var err error
	if algorithm == AES256CBC {
		key.rsa, err = parseRSAPublicKey(data)
	} else {
		key.sm2, err = parseSM2PublicKey(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the public key for %s: %w", algorithm, err)
	}
	return key, nil
}

// wrap encrypts a symmetric key: the CiphertextBlob before base64.
func (k *PublicKey) wrap(key []byte) ([]byte, error) {
	if k.sm2 != nil {
		return sm2Encrypt(k.sm2, key)
	}
	//nolint:staticcheck // deprecated, and the only padding that the API takes (FACTS §1.4)
	blob, err := rsa.EncryptPKCS1v15(rand.Reader, k.rsa, key)
	if err != nil {
		return nil, fmt.Errorf("encrypting with RSA: %w", err)
	}
	return blob, nil
}

var errNotPublic = errors.New("it must be PEM, or base64 of PEM, of type PUBLIC KEY or RSA PUBLIC KEY")

func parseRSAPublicKey(data []byte) (*rsa.PublicKey, error) {
	der, err := publicDER(data)
	if err != nil {
		return nil, err
	}
	// PEM labels are wrong too often to choose by them.
	key, err := x509.ParsePKCS1PublicKey(der)
	if err != nil {
		var parsed any
		if parsed, err = x509.ParsePKIXPublicKey(der); err == nil {
			key, _ = parsed.(*rsa.PublicKey)
		}
	}
	if key == nil {
		if _, err := parsePKIX(der); err == nil {
			return nil, errors.New("it must be an RSA key, and is an SM2 key")
		}
		return nil, errors.New("it must be an RSA key, PKCS#1 or PKIX")
	}
	// crypto/rsa refuses such a key too, but only with the first request.
	if key.Size() < 1024/8 {
		return nil, errors.New("an RSA key of less than 1024 bits is refused")
	}
	return key, nil
}

func parseSM2PublicKey(data []byte) (*sm2.PublicKey, error) {
	if raw, err := hex.DecodeString(string(bytes.TrimSpace(data))); err == nil && len(raw) >= pointSize {
		return newSM2PublicKey(raw)
	}
	der, err := publicDER(data)
	if err != nil {
		return nil, err
	}
	return parsePKIX(der)
}

// publicDER returns the content of the first PEM block that may be a public key,
// or, where there is no PEM, what is inside base64.
func publicDER(data []byte) ([]byte, error) {
	data = unwrapBase64(data)
	if !bytes.Contains(data, pemBegin) {
		return data, nil
	}
	for {
		block, rest := pem.Decode(data)
		switch {
		case block == nil:
			return nil, errNotPublic
		case block.Type == "PUBLIC KEY", block.Type == "RSA PUBLIC KEY":
			return block.Bytes, nil
		case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
			return nil, errors.New("it is a private key; the public key of the console is needed")
		}
		data = rest
	}
}

var pemBegin = []byte("-----BEGIN ")

// unwrapBase64 takes base64 off, if it is there.
func unwrapBase64(data []byte) []byte {
	if bytes.Contains(data, pemBegin) {
		return data
	}
	text := bytes.Join(bytes.Fields(data), nil)
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(raw) == 0 {
		return data
	}
	return raw
}

var (
	oidEC  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidSM2 = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}
)

// ecAlgorithm is an AlgorithmIdentifier of an elliptic curve (RFC 5480 §2.1.1).
type ecAlgorithm struct {
	Algorithm asn1.ObjectIdentifier
	// Curve is an OID here, and something else in a key of another algorithm.
	Curve asn1.RawValue `asn1:"optional"`
}

func (a ecAlgorithm) check() error {
	if a.Algorithm.Equal(oidSM2) {
		// Some programs name SM2 itself, with the curve beside it, or NULL, or nothing.
		return nil
	}
	var curve asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(a.Curve.FullBytes, &curve); err == nil && a.Algorithm.Equal(oidEC) && curve.Equal(oidSM2) {
		return nil
	}
	return errors.New("it must be an SM2 key (curve sm2p256v1)")
}

func parsePKIX(der []byte) (*sm2.PublicKey, error) {
	var info struct {
		Algorithm ecAlgorithm
		Point     asn1.BitString
	}
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) > 0 {
		return nil, errors.New("it must be an SM2 key in PKIX form")
	}
	if err := info.Algorithm.check(); err != nil {
		return nil, err
	}
	if info.Point.BitLength != 8*len(info.Point.Bytes) {
		return nil, errors.New("the point of the SM2 key is not whole bytes")
	}
	return newSM2PublicKey(info.Point.Bytes)
}
