package privacy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// anyKey is 32 bytes in base64.
const anyKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

const validKeyring = `{"version":1,` +
	`"keys":[{"id":"00000001","created":"2026-01-02T03:04:05Z","state":"active","key":"` + anyKey + `"}],` +
	`"index_key":{"id":"00000002","created":"2026-01-02T03:04:05Z","key":"` + anyKey + `"}}`

func writeKeyring(t testing.TB, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyring.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreateKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	if _, err := privacy.OpenKeyring(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of none: %v, want ErrNotExist", err)
	}
	created, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	before, _ := os.ReadFile(path)
	if _, err := privacy.CreateKeyring(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second create: %v, want ErrExist", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the second create changed the file")
	}
	opened, err := privacy.OpenOrCreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := created.List(), opened.List(); len(a) != 1 || len(b) != 1 || a[0] != b[0] || a[0].State != privacy.Active {
		t.Errorf("keys %v and %v", a, b)
	}
}

func TestCreateKeyringNeedsItsFolder(t *testing.T) {
	if _, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "none", "keyring.json")); err == nil {
		t.Error("created a keyring in a folder that is not there")
	}
}

func TestProcessesThatStartAtOnceShareOneKeyring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	ids := make([]string, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			keys, err := privacy.OpenOrCreateKeyring(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = keys.List()[0].ID
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("keys %v, want one", ids)
			break
		}
	}
}

func TestRotationsAtOnceLoseNoKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	if _, err := privacy.CreateKeyring(path); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			keys, err := privacy.OpenKeyring(path)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := keys.Rotate(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	keys, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(keys.List()); n != 7 {
		t.Errorf("%d keys, want 7", n)
	}
}

func TestOpenKeyringRefusesLooseModes(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o620, 0o604, 0o602, 0o610, 0o644, 0o777} {
		path := writeKeyring(t, validKeyring, mode)
		_, err := privacy.OpenKeyring(path)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: error %v, want one that says chmod 600", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if _, err := privacy.OpenKeyring(writeKeyring(t, validKeyring, mode)); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := privacy.OpenKeyring(t.TempDir()); err == nil {
		t.Error("opened a folder")
	}
}

func TestOpenKeyringRefusesDamage(t *testing.T) {
	replace := func(from, to string) string {
		if !strings.Contains(validKeyring, from) {
			t.Fatalf("no %q to replace", from)
		}
		return strings.Replace(validKeyring, from, to, 1)
	}
	beforeIndexKey, _, _ := strings.Cut(validKeyring, `,"index_key"`)
	entry := `{"id":"00000001","created":"2026-01-02T03:04:05Z","state":"active","key":"` + anyKey + `"}`
	tests := []struct{ name, text, want string }{
		{"empty", "", "damaged: it is empty"},
		{"cut off", validKeyring[:len(validKeyring)/2], "not JSON at byte"},
		{"zeros", strings.Repeat("\x00", 100), "not JSON at byte 1"},
		{"two documents", validKeyring + validKeyring, "not JSON at byte"},
		{"null", "null", "version 0 is not known"},
		{"list", "[]", "fields are not those"},
		{"no version", replace(`"version":1,`, ""), "version 0 is not known"},
		{"later version", replace(`"version":1`, `"version":3`), "version 3 is not known"},
		{"wrapped version", replace(`"version":1`, `"version":2`), "fields are not those of version 2"},
		{"version as text", replace(`"version":1`, `"version":"1"`), "fields are not those"},
		{"unknown field", replace(`"version":1`, `"version":1,"more":1`), "fields are not those"},
		{"no keys", replace(entry, ""), "no key is active"},
		{"none active", replace("active", "retired"), "no key is active"},
		{"state", replace("active", "dead"), "neither active nor retired"},
		{"two active", replace(entry, entry+","+strings.Replace(entry, "00000001", "00000003", 1)), "both active"},
		{"id twice", replace(entry, entry+","+strings.Replace(entry, "active", "retired", 1)), "00000001 is there twice"},
		{"id", replace("00000001", "0000001"), "keys[0]: an id must be"},
		{"capital id", replace("00000001", "0000000A"), "keys[0]: an id must be"},
		{"short key", replace(anyKey, anyKey[4:]), "keys[0]: a key must be 32 bytes"},
		{"no key", replace(`,"key":"`+anyKey+`"`, ""), "keys[0]: a key must be 32 bytes"},
		{"not base64", replace(anyKey, "?"+anyKey[1:]), "fields are not those"},
		{"date", replace("2026-01-02T03:04:05Z", anyKey), "fields are not those"},
		{"no date", replace(`"created":"2026-01-02T03:04:05Z",`, ""), "keys[0]: it lacks the date"},
		{"date before all dates", replace("2026-01-02T03:04:05Z", "0000-01-01T00:00:00+23:00"), "keys[0]: it lacks the date"},
		{"no index key", beforeIndexKey + "}", "index_key: an id must be"},
		{"huge", validKeyring + strings.Repeat(" ", 1<<20), "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeKeyring(t, tt.text, 0o600)
			_, err := privacy.OpenKeyring(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), anyKey[5:15]) {
				t.Error("the error holds a part of a key")
			}
		})
	}
	if _, err := privacy.OpenKeyring(writeKeyring(t, validKeyring, 0o600)); err != nil {
		t.Errorf("the valid one: %v", err)
	}
}

