package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// externalNATS runs a server as an operator would have one elsewhere, and returns its
// URL and that of its monitoring endpoint.
func externalNATS(t *testing.T, sync bool) (url, monitor string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
		NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncAlways: sync,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return "nats://" + s.Addr().String(), "http://" + s.MonitorAddr().String()
}

// found returns what "config check" says, by state.
func (s *site) found(want int) map[string][]checked {
	s.t.Helper()
	stdout, _ := s.command(want, "config", "check", "--json")
	all := map[string][]checked{}
	for line := range strings.Lines(stdout) {
		var one checked
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			s.t.Fatal(err)
		}
		all[one.State] = append(all[one.State], one)
	}
	return all
}

// What may lose acknowledged events is warned of, and is no failure.
func TestConfigCheckDurability(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		sync, monitor bool
		replicas      int
		want          []string
	}{
		{"as it comes", false, true, 1, []string{"one copy (R1) is kept of FACEID, FACEID_PARKED, FACEID_DEAD, OBJ_FACEID_PARKED", "acknowledges before it syncs to disk: set \"jetstream { sync_interval: always }\""}},
		{"unseen", true, false, 1, []string{"one copy", "give their monitoring endpoints as nats.monitor"}},
		{"synchronous", true, true, 1, []string{"one copy"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, monitor := externalNATS(t, tt.sync)
			if !tt.monitor {
				monitor = ""
			}
			s := newSite(t, "accounts:", fmt.Sprintf("nats: {url: %q, monitor: %q, replicas: %d}\naccounts:", url, monitor, tt.replicas))
			found := s.found(exitDone)
			found[checkWarning] = slices.DeleteFunc(found[checkWarning], func(one checked) bool { return one.Check != "durability" })
			if len(found[checkOK]) != 13 || len(found[checkFailed]) != 0 || len(found[checkWarning]) != len(tt.want) {
				t.Fatalf("%+v", found)
			}
			_, stderr := s.command(exitDone, "config", "check")
			for i, want := range tt.want {
				if detail := found[checkWarning][i].Detail; !strings.Contains(detail, want) || !strings.Contains(stderr, "warning: "+detail+"\n") {
					t.Errorf("no %q in %q and\n%s", want, detail, stderr)
				}
			}
		})
	}
}

// With the embedded server there is no warning of what NATS may lose, also beside a
// running daemon.
// What fails is told in JSON, too.
func TestConfigCheckJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start()
	if found := s.found(exitDone); len(found[checkOK]) != 13 || len(found) != 2 || len(found[checkWarning]) != 1 || found[checkWarning][0].Check != warnKeyring {
		t.Errorf("%+v", found)
	}
	p.stop()
	s.write("config.yaml", strings.ReplaceAll(read(t, s.config), s.path("secret_key"), s.path("missing")))
	if failed := s.found(exitUsage)[checkFailed]; len(failed) != 1 || failed[0].Check != "account main" || !strings.Contains(failed[0].Detail, "no such file") {
		t.Errorf("%+v", failed)
	}
	if stdout, _ := s.command(exitDone, "config", "check", "--static", "--json"); stdout != fmt.Sprintf("{\"check\":\"configuration\",\"state\":\"ok\",\"detail\":%q}\n", s.config) {
		t.Errorf("%s", stdout)
	}
}
