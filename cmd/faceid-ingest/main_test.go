package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "demo")
	stdout, _ := command(t, exitDone, "", "demo", "--results", "24", "--json", "--dir", folder)
	var sum map[string]any
	if err := json.Unmarshal([]byte(stdout), &sum); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]float64{"published": 24, "ingested": 24, "dead": 0, "verified": 24} {
		if sum[key] != want {
			t.Errorf("%s is %v, want %v", key, sum[key], want)
		}
	}
	if sum["assets"].(float64) < 72 || sum["bytes"].(float64) < 1e6 || sum["folder"] != folder {
		t.Errorf("%s", stdout)
	}
	if _, stderr := command(t, exitUsage, "", "demo", "--dir", folder); !strings.Contains(stderr, "is not empty") {
		t.Errorf("%s", stderr)
	}
	stdout, stderr := command(t, exitDone, "", "demo", "--results", "3")
	for _, row := range []string{"published     3 events", "dead letters  0", "verified      3 of 3", "look into     "} {
		if !strings.Contains(stdout, row) {
			t.Errorf("no %q in\n%s%s", row, stdout, stderr)
		}
	}
	_, made, _ := strings.Cut(stdout, "look into     ")
	if err := os.RemoveAll(strings.TrimSpace(made)); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"version", exitDone, "faceid-ingest", ""},
		{"--help", exitDone, "Run the daemon", ""},
		{"", exitUsage, "", "--help"},
		{"rnu", exitUsage, "", `unexpected argument rnu`},
		{"publish --lane fast T", exitUsage, "", "--lane"},
		{"codes 2016", exitDone, "similarity below the threshold (charged)", ""},
		{"codes -- -802", exitDone, "read_aloud  -802", ""},
		{"codes AuthFailure.SignatureExpire", exitDone, "synchronise it", ""},
		{"codes --json 17", exitDone, `{"step":"check","code":17,"english":"not finished yet`, ""},
		{"codes", exitDone, "IpNotInWhitelist", ""},
		{"codes 4711", exitFailed, "", "no result code 4711 is documented"},
		{"config example", exitDone, "accounts:", ""},
		{"--config /nowhere/config.yaml run", exitUsage, "", "/nowhere/config.yaml"},
		{"demo --results 0", exitUsage, "", "--results must be 1 or more"},
	} {
		stdout, stderr := command(t, test.code, "", strings.Fields(test.args)...)
		if !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
			t.Errorf("%q:\n%s\n%s", test.args, stdout, stderr)
		}
	}
}

func TestRunWithoutAccounts(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, stderr := command(t, exitUsage, "", "run"); !strings.Contains(stderr, "no account is configured") {
		t.Errorf("%s", stderr)
	}
}

func TestExampleIsWhatConfigCheckAccepts(t *testing.T) {
	stdout, _ := command(t, exitDone, "", "config", "example")
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TENCENTCLOUD_SECRET_ID", "AKID")
	t.Setenv("TENCENTCLOUD_SECRET_KEY", "key")
	if stdout, _ := command(t, exitDone, "", "--config", file, "config", "check", "--static"); !strings.Contains(stdout, "no problem found") {
		t.Errorf("%s", stdout)
	}
}

