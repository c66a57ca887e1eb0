package webhook_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

func notify(t testing.TB, c *webhook.Config, r *result.Result) error {
	t.Helper()
	sink := open(t, c, env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	return sink.(sinks.Notifier).Notify(t.Context(), r)
}

func TestRequest(t *testing.T) {
	rec := newReceiver(t)
	c := rec.config()
	c.Headers = map[string]sinks.Secret{"Authorization": "Bearer x", "x-team": "风控"}
	c.Fields = notice.Fields{privacy.Mobile}
	r := sinktest.Archived(sinktest.Result(0))
	before := time.Now().Unix()
	must(t, notify(t, c, r))
	req := rec.requests[0]
	if req.Header.Get("Authorization") != "Bearer x" || req.Header.Get("X-Team") != "风控" || req.Proto != "HTTP/2.0" {
		t.Errorf("got %s %v", req.Proto, req.Header)
	}
	if req.Header.Get("Webhook-Id") != r.TokenHash() {
		t.Errorf("the id is %q", req.Header.Get("Webhook-Id"))
	}
	at := req.Header.Get("Webhook-Timestamp")
	if at < fmt.Sprint(before) || at > fmt.Sprint(time.Now().Unix()) {
		t.Errorf("the timestamp is %q", at)
	}
	var event notice.Event
	must(t, json.Unmarshal(rec.messages[0].Body, &event))
	var data notice.Result
	must(t, json.Unmarshal(event.Data, &data))
	if event.Type != notice.TypeStored || data.Token != r.Token || data.Personal[privacy.Mobile][0].Value == "" {
		t.Errorf("got %s, %+v", event.Type, data)
	}
}

// Calls do not disturb each other, the very first ones of a sink least of all.
func TestChecksBesideNotifications(t *testing.T) {
	rec := newReceiver(t)
	sink := open(t, rec.config(), env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if err := errors.Join(sink.Check(t.Context()), sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestErase(t *testing.T) {
	rec := newReceiver(t)
	sink := open(t, rec.config(), env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	key := sinks.KeyOf(result.EID, "TOKEN-1")
	for range 2 {
		must(t, sinktest.Erase(t.Context(), sink, key))
	}
	var event notice.Event
	must(t, json.Unmarshal(rec.messages[0].Body, &event))
	if event.Type != notice.TypeErased || event.Subject != key.Hash || rec.messages[0].ID != rec.messages[1].ID ||
		string(rec.messages[0].Body) != string(rec.messages[1].Body) || strings.Contains(string(rec.messages[0].Body), "TOKEN-1") {
		t.Errorf("got %s", rec.messages[0].Body)
	}
	rec.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	if err := sinktest.Erase(t.Context(), sink, key); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("got %v", err)
	}
}

// While a secret is changed, each request is signed by both, so that receivers
// take it whichever they know.
func TestRotation(t *testing.T) {
	rec := newReceiver(t)
	c := rec.config()
	c.Secret, c.SecretFile = "", filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(c.SecretFile, []byte(oldSecret+"\n"), 0o600))
	sink := open(t, c, env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	var header http.Header
	var body []byte
	rec.answers(func(_ http.ResponseWriter, req *http.Request) {
		header = req.Header
		body, _ = io.ReadAll(req.Body)
	})
	for _, step := range []struct {
		file     string
		old, new error
	}{
		{oldSecret + "\n", nil, webhook.ErrNotAuthentic},
		{"\n" + oldSecret + "\r\n\n  " + secret + "\n", nil, nil},
		{secret, webhook.ErrNotAuthentic, nil},
	} {
		must(t, os.WriteFile(c.SecretFile, []byte(step.file), 0o600))
		must(t, sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0)))
		for one, want := range map[string]error{oldSecret: step.old, secret: step.new, secret + "\n" + oldSecret: nil} {
			if err := webhook.Verify(one, header, body, time.Now(), time.Minute); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	rec := newReceiver(t)
	rec.answers(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "/elsewhere", http.StatusPermanentRedirect)
	})
	err := notify(t, rec.config(), sinktest.Result(0))
	if err == nil || len(rec.requests) != 1 {
		t.Errorf("%d requests, %v", len(rec.requests), err)
	}
}

func TestThrottled(t *testing.T) {
	rec := newReceiver(t)
	rec.answers(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	class, after := sinks.ClassOf(notify(t, rec.config(), sinktest.Result(0)))
	if class != sinks.ClassThrottled || after != 2*time.Minute {
		t.Errorf("got %s, %s", class, after)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, " 90 ": 90 * time.Second, "3600": time.Hour, "3601": time.Hour,
		"18446744073709551615": time.Hour, "99999999999999999999999": time.Hour, "-1": 0, "+5": 0, "1.5": 0, "soon": 0,
		"Sun, 01 Mar 2026 12:00:30 GMT": 30 * time.Second, "Sun, 01 Mar 2026 11:59:00 GMT": 0,
		"Sunday, 01-Mar-26 12:00:30 GMT": 30 * time.Second, "Sun Mar  1 12:00:30 2026": 30 * time.Second,
		"Fri, 31 Dec 9999 23:59:59 GMT": time.Hour, "Sat, 01 Jan 0000 00:00:00 GMT": 0,
	} {
		if got := webhook.RetryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		if got := webhook.RetryAfter(value, now); got < 0 || got > webhook.MaxRetryAfter {
			t.Errorf("%q: %s", value, got)
		}
	})
}

func TestIsPublic(t *testing.T) {
	for want, list := range map[bool][]string{
		false: {
			"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255",
			"169.254.0.23", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1",
			"192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
			"240.0.0.1", "255.255.255.255",
			"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
			"64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808",
			"fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "fc00::1", "fd00::1", "ff02::1", "100::1",
			"2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "4000::1", "2001:10::1",
		},
		true: {
			"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.169.0.1", "223.255.255.255",
			"::ffff:8.8.8.8", "64:ff9b::808:808", "2001:4860:4860::8888", "2400:3200::1", "2606:4700:4700::1111",
		},
	} {
		for _, text := range list {
			if got := webhook.IsPublic(netip.MustParseAddr(text)); got != want {
				t.Errorf("%s: %v", text, got)
			}
		}
	}
	if webhook.IsPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
	for _, bad := range []string{"", "localhost:1", "127.0.0.1", "[::1]:443"} {
		if webhook.OnlyPublic("tcp", bad, nil) == nil {
			t.Errorf("%q passes", bad)
		}
	}
	must(t, webhook.OnlyPublic("tcp", "8.8.8.8:443", nil))
}

// The address is checked after the name was resolved, so that a name which leads
// inside is refused whatever it looks like.
func TestPrivateAddressesAreRefused(t *testing.T) {
	rec := newReceiver(t)
	_, port, err := net.SplitHostPort(rec.server.Listener.Addr().String())
	must(t, err)
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0x7f000001", "2130706433"} {
		c := rec.config()
		c.AllowPrivate, c.URL = false, sinks.Secret("https://"+host+":"+port+path)
		sink := open(t, c, env(t))
		checked, sent := sink.Check(t.Context()), sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0))
		for _, err := range []error{checked, sent} {
			if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient {
				t.Errorf("%s: %v", host, err)
			}
		}
		if (host == "127.0.0.1" || host == "localhost") && !strings.Contains(sent.Error(), "set allow_private") {
			t.Errorf("%s: %v", host, sent)
		}
		must(t, sink.Close(t.Context()))
	}
	if len(rec.requests) > 0 {
		t.Errorf("%d requests came through", len(rec.requests))
	}
}

