package envelope

import (
	"bytes"
	"crypto/cipher"
)

// NewFixedSession makes a session with a given key and IV, for published vectors.
func NewFixedSession(algorithm Algorithm, key, iv []byte) *Session {
	return &Session{algorithm: algorithm, key: bytes.Clone(key), iv: iv}
}

// GCMTag gives tests the tag under any cipher, for which there are other
// implementations.
func GCMTag(block cipher.Block, iv, ciphertext []byte) ([]byte, error) {
	tag, err := gcmTag(block, iv, bytes.NewReader(ciphertext))
	return tag[:], err
}
