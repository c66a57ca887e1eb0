package privacy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// vault is a Wrapper that remembers the keys it was given.
type vault struct {
	mu     sync.Mutex
	keys   map[string][]byte
	calls  int
	broken error
}

func newVault() *vault { return &vault{keys: map[string][]byte{}} }

func (v *vault) Wrap(_ context.Context, key []byte) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
	if v.broken != nil {
		return "", v.broken
	}
	blob := fmt.Sprintf("blob-%d", len(v.keys))
	v.keys[blob] = bytes.Clone(key)
	return blob, nil
}

func (v *vault) Unwrap(ctx context.Context, blob string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
	if err := errors.Join(ctx.Err(), v.broken); err != nil {
		return nil, err
	}
	key, known := v.keys[blob]
	if !known {
		return nil, errors.New("no such blob")
	}
	return bytes.Clone(key), nil
}

// asked returns how often the vault was called since the last time.
func (v *vault) asked() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer func() { v.calls = 0 }()
	return v.calls
}

func TestWrappedKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	v := newVault()
	created, err := privacy.OpenOrCreateWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	sealed := protect(t, newPolicy(t, privacy.DefaultConfig(), created), someone()).Person.Name.Value
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), created.List()[0].ID) || bytes.Contains(text, []byte("index_key")) {
		t.Errorf("the file is not sealed: %s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || !created.Wrapped() {
		t.Errorf("mode %v, wrapped %t, %v", info.Mode(), created.Wrapped(), err)
	}

	opened, err := privacy.OpenOrCreateWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	ref := privacy.Ref{Product: someone().Product, Token: someone().Token, Field: privacy.Name}
	if name, err := newPolicy(t, privacy.DefaultConfig(), opened).Open(ref, sealed); err != nil || name.Reveal() != "测试人" {
		t.Errorf("opened to another value, or %v", err)
	}
	if _, err := privacy.CreateWrappedKeyring(t.Context(), path, v); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second create: %v, want ErrExist", err)
	}
}

// A daemon follows a rotation without asking the KMS, which may be down by then.
func TestWrappedKeyringIsUnwrappedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	v := newVault()
	daemon, err := privacy.CreateWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), daemon)
	command, err := privacy.OpenWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	v.asked()
	v.broken = errors.New("the KMS is down")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := command.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if got := protect(t, policy, someone()).Person.Name.Value; !strings.HasPrefix(got, "seal:v1:"+fresh.ID) {
		t.Error("the daemon does not see the rotation")
	}
	if n := v.asked(); n != 0 {
		t.Errorf("the KMS was asked %d times", n)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Equal nonces would give the keyrings' difference away.
	if nonce := func(b []byte) string { return keyringOf(t, b)[:16] }; nonce(before) == nonce(after) {
		t.Error("two files have one nonce")
	}
	if _, err := privacy.OpenWrappedKeyring(t.Context(), path, v); !errors.Is(err, v.broken) || !strings.Contains(err.Error(), path) {
		t.Errorf("a new process says %v", err)
	}

	// A file with another wrapped key needs the KMS again.
	v.broken = nil
	other := filepath.Join(t.TempDir(), "keyring.json")
	replacement, err := privacy.CreateWrappedKeyring(t.Context(), other, v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if got := protect(t, policy, someone()).Person.Name.Value; !strings.HasPrefix(got, "seal:v1:"+replacement.List()[0].ID) {
		t.Error("the daemon does not see another keyring")
	}
}

// keyringOf is the sealed part of a file.
func keyringOf(t *testing.T, text []byte) string {
	t.Helper()
	var file struct{ Keyring string }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	return file.Keyring
}

func TestKeyringIsWrappedByItsNextChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	plain, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed := protect(t, newPolicy(t, privacy.DefaultConfig(), plain), someone()).Person.Name.Value
	v := newVault()
	keys, err := privacy.OpenWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	if keys.Wrapped() {
		t.Error("a file in clear is called wrapped")
	}
	v.broken = errors.New("the KMS is down")
	if _, err := keys.Rotate(); !errors.Is(err, v.broken) {
		t.Errorf("a rotation without the KMS: %v", err)
	}
	if now, err := privacy.OpenKeyring(path); err != nil || len(now.List()) != 1 {
		t.Errorf("the file was changed: %v", err)
	}
	v.broken = nil
	if _, err := keys.Rotate(); err != nil || !keys.Wrapped() {
		t.Errorf("wrapped %t, %v", keys.Wrapped(), err)
	}
	_, err = privacy.OpenKeyring(path)
	if err == nil || !strings.Contains(err.Error(), "set privacy.kms") || !strings.Contains(err.Error(), path) {
		t.Errorf("without a KMS: %v", err)
	}
	ref := privacy.Ref{Product: someone().Product, Token: someone().Token, Field: privacy.Name}
	if _, err := newPolicy(t, privacy.DefaultConfig(), keys).Open(ref, sealed); err != nil {
		t.Errorf("what was sealed before does not open: %v", err)
	}
}

func TestWrappedKeyringRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	v := newVault()
	if _, err := privacy.CreateWrappedKeyring(t.Context(), path, v); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Wrap(t.Context(), bytes.Repeat([]byte{1}, 32)); err != nil { // blob-1
		t.Fatal(err)
	}
	if _, err := v.Wrap(t.Context(), []byte("short")); err != nil { // blob-2
		t.Fatal(err)
	}
	replace := func(from, to string) string { return strings.Replace(string(good), from, to, 1) }
	middle := keyringOf(t, good)[40:44]
	for name, test := range map[string]struct{ text, want string }{
		"cut off":       {string(good[:len(good)/2]), "not JSON"},
		"altered":       {replace(middle, base64.StdEncoding.EncodeToString([]byte{1, 2, 3})), "it was altered"},
		"another key":   {replace("blob-0", "blob-1"), "it was altered"},
		"no key":        {replace("blob-0", "blob-2"), "no key of ours"},
		"unknown blob":  {replace("blob-0", "blob-9"), "no such blob"},
		"short":         {replace(keyringOf(t, good), "AAAA"), "cut off"},
		"unknown field": {replace(`"version"`, `"more": 1, "version"`), "fields are not those of version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := privacy.OpenWrappedKeyring(t.Context(), writeKeyring(t, test.text, 0o600), v)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, want one with %q", err, test.want)
			}
		})
	}
	if _, err := privacy.OpenWrappedKeyring(t.Context(), writeKeyring(t, string(good), 0o644), v); err == nil {
		t.Error("opened a file that others may read")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := privacy.OpenWrappedKeyring(ctx, path, v); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Neither the file key nor what it seals is printed.
func TestWrappedKeysAreNeverPrinted(t *testing.T) {
	path := writeKeyring(t, validKeyring, 0o600)
	v := newVault()
	keys, err := privacy.OpenWrappedKeyring(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	fileKey := v.keys["blob-0"]
	for _, value := range []any{keys, newPolicy(t, privacy.DefaultConfig(), keys), struct{ k *privacy.Keyring }{keys}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := fmt.Sprintf(verb, value)
			for _, key := range [][]byte{fileKey, []byte(anyKey)} {
				for _, form := range []string{string(key[8:16]), fmt.Sprintf("%x", key[8:16]), strings.Trim(fmt.Sprintf("%d", key[8:16]), "[]")} {
					if strings.Contains(text, form) {
						t.Errorf("%s of %T shows a key", verb, value)
					}
				}
			}
		}
	}
}

func FuzzOpenWrappedKeyring(f *testing.F) {
	path := filepath.Join(f.TempDir(), "keyring.json")
	v := newVault()
	if _, err := privacy.CreateWrappedKeyring(f.Context(), path, v); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := privacy.OpenWrappedKeyring(t.Context(), path, v)
		if err == nil && keys.Wrapped() && !strings.Contains(string(text), "blob-0") {
			t.Fatal("opened what was never wrapped")
		}
	})
}
