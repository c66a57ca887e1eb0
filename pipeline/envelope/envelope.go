// Package envelope opens what the FaceID API sends encrypted.
//
// Three things go in, each from the API: the sensitive fields of an answer, named
// by its EncryptList (Session.OpenFields); a whole answer (Session.OpenBody); the
// person of an eid check, sealed for the merchant (PrivateKey.OpenEID). Plaintext
// comes out, or an error and nothing.
//
// For the first two a Session makes a symmetric key, sends it along with the
// request, wrapped with the console's public key or by KMS, and opens the answer
// with it. One session serves one request: all fields of an answer share its key
// and IV, so a second answer under the same pair would give plaintext away
// (FACTS §1.4).
//
// Errors are of two classes, ErrMalformed and ErrKeyMismatch. They name paths and
// reasons, never a value. What a key parser says of a key file never repeats it.
//
// Keys are cleared after use where this package holds them. Copies inside cipher
// implementations cannot be reached and are left to the garbage collector.
package envelope

import (
	"crypto/aes"
	"encoding/base64"
	"errors"
	"fmt"
)

// Algorithm says how an answer is encrypted, in the API's spelling.
type Algorithm string

// The algorithms of the API (FACTS §1.4).
const (
	// AES256CBC pads by PKCS#7 and has no integrity: a wrong byte is only found
	// where it breaks the padding or the text. RSA PKCS#1 v1.5 or KMS wraps the key.
	AES256CBC Algorithm = "AES-256-CBC"
	// SM4GCM is authenticated. SM2 wraps the key.
	SM4GCM Algorithm = "SM4-GCM"
)

// Errors that somebody decides on; others mean that reading failed or that the
// caller is at fault.
var (
	// ErrMalformed means that the input is not in the documented form, whatever
	// the key.
	ErrMalformed = errors.New("not in the documented form")
	// ErrKeyMismatch means that the input was encrypted for another key or
	// damaged on the way; the two cannot be told apart.
	ErrKeyMismatch = errors.New("does not open with this key")
)

// Encryption is the object of that name in requests and answers (FACTS §1.2).
type Encryption struct {
	// EncryptList holds the paths of the encrypted fields.
	EncryptList []string
	// CiphertextBlob is the wrapped key; it is not needed in an answer.
	CiphertextBlob string
	// Iv is base64, of 16 bytes for AES256CBC, of 12 for SM4GCM.
	Iv        string
	Algorithm Algorithm
	// TagList has one base64 tag for each entry of EncryptList, or the only one
	// of a body; SM4GCM only.
	TagList []string `json:",omitempty"`
}

// Sizes in bytes (FACTS §1.4). Other IV lengths are not documented and refused.
const (
	aesKeySize = 32
	sm4KeySize = 16
	gcmIVSize  = 12
	gcmTagSize = 16
)

func (a Algorithm) keySize() int {
	if a == SM4GCM {
		return sm4KeySize
	}
	return aesKeySize
}

func (a Algorithm) ivSize() int {
	if a == SM4GCM {
		return gcmIVSize
	}
	return aes.BlockSize
}

// check refuses what is not an algorithm.
func (a Algorithm) check() error {
	if a != AES256CBC && a != SM4GCM {
		return fmt.Errorf("the encryption algorithm must be %s or %s", AES256CBC, SM4GCM)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func mismatch(reason string) error { return fmt.Errorf("%w: %s", ErrKeyMismatch, reason) }

// decode undoes base64; what it was is for the error.
func decode(what, text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, malformed("%s is not base64", what)
	}
	return raw, nil
}
