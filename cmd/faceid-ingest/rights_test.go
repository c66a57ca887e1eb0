package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/faceid-ingest/faceid-ingest/pipeline"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

// serverLog keeps what a server says of violations.
type serverLog struct {
	mu   sync.Mutex
	said []string
}

func (l *serverLog) note(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := fmt.Sprintf(format, v...); strings.Contains(text, "Violation") {
		l.said = append(l.said, text)
	}
}

func (l *serverLog) violations() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.said)
}

func (l *serverLog) Noticef(format string, v ...any) { l.note(format, v...) }
func (l *serverLog) Warnf(format string, v ...any)   { l.note(format, v...) }
func (l *serverLog) Fatalf(format string, v ...any)  { l.note(format, v...) }
func (l *serverLog) Errorf(format string, v ...any)  { l.note(format, v...) }
func (l *serverLog) Debugf(format string, v ...any)  { l.note(format, v...) }
func (l *serverLog) Tracef(string, ...any)           {}

// configuredNATS runs a server with a configuration, to which the rest of a test's server
// is added.
func configuredNATS(t *testing.T, config string) (*server.Server, string, *serverLog) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	writeServerConfig(t, file, config)
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs = true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	log := &serverLog{}
	s.SetLogger(log, false, false)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s, file, log
}

