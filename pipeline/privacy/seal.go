package privacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/tjfoc/gmsm/sm4"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	sealPrefix = "seal:v1:"
	nonceSize  = 12
	tagSize    = 16
	// padTo hides the length of short values: "汉" and "维吾尔" seal to the same
	// number of bytes.
	padTo = 32
)

var (
	// ErrNotSealed means that a stored value has not the form of a sealed one:
	// it is plain, masked, empty or cut off.
	ErrNotSealed = errors.New("not a sealed value")
	// ErrNotAuthentic means that a sealed value was altered, or belongs to
	// another token, field or position, or that its key was replaced.
	ErrNotAuthentic = errors.New("the sealed value was altered or belongs elsewhere")
)

// UnknownKeyError means that a value was sealed under a key that is not in the
// keyring: it was removed, or this is another keyring.
type UnknownKeyError struct {
	// ID is the id of the key.
	ID string
}

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("sealing key %s is not in the keyring: it was removed, or the value belongs to another keyring", e.ID)
}

// Ref says where a sealed value belongs. It is the value's associated data: a
// value copied to another place does not open there.
type Ref struct {
	Product result.Product
	Token   string
	Field   Field
	// Position is the index in the list, for attempt_name, attempt_id_card and
	// answer; 0 for every other field.
	Position int
}

// associated encodes r without ambiguity: token hash and position have a fixed
// length, and a zero byte parts the field from the product.
func (r Ref) associated() []byte {
	b := append([]byte("faceid-ingest sealed field v1\x00"), result.TokenHash(r.Product, r.Token)...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Position))
	return append(append(append(b, r.Field...), 0), r.Product...)
}

// IsSealed reports whether a stored value has the form of a sealed one. A plain
// value may have it by accident or malice; only Open tells.
func IsSealed(stored string) bool { return strings.HasPrefix(stored, sealPrefix) }

// Open returns the value that was sealed for ref. It needs no particular rule to
// be in force. Errors: ErrNotSealed, ErrNotAuthentic, *UnknownKeyError, or the
// keyring cannot be read.
func (p *Policy) Open(ref Ref, stored string) (result.Sensitive, error) {
	_, value, err := p.open(ref, stored)
	if err != nil {
		return result.Sensitive{}, fmt.Errorf("open %s: %w", ref.Field, err)
	}
	return result.NewSensitive(value), nil
}

// Reseal returns a sealed value sealed anew under the active key and the
// configured cipher, and whether that changed anything: a value which is so
// sealed already is checked and returned as it is. Errors are those of Open.
func (p *Policy) Reseal(ref Ref, stored string) (resealed string, changed bool, err error) {
	e, value, err := p.open(ref, stored)
	if err != nil {
		return "", false, fmt.Errorf("reseal %s: %w", ref.Field, err)
	}
	set := p.keys.loaded()
	if e.keyID == set.active.id && e.cipher == p.cipher {
		return stored, false, nil
	}
	resealed, err = newSealer(p.cipher, set.active, ref).seal(ref, value)
	if err != nil {
		return "", false, fmt.Errorf("reseal %s: %w", ref.Field, err)
	}
	return resealed, true, nil
}

func (p *Policy) open(ref Ref, stored string) (sealed, string, error) {
	e, err := parseSealed(stored)
	if err != nil {
		return e, "", err
	}
	if p.keys == nil {
		return e, "", &UnknownKeyError{ID: e.keyID}
	}
	set, err := p.keys.current()
	if err != nil {
		return e, "", err
	}
	key, ok := set.find(e.keyID)
	if !ok {
		return e, "", &UnknownKeyError{ID: e.keyID}
	}
	value, err := newSealer(e.cipher, key, ref).open(ref, e)
	return e, value, err
}

// sealed is a sealed value taken apart. Its text is
// "seal:v1:<key id>:<base64url>", and the bytes are one for the cipher, the
// nonce, and the ciphertext with its tag.
type sealed struct {
	keyID  string
	cipher Cipher
	nonce  []byte
	text   []byte
}

var cipherByte = map[Cipher]byte{AES256GCM: 1, SM4GCM: 2}

func parseSealed(stored string) (sealed, error) {
	body, ok := strings.CutPrefix(stored, sealPrefix)
	if !ok {
		return sealed{}, ErrNotSealed
	}
	id, encoded, ok := strings.Cut(body, ":")
	// The decoder skips line breaks; a value must have one spelling.
	if !ok || !validKeyID(id) || strings.ContainsAny(encoded, "\r\n") {
		return sealed{}, ErrNotSealed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < 1+nonceSize+padTo+tagSize {
		return sealed{}, ErrNotSealed
	}
	for c, n := range cipherByte {
		if b[0] == n {
			return sealed{keyID: id, cipher: c, nonce: b[1 : 1+nonceSize], text: b[1+nonceSize:]}, nil
		}
	}
	return sealed{}, ErrNotSealed
}

// sealer seals and opens the values of one token under one key. The key it works
// with is derived per cipher and token, so that the 2^32 values which random
// 96-bit nonces allow for a key (NIST SP 800-38D, 8.3) count per token, and no
// number of results wears a keyring's key out.
type sealer struct {
	cipher Cipher
	keyID  string
	key    []byte
}

func newSealer(c Cipher, k sealingKey, ref Ref) *sealer {
	size := 32
	if c == SM4GCM {
		size = 16
	}
	purpose := "faceid-ingest field v1 " + string(c) + " " + result.TokenHash(ref.Product, ref.Token)
	return &sealer{cipher: c, keyID: k.id, key: k.key.derive(purpose, size)}
}

// aead is built per call: gmsm's SM4 block keeps scratch buffers and may not be
// shared by goroutines (FACTS §7.1).
func (s *sealer) aead() (cipher.AEAD, error) {
	var block cipher.Block
	var err error
	if s.cipher == SM4GCM {
		block, err = sm4.NewCipher(s.key)
	} else {
		block, err = aes.NewCipher(s.key)
	}
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s *sealer) seal(ref Ref, value string) (string, error) {
	aead, err := s.aead()
	if err != nil {
		return "", err
	}
	b := make([]byte, 1+nonceSize, 1+nonceSize+len(value)+padTo+tagSize)
	b[0] = cipherByte[s.cipher]
	_, _ = rand.Read(b[1:]) // never fails: it ends the process instead
	b = aead.Seal(b, b[1:1+nonceSize], pad(value), ref.associated())
	return sealPrefix + s.keyID + ":" + base64.RawURLEncoding.EncodeToString(b), nil
}

func (s *sealer) open(ref Ref, e sealed) (string, error) {
	aead, err := s.aead()
	if err != nil {
		return "", err
	}
	padded, err := aead.Open(nil, e.nonce, e.text, ref.associated())
	if err != nil {
		return "", ErrNotAuthentic
	}
	return unpad(padded)
}

// pad appends 0x80 and as many zeros as bring the length to a multiple of padTo
// (ISO/IEC 7816-4).
func pad(value string) []byte {
	b := make([]byte, (len(value)/padTo+1)*padTo)
	b[copy(b, value)] = 0x80
	return b
}

func unpad(b []byte) (string, error) {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == 0x80 {
			return string(b[:i]), nil
		}
		if b[i] != 0 {
			break
		}
	}
	return "", ErrNotAuthentic
}
