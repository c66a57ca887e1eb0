package privacy_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// A keyring that another process has rotated accepts what that one notes, before anything
// else has read the file again.
func TestAcceptsRotationOfAnother(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keyring.json")
	mine, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	others, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := others.Rotate(); err != nil {
		t.Fatal(err)
	}

	mark, err := others.Mark()
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Accepts(mark); err != nil {
		t.Error(err)
	}
	mark.ActiveKey = "00000000"
	var old *privacy.OldKeyringError
	if err := mine.Accepts(mark); !errors.As(err, &old) {
		t.Errorf("a key that nobody has: %v", err)
	}
}