func writeServerConfig(t *testing.T, file, config string) {
	t.Helper()
	text := fmt.Sprintf("listen: 127.0.0.1:-1\njetstream {store_dir: %q}\n%s\n", filepath.Dir(file), config)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// as returns the site with another user of NATS.
func (s *site) as(user string) *site {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	other := *s
	other.config = s.path(user + ".yaml")
	s.write(user+".yaml", strings.Replace(string(text), "user: ingest", "user: "+user, 1))
	return &other
}

// TestLeastRights runs everything with the rights of deploy/nats.
func TestLeastRights(t *testing.T) {
	users, err := filepath.Abs("../../deploy/nats/users.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NATS_PASSWORD", "NATS_PUBLISHER_PASSWORD", "NATS_OPERATOR_PASSWORD"} {
		t.Setenv(name, "secret")
	}
	text, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	nats, _, log := configuredNATS(t, string(text))
	s := newSite(t, "accounts:\n", "nats: {url: \""+nats.ClientURL()+"\", user: ingest, password: secret}\naccounts:\n")
	publisher, operator := s.as("publisher"), s.as("operator")

	s.command(exitDone, "config", "check")
	p := s.start()
	checks := newChecks(6, 8<<10)
	publisher.publish(checks)
	began := time.Now()
	until(t, "all is settled", func() bool {
		n := operator.open()
		if time.Since(began) > 15*time.Second {
			t.Fatal(n, log.violations())
		}
		return n == 0
	})
	if code, body := p.admin("/readyz"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}

	// A token that nobody knows is buried.
	publisher.command(exitDone, "publish", "--account", "main", "NOBODY-KNOWS-IT")
	until(t, "it is a dead letter", func() bool { return operator.status().Dead == 1 })
	letters := operator.letters()
	operator.command(exitDone, "dead", "retry", fmt.Sprint(letters[0].Sequence))
	until(t, "it is one again", func() bool { return operator.status().Dead == 1 })
	token := checks[0].Token
	operator.command(exitDone, "where", token)
	operator.command(exitDone, "list")
	operator.command(exitDone, "show", token)
	operator.command(exitDone, "verify")
	operator.command(exitDone, "keys", "status")
	operator.command(exitDone, "erase", "--yes", "--reason", "test", token)
	p.hangup("the new configuration is in force")
	p.stop()
	for _, said := range log.violations() {
		t.Error(said)
	}
}

// TestMissingRights takes each right from the daemon in turn.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	open, _, _ := configuredNATS(t, "")
	conn, err := broker.Connect(t.Context(), broker.Config{URL: open.ClientURL(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rights := pipeline.Rights(conn.JS, []string{"main"})
	closeQuietly(conn)
	if len(rights) < 40 {
		t.Fatalf("only %d rights", len(rights))
	}

	var users strings.Builder
	for i, right := range rights {
		fmt.Fprintf(&users, "{user: u%d, password: secret, permissions: {publish: {deny: %q}}}\n", i, right)
	}
	nats, file, _ := configuredNATS(t, "authorization {users = [{user: ingest, password: secret}, {user: deaf, password: secret, permissions: {subscribe: {deny: \"_INBOX.>\"}}}\n"+users.String()+"]}")
	s := newSite(t, "accounts:\n", "nats: {url: \""+nats.ClientURL()+"\", user: ingest, password: secret}\naccounts:\n")
	s.command(exitDone, "config", "check")
	p := s.start()

	failed := s.as("deaf").found(exitUsage)[checkFailed]
	if len(failed) == 0 || !strings.Contains(failed[0].Detail, "subscribe to _INBOX.") {
		t.Errorf("%+v", failed)
	}
	t.Run("config check", func(t *testing.T) {
		for i, right := range rights {
			without := s.as(fmt.Sprintf("u%d", i))
			t.Run(right, func(t *testing.T) {
				t.Parallel()
				without.t = t
				failed := without.found(exitUsage)[checkFailed]
				if len(failed) == 0 || failed[0].Check != stepNATS || !strings.Contains(failed[0].Detail, "the user lacks a right: to publish to "+right) {
					t.Errorf("%+v", failed)
				}
			})
		}
	})

	for _, right := range rights {
		reload(t, nats, file, fmt.Sprintf("authorization {users = [{user: ingest, password: secret, permissions: {publish: {deny: %q}}}]}", right))
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, "/readyz names "+right, func() bool {
			code, body := p.admin("/readyz")
			return code == http.StatusServiceUnavailable && strings.Contains(strings.ReplaceAll(body, `\u003e`, ">"), right)
		})
	}
	reload(t, nats, file, "authorization {users = [{user: ingest, password: secret}]}")
	until(t, "the daemon is ready again", func() bool { code, _ := p.admin("/readyz"); return code == http.StatusOK })
	p.stop()
}

// TestTryingRightsHasNoEffect looks at what config check leaves beside a daemon: parked
// results, paused consumers and waiting events.
func TestTryingRightsHasNoEffect(t *testing.T) {
	t.Parallel()
	nats, _, _ := configuredNATS(t, "")
	s := newSite(t, "accounts:\n", "nats: {url: \""+nats.ClientURL()+"\"}\naccounts:\n")
	s.command(exitDone, "config", "check")
	s.publish(newChecks(3, 8<<10))
	conn, err := broker.Connect(t.Context(), broker.Config{URL: nats.ClientURL(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(conn)
	ctx, js := t.Context(), conn.JS
	const consumer = "ingest-main-live"
	if _, err := js.PauseConsumer(ctx, streams.Events, consumer, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "$O.FACEID_PARKED.C.x", []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	messages := func() string {
		var counts strings.Builder
		for _, need := range streams.Table(1) {
			stream, err := js.Stream(ctx, need.Config.Name)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&counts, need.Config.Name, stream.CachedInfo().State.Msgs, stream.CachedInfo().State.LastSeq)
		}
		return counts.String()
	}

	before := messages()
	for _, right := range []string{"paused", "resumed"} {
		if err := conn.Lacks(ctx, pipeline.Rights(js, []string{"main"})); err != nil {
			t.Fatal(err)
		}
		c, err := js.Consumer(ctx, streams.Events, consumer)
		if err != nil {
			t.Fatal(err)
		}
		if info := c.CachedInfo(); info.Paused != (right == "paused") || info.NumAckPending != 0 || info.NumPending != 3 || info.NumWaiting != 0 {
			t.Errorf("%s: %+v", right, info)
		}
		if _, err := js.ResumeConsumer(ctx, streams.Events, consumer); err != nil {
			t.Fatal(err)
		}
	}
	if after := messages(); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func reload(t *testing.T, s *server.Server, file, config string) {
	t.Helper()
	writeServerConfig(t, file, config)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
}
