package privacy_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// A keyring file that is replaced keeps its mode and its owner, so that a daemon of
// another user can still read it.
func TestRotateKeepsOwnerAndMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyring.json")
	keys, err := privacy.CreateKeyring(path)
	if err := errors.Join(err, os.Chmod(path, 0o400)); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 65534
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o400 || int(stat.Uid) != owner {
		t.Errorf("mode %#o, owner %d", info.Mode().Perm(), stat.Uid)
	}
}

// A keyring that is reached through a symbolic link stays where it is.
func TestRotateThroughLink(t *testing.T) {
	t.Parallel()
	path, link := filepath.Join(t.TempDir(), "keyring.json"), filepath.Join(t.TempDir(), "link.json")
	_, err := privacy.CreateKeyring(path)
	if err := errors.Join(err, os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	keys, err := privacy.OpenKeyring(link)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := keys.Rotate()
	if err != nil {
		t.Fatal(err)
	}

	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is none any more: %v, %v", info, err)
	}
	again, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if list := again.List(); list[len(list)-1].ID != fresh.ID {
		t.Errorf("the file has %v", list)
	}
}
