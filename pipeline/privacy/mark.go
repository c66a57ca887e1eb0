package privacy

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"
)

// Mark names the keyring that seals what is kept in some place, and stands beside it.
// It holds nothing of a key. The zero Mark is that of a place which has none.
type Mark struct {
	// Fingerprint is the keyring's, see Keyring.Fingerprint.
	Fingerprint string `json:"fingerprint"`
	// ActiveKey is the id of the key that sealed new values when the mark was written.
	ActiveKey string `json:"active_key"`
	// Since is when that key was made, in UTC and whole seconds, which every place keeps.
	Since time.Time `json:"since"`
}

// maxMark bounds the JSON of a mark, in bytes.
const maxMark = 1 << 10

// ErrMark means that what stands where a mark should be is none.
var ErrMark = errors.New("what is noted of the keyring there is not what this version wrote: look who changed it; \"faceid-ingest keys adopt\" notes the keyring anew")

var fingerprintForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// IsZero reports whether m is the mark of a place that has none.
func (m Mark) IsZero() bool { return m == Mark{} }

// Valid reports whether m could be a keyring's.
func (m Mark) Valid() bool {
	return fingerprintForm.MatchString(m.Fingerprint) && validKeyID(m.ActiveKey) && !m.Since.IsZero()
}

// Encode returns m as JSON.
func (m Mark) Encode() []byte {
	data, err := json.Marshal(m)
	if err != nil {
		panic("privacy: " + err.Error()) // strings and a time of this century always encode
	}
	return append(data, '\n')
}

// ParseMark reads what Encode wrote, and what somebody else may have put there. The
// error is ErrMark.
func ParseMark(data []byte) (Mark, error) {
	var m Mark
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if len(data) > maxMark || decoder.Decode(&m) != nil || !m.Valid() {
		return Mark{}, ErrMark
	}
	m.Since = m.Since.UTC()
	return m, nil
}

// OtherKeyringError means that a place is sealed by another keyring.
type OtherKeyringError struct {
	// Path is the file of this keyring, and Own its fingerprint.
	Path, Own string
	// Noted is what stands beside what is sealed.
	Noted Mark
}

func (e *OtherKeyringError) Error() string {
	return fmt.Sprintf("sealed by another keyring: its fingerprint is %s, that of %s is %s", e.Noted.Fingerprint, e.Path, e.Own)
}

// OldKeyringError means that a file is a copy of the right keyring from before a
// rotation: others seal with a key that it lacks.
type OldKeyringError struct {
	Path  string
	Noted Mark
}

func (e *OldKeyringError) Error() string {
	return fmt.Sprintf("sealed with key %s since %s, which %s lacks: it is an older copy of the keyring", e.Noted.ActiveKey, e.Noted.Since.Format(time.RFC3339), e.Path)
}

// fingerprint is derived from the index key, which no rotation changes.
func (s *keyset) fingerprint() string {
	return hex.EncodeToString(s.index.key.derive("faceid-ingest keyring fingerprint v1", 16))
}

// Fingerprint returns 32 hex digits that copies of a keyring share, also after
// rotations, and no other keyring has. They say nothing about its keys.
func (k *Keyring) Fingerprint() string { return k.loaded().fingerprint() }

// Path returns where the file is.
func (k *Keyring) Path() string { return k.path }

// Mark returns what is to stand beside what the keyring seals now. The error is that
// the file cannot be read.
func (k *Keyring) Mark() (Mark, error) {
	set, err := k.current()
	if err != nil {
		return Mark{}, err
	}
	return Mark{Fingerprint: set.fingerprint(), ActiveKey: set.active.id, Since: set.active.created.Truncate(time.Second)}, nil
}

// Has reports whether the keyring has a key.
func (k *Keyring) Has(id string) bool {
	_, ok := k.keysWith(id).find(id)
	return ok
}

// Accepts returns nil if what is sealed beside m can be opened with this keyring. The
// error is *OtherKeyringError or *OldKeyringError.
func (k *Keyring) Accepts(m Mark) error {
	set := k.keysWith(m.ActiveKey)
	if own := set.fingerprint(); own != m.Fingerprint {
		return &OtherKeyringError{Path: k.path, Own: own, Noted: m}
	}
	if _, ok := set.find(m.ActiveKey); !ok {
		return &OldKeyringError{Path: k.path, Noted: m}
	}
	return nil
}

// keysWith returns the keys as they were read last if one with this id is among them.
// Else they are read anew if that is possible: a rotation changes the file first, and
// what is noted or sealed after it.
func (k *Keyring) keysWith(id string) *keyset {
	set := k.loaded()
	if _, ok := set.find(id); ok {
		return set
	}
	if now, err := k.current(); err == nil {
		return now
	}
	return set
}

// NewKeyring returns a keyring that is only in memory: until Create has written its
// file, policies with it neither seal nor open anything. w may be nil.
func NewKeyring(ctx context.Context, path string, w Wrapper) *Keyring {
	return &Keyring{path: path, ask: askWith(context.WithoutCancel(ctx), w), content: content{set: newKeyset(time.Now().UTC())}}
}

// Made reports whether the keyring has a file.
func (k *Keyring) Made() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.info != nil
}

// Create writes the file of a keyring that NewKeyring returned, of mode 0600. If there
// is one by now, it stays, and is what this keyring is from then on; made is false then.
func (k *Keyring) Create() (made bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var wrapped *wrapping
	if k.ask != nil {
		if wrapped, err = newWrapping(k.ask); err != nil {
			return false, err
		}
	}

	err = createKeyring(k.path, k.set, wrapped)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return false, err
	}
	made = err == nil

	now, err := readKeyring(k.path, k.ask, wrapped)
	if err != nil {
		return false, err
	}
	k.content = *now
	return made, nil
}

// Discard removes the file that Create has just made, before anything was sealed with
// it.
func (k *Keyring) Discard() error {
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
	if now.set.fingerprint() != k.set.fingerprint() {
		return fmt.Errorf("discard the keyring: %s was replaced", k.path)
	}
	if err := os.Remove(k.path); err != nil {
		return fmt.Errorf("discard the keyring: %w", err)
	}
	k.info = nil
	return nil
}

// KeyUse returns how many values of a record are sealed, by the id of the key. Where
// values are stored as they come, one that only looks sealed does not count.
func (p *Policy) KeyUse(rec *Record) map[string]int {
	use := map[string]int{}
	_ = rec.Each(func(f Field, position int, s *Stored) error {
		e, err := parseSealed(s.Value)
		if err != nil {
			return nil //nolint:nilerr // it is not sealed
		}
		if p.rules[f] == Plain {
			// Whoever is checked may have sent it.
			ref := Ref{Product: rec.Product, Token: rec.Token, Field: f, Position: position}
			if _, _, err := p.open(ref, s.Value); err != nil {
				return nil //nolint:nilerr // it is not ours
			}
		}
		use[e.keyID]++
		return nil
	})
	return use
}

// Opens returns nil if the policy opens a sealed value of a record, or if there is none.
// The error is that of the last one.
func (p *Policy) Opens(rec *Record) (err error) {
	done := errors.New("one opens")
	found := rec.Each(func(f Field, position int, s *Stored) error {
		if !IsSealed(s.Value) || p.rules[f] == Plain {
			return nil
		}
		if _, err = p.Open(Ref{Product: rec.Product, Token: rec.Token, Field: f, Position: position}, s.Value); err == nil {
			return done
		}
		return nil
	})
	if found != nil {
		return nil
	}
	return err
}
