package broker_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

// said is a log that may be read while it is written.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), text)
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func seed(t *testing.T) (secret, id string) {
	t.Helper()
	keys, err := nkeys.CreateUser()
	must(t, err)
	text, err := keys.Seed()
	must(t, err)
	id, err = keys.PublicKey()
	must(t, err)
	return string(text), id
}

// Credentials that are replaced are used for the next connection, and by Renew; a refused
// login is said once.
func TestReplacedCredentials(t *testing.T) {
	t.Parallel()
	first, firstID := seed(t)
	second, secondID := seed(t)
	for _, tt := range []struct {
		name       string
		old, fresh string
		// users is the server's part for a secret.
		oldUser, freshUser string
		config             func(file string) broker.Config
	}{
		{"password", "one-1", "two-2", "{user: u, password: one-1}", "{user: u, password: two-2}", func(f string) broker.Config { return broker.Config{User: "u", PasswordFile: f} }},
		{"nkey", first, second, "{nkey: " + firstID + "}", "{nkey: " + secondID + "}", func(f string) broker.Config { return broker.Config{NkeyFile: f} }},
		{"token", "one-1", "two-2", "", "", func(f string) broker.Config { return broker.Config{TokenFile: f} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			conf, file := filepath.Join(folder, "nats.conf"), filepath.Join(folder, "secret")
			serve := func(user, token string) {
				text := "listen: 127.0.0.1:-1\nauthorization {token: " + token + "}\n"
				if user != "" {
					text = "listen: 127.0.0.1:-1\nauthorization {users: [" + user + "]}\n"
				}
				must(t, os.WriteFile(conf, []byte(text), 0o600))
			}
			write := func(secret string) { must(t, os.WriteFile(file, []byte("\ufeff"+secret+"\r\n"), 0o600)) }
			serve(tt.oldUser, tt.old)
			write(tt.old)
			o, err := server.ProcessConfigFile(conf)
			must(t, err)
			o.NoSigs, o.NoLog = true, true
			s, err := server.NewServer(o)
			must(t, err)
			s.Start()
			t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
			if !s.ReadyForConnections(time.Minute) {
				t.Fatal("the server does not start")
			}

			log := &said{}
			cfg := tt.config(file)
			cfg.URL, cfg.Log = s.ClientURL(), slog.New(slog.NewTextHandler(log, nil))
			conn, err := broker.Connect(t.Context(), cfg)
			must(t, err)
			defer closed(t, conn)
			if renewed, err := conn.Renew(t.Context()); renewed || err != nil {
				t.Errorf("nothing was replaced: %v, %v", renewed, err)
			}
			write(tt.fresh)
			if renewed, err := conn.Renew(t.Context()); renewed || err == nil || conn.Trouble() != nil {
				t.Errorf("the server does not know them yet: %v, %v, %v", renewed, err, conn.Trouble())
			}
			write(tt.old)

			serve(tt.freshUser, tt.fresh)
			must(t, s.Reload())
			await(t, "the refusal is told", func() bool {
				trouble := conn.Trouble()
				return trouble != nil && strings.Contains(trouble.Error(), "the server refuses the login")
			})
			write(tt.fresh)
			await(t, "it is connected again", func() bool { return conn.Trouble() == nil })
			if n := log.count("NATS refuses the login"); n != 1 {
				t.Errorf("the refusal is told %d times", n)
			}
		})
	}
}
