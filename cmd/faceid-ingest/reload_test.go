package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

// hangup asks the daemon to read its configuration again and waits for what it says.
func (p *process) hangup(says string) {
	p.t.Helper()
	before := strings.Count(p.log.String(), says)
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		p.t.Fatal(err)
	}
	until(p.t, "the daemon says: "+says, func() bool { return strings.Count(p.log.String(), says) > before })
}

const (
	refused = "the new configuration is refused, the old one stays in force"
	inForce = "the new configuration is in force"
)

// A file with a mistake changes nothing, one without is in force at once; results
// flow all the time.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := read(t, s.config)
	checks := newChecks(60, 8<<10)
	p := s.start()
	settled := func(part []faceidtest.Check) {
		t.Helper()
		s.publish(part)
		until(t, "all are settled", func() bool { return s.open() == 0 })
	}
	settled(checks[:10])

	s.write("config.yaml", strings.Replace(good, "slots: 16", "slots: many", 1))
	p.hangup(refused)
	if !strings.Contains(p.log.String(), "worker.slots: must be a whole number") {
		t.Error("the log does not say what is wrong")
	}
	s.write("config.yaml", strings.Replace(good, "path: "+s.path("media"), "path: "+s.path("elsewhere"), 1))
	p.hangup(refused)
	if !strings.Contains(p.log.String(), "changes of sinks need a restart") {
		t.Error("the log does not say that a restart is needed")
	}
	s.write("config.yaml", strings.Replace(good, "secret_key_file:", "eid: {private_key_file: /nowhere/key.pem}\n    secret_key_file:", 1))
	p.hangup(refused)
	if !p.metric("faceid_ingest_config_last_reload_successful 0") {
		t.Error("the metrics do not say that a file was refused")
	}
	settled(checks[10:20])

	// A second account, fewer slots, and less to read in the log.
	second := "accounts:\n  - {name: second, secret_id: AKID-test, secret_key_file: " + s.path("secret_key") + ", endpoint: \"" + s.api.URL() + "\", rule_id: \"1\"}\n"
	s.write("config.yaml", strings.NewReplacer("accounts:\n", second, "slots: 16", "slots: 3", "level: debug", "level: info").Replace(good))
	s.publish(checks[20:40]) // in the middle of it
	p.hangup(inForce)
	settled(checks[40:50])
	until(t, "the new account is served", func() bool {
		replicas := s.status().Replicas
		return len(replicas) == 1 && len(replicas[0].Accounts) == 2
	})
	for _, line := range []string{"faceid_ingest_config_last_reload_successful 1", `faceid_ingest_limiter_limit{account="second"} 100`, `faceid_ingest_account_paused{account="second"} 0`} {
		if !p.metric(line) {
			t.Errorf("the metrics do not have %s", line)
		}
	}
	if log := p.log.String(); strings.Contains(log[strings.LastIndex(log, inForce):], `"level":"DEBUG"`) {
		t.Error("the log level did not change")
	}

	// And back.
	s.write("config.yaml", good)
	p.hangup(inForce)
	settled(checks[50:])
	if p.metric(`faceid_ingest_limiter_limit{account="second"}`) || p.metric(`faceid_ingest_account_paused{account="second"}`) {
		t.Error("the metrics still know an account that is not served")
	}
	p.stop()
	if status := s.status(); status.Dead != 0 {
		t.Errorf("%+v", status)
	}
	s.holdsExactly(checks)
}

// A secret that is rotated is used without a restart.
func TestRotatedSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	checks := newChecks(20, 8<<10)
	s.publish(checks[:10])
	p := s.start()
	until(t, "all are settled", func() bool { return s.open() == 0 })
	s.api.AddCredential("AKID-test", "next-key", "") // the old one is none any more
	s.publish(checks[10:])
	until(t, "the account is paused", func() bool { return p.metric(`faceid_ingest_account_paused{account="main"} 1`) })
	s.write("secret_key", "next-key")
	until(t, "all are settled", func() bool { return s.open() == 0 })
	p.stop()
	s.holdsExactly(checks)
}
