package privacy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// Keyring is an open keyring file. It is safe for use by several goroutines, and
// the file by several processes: a change that another process makes, such as a
// rotation, is seen by the next Protect, Open or Reseal.
//
// Whoever has the file can read every sealed value, and who loses it loses them:
// keep a copy of it apart from the data. Of a file that a Wrapper has wrapped, this
// is so only together with the Wrapper's key.
type Keyring struct {
	path string
	// ask is nil where files are in clear.
	ask *asker

	mu sync.Mutex
	content
}

// KeyState says what a sealing key is used for.
type KeyState string

const (
	// Active is the one key that seals new values.
	Active KeyState = "active"
	// Retired keys only open what they have sealed.
	Retired KeyState = "retired"
)

// KeyInfo describes a sealing key without the key.
type KeyInfo struct {
	// ID is eight hex digits, chosen at random.
	ID string `json:"id"`
	// Created is in UTC.
	Created time.Time `json:"created"`
	State   KeyState  `json:"state"`
}

// sealingKey is a key and its description.
type sealingKey struct {
	id      string
	created time.Time
	key     secret
}

// keyset is the content of a keyring file. It is never changed.
type keyset struct {
	active sealingKey
	// retired is in the order of the file, which is by age, oldest first.
	retired      []sealingKey
	index        indexKey
	indexCreated time.Time
}

func newKeyset(now time.Time) *keyset {
	set := &keyset{indexCreated: now}
	set.active = set.newKey(now)
	set.index = indexKey{id: newKeyID(), key: newSecret()}
	return set
}

// newKey makes a key with an id that the set does not have yet.
func (s *keyset) newKey(now time.Time) sealingKey {
	id := newKeyID()
	for _, taken := s.find(id); taken; _, taken = s.find(id) {
		id = newKeyID()
	}
	return sealingKey{id: id, created: now, key: newSecret()}
}

func (s *keyset) find(id string) (sealingKey, bool) {
	if s.active.id == id {
		return s.active, true
	}
	i := slices.IndexFunc(s.retired, func(k sealingKey) bool { return k.id == id })
	if i < 0 {
		return sealingKey{}, false
	}
	return s.retired[i], true
}

func newKeyID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

func validKeyID(id string) bool {
	if len(id) != 8 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// OpenKeyring opens a keyring file that is not wrapped. It refuses a file that
// group or others may read or write (root's own may be readable by the group of a
// process that is not root), one that is damaged and one of a version it does not
// know. The error is an fs.ErrNotExist where there is none.
func OpenKeyring(path string) (*Keyring, error) {
	return OpenWrappedKeyring(context.Background(), path, nil)
}

// OpenWrappedKeyring opens a keyring file that w has wrapped. One in clear opens,
// too: it is wrapped by the next change, such as a rotation. Without w it is
// OpenKeyring. A wrapped file is unwrapped here, and again only when it is replaced
// by one with another wrapped key.
func OpenWrappedKeyring(ctx context.Context, path string, w Wrapper) (*Keyring, error) {
	c, err := readKeyring(path, askWith(ctx, w), nil)
	if err != nil {
		return nil, err
	}
	return &Keyring{path: path, ask: askWith(context.WithoutCancel(ctx), w), content: *c}, nil
}

// CreateKeyring makes a keyring file of mode 0600 with one sealing key and one
// index key. It never replaces a file: the error is then an fs.ErrExist.
func CreateKeyring(path string) (*Keyring, error) {
	return CreateWrappedKeyring(context.Background(), path, nil)
}

// CreateWrappedKeyring is CreateKeyring of a file that w wraps; w may be nil.
func CreateWrappedKeyring(ctx context.Context, path string, w Wrapper) (*Keyring, error) {
	var wrapping *wrapping
	if w != nil {
		var err error
		if wrapping, err = newWrapping(askWith(ctx, w)); err != nil {
			return nil, err
		}
	}
	if err := createKeyring(path, newKeyset(time.Now().UTC()), wrapping); err != nil {
		return nil, err
	}
	return OpenWrappedKeyring(ctx, path, w)
}

// OpenOrCreateKeyring opens a keyring file, and makes it if there is none. Of
// several processes that start at once, one makes it and all use that one.
func OpenOrCreateKeyring(path string) (*Keyring, error) {
	return OpenOrCreateWrappedKeyring(context.Background(), path, nil)
}

// OpenOrCreateWrappedKeyring is OpenOrCreateKeyring of a file that w wraps; w may
// be nil.
func OpenOrCreateWrappedKeyring(ctx context.Context, path string, w Wrapper) (*Keyring, error) {
	k, err := OpenWrappedKeyring(ctx, path, w)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k, err = CreateWrappedKeyring(ctx, path, w)
	if errors.Is(err, fs.ErrExist) {
		return OpenWrappedKeyring(ctx, path, w)
	}
	return k, err
}

// Wrapped tells whether the file is wrapped.
func (k *Keyring) Wrapped() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wrapping != nil
}

