package privacy_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// Every personal value comes back, and the log names every field before.
func TestOpenRecord(t *testing.T) {
	r, m := markedResult(t)
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	rec := protect(t, policy, r)
	log := filepath.Join(t.TempDir(), "audit.log")
	open, err := policy.OpenRecord(rec, privacy.OpenAudit(log), privacy.AuditEntry{Action: "reveal", User: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		if got := p.in(open).Value; got != m.personal[p.path] {
			t.Errorf("%s: %q", p.path, got)
		}
		if !privacy.IsSealed(p.in(rec).Value) {
			t.Errorf("%s: the record itself was opened", p.path)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range append([]string{`"action":"reveal"`, `"user":"tester"`, rec.TokenHash}, fieldNames()...) {
		if !strings.Contains(string(text), want) {
			t.Errorf("the audit log lacks %s", want)
		}
	}
	for path, value := range m.personal {
		if strings.Contains(string(text), value) {
			t.Errorf("the audit log shows %s", path)
		}
	}
}

func fieldNames() []string {
	var names []string
	for _, f := range privacy.Fields() {
		names = append(names, `"`+string(f)+`"`)
	}
	return names
}

// Without an entry in the log nothing is opened; what cannot be opened stays.
func TestOpenRecordFails(t *testing.T) {
	r, _ := markedResult(t)
	keys := newKeyring(t)
	rec := protect(t, newPolicy(t, privacy.DefaultConfig(), keys), r)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	if open, err := policy.OpenRecord(rec, privacy.OpenAudit(filepath.Join(t.TempDir(), "no", "log")), privacy.AuditEntry{}); err == nil || open != nil {
		t.Errorf("opened without a log: %v", err)
	}
	log := filepath.Join(t.TempDir(), "audit.log")
	open, err := newPolicy(t, privacy.DefaultConfig(), newKeyring(t)).OpenRecord(rec, privacy.OpenAudit(log), privacy.AuditEntry{})
	var unknown *privacy.UnknownKeyError
	if !errors.As(err, &unknown) || !reflect.DeepEqual(open, rec) {
		t.Errorf("with another keyring: %v", err)
	}
}
