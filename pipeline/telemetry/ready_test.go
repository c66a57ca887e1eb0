package telemetry_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// What the daemon knows of its sinks counts at once; how often anybody asks, they are
// looked at once.
func TestReadiness(t *testing.T) {
	var looked atomic.Int32
	var known atomic.Pointer[map[string]error]
	known.Store(&map[string]error{"nats": nil})
	e := serve(t, telemetry.AdminConfig{
		Checks: map[string]telemetry.Check{
			"sink media":   func(context.Context) error { looked.Add(1); return nil },
			"sink records": func(context.Context) error { return errors.New("there is no such database") },
		},
		Known: func() map[string]error { return *known.Load() },
	})
	expect := func(nats, media, records string) {
		t.Helper()
		code, answer := e.ready()
		for name, want := range map[string]string{"nats": nats, "sink media": media, "sink records": records} {
			if answer.Checks[name] != want {
				t.Errorf("%s is %q, want %q", name, answer.Checks[name], want)
			}
		}
		if code != http.StatusServiceUnavailable || answer.Ready {
			t.Errorf("%d %+v", code, answer)
		}
	}

	for range 50 {
		expect("ok", "ok", "there is no such database")
	}
	if n := looked.Load(); n != 1 {
		t.Errorf("looked %d times", n)
	}
	known.Store(&map[string]error{"nats": errors.New("connection is RECONNECTING"), "sink media": errors.New("the disk is full"), "sink records": nil})
	expect("connection is RECONNECTING", "the disk is full", "there is no such database")
	if code, body := e.get("/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("a daemon that waits for a sink is alive: %d %s", code, body)
	}
}

func TestReady(t *testing.T) {
	e := serve(t, telemetry.AdminConfig{Checks: map[string]telemetry.Check{"sink media": func(context.Context) error { return nil }}})
	if code, answer := e.ready(); code != http.StatusOK || !answer.Ready || answer.Checks["sink media"] != "ok" {
		t.Errorf("%d %+v", code, answer)
	}
}

// A page whose name was made to lead to this machine (DNS rebinding) gets nothing.
func TestHostOnLoopback(t *testing.T) {
	e := serve(t, telemetry.AdminConfig{})
	_, port, _ := strings.Cut(strings.TrimPrefix(e.url, "http://"), ":")
	for host, want := range map[string]int{
		"127.0.0.1": http.StatusOK, "127.0.0.1:" + port: http.StatusOK, "127.9.9.9:1": http.StatusOK, "localhost": http.StatusOK, "LOCALHOST:" + port: http.StatusOK,
		"[::1]:" + port: http.StatusOK, "[::1]": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:" + port: http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example:" + port: http.StatusMisdirectedRequest, "10.0.0.1": http.StatusMisdirectedRequest, "[::]": http.StatusMisdirectedRequest,
	} {
		for _, page := range []string{"/healthz", "/readyz", "/metrics"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+page, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = host
			response, err := e.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s%s: %d, want %d", host, page, response.StatusCode, want)
			}
		}
	}
}
