package privacy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
)

// secretSize is the length of every key in a keyring, in bytes.
const secretSize = 32

// secret is a key that cannot be printed. The bytes are behind a pointer so that
// printers which walk structs by reflection do not reach them either.
type secret struct{ b *[secretSize]byte }

func newSecret() secret {
	s := secret{b: new([secretSize]byte)}
	_, _ = rand.Read(s.b[:]) // never fails: it ends the process instead
	return s
}

func secretFrom(b []byte) (secret, error) {
	if len(b) != secretSize {
		return secret{}, errors.New("a key must be 32 bytes")
	}
	return secret{b: (*[secretSize]byte)(b)}, nil
}

// derive returns a key of its own for one purpose (HKDF-Expand; the secret is
// uniformly random, so that RFC 5869 §3.3 lets us leave Extract out). size is in
// bytes, at most 32.
func (s secret) derive(purpose string, size int) []byte {
	key, err := hkdf.Expand(sha256.New, s.b[:], purpose, size)
	if err != nil {
		panic("privacy: " + err.Error()) // sizes are constants of this package
	}
	return key
}

const redacted = "[redacted]"

func (secret) String() string               { return redacted }
func (secret) GoString() string             { return redacted }
func (secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
