package privacy

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Wrapper encrypts keys with a key that is kept elsewhere, such as in a KMS. Any
// number of goroutines may use it. Its errors hold nothing of a key.
type Wrapper interface {
	// Wrap returns what only Unwrap makes the key of again: at most some KiB of
	// text. The key is the caller's.
	Wrap(ctx context.Context, key []byte) (blob string, err error)
	// Unwrap returns the key, which is the caller's from then on.
	Unwrap(ctx context.Context, blob string) (key []byte, err error)
}

// A wrapped keyring file holds the JSON of a keyring, sealed with AES-256-GCM under
// a file key of its own, and that key as the Wrapper wrapped it. The file key stays
// when the keyring changes, so that a process which has opened the file follows its
// changes without asking the Wrapper again.
const (
	wrappedVersion = 2
	// wrapTimeout bounds a call of a Wrapper.
	wrapTimeout = 30 * time.Second
)

// asker asks a Wrapper. Who seals or opens a value has no context for the case that
// the keyring was replaced meanwhile, so the asker brings it along.
type asker struct {
	wrap   func(key []byte) (blob string, err error)
	unwrap func(blob string) (key []byte, err error)
}

// askWith returns nil for no Wrapper.
func askWith(ctx context.Context, w Wrapper) *asker {
	if w == nil {
		return nil
	}
	return &asker{
		wrap: func(key []byte) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, wrapTimeout)
			defer cancel()
			return w.Wrap(ctx, key)
		},
		unwrap: func(blob string) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, wrapTimeout)
			defer cancel()
			return w.Unwrap(ctx, blob)
		},
	}
}

// ErrNotUnwrapped means that the Wrapper did not unwrap a keyring file's key. It may
// pass.
var ErrNotUnwrapped = errors.New("unwrap it")

// wrappedFile is the JSON of a wrapped keyring file.
type wrappedFile struct {
	Version int `json:"version"`
	// WrappedKey is the file key as the Wrapper wrapped it.
	WrappedKey string `json:"wrapped_key"`
	// Keyring is nonce, ciphertext and tag.
	Keyring []byte `json:"keyring"`
}

// wrapping is the key of a wrapped keyring file; there is none of a file in clear.
type wrapping struct {
	blob string
	key  secret
}

func newWrapping(ask *asker) (*wrapping, error) {
	key := newSecret()
	blob, err := ask.wrap(key.b[:])
	if err != nil {
		return nil, fmt.Errorf("wrap the keyring: %w", err)
	}
	return &wrapping{blob, key}, nil
}

// openWrapping returns the wrapping of a file: the one that is known already, or
// one that is unwrapped now.
func openWrapping(ask *asker, blob string, known *wrapping) (*wrapping, error) {
	switch {
	case known != nil && known.blob == blob:
		return known, nil
	case ask == nil:
		return nil, errors.New("it is wrapped by a KMS, and none is configured: set privacy.kms")
	}
	key, err := ask.unwrap(blob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotUnwrapped, err)
	}
	s, err := secretFrom(bytes.Clone(key))
	clear(key)
	if err != nil {
		return nil, errors.New("unwrap it: what the KMS returned is no key of ours")
	}
	return &wrapping{blob, s}, nil
}

// associated binds the sealed keyring to its wrapped key.
func (w *wrapping) associated() []byte { return []byte("faceid-ingest keyring v2\x00" + w.blob) }

func (w *wrapping) aead() cipher.AEAD {
	block, err := aes.NewCipher(w.key.derive("faceid-ingest keyring file v2", secretSize))
	if err != nil {
		panic("privacy: " + err.Error()) // the size is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("privacy: " + err.Error())
	}
	return aead
}

// seal returns the wrapped form of a keyring's JSON.
func (w *wrapping) seal(plain []byte) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	_, _ = rand.Read(nonce) // never fails: it ends the process instead
	data, err := json.MarshalIndent(wrappedFile{
		Version: wrappedVersion, WrappedKey: w.blob, Keyring: w.aead().Seal(nonce, nonce, plain, w.associated()),
	}, "", "  ")
	return append(data, '\n'), err
}

// open returns the JSON of a keyring.
func (w *wrapping) open(file wrappedFile) ([]byte, error) {
	if len(file.Keyring) < nonceSize+tagSize {
		return nil, fmt.Errorf("%w: it is cut off", ErrKeyringDamaged)
	}
	plain, err := w.aead().Open(nil, file.Keyring[:nonceSize], file.Keyring[nonceSize:], w.associated())
	if err != nil {
		return nil, fmt.Errorf("%w: it was altered, or its key is another", ErrKeyringDamaged)
	}
	return plain, nil
}
