package webhook_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// throughProxy is set in the process that the environment's proxy is tried in: net/http
// reads the environment once.
const throughProxy = "FACEID_INGEST_TEST_PROXY_TARGET"

// tunnel is an HTTP proxy that connects to one address, whatever it is asked for, or
// answers with a status.
func tunnel(t *testing.T, to string, status int) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodConnect || status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = here.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// The webhook goes through the proxy that the environment names, also where only that
// reaches the receiver, and not through it for hosts of NO_PROXY.
func TestProxyOfTheEnvironment(t *testing.T) {
	if target := os.Getenv(throughProxy); target != "" {
		notifyOnce(t, target)
		return
	}

	received := make(chan string, 8)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Host }))
	defer receiver.Close()
	ca := t.TempDir() + "/ca.pem"
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}), 0o600))

	run := func(env ...string) (string, error) {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestProxyOfTheEnvironment$", "-test.v")
		command.Env = append(os.Environ(), append(env, throughProxy+"=https://example.com/hook", "FACEID_INGEST_TEST_CA="+ca)...)
		out, err := command.CombinedOutput()
		return string(out), err
	}

	proxy, asked := tunnel(t, receiver.Listener.Addr().String(), http.StatusOK)
	if out, err := run("HTTPS_PROXY=" + proxy); err != nil || asked.Load() < 2 || len(received) != 1 {
		t.Errorf("through the proxy: %v, asked %d times, received %d\n%s", err, asked.Load(), len(received), out)
	}

	refusing, _ := tunnel(t, "", http.StatusProxyAuthRequired)
	if out, err := run("HTTPS_PROXY=" + refusing); err == nil || !strings.Contains(out, "the proxy "+strings.TrimPrefix(refusing, "http://")+" refuses the connection with status 407") {
		t.Errorf("a proxy that refuses: %v\n%s", err, out)
	}

	proxy, asked = tunnel(t, receiver.Listener.Addr().String(), http.StatusOK)
	if _, err := run("HTTPS_PROXY="+proxy, "NO_PROXY=example.com"); err == nil || asked.Load() != 0 {
		t.Errorf("a host of NO_PROXY: %v, the proxy was asked %d times", err, asked.Load())
	}
}

// notifyOnce checks a webhook and sends one notice, in a process of its own.
func notifyOnce(t *testing.T, target string) {
	t.Helper()
	c := defaults()
	c.URL, c.Secret, c.TLS.CA = sinks.Secret(target), secret, os.Getenv("FACEID_INGEST_TEST_CA")
	sink := open(t, c, env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	must(t, sink.Check(t.Context()))
	must(t, sink.(sinks.Notifier).Notify(t.Context(), sinktest.Archived(sinktest.Result(0))))

	// What the URL shows to be inside is not asked of the proxy.
	c.URL = "https://10.0.0.1" + path
	inside := open(t, c, env(t))
	defer func() { must(t, inside.Close(t.Context())) }()
	if err := inside.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "allow_private") {
		t.Errorf("a private address: %v", err)
	}
}
