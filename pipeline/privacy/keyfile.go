package privacy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keyringVersion = 1
	// maxKeyring bounds a keyring file, in bytes; it is room for thousands of keys.
	maxKeyring = 1 << 20
)

// ErrKeyringDamaged means that a keyring file is not what was written.
var ErrKeyringDamaged = errors.New("damaged")

// keyringFile is the JSON of a keyring file.
type keyringFile struct {
	Version  int       `json:"version"`
	Keys     []fileKey `json:"keys"`
	IndexKey fileKey   `json:"index_key"`
}

type fileKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// State is empty for the index key.
	State KeyState `json:"state,omitempty"`
	Key   []byte   `json:"key"`
}

// content is what a keyring file holds.
type content struct {
	set *keyset
	// wrapping is nil of a file in clear.
	wrapping *wrapping
	// info is of the file; a rename leaves another one.
	info fs.FileInfo
}

// readKeyring reads and checks a file. ask opens a wrapped one and may be nil; it is
// not used where known fits.
func readKeyring(path string, ask *asker, known *wrapping) (*content, error) {
	data, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	set, wrapping, err := parseFile(data, ask, known)
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", path, err)
	}
	return &content{set, wrapping, info}, nil
}

func readFile(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the keyring: %w", err)
	}
	defer func() { _ = file.Close() }()
	// The open file is looked at, not the path: it cannot be swapped in between.
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("open the keyring: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("keyring %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&^allowedMode(owner(info), os.Geteuid()) != 0 {
		return nil, nil, fmt.Errorf("keyring %s has mode %#o, so others than its owner may use it: run chmod 600 %s", path, perm, path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyring+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the keyring: %w", err)
	}
	return data, info, nil
}

// allowedMode is what a keyring's permissions may be at most: all for its owner,
// nothing for others. A file of root's may also be readable by its group, for a
// process that is not root: that is how Kubernetes mounts a secret for a pod with
// an fsGroup, and PostgreSQL's rule for its key files.
func allowedMode(owner, self int) fs.FileMode {
	if owner == 0 && self != 0 {
		return 0o740
	}
	return 0o700
}

// owner returns the user id of a file's owner, or -1.
func owner(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// parseFile reads the content of a file, wrapped or in clear. Its errors name ids
// and positions, and repeat nothing else of the file: a damaged file may have a key
// anywhere.
func parseFile(data []byte, ask *asker, known *wrapping) (*keyset, *wrapping, error) {
	version, err := versionOf(data)
	if err != nil {
		return nil, nil, err
	}
	if version != wrappedVersion {
		set, err := parseKeyring(data)
		return set, nil, err
	}
	var file wrappedFile
	if err := decodeStrictly(data, &file, wrappedVersion); err != nil {
		return nil, nil, err
	}
	wrapping, err := openWrapping(ask, file.WrappedKey, known)
	if err != nil {
		return nil, nil, err
	}
	plain, err := wrapping.open(file)
	if err != nil {
		return nil, nil, err
	}
	defer clear(plain)
	set, err := parseKeyring(plain)
	return set, wrapping, err
}

// parseKeyring reads the JSON of a keyring in clear.
func parseKeyring(data []byte) (*keyset, error) {
	version, err := versionOf(data)
	if err != nil {
		return nil, err
	}
	if version != keyringVersion {
		return nil, fmt.Errorf("version %d is not known to this program, which reads version %d, and %d if it is wrapped", version, keyringVersion, wrappedVersion)
	}
	var file keyringFile
	if err := decodeStrictly(data, &file, keyringVersion); err != nil {
		return nil, err
	}
	return file.keyset()
}

func versionOf(data []byte) (int, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return 0, fmt.Errorf("%w: it is empty", ErrKeyringDamaged)
	}
	if len(data) > maxKeyring {
		return 0, fmt.Errorf("larger than %d bytes", maxKeyring)
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return 0, describeJSON(err, keyringVersion)
	}
	return head.Version, nil
}

func decodeStrictly(data []byte, to any, version int) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(to); err != nil {
		return describeJSON(err, version)
	}
	return nil
}

func describeJSON(err error, version int) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w: not JSON at byte %d", ErrKeyringDamaged, syntax.Offset)
	}
	return fmt.Errorf("%w: its fields are not those of version %d", ErrKeyringDamaged, version)
}

