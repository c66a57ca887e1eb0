package setting_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// Editors and shells write marks and UTF-16; what is read is the same text.
func TestReadFile(t *testing.T) {
	const want = "password: 口令\n"
	encode := func(bigEndian bool) string {
		var b strings.Builder
		for _, unit := range utf16.Encode([]rune("\ufeff" + want)) {
			high, low := byte(unit>>8), byte(unit)
			if bigEndian {
				b.Write([]byte{high, low})
			} else {
				b.Write([]byte{low, high})
			}
		}
		return b.String()
	}
	path := filepath.Join(t.TempDir(), "file")
	for name, content := range map[string]string{
		"UTF-8": want, "with a mark": "\ufeff" + want, "UTF-16, little-endian": encode(false), "UTF-16, big-endian": encode(true),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := setting.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}

	// What is no text, such as a key in DER, stays as it is.
	der := []byte{0x30, 0x82, 0xff, 0xfe, 0x00}
	if got := setting.Text(der); string(got) != string(der) {
		t.Errorf("DER became %x", got)
	}

	if err := os.WriteFile(path, make([]byte, setting.MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := setting.ReadFile(path); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: %v", err)
	}
}