func TestPlainHTTPToThisMachine(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	rec := &receiver{t: t}
	server := &http.Server{Handler: rec}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	defer func() { must(t, server.Close()); <-done }()
	c := defaults()
	c.URL, c.Secret, c.AllowPrivate = sinks.Secret("http://"+listener.Addr().String()+path), secret, true
	sink := open(t, c, env(t))
	defer func() { must(t, sink.Close(t.Context())) }()
	must(t, sink.Check(t.Context()))
	must(t, sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0)))
	if len(rec.messages) != 1 {
		t.Errorf("%d messages", len(rec.messages))
	}
}

// Whatever a server answers, the error repeats none of it.
func TestAnswersAreNeverQuoted(t *testing.T) {
	const mark = "虚构·name·0号"
	for name, answer := range map[string]string{
		"no HTTP":        mark + "\r\n\r\n",
		"wrong header":   "HTTP/1.1 200 OK\r\n" + mark + "\r\n\r\n",
		"wrong length":   "HTTP/1.1 200 OK\r\nContent-Length: " + mark + "\r\n\r\n",
		"wrong encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + mark + "\r\n\r\n",
		"a reason":       "HTTP/1.1 500 " + mark + "\r\nContent-Length: 0\r\n\r\n",
		"a body":         "HTTP/1.1 500 Oh\r\nContent-Length: " + fmt.Sprint(len(mark)) + "\r\n\r\n" + mark,
		"huge headers":   "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(mark, 10_000) + "\r\n\r\n",
		"a retry":        "HTTP/1.1 429 Oh\r\nRetry-After: " + mark + "\r\nContent-Length: 0\r\n\r\n",
		"a location":     "HTTP/1.1 302 Oh\r\nLocation: " + mark + "\r\nContent-Length: 0\r\n\r\n",
		"nothing":        "",
	} {
		address := serveOnce(t, answer)
		c := defaults()
		c.URL, c.Secret, c.AllowPrivate = sinks.Secret("http://"+address+path), secret, true
		err := notify(t, c, sinktest.Result(0))
		if err == nil || strings.Contains(err.Error(), "虚构") || strings.Contains(err.Error(), "KEY-IN") {
			t.Errorf("%s: %v", name, err)
		}
		if name == "nothing" && !strings.Contains(err.Error(), "without an answer") ||
			name == "no HTTP" && !strings.Contains(err.Error(), "no HTTP server") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// serveOnce answers one request with the given bytes.
func serveOnce(t *testing.T, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(conn, answer)
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	return listener.Addr().String()
}

// An endless answer ends when enough of it was read.
func TestEndlessAnswer(t *testing.T) {
	rec := newReceiver(t)
	rec.answers(func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	must(t, notify(t, rec.config(), sinktest.Result(0)))
}

func TestClientCertificate(t *testing.T) {
	rec := newReceiver(t)
	folder := t.TempDir()
	own := selfSigned(t).Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	must(t, err)
	c := rec.config()
	c.TLS.Cert, c.TLS.Key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	must(t, os.WriteFile(c.TLS.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}), 0o600))
	must(t, os.WriteFile(c.TLS.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	rec.server.TLS.ClientAuth = tls.RequireAnyClientCert
	must(t, notify(t, c, sinktest.Result(0)))
	c.TLS.Cert, c.TLS.Key = "", ""
	if err := notify(t, c, sinktest.Result(0)); err == nil || !strings.Contains(err.Error(), "tls.cert and tls.key") {
		t.Errorf("got %v", err)
	}
}

// selfSigned is the TLS of a server or client that nobody vouches for.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestUnknownNameIsTransient(t *testing.T) {
	c := defaults()
	c.URL, c.Secret = "https://faceid.invalid"+path, secret
	err := notify(t, c, sinktest.Result(0))
	if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || strings.Contains(err.Error(), "KEY-IN") {
		t.Errorf("%s: %v", class, err)
	}
}

func TestValidate(t *testing.T) {
	valid := func() *webhook.Config {
		c := defaults()
		c.URL, c.Secret = "https://example.com/hook?key=x", secret
		return c
	}
	must(t, valid().Validate())
	for _, tt := range []struct {
		name  string
		edit  func(*webhook.Config)
		field string
		words string
	}{
		{"no url", func(c *webhook.Config) { c.URL = "" }, "url", "such as https://"},
		{"two urls", func(c *webhook.Config) { c.URLFile = "x" }, "url", "not both"},
		{"no host", func(c *webhook.Config) { c.URL = "https:///x" }, "url", "such as https://"},
		{"opaque", func(c *webhook.Config) { c.URL = "https:example.com" }, "url", "such as https://"},
		{"not a url", func(c *webhook.Config) { c.URL = "https://a b" }, "url", "such as https://"},
		{"http", func(c *webhook.Config) { c.URL = "http://127.0.0.1" }, "url", "must be https"},
		{"http elsewhere", func(c *webhook.Config) { c.URL, c.AllowPrivate = "http://10.0.0.1", true }, "url", "must be https"},
		{"scheme", func(c *webhook.Config) { c.URL = "ftp://example.com" }, "url", "must be https"},
		{"password", func(c *webhook.Config) { c.URL = "https://user:hunter2@example.com" }, "url", "Authorization header"},
		{"fragment", func(c *webhook.Config) { c.URL = "https://example.com/#x" }, "url", "fragment"},
		{"no secret", func(c *webhook.Config) { c.Secret = "" }, "secret", "is missing"},
		{"two secrets", func(c *webhook.Config) { c.SecretFile = "x" }, "secret", "not both"},
		{"weak secret", func(c *webhook.Config) { c.Secret = "whsec_aHVudGVyMg==" }, "secret", "24 to 64"},
		{"plain secret", func(c *webhook.Config) { c.Secret = "hunter2" }, "secret", "must be whsec_"},
		{"too many secrets", func(c *webhook.Config) { c.Secret = sinks.Secret(strings.Repeat(secret+"\n", 9)) }, "secret", "at most 8"},
		{"no timeout", func(c *webhook.Config) { c.Timeout = 0 }, "timeout", "must be 1ms to 5m"},
		{"long timeout", func(c *webhook.Config) { c.Timeout = sinks.Duration(time.Hour) }, "timeout", "must be 1ms to 5m"},
		{"half a certificate", func(c *webhook.Config) { c.TLS.Cert = "x" }, "tls", "both cert and key"},
		{"raw", func(c *webhook.Config) { c.Fields = notice.Fields{privacy.Raw} }, "fields", "raw is never sent"},
		{"our header", func(c *webhook.Config) { c.Headers = headers("webhook-id", "x") }, "headers", "set by the sink itself"},
		{"host", func(c *webhook.Config) { c.Headers = headers("Host", "x") }, "headers", "set by the sink itself"},
		{"header name", func(c *webhook.Config) { c.Headers = headers("a b", "x") }, "headers", "HTTP does not allow"},
		{"no header name", func(c *webhook.Config) { c.Headers = headers("", "x") }, "headers", "HTTP does not allow"},
		{"header value", func(c *webhook.Config) { c.Headers = headers("x", "hunter2\r\nHost: y") }, "headers", "one line"},
	} {
		c := valid()
		tt.edit(c)
		err := c.Validate()
		var invalid *sinks.InvalidFieldError
		if !errors.As(err, &invalid) || invalid.Field != tt.field || !strings.Contains(invalid.Problem, tt.words) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	local := valid()
	for _, url := range []sinks.Secret{"http://localhost:8080/x", "http://127.0.0.1:1", "http://[::1]:1"} {
		local.URL, local.AllowPrivate = url, true
		must(t, local.Validate())
	}
	files := defaults()
	files.URLFile, files.SecretFile = "url", "secret"
	must(t, files.Validate())
	var joined interface{ Unwrap() []error }
	if err := (&webhook.Config{}).Validate(); !errors.As(err, &joined) || len(joined.Unwrap()) != 3 {
		t.Errorf("not one error per field: %v", err)
	}
}

func headers(name, value string) map[string]sinks.Secret {
	return map[string]sinks.Secret{name: sinks.Secret(value)}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		edit  func(*webhook.Config)
		words string
	}{
		{func(c *webhook.Config) { c.TLS.CA = "/nonexistent/ca.pem" }, "read tls.ca: open /nonexistent/ca.pem"},
		{func(c *webhook.Config) { c.URL, c.URLFile = "", "/nonexistent/url" }, "read url_file: open /nonexistent/url"},
		{func(c *webhook.Config) { c.Secret, c.SecretFile = "", "/nonexistent/secret" }, "read secret_file: open /nonexistent/secret"},
	} {
		c := defaults()
		c.URL, c.Secret = "https://example.com", secret
		tt.edit(c)
		must(t, c.Validate())
		if _, err := c.Open(t.Context(), env(t)); err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("got %v", err)
		}
	}
}