// TestBadConfiguration: line, column, what was expected, all at once.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	s := newSite(t, "slots: 16", "slotz: 16", "rate_limit: 10000", "rate_limit: many", "type: dir", "type: directory")
	_, stderr := s.command(exitUsage, "run")
	for _, want := range []string{
		s.config + ":7:17: accounts[0].rate_limit",
		s.config + `:10:10: unknown key "slotz" in worker, did you mean "slots"?`,
		s.config + `:13:19: sinks[0].type: unknown type of sink; known are: `,
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q in\n%s", want, stderr)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stdout, _ := s.command(exitDone, "config", "check")
	for _, part := range []string{"nats", "spool", "keyring", "sink media", "sink records", "account main"} {
		if !strings.Contains(stdout, fmt.Sprintf("%-24s ok\n", part)) {
			t.Errorf("%s is not ok:\n%s", part, stdout)
		}
	}
	if err := os.Remove(s.path("secret_key")); err != nil {
		t.Fatal(err)
	}
	s.write("media/../blocked", "")
	s.write("config.yaml", strings.ReplaceAll(read(t, s.config), s.path("media"), s.path("blocked/media")))
	stdout, stderr := s.command(exitUsage, "config", "check")
	if !strings.Contains(stdout, "secret_key: no such file") || !strings.Contains(stdout, "not a directory") || !strings.Contains(stderr, "2 problems found") {
		t.Errorf("%s%s", stdout, stderr)
	}
}

