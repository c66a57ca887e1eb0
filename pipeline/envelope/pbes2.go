package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des" //nolint:gosec // key files of old tools are encrypted with it
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // the default of PBKDF2, as HMAC
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"hash"

	"github.com/tjfoc/gmsm/sm3"
	"github.com/tjfoc/gmsm/sm4"
)

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5958 §3).
type encryptedKey struct {
	Scheme struct {
		ID     asn1.ObjectIdentifier
		Params asn1.RawValue
	}
	Data []byte
}

// pbes2Params are the parameters of PBES2 with PBKDF2 (RFC 8018 §A.4).
type pbes2Params struct {
	KDF struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			Salt       []byte
			Iterations int
			KeyLength  int `asn1:"optional"`
			PRF        struct {
				ID   asn1.ObjectIdentifier
				Null asn1.RawValue `asn1:"optional"`
			} `asn1:"optional"`
		}
	}
	Cipher struct {
		ID asn1.ObjectIdentifier
		IV []byte
	}
}

// maxIterations bounds the work that a key file can ask for to a few seconds.
const maxIterations = 10_000_000

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// prfs are the hash functions by the OID of their HMAC. Without an OID it is SHA-1
// (RFC 8018 §A.2).
var prfs = map[string]func() hash.Hash{
	"":                        sha1.New,
	"1.2.840.113549.2.7":      sha1.New,
	"1.2.840.113549.2.9":      sha256.New,
	"1.2.840.113549.2.11":     sha512.New,
	"1.2.156.10197.1.401.2":   sm3.New, // as GmSSL spells it
	"1.2.156.10197.1.401.3.1": sm3.New, // as OpenSSL does
}

// ciphers are those that OpenSSL and GmSSL write, all in CBC mode.
var ciphers = map[string]struct {
	keySize int
	new     func(key []byte) (cipher.Block, error)
}{
	"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
	"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
	"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	"1.2.156.10197.1.104.2":   {16, sm4.NewCipher},
}

var errScheme = errors.New("it must be encrypted by PBES2 with PBKDF2 and AES, SM4 or 3DES in CBC mode")

// open decrypts the key. A wrong passphrase may pass for a right one here; what
// comes out is then no key.
func (k encryptedKey) open(passphrase []byte) ([]byte, error) {
	var params pbes2Params
	if rest, err := asn1.Unmarshal(k.Scheme.Params.FullBytes, &params); err != nil || len(rest) > 0 {
		return nil, errScheme
	}
	kdf, scheme := params.KDF, params.Cipher
	prf, known := prfs[kdf.Params.PRF.ID.String()]
	c, supported := ciphers[scheme.ID.String()]
	if !k.Scheme.ID.Equal(oidPBES2) || !kdf.ID.Equal(oidPBKDF2) || !known || !supported {
		return nil, errScheme
	}
	if kdf.Params.Iterations < 1 || kdf.Params.Iterations > maxIterations {
		return nil, errors.New("the iteration count of its encryption is out of range")
	}
	key, err := pbkdf2.Key(prf, string(passphrase), kdf.Params.Salt, kdf.Params.Iterations, c.keySize)
	if err != nil {
		return nil, errScheme
	}
	defer clear(key)
	block, err := c.new(key)
	if err != nil || len(scheme.IV) != block.BlockSize() || len(k.Data) == 0 || len(k.Data)%block.BlockSize() != 0 {
		return nil, errScheme
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, scheme.IV).CryptBlocks(plain, k.Data)
	out, ok := unpad(plain)
	if !ok {
		return nil, errWrongPassphrase
	}
	return out, nil
}