// List describes the sealing keys, oldest first; the active one is last.
func (k *Keyring) List() []KeyInfo {
	set := k.loaded()
	list := make([]KeyInfo, 0, len(set.retired)+1)
	for _, key := range set.retired {
		list = append(list, KeyInfo{ID: key.id, Created: key.created, State: Retired})
	}
	return append(list, KeyInfo{ID: set.active.id, Created: set.active.created, State: Active})
}

// Rotate adds a new sealing key, makes it the active one and retires the one
// before. The index key stays: blind indexes must match those stored.
func (k *Keyring) Rotate() (KeyInfo, error) {
	var info KeyInfo
	err := k.change(func(set keyset) (*keyset, error) {
		set.retired = append(slices.Clone(set.retired), set.active)
		set.active = set.newKey(time.Now().UTC())
		info = KeyInfo{ID: set.active.id, Created: set.active.created, State: Active}
		return &set, nil
	})
	if err != nil {
		return KeyInfo{}, fmt.Errorf("rotate the keyring: %w", err)
	}
	return info, nil
}

// Remove takes a retired key away for good. What is still sealed under it can
// never be read again: Reseal all of it first. It refuses the active key, and
// fails with *UnknownKeyError for one that is not there.
func (k *Keyring) Remove(id string) error {
	err := k.change(func(set keyset) (*keyset, error) {
		if set.active.id == id {
			return nil, fmt.Errorf("key %s is the active one: rotate first", id)
		}
		if _, ok := set.find(id); !ok {
			return nil, &UnknownKeyError{ID: id}
		}
		set.retired = slices.DeleteFunc(slices.Clone(set.retired), func(key sealingKey) bool { return key.id == id })
		return &set, nil
	})
	if err != nil {
		return fmt.Errorf("remove a key from the keyring: %w", err)
	}
	return nil
}

// change replaces the file's content under the file's lock, so that two
// processes which change it at once do not lose a key.
func (k *Keyring) change(edit func(keyset) (*keyset, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	unlock, err := lockKeyring(k.path)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := readKeyring(k.path, k.ask, k.wrapping)
	if err != nil {
		return err
	}
	set, err := edit(*now.set)
	if err != nil {
		return err
	}
	if now.wrapping == nil && k.ask != nil {
		if now.wrapping, err = newWrapping(k.ask); err != nil {
			return err
		}
	}
	if err := writeKeyring(k.path, set, now.wrapping); err != nil {
		return err
	}
	if now, err = readKeyring(k.path, k.ask, now.wrapping); err != nil {
		return err
	}
	k.content = *now
	return nil
}

// current returns the keys, read anew if the file has changed.
func (k *Keyring) current() (*keyset, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.path)
	if err != nil {
		return nil, fmt.Errorf("look at the keyring: %w", err)
	}
	if sameFile(info, k.info) {
		return k.set, nil
	}
	now, err := readKeyring(k.path, k.ask, k.wrapping)
	if err != nil {
		return nil, err
	}
	k.content = *now
	return k.set, nil
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// loaded returns the keys as they were read last.
func (k *Keyring) loaded() *keyset {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set
}

// String names the file and shows no key.
func (k *Keyring) String() string { return "keyring " + k.path }

// Format prints String for every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue is what log/slog prints.
func (k *Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText serves encoders; it gives String.
func (k *Keyring) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