// TestConfigCheckOnline tries credentials and keys against the API.
func TestConfigCheckOnline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.equip()
	s.write("config.yaml", strings.Replace(read(t, s.config), "    rule_id:",
		"    encryption: {mode: fields, algorithm: SM4-GCM, public_key_file: "+s.path("sm4.txt")+"}\n    eid: {private_key_file: "+s.path("CAkey.pem")+"}\n    rule_id:", 1))
	person := variants("main", result.EID)[0]
	s.api.Put(person)
	check := func(want int, words string, args ...string) {
		t.Helper()
		stdout, _ := s.command(want, append([]string{"config", "check", "--online"}, args...)...)
		if !strings.Contains(stdout, words) {
			t.Errorf("%v: no %q in\n%s", args, words, stdout)
		}
	}
	check(exitDone, "account main, enhanced online ok\naccount main, eid online ok\n")
	check(exitDone, "account main, keys       ok\n", "--product", "eid", "--token", person.Token)
	check(exitUsage, "the service does not know this token", "--product", "eid", "--token", "another")

	lift := s.api.Fail(faceidtest.Fault{Code: "AuthFailure.UnauthorizedOperation"})
	check(exitUsage, "must allow faceid:GetDetectInfoEnhanced")
	check(exitUsage, "must allow faceid:GetEidResult")
	lift()

	stranger, err := envelopetest.GenerateMerchant()
	if err != nil {
		t.Fatal(err)
	}
	s.write("CAkey.pem", string(stranger.PEM()))
	check(exitUsage, "eid.private_key_file is not the key that the merchant registered", "--product", "eid", "--token", person.Token)
	s.write("sm4.txt", string(stranger.PublicPEM()))
	check(exitUsage, "check encryption.public_key_file and encryption.algorithm")
	s.write("secret_key", "wrong-key")
	check(exitUsage, "AuthFailure.SignatureFailure: the signature is wrong: check secret_key")
	s.write("config.yaml", strings.Replace(read(t, s.config), s.api.URL(), "http://127.0.0.1:1", 1))
	check(exitUsage, "connection refused")
	if _, stderr := s.command(exitUsage, "config", "check", "--token", "x"); !strings.Contains(stderr, "--token is for --online") {
		t.Error(stderr)
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPublish(t *testing.T) {
	t.Parallel()
	s := newSite(t, `    rule_id: "1"`, "")
	tokens := s.path("tokens")
	s.write("tokens", "# tokens of Tuesday\nTOKEN-1\n\n{\"token\":\"TOKEN-2\",\"rule_id\":\"7\"}\n{\"tokn\":1}\n")
	stdout, stderr := s.command(exitPartial, "publish", "--rule-id", "1", "--file", tokens, "--json", "TOKEN-1")
	if strings.TrimSpace(stdout) != `{"published":2,"duplicates":1,"failed":1}` || !strings.Contains(stderr, tokens+":5: malformed event") {
		t.Errorf("%s%s", stdout, stderr)
	}
	if stdout, _ := s.command(exitDone, "publish", "--rule-id", "1", "TOKEN-1"); !strings.Contains(stdout, "published 0, 0 wrong, 1 published minutes ago and not again (--again does)") {
		t.Errorf("%s", stdout)
	}
	if stdout, _ := s.command(exitDone, "publish", "--rule-id", "1", "--again", "TOKEN-1"); !strings.Contains(stdout, "published 1, 0 wrong\n") {
		t.Errorf("%s", stdout)
	}
	if _, stderr := s.command(exitUsage, "publish", "TOKEN-3"); !strings.Contains(stderr, "needs a rule") {
		t.Errorf("%s", stderr)
	}
	if stdout, _ := s.command(exitDone, "publish", "--dry-run", "--rule-id", "1", "TOKEN-4"); !strings.Contains(stdout, "would publish 1") {
		t.Errorf("%s", stdout)
	}
	if _, stderr := s.command(exitUsage, "publish"); !strings.Contains(stderr, "nothing to publish") {
		t.Errorf("%s", stderr)
	}
	if _, stderr := s.command(exitUsage, "publish", "--account", "mian", "T"); !strings.Contains(stderr, `no account "mian" in the configuration, only main`) {
		t.Errorf("%s", stderr)
	}
	status := s.status()
	if status.Events != 3 || status.Lanes[0].Waiting != 3 {
		t.Errorf("%+v", status)
	}
	s.write("config.yaml", strings.ReplaceAll(read(t, s.config), "name: main", "name: mian"))
	if table, _ := s.command(exitDone, "status"); !strings.Contains(table, `3 of account "main", which is not configured: nobody takes them`) {
		t.Errorf("%s", table)
	}
	s.write("config.yaml", strings.ReplaceAll(read(t, s.config), "name: mian", "name: main"))
	if table, _ := s.command(exitDone, "status"); !strings.Contains(table, "events stored: 3, dead letters: 0") {
		t.Errorf("%s", table)
	}
}

// TestDeadLetters sends what publishers get wrong past the publish command, and
// a token that the API refuses.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := faceidtest.NewCheck(0, 1<<10)
	unknown := faceidtest.NewCheck(2, 1<<10)
	s.publish([]faceidtest.Check{good})
	command(t, exitDone, unknown.Token, "--config", s.config, "publish", "--file", "-")

	cfg, err := config.Load(s.config)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&app{configFile: s.config}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	subject := event.Subject(event.Live, cfg.Accounts[0].Name, good.Product)
	for _, body := range []string{"", "{", `{"rule_id":"1"}`, "\x1b[31mnot JSON"} {
		if _, err := conn.JS.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	p := s.start()
	until(t, "all events are settled", func() bool { return s.open() == 0 })
	stdout, _ := s.command(exitDone, "dead", "list", "--json")
	reasons := map[string]int{}
	for line := range strings.Lines(stdout) {
		var l letter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		reasons[string(l.Reason)]++
		if l.Detail == "" || l.Account != "main" || l.Attempts != 1 || l.FirstTime.IsZero() || time.Since(l.LastTime) > time.Hour || l.EventSeq == 0 {
			t.Errorf("%s", line)
		}
		shown, _ := s.command(exitDone, "dead", "show", fmt.Sprint(l.Sequence))
		if !strings.Contains(shown, l.Detail) || strings.Contains(shown, "\x1b") {
			t.Errorf("%q", shown)
		}
	}
	if reasons["malformed"] != 4 || reasons["rejected"] != 1 {
		t.Errorf("%v", reasons)
	}
	if stdout, _ := s.command(exitDone, "dead", "list", "--reason", "rejected"); !strings.Contains(stdout, "InvalidParameter") || strings.Contains(stdout, "malformed") {
		t.Errorf("%s", stdout)
	}
	if _, stderr := s.command(exitFailed, "dead", "show", "99"); !strings.Contains(stderr, "there is no dead letter 99") {
		t.Errorf("%s", stderr)
	}
	if status, page := p.admin("/readyz"); status != 200 {
		t.Errorf("%d %s", status, page)
	}
	p.stop()
}
