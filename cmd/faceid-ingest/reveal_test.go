package main

import (
	"os"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// Nothing is revealed without a reason, and no more than what was asked for.
func TestShowReveal(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	c := checks[0]
	log := s.path("data/audit.log")

	for args, want := range map[string]string{
		"--reveal":                          "--reveal needs a reason",
		"--reveal --reason= ":               "--reveal needs a reason",
		"--field name":                      "--field is for --reveal",
		"--reveal --reason 7 --field nose":  `there is no "nose"; known are name, id_card, mobile, `,
		"--reveal --reason 7 --field=name,": `there is no "name,"`,
	} {
		stdout, stderr := s.command(exitUsage, append([]string{"show", c.Token}, strings.Fields(args)...)...)
		if !strings.Contains(stderr, want) || strings.Contains(stdout+stderr, c.Person.Name) {
			t.Errorf("%s: %s%s", args, stdout, stderr)
		}
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("nothing was revealed, and there is an audit log")
	}

	stdout, _ := s.command(exitDone, "show", c.Token, "--reveal", "--reason", "ticket 7", "--field", "id_card", "--field", "mobile")
	if !strings.Contains(stdout, c.Person.IDCard) || strings.Contains(stdout, c.Person.Name) {
		t.Errorf("only the number was asked for:\n%s", stdout)
	}
	text := read(t, log)
	if n, err := privacy.CheckAudit(strings.NewReader(text)); n != 1 || err != nil || !strings.Contains(text, `"fields":["id_card"`) || strings.Contains(text, `"name"`) {
		t.Errorf("%d entries, %v\n%s", n, err, text)
	}
}
