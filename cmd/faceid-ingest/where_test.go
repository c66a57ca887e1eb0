package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// where returns what "where --json" says of a token, whose product is enhanced.
func (s *site) where(want int, token string) (w whereabouts, stdout, stderr string) {
	s.t.Helper()
	text, _ := s.command(want, "where", token, "--json", "--product", "enhanced")
	if text != "" {
		if err := json.Unmarshal([]byte(text), &w); err != nil {
			s.t.Fatalf("%s: %v", text, err)
		}
	}
	stdout, stderr = s.command(want, "where", token, "--product", "enhanced")
	return w, stdout, stderr
}

// withJS does something with the site's NATS, which no daemon must run on.
func (s *site) withJS(do func(jetstream.JetStream) error) {
	s.t.Helper()
	conn, err := (&app{configFile: s.config}).connect(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	err = do(conn.JS)
	closeQuietly(conn)
	if err != nil {
		s.t.Fatal(err)
	}
}

// A token is found wherever it is on its way, with why it is not further.
func TestWhere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := newChecks(1, 8<<10)[0]
	if _, stdout, stderr := s.where(exitFailed, c.Token); stdout != "" || !strings.Contains(stderr, "nothing is known of "+c.Token) {
		t.Errorf("nobody knows it: %s%s", stdout, stderr)
	}

	s.publish([]faceidtest.Check{c})
	w, stdout, _ := s.where(exitDone, c.Token)
	if len(w.Waiting) != 1 || w.Waiting[0].Lane != event.Live || w.Waiting[0].Served || !strings.Contains(stdout, "no daemon has served this account yet") {
		t.Errorf("published: %s", stdout)
	}

	lift := s.api.Fail(faceidtest.Fault{Code: "InternalError"})
	p := s.start()
	until(t, "it was tried and put off", func() bool {
		w, _, _ = s.where(exitDone, c.Token)
		return len(w.Waiting) == 1 && w.Waiting[0].Wait != nil
	})
	wait := w.Waiting[0].Wait
	if wait.At != "api" || wait.Class != "transient" || wait.Code != "InternalError" || wait.Attempts == 0 || !wait.Next.After(wait.Last) {
		t.Errorf("put off: %+v", wait)
	}
	until(t, "status counts it", func() bool {
		status, _ := s.command(exitDone, "status")
		return strings.Contains(status, "account main: 1 of 1 held events waits: the API cannot be reached or fails (InternalError)") &&
			strings.Contains(status, "REDELIVERED: those of them that came more than once")
	})
	lift()
	p.stop()
}

// What was given up, stored and erased is found, too, and a sink that cannot be looked at
// is no proof of anything.
func TestWhereInTheEnd(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	c := checks[0]
	w, stdout, _ := s.where(exitDone, c.Token)
	if len(w.Stored) != 2 || w.Stored[0].Sink != "media" || w.Stored[0].Bytes == 0 || w.Stored[1].Records != 1 || len(w.Done) != 2 || len(w.Waiting) != 0 {
		t.Errorf("stored: %s%+v", stdout, w)
	}

	s.command(exitDone, "erase", c.Token, "--yes", "--reason", "request 12")
	w, stdout, _ = s.where(exitDone, c.Token)
	if w.Erased == nil || w.Erased.Reason != "request 12" || w.Erased.At.IsZero() || len(w.Erased.Sinks) != 2 || len(w.Stored) != 0 || !strings.Contains(stdout, "(request 12), as media, records say") {
		t.Errorf("erased: %s%+v", stdout, w)
	}

	s.withJS(func(js jetstream.JetStream) error {
		return event.NewPublisher(js).Bury(t.Context(), event.DeadLetter{
			Account: "main", Reason: event.Rejected, Code: "FailedOperation.X", Detail: "no such token",
			Subject: "faceid.completed.main.enhanced", StreamSequence: 99, Body: []byte(`{"token":"T-dead","rule_id":"1"}`),
		})
	})
	if w, stdout, _ = s.where(exitDone, "T-dead"); len(w.Dead) != 1 || w.Dead[0].Token != "T-dead" || !strings.Contains(stdout, "1, rejected (FailedOperation.X)") {
		t.Errorf("given up: %s%+v", stdout, w)
	}
	if list, _ := s.command(exitDone, "dead", "list"); !strings.Contains(list, "T-dead") || !strings.Contains(list, "enhanced") {
		t.Errorf("%s", list)
	}
	if l := s.letters(); len(l) != 1 || l[0].Token != "T-dead" || l[0].Product != result.Enhanced {
		t.Errorf("%+v", l)
	}

	if err := os.Rename(s.path("media"), s.path("away")); err != nil {
		t.Fatal(err)
	}
	s.write("media", "")
	if _, _, stderr := s.where(exitPartial, "T-nobody"); !strings.Contains(stderr, "could not look at sink media: ") || !strings.Contains(stderr, "nothing is known of T-nobody where it could be looked for") {
		t.Error(stderr)
	}
}

// An erasure says what was there, in every place, and takes what is on its way.
func TestEraseSaysWhatWasThere(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	c, audit := checks[0], s.path("data/audit.log")

	for _, args := range [][]string{{"--dry-run"}, {"--yes"}} {
		stdout, _ := s.command(exitPartial, append([]string{"erase", "NOSUCH"}, args...)...)
		if !strings.Contains(stdout, "NOSUCH  nothing") || !strings.Contains(stdout, "erase") || !strings.Contains(stdout, " 0 tokens in media, records, parked, 0 not; of 1 token nothing was there") {
			t.Errorf("%v: %s", args, stdout)
		}
	}
	if stdout, _ := s.command(exitPartial, "erase", "NOSUCH", "--yes"); !strings.Contains(stdout, "NOSUCH  nothing is there: it was erased ") {
		t.Error(stdout)
	}

	// Beside what is stored: an event that waits, and a letter with what its sender put in.
	body := []byte(`{"token":"` + c.Token + `","rule_id":"1","extra":{"name":"王测试"}}`)
	s.withJS(func(js jetstream.JetStream) error {
		p := event.NewPublisher(js)
		if _, err := js.Publish(t.Context(), "faceid.backfill.main.enhanced", body); err != nil {
			return err
		}
		return p.Bury(t.Context(), event.DeadLetter{Account: "main", Reason: event.Rejected, Subject: "faceid.completed.main.enhanced", StreamSequence: 99, Body: body})
	})
	entries := func() int {
		n, err := privacy.CheckAudit(strings.NewReader(read(t, audit)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := entries()
	dry, _ := s.command(exitDone, "erase", c.Token, "--dry-run")
	if n := entries(); n != before {
		t.Errorf("a look left %d entries in the audit log", n-before)
	}
	if len(s.letters()) != 1 {
		t.Error("a look has taken the letter")
	}
	stdout, _ := s.command(exitDone, "erase", c.Token, "--yes")
	for _, text := range []string{"media: 1 result, ", " assets, ", "records: 1 result", "parked: nothing", "events: 2", "dead letters: 1"} {
		if !strings.Contains(dry, text) || !strings.Contains(stdout, text) {
			t.Errorf("nobody says %q\n%s%s", text, dry, stdout)
		}
	}
	if len(s.letters()) != 0 {
		t.Error("the letter is still there")
	}
	s.withJS(func(js jetstream.JetStream) error {
		return event.Find(t.Context(), js, event.Tokens{c.Token: result.Products()}, func(found event.Stored) error {
			t.Errorf("an event is still there: %+v", found)
			return nil
		})
	})
	s.holdsExactly(checks[1:])
}
