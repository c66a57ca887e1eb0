package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// stockedSite has ingested some checks: enhanced ones of one person and an eid one,
// of which the second has failed.
func stockedSite(t *testing.T, changes ...string) (*site, []faceidtest.Check) {
	t.Helper()
	s := newSite(t, changes...)
	checks := variants("stock", result.Enhanced)[:2]
	checks = append(checks, faceidtest.NewCheck(1, 8<<10))
	checks[0].Person.IDCard = "000000190001010011"
	s.publish(checks)
	p := s.start()
	until(t, "the events are settled", func() bool { return s.open() == 0 })
	p.stop()
	return s, checks
}

func TestList(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	tokens := func(stdin string, args ...string) []string {
		t.Helper()
		stdout, _ := command(t, exitDone, stdin, append([]string{"--config", s.config, "list", "--json"}, args...)...)
		var found []string
		for line := range strings.Lines(stdout) {
			var summary sinks.Summary
			if err := json.Unmarshal([]byte(line), &summary); err != nil {
				t.Fatal(err)
			}
			found = append(found, summary.Token)
		}
		return found
	}
	for _, test := range []struct {
		stdin string
		args  string
		want  int
	}{
		{"", "", 3}, {"", "--limit 2", 2}, {"", "--product eid", 1}, {"", "--product enhanced --rule-id 1", 2},
		{"", "--verdict failed", 1}, {"", "--code 2016", 1}, {"", "--code 0 --account main", 2}, {"", "--account other", 0},
		{"", "--from 2001-01-01", 3}, {"", "--to 2001-01-01T00:00:00+08:00", 0}, {"", "--day 2001-01-01", 0},
		{"000000190001010011\n", "--find id_card", 1}, {"000000190001019999", "--find id_card", 0},
	} {
		if got := tokens(test.stdin, strings.Fields(test.args)...); len(got) != test.want {
			t.Errorf("%s: %q", test.args, got)
		}
	}
	if got := tokens("０００００0190001010011", "--find", "ocr_id_card"); len(got) != 1 || got[0] != checks[0].Token {
		t.Errorf("a person is found in whatever column, written as it may be: %q", got)
	}
	stdout, _ := s.command(exitDone, "list")
	if strings.Count(stdout, "\n") != 4 || !strings.Contains(stdout, "failed    2016") {
		t.Errorf("%s", stdout)
	}
	for args, want := range map[string]string{
		"--day x":                    "--day: must be a day such as",
		"--day 2026-01-01 --from 1d": "--day does not go with",
		"--to soon":                  "--to: must be a day",
		"--limit=-1":                 "--limit must be 0, for all, or more",
		"--find nose":                `there is no field "nose"`,
		"--find location":            "has no blind index",
		"--sink media":               "no configured sink keeps records",
		"--sink records --find name": "give a value of name",
	} {
		stdin := "x"
		if strings.HasSuffix(args, "name") {
			stdin = ""
		}
		if _, stderr := command(t, exitUsage, stdin, append([]string{"--config", s.config, "list"}, strings.Fields(args)...)...); !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	c := checks[0]
	personal := []string{c.Person.Name, c.Person.IDCard}
	for _, args := range [][]string{{"show", c.Token}, {"show", c.Token, "--json"}} {
		stdout, stderr := s.command(exitDone, args...)
		for _, value := range personal {
			if strings.Contains(stdout+stderr, value) {
				t.Errorf("%v shows %s", args, value)
			}
		}
		if !strings.Contains(stdout, c.Token) || !strings.Contains(stdout, "media") {
			t.Errorf("%s", stdout)
		}
	}
	log := filepath.Join(s.folder, "data", "audit.log")
	if _, err := os.Stat(log); err == nil {
		t.Error("nothing was revealed, and there is an audit log")
	}
	stdout, _ := s.command(exitDone, "show", c.Token, "--reveal", "--reason", "ticket 7")
	stdout2, _ := s.command(exitDone, "show", c.Token, "--reveal", "--json", "--product", "enhanced", "--reason", "ticket 8")
	for _, value := range personal {
		if !strings.Contains(stdout, value) || !strings.Contains(stdout2, value) {
			t.Errorf("%s is not shown", value)
		}
	}
	text := read(t, log)
	if n, err := privacy.CheckAudit(strings.NewReader(text)); n != 2 || err != nil || !strings.Contains(text, "ticket 7") || !strings.Contains(text, result.TokenHash(result.Enhanced, c.Token)) {
		t.Errorf("%d entries, %v\n%s", n, err, text)
	}
	for _, value := range append(personal, c.Token) {
		if strings.Contains(text, value) {
			t.Errorf("the audit log holds %s", value)
		}
	}
	if _, stderr := s.command(exitFailed, "show", "another"); !strings.Contains(stderr, "sink records has no result of this token") {
		t.Error(stderr)
	}
}

// TestErase: what is erased is gone from every sink, stays away when its event comes
// again, and leaves what is others'.
func TestErase(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	gone := checks[0]
	if stdout, _ := s.command(exitDone, "erase", gone.Token, "--dry-run"); !strings.Contains(stdout, "would erase 1 token in media, records, parked") {
		t.Error(stdout)
	}
	if _, stderr := command(t, exitFailed, "no\n", "--config", s.config, "erase", gone.Token); !strings.Contains(stderr, "nothing was erased") {
		t.Error(stderr)
	}
	if _, stderr := command(t, exitUsage, gone.Token, "--config", s.config, "erase", "--file", "-"); !strings.Contains(stderr, "add --yes") {
		t.Error(stderr)
	}
	if _, stderr := s.command(exitUsage, "erase"); !strings.Contains(stderr, "nothing to erase") {
		t.Error(stderr)
	}
	found, _ := command(t, exitDone, gone.Person.IDCard, "--config", s.config, "list", "--find", "id_card", "--json")
	stdout, _ := command(t, exitDone, found, "--config", s.config, "erase", "--file", "-", "--yes", "--json", "--reason", "request 12")
	if strings.Count(stdout, `"sink"`) != 3 || strings.Contains(stdout, "error") || !strings.Contains(stdout, `"sink":"records","records":1,"assets":0,"bytes":0}`) {
		t.Error(stdout)
	}
	if text := read(t, filepath.Join(s.folder, "data", "audit.log")); !strings.Contains(text, `"action":"erase"`) || !strings.Contains(text, "request 12") {
		t.Error(text)
	}
	if _, stderr := s.command(exitDone, "publish", "--again", gone.Token); !strings.Contains(stderr, gone.Token+" was erased on ") || !strings.Contains(stderr, "(request 12): its event ends as erased") {
		t.Error(stderr)
	}
	p := s.start()
	until(t, "the event is settled", func() bool { return s.open() == 0 })
	p.says("a result that was erased")
	p.stop()
	if _, stderr := s.command(exitFailed, "show", gone.Token); !strings.Contains(stderr, "it was erased on ") || !strings.Contains(stderr, "(request 12), as sink records says") {
		t.Error(stderr)
	}
	s.holdsExactly(checks[1:])
	if found := s.search(gone.Token); found != "" {
		t.Errorf("%s still names the token", found)
	}
	if stdout, _ := command(t, exitDone, "erase\n", "--config", s.config, "erase", checks[1].Token); !strings.Contains(stdout, "erased 1 token in media, records, parked, 0 not") {
		t.Error(stdout)
	}
	s.command(exitDone, "verify")
}

// TestEraseDoesWhatItCan: a sink that cannot be opened keeps nobody in the others.
func TestEraseDoesWhatItCan(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	if err := os.Rename(s.path("media"), s.path("away")); err != nil {
		t.Fatal(err)
	}
	s.write("media", "")
	stdout, stderr := s.command(exitPartial, "erase", checks[0].Token, "--yes", "--json")
	if !strings.Contains(stderr, "sink media cannot be opened, so nothing is erased there") || !strings.Contains(stdout, `"sink":"media","error"`) || !strings.Contains(stdout, `"sink":"records","records":1`) {
		t.Errorf("%s%s", stdout, stderr)
	}
	// Whoever compares sinks needs all of them.
	if _, stderr := s.command(exitFailed, "verify"); !strings.Contains(stderr, "open sink media: ") {
		t.Error(stderr)
	}
	if err := errors.Join(os.Remove(s.path("media")), os.Rename(s.path("away"), s.path("media"))); err != nil {
		t.Fatal(err)
	}
	s.command(exitFailed, "show", checks[0].Token)
	s.command(exitDone, "erase", checks[0].Token, "--yes")
	s.holdsExactly(checks[1:])
}

// search returns the name of a file of the sinks that holds a text, or "".
func (s *site) search(text string) (found string) {
	s.t.Helper()
	for _, folder := range []string{"media", "records"} {
		err := filepath.WalkDir(s.path(folder), func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && strings.Contains(read(s.t, path), text) {
				found = path
			}
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return found
}

func TestVerify(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	stdout, _ := s.command(exitDone, "verify")
	if !strings.Contains(stdout, "looked at 3 tokens in all sinks") || !strings.Contains(stdout, ": 0 problems") {
		t.Error(stdout)
	}
	manifest, err := filepath.Glob(s.path("media/enhanced/*/" + result.TokenHash(result.Enhanced, checks[0].Token) + "/*.jpg.sealed"))
	if err != nil || len(manifest) == 0 {
		t.Fatalf("%v, %v", manifest, err)
	}
	if err := os.WriteFile(manifest[0], []byte("other bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := s.command(exitFailed, "verify", "--json", "--sink", "media")
	if !strings.Contains(stdout, `"problem":"damaged"`) || !strings.Contains(stdout, `"problems":1`) || !strings.Contains(stderr, "1 problem found") {
		t.Errorf("%s%s", stdout, stderr)
	}
	for args, want := range map[string]string{
		"--sample 0%":    "--sample must be above 0%",
		"--sample 101%":  "--sample must be above 0%",
		"--sample x":     "--sample must be above 0%",
		"--resume":       "no run was stopped",
		"--sink nothing": "is not the name of a sink",
	} {
		if _, stderr := s.command(exitUsage, append([]string{"verify"}, strings.Fields(args)...)...); !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	s.write("data/verify.json", `{"sink":"records","after":{"Product":"","Hash":""},"summary":{"tokens":3},"sample":"100%","only":""}`)
	if stdout, _ := s.command(exitDone, "verify", "--resume"); !strings.Contains(stdout, "looked at 3 tokens") {
		t.Error(stdout)
	}
	s.write("data/verify.json", `{"sink":"records","sample":"5%"}`)
	if _, stderr := s.command(exitUsage, "verify", "--resume"); !strings.Contains(stderr, "had --sample 5%") {
		t.Error(stderr)
	}
}
