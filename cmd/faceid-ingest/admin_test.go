package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
)

// Whoever brings the token of the file sees the status that the command prints; others
// see whether the daemon is ready.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	s := newSite(t, "http: {admin: 127.0.0.1:0}", "http: {admin: 127.0.0.1:0, admin_token_file: "+file+"}")
	first, second := strings.Repeat("first", 5), strings.Repeat("second", 5)
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(first)
	s.publish(newChecks(3, 1<<10))
	p := s.start()
	until(t, "all are settled", func() bool { return s.open() == 0 })

	if code, body := p.admin("/readyz"); code != http.StatusOK || body != "{\"ready\":true}\n" {
		t.Errorf("/readyz without a token: %d %s", code, body)
	}
	for _, page := range []string{"/metrics", "/api/v1/status"} {
		if code, _ := p.admin(page); code != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", page, code)
		}
	}
	code, body := p.adminWith(first, "/api/v1/status")
	var status pipeline.Status
	if err := json.Unmarshal([]byte(body), &status); err != nil || code != http.StatusOK || status.Events != 3 || len(status.Replicas) != 1 {
		t.Errorf("%d %s: %v", code, body, err)
	}
	write(second)
	for token, want := range map[string]int{first: http.StatusUnauthorized, second: http.StatusOK} {
		if code, _ := p.adminWith(token, "/metrics"); code != want {
			t.Errorf("after the rotation, %s: %d", token, code)
		}
	}
	p.stop()
	if strings.Contains(p.log.String(), first) || strings.Contains(p.log.String(), second) {
		t.Error("the log holds a token")
	}
}
