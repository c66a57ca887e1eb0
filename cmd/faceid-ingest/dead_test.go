package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

// letters returns what "dead list" says.
func (s *site) letters(args ...string) []letter {
	s.t.Helper()
	stdout, _ := s.command(exitDone, append([]string{"dead", "list", "--json"}, args...)...)
	var list []letter
	for line := range strings.Lines(stdout) {
		var l letter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			s.t.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

// Tokens that the API does not know are given up, given up again, and ingested once
// it knows them; the history tells.
func TestDeadRetry(t *testing.T) {
	s := newSite(t)
	checks := newChecks(6, 8<<10)
	lift := s.api.Fail(faceidtest.Fault{Code: "InvalidParameterValue.BizTokenIllegal"})
	s.publish(checks)
	p := s.start()
	until(t, "all are given up", func() bool { return len(s.letters()) == len(checks) })

	first := s.letters()[0]
	s.command(exitDone, "dead", "retry", fmt.Sprint(first.Sequence))
	until(t, "it is given up again", func() bool {
		all := s.letters()
		return len(all) == len(checks) && len(all[len(all)-1].History) == 1
	})
	again := s.letters()[len(checks)-1]
	if h := again.History[0]; h.Reason != "rejected" || h.Attempts != 1 || again.Attempts != 2 || !again.FirstTime.Equal(first.FirstTime) {
		t.Errorf("the history is lost: %+v", again)
	}
	if shown, _ := s.command(exitDone, "dead", "show", fmt.Sprint(again.Sequence)); !strings.Contains(shown, "given up before") {
		t.Errorf("%s", shown)
	}

	// Filters, and a look before the leap.
	for _, tt := range []struct {
		args []string
		want int
	}{
		{[]string{"--reason", "rejected"}, 6}, {[]string{"--reason", "crashed"}, 0}, {[]string{"--account", "other"}, 0},
		{[]string{"--code", "InvalidParameterValue.BizTokenIllegal", "--limit", "2"}, 2},
		{[]string{"--older-than", "1h"}, 0}, {[]string{"--newer-than", "1h"}, 6},
	} {
		if n := len(s.letters(tt.args...)); n != tt.want {
			t.Errorf("%v: %d letters, want %d", tt.args, n, tt.want)
		}
	}
	if stdout, _ := s.command(exitDone, "dead", "retry", "--all", "--dry-run"); strings.Count(stdout, "would be retried") != 6 || len(s.letters()) != 6 {
		t.Errorf("%s", stdout)
	}

	lift()
	if stdout, _ := s.command(exitDone, "dead", "retry", "--reason", "rejected", "--rate", "1000"); !strings.Contains(stdout, "retried 6 of 6 dead letters") {
		t.Errorf("%s", stdout)
	}
	until(t, "all are settled", func() bool { return s.open() == 0 })
	if left := s.letters(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	p.stop()
	s.holdsExactly(checks)
}

func TestDeadDrop(t *testing.T) {
	s := newSite(t)
	s.api.Fail(faceidtest.Fault{Code: "InvalidParameterValue.BizTokenIllegal"})
	s.publish(newChecks(3, 8<<10))
	conn, err := (&app{configFile: s.config}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.JS.Publish(t.Context(), "faceid.completed.main.nfc", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	p := s.start()
	until(t, "all are given up", func() bool { return len(s.letters()) == 4 })

	// What has no subject of a product cannot go on a stream again.
	if stdout, stderr := s.command(exitPartial, "dead", "retry", "--reason", "malformed"); !strings.Contains(stdout, "retried 0 of 1 dead letter") || !strings.Contains(stderr, "not one of an account and product") {
		t.Errorf("%s%s", stdout, stderr)
	}
	for args, want := range map[string]string{
		"dead drop":                     "which letters?",
		"dead retry":                    "which letters?",
		"dead drop 1 --all":             "not both",
		"dead retry --all --rate 0":     "--rate must be more than 0",
		"dead drop --reason impossible": "must be one of",
	} {
		if _, stderr := s.command(exitUsage, strings.Fields(args)...); !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	if _, stderr := s.command(exitFailed, "dead", "drop", "--all"); !strings.Contains(stderr, "add --yes") {
		t.Errorf("%s", stderr)
	}
	if _, stderr := s.command(exitFailed, "dead", "drop", "999", "--yes"); !strings.Contains(stderr, "there is no dead letter 999") {
		t.Errorf("%s", stderr)
	}
	stdout, _ := s.command(exitDone, "dead", "drop", "--all", "--yes", "--json")
	if strings.Count(stdout, `"done":true`) != 4 || len(s.letters()) != 0 {
		t.Errorf("%s", stdout)
	}
	p.stop()
}