// A process that dies while it writes leaves a temporary file, in any state.
func TestLeftoverTemporaryFileIsIgnored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	leftover := filepath.Join(filepath.Dir(path), ".keyring.json.123.tmp")
	if err := os.WriteFile(leftover, []byte(`{"version":1,"ke`), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := privacy.OpenOrCreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	if reopened, err := privacy.OpenKeyring(path); err != nil || len(reopened.List()) != 2 {
		t.Errorf("reopened: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*.tmp"))
	if err != nil || len(files) != 1 {
		t.Errorf("temporary files %v, want only the one that was there", files)
	}
}

func TestChangeOfADamagedKeyringLeavesItAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	keys, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(); err == nil {
		t.Error("rotated a damaged keyring")
	}
	if text, _ := os.ReadFile(path); string(text) != "damaged" {
		t.Error("the file was changed")
	}
}

func TestRemove(t *testing.T) {
	keys := newKeyring(t)
	first := keys.List()[0].ID
	if err := keys.Remove(first); err == nil || !strings.Contains(err.Error(), first) {
		t.Errorf("removal of the active key: %v", err)
	}
	wantUnknownKey(t, keys.Remove("00000000"), "00000000")
	second, err := keys.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	list := keys.List()
	if len(list) != 2 || list[0].ID != first || list[0].State != privacy.Retired || list[1] != second {
		t.Errorf("after the rotation: %v", list)
	}
	if err := keys.Remove(first); err != nil {
		t.Fatal(err)
	}
	if list := keys.List(); len(list) != 1 || list[0] != second {
		t.Errorf("after the removal: %v", list)
	}
}

// A running daemon must never seal under a key that is no longer on disk.
func TestRunningPolicyFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	daemon, err := privacy.CreateKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), daemon)
	command, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	old := command.List()[0].ID
	fresh, err := command.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Remove(old); err != nil {
		t.Fatal(err)
	}
	if got := protect(t, policy, someone()).Person.Name.Value; !strings.HasPrefix(got, "seal:v1:"+fresh.ID) {
		t.Error("sealed under a key that was removed")
	}

	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Protect(someone()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the file: %v, want ErrNotExist", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	protect(t, policy, someone())
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Protect(someone()); err == nil {
		t.Error("sealed with a keyring that others may read")
	}
}

func TestKeysAreNeverPrinted(t *testing.T) {
	path := writeKeyring(t, validKeyring, 0o600)
	keys, err := privacy.OpenKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	var out bytes.Buffer
	for _, v := range []any{keys, policy, *policy, keys.List(), struct{ k *privacy.Keyring }{keys}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			_, _ = fmt.Fprintf(&out, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	key, err := base64.StdEncoding.DecodeString(anyKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		anyKey[:20], hex.EncodeToString(key[8:16]), strings.Trim(fmt.Sprintf("%d", key[8:16]), "[]"),
		"0x8, 0x9, 0xa", string(key[8:16]), hex.EncodeToString([]byte(anyKey[:8])),
	} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the key was printed as %q", form)
		}
	}
	if !strings.Contains(out.String(), "keyring "+path) {
		t.Error("a keyring does not print as its path")
	}
}

func FuzzOpenKeyring(f *testing.F) {
	f.Add([]byte(validKeyring))
	path := filepath.Join(f.TempDir(), "keyring.json")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := privacy.OpenKeyring(path)
		if err != nil {
			return
		}
		// What opens must work, and survive being written again.
		policy := newPolicy(t, privacy.DefaultConfig(), keys)
		r := someone()
		stored := protect(t, policy, r).Person.Name.Value
		if _, err := keys.Rotate(); err != nil {
			t.Fatal(err)
		}
		ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Name}
		if _, err := policy.Open(ref, stored); err != nil {
			t.Fatal(err)
		}
	})
}
