package webhook_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret and oldSecret are of these tests alone.
const (
	secret    = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	oldSecret = "whsec_Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
	// path is what must never be seen of a URL.
	path = "/hook/KEY-IN-THE-PATH"
)

func TestSuite(t *testing.T) {
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return newReceiver(t) },
		Troubles: troubles(),
	})
}

// receiver is an HTTPS server that verifies what it gets with code of its own.
type receiver struct {
	t      testing.TB
	server *httptest.Server
	ca     string

	mu sync.Mutex
	// answer, if not nil, is called in place of taking the message.
	answer   http.HandlerFunc
	messages []sinktest.Message
	requests []*http.Request
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{t: t}
	r.server = httptest.NewUnstartedServer(r)
	r.server.EnableHTTP2 = true
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}), 0o600))
	return r
}

// config is that of a sink which sends to the receiver.
func (r *receiver) config() *webhook.Config {
	c := defaults()
	c.URL, c.Secret, c.AllowPrivate, c.TLS.CA = sinks.Secret(r.server.URL+path), secret, true, r.ca
	return c
}

func defaults() *webhook.Config {
	c, _ := sinks.NewConfig("webhook")
	return c.(*webhook.Config)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, req)
	if r.answer != nil {
		r.answer(w, req)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || !r.signedBy(secret, req, body) || req.URL.Path != path || req.Method != http.MethodPost ||
		req.Header.Get("Content-Type") != "application/cloudevents+json" {
		r.t.Errorf("a request that no receiver takes: %s %v, %v", req.Method, req.Header, err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.messages = append(r.messages, sinktest.Message{ID: req.Header.Get("Webhook-Id"), Body: body})
	w.WriteHeader(http.StatusNoContent)
}

// answers has the receiver answer from now on; nil has it take messages.
func (r *receiver) answers(with http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = with
}

// signedBy computes the signature by the words of the specification.
func (r *receiver) signedBy(secret string, req *http.Request, body []byte) bool {
	want := signatureBy(r.t, secret, req.Header.Get("webhook-id")+"."+req.Header.Get("webhook-timestamp")+"."+string(body))
	return slices.Contains(strings.Split(req.Header.Get("webhook-signature"), " "), want)
}

func (r *receiver) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	sink, err := webhook.OpenWith(t.Context(), r.config(), env, func(next http.RoundTripper) http.RoundTripper {
		return faultyTransport{next, faults}
	})
	must(t, err)
	return sink
}

func (r *receiver) Stored(_ testing.TB, p result.Product, token string) sinktest.Stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s sinktest.Stored
	for _, m := range r.messages {
		if strings.HasPrefix(m.ID, result.TokenHash(p, token)) {
			s.Messages = append(s.Messages, m)
		}
	}
	return s
}

// faultyTransport asks for a fault before each request, and before each answer.
type faultyTransport struct {
	http.RoundTripper
	faults *sinktest.Faults
}

func (f faultyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := f.faults.Step(); err != nil {
		return nil, err
	}
	resp, err := f.RoundTripper.RoundTrip(req)
	if fault := f.faults.Step(); fault != nil && err == nil {
		_ = resp.Body.Close()
		return nil, fault
	}
	return resp, err
}

func (f faultyTransport) CloseIdleConnections() {
	f.RoundTripper.(interface{ CloseIdleConnections() }).CloseIdleConnections()
}

