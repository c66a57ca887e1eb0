package envelope

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tjfoc/gmsm/sm2"
)

// PrivateKey is a merchant's SM2 key, which opens eid results. Any number of
// goroutines may use it.
type PrivateKey struct{ sm2 *sm2.PrivateKey }

// Format keeps the key from being printed, whatever the verb.
func (k *PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "envelope.PrivateKey") }

// ParsePrivateKey reads an SM2 private key. It takes PEM (SEC1 as GmSSL writes it
// beside the parameters of the curve, or PKCS#8), base64 of that, DER, and the hex
// digits of the private number as "gmssl pkey -text" prints them (FACTS §2.4).
//
// The passphrase opens PKCS#8 encrypted by PBES2 with PBKDF2, and PEM with a
// DEK-Info header; it is not used where nothing is encrypted. The error says what
// was expected.
func ParsePrivateKey(data, passphrase []byte) (*PrivateKey, error) {
	key, err := parsePrivateKey(data, passphrase)
	if err != nil {
		return nil, fmt.Errorf("reading the SM2 private key: %w", err)
	}
	return &PrivateKey{key}, nil
}

var errNotPrivate = errors.New("it must be PEM of type EC PRIVATE KEY, PRIVATE KEY or ENCRYPTED PRIVATE KEY, or 64 hex digits")

func parsePrivateKey(data, passphrase []byte) (*sm2.PrivateKey, error) {
	if raw, ok := hexNumber(data); ok {
		defer clear(raw)
		return newSM2PrivateKey(raw)
	}
	data = unwrapBase64(data)
	if !bytes.Contains(data, pemBegin) {
		return privateDER(data, passphrase)
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errNotPrivate
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return privateBlock(block, passphrase)
		}
		data = rest // such as EC PARAMETERS
	}
}

// hexNumber reads 32 bytes in hex, with colons or space between and a zero byte
// before.
func hexNumber(data []byte) ([]byte, bool) {
	digits := bytes.Join(bytes.FieldsFunc(data, func(r rune) bool {
		return r == ':' || r == ' ' || r == '\t' || r == '\r' || r == '\n'
	}), nil)
	defer clear(digits)
	raw := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(raw, digits); err != nil {
		return nil, false
	}
	if len(raw) == coordinateSize+1 && raw[0] == 0 {
		raw = raw[1:]
	}
	return raw, len(raw) == coordinateSize
}

var (
	errNeedsPassphrase = errors.New("it is encrypted and needs a passphrase")
	errWrongPassphrase = errors.New("the passphrase does not open it")
)

func privateBlock(block *pem.Block, passphrase []byte) (*sm2.PrivateKey, error) {
	der := block.Bytes
	//nolint:staticcheck // deprecated as weak; GmSSL and OpenSSL write it all the same
	if x509.IsEncryptedPEMBlock(block) {
		if len(passphrase) == 0 {
			return nil, errNeedsPassphrase
		}
		var err error
		//nolint:staticcheck // as above
		if der, err = x509.DecryptPEMBlock(block, passphrase); errors.Is(err, x509.IncorrectPasswordError) {
			return nil, errWrongPassphrase
		} else if err != nil {
			return nil, errors.New("its DEK-Info names a cipher that is not supported; convert it to PKCS#8")
		}
		defer clear(der)
	}
	return privateDER(der, passphrase)
}

// privateDER reads any of the three forms; it does not rely on the PEM label.
func privateDER(der, passphrase []byte) (*sm2.PrivateKey, error) {
	var sec1 sec1Key
	if rest, err := asn1.Unmarshal(der, &sec1); err == nil && len(rest) == 0 {
		return sec1.key()
	}
	var plain pkcs8Key
	if rest, err := asn1.Unmarshal(der, &plain); err == nil && len(rest) == 0 {
		return plain.key()
	}
	var sealed encryptedKey
	if rest, err := asn1.Unmarshal(der, &sealed); err != nil || len(rest) > 0 {
		return nil, errNotPrivate
	}
	if len(passphrase) == 0 {
		return nil, errNeedsPassphrase
	}
	opened, err := sealed.open(passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(opened)
	if rest, err := asn1.Unmarshal(opened, &plain); err != nil || len(rest) > 0 {
		return nil, errWrongPassphrase
	}
	return plain.key()
}

// sec1Key is ECPrivateKey (RFC 5915).
type sec1Key struct {
	Version int
	Number  []byte
	Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	Point   asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

func (k sec1Key) key() (*sm2.PrivateKey, error) {
	defer clear(k.Number)
	if k.Version != 1 || (len(k.Curve) > 0 && !k.Curve.Equal(oidSM2)) {
		return nil, errors.New("it must be an SM2 key (curve sm2p256v1)")
	}
	// Some programs write the number as a signed one, with a zero byte before it.
	k.Number = bytes.TrimLeft(k.Number, "\x00")
	if len(k.Number) > coordinateSize {
		return nil, errors.New("the private number of the SM2 key is out of range")
	}
	key, err := newSM2PrivateKey(k.Number)
	if err != nil || len(k.Point.Bytes) == 0 {
		return key, err
	}
	public, err := newSM2PublicKey(k.Point.Bytes)
	if err != nil {
		return nil, err
	}
	if public.X.Cmp(key.X) != 0 || public.Y.Cmp(key.Y) != 0 {
		return nil, errors.New("its public half does not belong to its private half")
	}
	return key, nil
}

// pkcs8Key is PrivateKeyInfo (RFC 5208).
type pkcs8Key struct {
	Version   int
	Algorithm ecAlgorithm
	SEC1      []byte
	// Attributes are of no use here.
	Attributes asn1.RawValue `asn1:"optional,tag:0"`
}

func (k pkcs8Key) key() (*sm2.PrivateKey, error) {
	defer clear(k.SEC1)
	if err := k.Algorithm.check(); err != nil {
		return nil, err
	}
	var inner sec1Key
	if rest, err := asn1.Unmarshal(k.SEC1, &inner); err != nil || len(rest) > 0 {
		return nil, errors.New("its PKCS#8 does not hold an EC key")
	}
	return inner.key()
}
