package envelope

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"
)

// DataKey is a symmetric key that KMS made and wrapped (FACTS §8).
type DataKey struct {
	plaintext []byte
	blob      string
}

// NewDataKey takes what GenerateDataKey returned: Plaintext without its base64,
// which must be a key of AES-256, and CiphertextBlob as it is. The key is copied;
// the caller clears its own.
func NewDataKey(plaintext []byte, ciphertextBlob string) (*DataKey, error) {
	if len(plaintext) != aesKeySize || ciphertextBlob == "" {
		return nil, fmt.Errorf("a KMS data key must have %d bytes and a CiphertextBlob (KeySpec AES_256)", aesKeySize)
	}
	return &DataKey{bytes.Clone(plaintext), ciphertextBlob}, nil
}

// Wipe clears the key, which is of no use afterwards.
func (k *DataKey) Wipe() { clear(k.plaintext) }

// Format keeps the key from being printed, whatever the verb.
func (k *DataKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "envelope.DataKey") }

// NewDataKeySession makes a session of AES256CBC with a data key and a fresh IV.
// The key is copied. Data keys may serve several requests.
func NewDataKeySession(key *DataKey) *Session {
	return &Session{algorithm: AES256CBC, key: bytes.Clone(key.plaintext), iv: random(AES256CBC.ivSize()), blob: key.blob}
}

// DataKeySource gets data keys, as KMS does. Whoever gets one wipes it.
type DataKeySource interface {
	DataKey(ctx context.Context) (*DataKey, error)
}

// DataKeyCache is a DataKeySource that keeps the key of another one for some time,
// so that KMS is not called for every request. Any number of goroutines may use it.
type DataKeyCache struct {
	source DataKeySource
	keep   time.Duration
	// turn is held, by its only slot, by whoever reads or changes the rest or asks
	// the source: one goroutine does, the others wait for its key.
	turn chan struct{}
	key  *DataKey
	// timer wipes key when its time is over.
	timer *time.Timer
}

// NewDataKeyCache keeps each key of the source for the given time, which must be
// positive. Forget wipes the last one.
func NewDataKeyCache(source DataKeySource, keep time.Duration) *DataKeyCache {
	return &DataKeyCache{source: source, keep: keep, turn: make(chan struct{}, 1)}
}

// DataKey returns a copy of the kept key, or gets one. The error is the source's
// or that of ctx; it is not kept.
func (c *DataKeyCache) DataKey(ctx context.Context) (*DataKey, error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a data key: %w", context.Cause(ctx))
	}
	defer func() { <-c.turn }()
	if c.key == nil {
		key, err := c.source.DataKey(ctx)
		if err != nil {
			return nil, fmt.Errorf("getting a data key: %w", err)
		}
		c.key = key
		c.timer = time.AfterFunc(c.keep, func() { c.forget(key) })
	}
	return &DataKey{bytes.Clone(c.key.plaintext), c.key.blob}, nil
}

// Forget wipes the kept key: at the end, and when the API refuses the key, so that
// the next request has a new one. The cache stays usable.
func (c *DataKeyCache) Forget() {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.drop()
}

// forget drops the key if it is still the given one.
func (c *DataKeyCache) forget(key *DataKey) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.key == key {
		c.drop()
	}
}

func (c *DataKeyCache) drop() {
	if c.key != nil {
		c.timer.Stop()
		c.key.Wipe()
		c.key = nil
	}
}