// troubles are what receivers and their owners have.
func troubles() []sinktest.Trouble {
	list := []sinktest.Trouble{
		{
			Name: "nobody listens", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"https://127.0.0.1:", "nobody listens there"},
			Provoke: withReceiver(func(_ testing.TB, r *receiver, _ *webhook.Config) func() {
				address := r.server.Listener.Addr().String()
				r.server.Close()
				return func() { r.restart(address) }
			}),
		},
		{
			Name: "a certificate that is not trusted", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"check tls.ca"},
			Provoke: withSink(func(t testing.TB, r *receiver) *httptest.Server { return r.stranger(t) }),
		},
		{
			Name: "no TLS", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"does not speak TLS", "check the port"},
			Provoke: withSink(func(_ testing.TB, r *receiver) *httptest.Server { return httptest.NewServer(r) }),
		},
		{
			Name: "no answer", Class: sinks.ClassTransient,
			Words: []string{"no answer within 2s"},
			Provoke: withReceiver(func(_ testing.TB, r *receiver, c *webhook.Config) func() {
				must(r.t, c.Timeout.UnmarshalText([]byte("2s")))
				r.answers(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
				return func() { r.answers(nil) }
			}),
		},
		{
			Name: "a connection that is closed", Class: sinks.ClassTransient,
			Words: []string{"webhook https://127.0.0.1:", "the connection"},
			Provoke: withReceiver(func(_ testing.TB, r *receiver, _ *webhook.Config) func() {
				r.answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
				return func() { r.answers(nil) }
			}),
		},
		{
			Name: "the secret's file is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"webhook: read secret_file:", "no such file"},
			Provoke: withFile(func(c *webhook.Config, file string) { c.Secret, c.SecretFile = "", file }, secret, ""),
		},
		{
			Name: "the secret's file holds none", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"secret must be whsec_", "openssl rand"},
			Provoke: withFile(func(c *webhook.Config, file string) { c.Secret, c.SecretFile = "", file }, secret, "hunter2"),
		},
		{
			Name: "the URL's file holds none", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"webhook: url must be https"},
			Provoke: withURLFile("ftp://127.0.0.1"),
		},
		{
			Name: "the URL's file is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words:   []string{"webhook: read url_file:", "no such file"},
			Provoke: withURLFile(""),
		},
	}
	for _, status := range []struct {
		code  int
		after string
		class sinks.Class
		words string
	}{
		{301, "", sinks.ClassTransient, "redirects are not followed"},
		{307, "", sinks.ClassTransient, "redirects are not followed"},
		{400, "", sinks.ClassPermanent, "refuses the request"},
		{401, "", sinks.ClassTransient, "check secret and headers"},
		{403, "", sinks.ClassTransient, "check secret and headers"},
		{404, "", sinks.ClassTransient, "check url"},
		{405, "", sinks.ClassTransient, "check url"},
		{408, "", sinks.ClassTransient, "in trouble"},
		{409, "", sinks.ClassTransient, "refuses the request"},
		{410, "", sinks.ClassTransient, "wants no more webhooks"},
		{413, "", sinks.ClassPermanent, "raise its limit"},
		{415, "", sinks.ClassPermanent, "refuses the request"},
		{422, "", sinks.ClassPermanent, "refuses the request"},
		{425, "", sinks.ClassTransient, "in trouble"},
		{429, "", sinks.ClassThrottled, "wants fewer requests"},
		{429, "30", sinks.ClassThrottled, "wants fewer requests"},
		{500, "", sinks.ClassTransient, "in trouble"},
		{502, "", sinks.ClassTransient, "in trouble"},
		{503, "", sinks.ClassTransient, "in trouble"},
		{503, "30", sinks.ClassThrottled, "in trouble"},
		{504, "30", sinks.ClassTransient, "in trouble"},
		{599, "", sinks.ClassTransient, "in trouble"},
	} {
		list = append(list, sinktest.Trouble{
			Name: "status " + http.StatusText(status.code) + " " + status.after, Class: status.class,
			Words: []string{"webhook https://127.0.0.1:", "the answer is ", status.words},
			Provoke: withReceiver(func(_ testing.TB, r *receiver, _ *webhook.Config) func() {
				r.answers(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", r.server.URL+path)
					if status.after != "" {
						w.Header().Set("Retry-After", status.after)
					}
					w.WriteHeader(status.code)
				})
				return func() { r.answers(nil) }
			}),
		})
	}
	return list
}

type provoke = func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled

// withReceiver gets a receiver, or the configuration of its sink, into trouble.
func withReceiver(trouble func(testing.TB, *receiver, *webhook.Config) (heal func())) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		r := newReceiver(t)
		c := r.config()
		heal := trouble(t, r, c)
		return sinktest.Troubled{Sink: open(t, c, env), Heal: heal}
	}
}

// withSink has the URL lead to another server at first.
func withSink(other func(testing.TB, *receiver) *httptest.Server) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		r := newReceiver(t)
		wrong := other(t, r)
		t.Cleanup(wrong.Close)
		c := r.config()
		right := string(c.URL)
		file := filepath.Join(t.TempDir(), "url")
		c.URL, c.URLFile = "", file
		_, port, err := net.SplitHostPort(wrong.Listener.Addr().String())
		must(t, err)
		must(t, os.WriteFile(file, []byte("https://127.0.0.1:"+port+path), 0o600))
		return sinktest.Troubled{Sink: open(t, c, env), Heal: func() { must(t, os.WriteFile(file, []byte(right), 0o600)) }}
	}
}

// withFile has a file of the configuration go wrong after the sink was opened; ""
// removes it.
func withFile(use func(*webhook.Config, string), right, wrong string) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		r := newReceiver(t)
		c := r.config()
		file := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(file, []byte(right), 0o600))
		use(c, file)
		sink := open(t, c, env)
		if wrong == "" {
			must(t, os.Remove(file))
		} else {
			must(t, os.WriteFile(file, []byte(wrong), 0o600))
		}
		return sinktest.Troubled{Sink: sink, Heal: func() { must(t, os.WriteFile(file, []byte(right), 0o600)) }}
	}
}

func withURLFile(wrong string) provoke {
	return func(t testing.TB, env sinks.Env, res *result.Result) sinktest.Troubled {
		t.Helper()
		r := newReceiver(t)
		right := string(r.config().URL)
		return withFile(func(c *webhook.Config, file string) { *c = *r.config(); c.URL, c.URLFile = "", file }, right, wrong)(t, env, res)
	}
}

// restart listens again after Close.
func (r *receiver) restart(address string) {
	r.t.Helper()
	listener, err := net.Listen("tcp", address)
	must(r.t, err)
	// httptest has one certificate, which the new server has too.
	r.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: r}}
	r.server.StartTLS()
	r.t.Cleanup(r.server.Close)
}

// stranger is a server with a certificate of its own making.
func (r *receiver) stranger(t testing.TB) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = selfSigned(t)
	server.StartTLS()
	return server
}

func open(t testing.TB, c *webhook.Config, env sinks.Env) sinks.Sink {
	t.Helper()
	must(t, c.Validate())
	sink, err := c.Open(t.Context(), env)
	must(t, err)
	return sink
}

// env is that of a sink under a policy that stores every value plainly.
func env(t testing.TB) sinks.Env {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	policy, err := privacy.NewPolicy(cfg, nil)
	must(t, err)
	return sinks.Env{Name: "hook", Policy: policy, Log: slog.New(slog.DiscardHandler)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// signatureBy signs by the words of the specification.
func signatureBy(t testing.TB, secret, content string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	must(t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(content))
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