func (f keyringFile) keyset() (*keyset, error) {
	set := &keyset{}
	for i, k := range f.Keys {
		key, err := k.open()
		if err != nil {
			return nil, fmt.Errorf("%w: keys[%d]: %w", ErrKeyringDamaged, i, err)
		}
		if _, twice := set.find(k.ID); twice {
			return nil, fmt.Errorf("%w: key %s is there twice", ErrKeyringDamaged, k.ID)
		}
		sealing := sealingKey{id: k.ID, created: k.Created.UTC(), key: key}
		switch {
		case k.State == Retired:
			set.retired = append(set.retired, sealing)
		case k.State != Active:
			return nil, fmt.Errorf("%w: key %s is neither active nor retired", ErrKeyringDamaged, k.ID)
		case set.active.id != "":
			return nil, fmt.Errorf("%w: keys %s and %s are both active", ErrKeyringDamaged, set.active.id, k.ID)
		default:
			set.active = sealing
		}
	}
	if set.active.id == "" {
		return nil, fmt.Errorf("%w: no key is active", ErrKeyringDamaged)
	}
	key, err := f.IndexKey.open()
	if err != nil {
		return nil, fmt.Errorf("%w: index_key: %w", ErrKeyringDamaged, err)
	}
	set.index, set.indexCreated = indexKey{id: f.IndexKey.ID, key: key}, f.IndexKey.Created.UTC()
	return set, nil
}

func (k fileKey) open() (secret, error) {
	if !validKeyID(k.ID) {
		return secret{}, errors.New("an id must be eight lower-case hex digits")
	}
	if year := k.Created.UTC().Year(); year < 2000 || year > 9999 {
		return secret{}, errors.New("it lacks the date of its creation")
	}
	return secretFrom(k.Key)
}

func (s *keyset) encode() ([]byte, error) {
	file := keyringFile{
		Version:  keyringVersion,
		IndexKey: fileKey{ID: s.index.id, Created: s.indexCreated, Key: s.index.key.b[:]},
	}
	for _, k := range s.retired {
		file.Keys = append(file.Keys, fileKey{ID: k.id, Created: k.created, State: Retired, Key: k.key.b[:]})
	}
	file.Keys = append(file.Keys, fileKey{ID: s.active.id, Created: s.active.created, State: Active, Key: s.active.key.b[:]})
	data, err := json.MarshalIndent(file, "", "  ")
	return append(data, '\n'), err
}

// encodeFile returns the content of a file; w is nil for one in clear.
func (s *keyset) encodeFile(w *wrapping) ([]byte, error) {
	data, err := s.encode()
	if err != nil || w == nil {
		return data, err
	}
	defer clear(data)
	return w.seal(data)
}

// createKeyring writes a file where there is none.
func createKeyring(path string, set *keyset, w *wrapping) error {
	unlock, err := lockKeyring(path)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create the keyring: %w", &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create the keyring: %w", err)
	}
	return writeKeyring(path, set, w)
}

// writeKeyring writes a file whole or not at all, under the lock. A crash leaves
// the file that was there or the new one, and at worst a temporary file of mode
// 0600 beside it, which nobody reads. What is replaced keeps its owner and mode, and
// of a symbolic link it is the file that it leads to.
func writeKeyring(path string, set *keyset, w *wrapping) error {
	data, err := set.encodeFile(w)
	if err != nil {
		return fmt.Errorf("encode the keyring: %w", err)
	}

	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("write the keyring: %w", err)
	}
	_, err = temp.Write(data)
	if err = errors.Join(err, likeBefore(temp, path), temp.Sync(), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return fmt.Errorf("write the keyring: %w", err)
	}
	return syncDir(dir)
}

// likeBefore gives a new file the owner and mode of the one that it will replace.
func likeBefore(temp *os.File, path string) error {
	old, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok {
		return temp.Chmod(old.Mode().Perm())
	}

	// Only root may give a file away; whoever else is not the owner is refused.
	if err := temp.Chown(int(stat.Uid), int(stat.Gid)); err != nil {
		return fmt.Errorf("keep the owner, user %d: %w", stat.Uid, err)
	}
	return temp.Chmod(old.Mode().Perm())
}

// syncDir makes a rename in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the keyring's folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the keyring's folder: %w", err)
	}
	return nil
}

// lockKeyring waits for the lock that changes of a keyring file take. The lock
// is on a file beside it, which stays: the keyring itself is replaced.
func lockKeyring(path string) (unlock func(), err error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the keyring: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock the keyring: %w", err)
	}
	return func() { _ = lock.Close() }, nil
}
