package envelope_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// kms stands for a key management service that takes a second for each key.
type kms struct {
	mu    sync.Mutex
	calls int
	err   error
}

func (k *kms) DataKey(ctx context.Context) (*envelope.DataKey, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.err != nil {
		return nil, k.err
	}
	return envelope.NewDataKey(bytes.Repeat([]byte{byte(k.calls)}, 32), fmt.Sprintf("blob %d", k.calls))
}

// blob returns which key a cache gives.
func blob(t *testing.T, cache *envelope.DataKeyCache) string {
	t.Helper()
	key, err := cache.DataKey(t.Context())
	if err != nil {
		t.Error(err)
		return ""
	}
	defer key.Wipe()
	session := envelope.NewDataKeySession(key)
	defer session.Wipe()
	return session.Request().CiphertextBlob
}

func TestDataKeyCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &kms{}
		cache := envelope.NewDataKeyCache(source, time.Hour)
		var wait sync.WaitGroup
		for range 32 {
			wait.Go(func() {
				if got := blob(t, cache); got != "blob 1" {
					t.Errorf("%q", got)
				}
			})
		}
		wait.Wait()
		time.Sleep(59 * time.Minute)
		if got := blob(t, cache); got != "blob 1" {
			t.Errorf("%q within the hour", got)
		}
		time.Sleep(2 * time.Minute)
		if got := blob(t, cache); got != "blob 2" {
			t.Errorf("%q after the hour", got)
		}
		cache.Forget()
		cache.Forget()
		if got := blob(t, cache); got != "blob 3" {
			t.Errorf("%q after Forget", got)
		}
		// The timer of a forgotten key must not take the next one.
		time.Sleep(59*time.Minute + 59*time.Second)
		if got := blob(t, cache); got != "blob 3" {
			t.Errorf("%q within its hour", got)
		}
		cache.Forget()
		if source.calls != 3 {
			t.Errorf("%d calls", source.calls)
		}
	})
}

func TestDataKeyCacheKeepsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &kms{err: errors.New("KMS is down")}
		cache := envelope.NewDataKeyCache(source, time.Hour)
		defer cache.Forget()
		if key, err := cache.DataKey(t.Context()); !errors.Is(err, source.err) || key != nil {
			t.Error(err)
		}
		source.err = nil
		if got := blob(t, cache); got != "blob 2" {
			t.Errorf("%q", got)
		}
	})
}

// TestDataKeyCacheWaitsWithContext has a caller give up while another one asks.
func TestDataKeyCacheWaitsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := envelope.NewDataKeyCache(&kms{}, time.Hour)
		defer cache.Forget()
		var wait sync.WaitGroup
		wait.Go(func() { blob(t, cache) })
		synctest.Wait()
		for _, patience := range []time.Duration{0, 500 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if _, err := cache.DataKey(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", patience, err)
			}
			cancel()
		}
		wait.Wait()
	})
}

// TestDataKeyIsCopied wipes what was given and what was got.
func TestDataKeyIsCopied(t *testing.T) {
	plaintext := bytes.Repeat([]byte{9}, 32)
	sealer, err := envelopetest.NewSealer(envelope.AES256CBC, plaintext, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	doc, e := sealDoc(t, sealer, answerPaths)
	key, err := envelope.NewDataKey(plaintext, "blob")
	if err != nil {
		t.Fatal(err)
	}
	clear(plaintext)
	first, second := envelope.NewDataKeySession(key), envelope.NewDataKeySession(key)
	key.Wipe()
	first.Wipe()
	if _, err := second.OpenFields(doc, e); err != nil {
		t.Error(err)
	}
	if first.Request().Iv == second.Request().Iv {
		t.Error("two sessions share an IV")
	}
}

func TestNewDataKeyRefuses(t *testing.T) {
	for _, c := range []struct {
		size int
		blob string
	}{{0, "b"}, {16, "b"}, {33, "b"}, {32, ""}} {
		key, err := envelope.NewDataKey(make([]byte, c.size), c.blob)
		if err == nil || key != nil || !strings.Contains(err.Error(), "AES_256") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
