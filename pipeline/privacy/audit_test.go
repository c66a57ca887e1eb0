package privacy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

func TestAuditIsAChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	const writers, entries = 8, 5
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range entries {
				if err := privacy.OpenAudit(path).Append(privacy.AuditEntry{Action: "reveal", User: "tester", Reason: "T-1"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := privacy.CheckAudit(bytes.NewReader(text)); n != writers*entries || err != nil {
		t.Fatalf("%d entries, %v", n, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for name, forged := range map[string]string{
		"changed":   strings.Replace(string(text), `"reason":"T-1"`, `"reason":"T-2"`, 1),
		"taken out": strings.Join(append(lines[:3:3], lines[4:]...), ""),
		"added":     strings.Join(append(append(lines[:3:3], lines[2]), lines[3:]...), ""),
		"no JSON":   "x\n" + string(text),
		"too long":  string(text) + strings.Repeat("x", 1<<17),
	} {
		if _, err := privacy.CheckAudit(strings.NewReader(forged)); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestAuditRefuses(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "audit.log")
	if err := os.WriteFile(path, []byte("half a li"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path, reason, want string
	}{
		"cut off":   {path, "", "its last line was cut off"},
		"no folder": {filepath.Join(folder, "none", "audit.log"), "", "no such file"},
		"too long":  {filepath.Join(folder, "other.log"), strings.Repeat("x", 1<<17), "shorten the reason"},
	} {
		err := privacy.OpenAudit(test.path).Append(privacy.AuditEntry{Reason: test.reason})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
