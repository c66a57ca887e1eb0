package main

import (
	"strings"
	"testing"
)

// What is no token is never published, and is named with its line and the reason; what is
// one is never lost.
func TestPublishIsStrict(t *testing.T) {
	t.Parallel()
	s := newSite(t, `    rule_id: "1"`, "")
	tokens := s.path("tokens")

	tests := []struct {
		name, text, stdout, stderr string
		code                       int
	}{
		{"a byte order mark", "\ufeffBOM-1\nBOM-2\n", `{"published":2,"duplicates":0,"failed":0}`, "", exitDone},
		{"CSV", "BizToken,RuleId\nCSV-1,7\n", `{"published":1,"duplicates":0,"failed":0}`, "", exitDone},
		{"a JSON list", "[\n{\"token\":\"LIST-1\"}\n]\n", `{"published":1,"duplicates":0,"failed":2}`, tokens + ":3: malformed event: a piece of JSON", exitPartial},
		{"nothing but rubbish", "}\nhttps://example.com\n", `{"published":0,"duplicates":0,"failed":2}`, "nothing to publish: every line is wrong", exitFailed},
		{"a misspelt key", `{"token":"T-1","rul_id":"7"}` + "\n", `{"published":0,"duplicates":0,"failed":1}`, `no key "rul_id"`, exitFailed},
		{"an impossible time", `{"token":"T-1","issued_at":"2036-01-01T00:00:00Z"}` + "\n", `{"published":0,"duplicates":0,"failed":1}`, "in the future", exitFailed},
	}
	for _, tt := range tests {
		s.write("tokens", tt.text)
		stdout, stderr := s.command(tt.code, "publish", "--rule-id", "1", "--file", tokens, "--json")
		if strings.TrimSpace(stdout) != tt.stdout || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: %s%s", tt.name, stdout, stderr)
		}
	}

	stdout, _ := s.command(exitPartial, "publish", "--rule-id", "1", "--file", tokens, "--json", "--dry-run", "DRY-1")
	if strings.TrimSpace(stdout) != `{"would_publish":1,"failed":1}` {
		t.Errorf("a dry run printed %s", stdout)
	}
	for _, argument := range []string{"", " ", "}", "https://example.com", "token", `{"tokn":"T-1"}`} {
		if _, stderr := s.command(exitUsage, "publish", "--rule-id", "1", argument); !strings.Contains(stderr, "nothing was published") {
			t.Errorf("%q: %s", argument, stderr)
		}
	}
	if status := s.status(); status.Events != 4 {
		t.Errorf("%d events are stored", status.Events)
	}
}
