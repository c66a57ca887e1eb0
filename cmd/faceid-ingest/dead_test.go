package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
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
	t.Parallel()
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
	if shown, _ := s.command(exitDone, "dead", "show", fmt.Sprint(again.Sequence)); !strings.Contains(shown, "GIVEN UP BEFORE") || strings.Count(shown, "  rejected  InvalidParameterValue.BizTokenIllegal  1\n") != 1 {
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
	t.Parallel()
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
	if stdout, stderr := s.command(exitPartial, "dead", "retry", "--reason", "malformed"); !strings.Contains(stdout, "retried 0 of 1 dead letter; 1 could not be retried\n") || !strings.Contains(stderr, "not one of an account and product") {
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
	if _, stderr := s.command(exitUsage, "dead", "drop", "--all"); !strings.Contains(stderr, "add --yes") {
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

// A refused result is parked, so that its letter can be retried when the API has
// forgotten it; with the letter goes what is parked.
func TestDeadParked(t *testing.T) {
	t.Parallel()
	hook := newReceiver(t)
	var mended atomic.Bool
	hook.refuse = func(w http.ResponseWriter, _ string, _ int) bool {
		if mended.Load() {
			return false
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		return true
	}
	s := newSite(t)
	s.write("hook-ca.pem", string(hook.certificate()))
	s.write("config.yaml", strings.Replace(read(t, s.config), "sinks:\n", fmt.Sprintf(
		"sinks:\n  - {name: hook, type: webhook, url: %q, secret: %q, tls: {ca: %s}, allow_private: true}\n", hook.server.URL, hookSecret, s.path("hook-ca.pem")), 1))
	checks := newChecks(2, 8<<10)
	s.publish(checks)
	p := s.start()
	until(t, "both are refused", func() bool { return len(s.letters("--reason", "refused")) == 2 })
	if n := s.status().Parked.Results; n != 2 {
		t.Fatalf("%d results are parked", n)
	}
	all := s.letters()
	s.command(exitDone, "dead", "drop", fmt.Sprint(all[0].Sequence), "--yes")
	if n := s.status().Parked.Results; n != 1 || len(s.letters()) != 1 {
		t.Errorf("%d results are parked after one was dropped", n)
	}

	mended.Store(true)
	s.api.Fail(faceidtest.Fault{Code: "InvalidParameterValue.BizTokenExpired"})
	s.command(exitDone, "dead", "retry", "--older-than", "1ns")
	until(t, "the other is settled", func() bool { return s.open() == 0 && s.status().Parked.Results == 0 })
	if left := s.letters(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	p.stop()
}

// Who retries for an account that is not configured is told that nobody takes it.
func TestDeadRetryOfNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	conn, err := (&app{configFile: s.config}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := event.EnsureStreams(t.Context(), conn.JS, 1); err != nil {
		t.Fatal(err)
	}
	letter := event.DeadLetter{Account: "gone", Reason: event.Crashed, Subject: "faceid.completed.gone.eid", Body: []byte(`{"token":"T"}`), First: time.Now(), Last: time.Now()}
	if err := event.NewPublisher(conn.JS).Bury(t.Context(), letter); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr := s.command(exitDone, "dead", "retry", "1"); !strings.Contains(stderr, `account "gone" is not configured`) || !strings.Contains(stdout, "retried 1 of 1 dead letter\n") {
		t.Errorf("%s%s", stdout, stderr)
	}
}
