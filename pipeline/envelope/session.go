package envelope

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// Session holds the symmetric key of one request, to open its answer. It may open
// from several goroutines; Wipe comes after all of them.
type Session struct {
	algorithm Algorithm
	// key is nil after Wipe.
	key  []byte
	iv   []byte
	blob string
}

// NewSession makes a session with a fresh random key, wrapped with the console's
// public key. SM2 takes about a millisecond (FACTS §7.4).
func NewSession(key *PublicKey) (*Session, error) {
	s := &Session{algorithm: key.algorithm, key: random(key.algorithm.keySize()), iv: random(key.algorithm.ivSize())}
	blob, err := key.wrap(s.key)
	if err != nil {
		s.Wipe()
		return nil, fmt.Errorf("wrapping the key of a request: %w", err)
	}
	s.blob = base64.StdEncoding.EncodeToString(blob)
	return s, nil
}

// random returns n random bytes; crypto/rand does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// Request returns the Encryption parameter of the request. The list is what the
// request itself encrypts; to ask for encrypted fields it is empty, and
// "EncryptionBody" to ask for an encrypted body (FACTS §1.4, §1.5).
func (s *Session) Request(encryptList ...string) Encryption {
	if encryptList == nil {
		encryptList = []string{} // the API wants the list to be there
	}
	return Encryption{
		EncryptList:    encryptList,
		CiphertextBlob: s.blob,
		Iv:             base64.StdEncoding.EncodeToString(s.iv),
		Algorithm:      s.algorithm,
	}
}

// Wipe clears the key. Nothing can be opened afterwards; readers that OpenBody
// returned before still work.
func (s *Session) Wipe() {
	clear(s.key)
	s.key = nil
}

// Format keeps the key from being printed, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "envelope.Session") }

var errWiped = errors.New("the key of this request has been wiped")

// accept checks what an answer says of its encryption and returns its IV.
func (s *Session) accept(e Encryption) ([]byte, error) {
	if s.key == nil {
		return nil, errWiped
	}
	if e.Algorithm != "" && e.Algorithm != s.algorithm {
		return nil, malformed("the answer is not encrypted by %s, which was asked for", s.algorithm)
	}
	if e.Iv == "" {
		// The API may leave out what it did not choose (FACTS §1.4).
		return s.iv, nil
	}
	if s.algorithm == AES256CBC && len(e.Iv) == s.algorithm.ivSize() {
		// With KMS the IV is documented as 16 characters, elsewhere as base64 of
		// 16 bytes, which is 24 (FACTS §8).
		return []byte(e.Iv), nil
	}
	iv, err := decode("the IV", e.Iv)
	if err != nil {
		return nil, err
	}
	if len(iv) != s.algorithm.ivSize() {
		return nil, malformed("the IV has %d bytes, not %d", len(iv), s.algorithm.ivSize())
	}
	return iv, nil
}
