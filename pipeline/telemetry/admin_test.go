package telemetry_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// endpoint is a running admin endpoint, and somebody who asks it.
type endpoint struct {
	t      *testing.T
	url    string
	client *http.Client
	// authorization is sent with each request, unless it is empty.
	authorization string
	// accept is the media type asked for.
	accept string
}

// serve runs an admin endpoint until the end of the test.
func serve(t *testing.T, cfg telemetry.AdminConfig) *endpoint {
	t.Helper()
	cfg.Address = "127.0.0.1:0"
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = telemetry.New()
	}
	admin, err := telemetry.Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- admin.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	e := &endpoint{t: t, url: admin.URL()}
	e.use(&tls.Config{})
	return e
}

// use has the following requests made over new connections.
func (e *endpoint) use(cfg *tls.Config) {
	transport := &http.Transport{TLSClientConfig: cfg}
	e.client = &http.Client{Transport: transport}
	e.t.Cleanup(transport.CloseIdleConnections)
}

func (e *endpoint) do(method, path string) (*http.Response, string) {
	e.t.Helper()
	request, err := http.NewRequestWithContext(e.t.Context(), method, e.url+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if e.authorization != "" {
		request.Header.Set("Authorization", e.authorization)
	}
	if e.accept != "" {
		request.Header.Set("Accept", e.accept)
	}
	response, err := e.client.Do(request)
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return response, string(body)
}

func (e *endpoint) get(path string) (int, string) {
	e.t.Helper()
	response, body := e.do(http.MethodGet, path)
	return response.StatusCode, body
}

type readiness struct {
	Ready  bool
	Checks map[string]string
}

// ready asks /readyz.
func (e *endpoint) ready() (int, readiness) {
	e.t.Helper()
	code, body := e.get("/readyz")
	var answer readiness
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		e.t.Fatalf("%s: %v", body, err)
	}
	return code, answer
}

const (
	rightToken = "0123456789abcdef-right"
	nextToken  = "0123456789abcdef-next"
	wrongToken = "0123456789abcdef-wrong"
)

// What each way of asking gets, of each way of protecting the endpoint.
func TestWhoMaySee(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	write(t, at("token"), rightToken+"\n"+nextToken+"\n")
	ca.issue("server", at("cert"), at("key"))
	write(t, at("ca"), ca.pem())
	ca.issue("prometheus", at("client-cert"), at("client-key"))
	other.issue("prometheus", at("other-cert"), at("other-key"))
	none := func() *tls.Config { return ca.trusts() }
	with := func(name string) func() *tls.Config {
		return func() *tls.Config { return ca.trusts(at(name+"-cert"), at(name+"-key")) }
	}

	open := telemetry.AdminConfig{}
	token := telemetry.AdminConfig{TokenFile: at("token")}
	private := telemetry.AdminConfig{TokenFile: at("token"), Cert: at("cert"), Key: at("key")}
	mutual := telemetry.AdminConfig{Cert: at("cert"), Key: at("key"), ClientCA: at("ca")}
	both := telemetry.AdminConfig{TokenFile: at("token"), Cert: at("cert"), Key: at("key"), ClientCA: at("ca")}
	for _, tt := range []struct {
		name          string
		cfg           telemetry.AdminConfig
		authorization string
		client        func() *tls.Config
		admitted      bool
	}{
		{"nothing asked", open, "", none, true},
		{"no token", token, "", none, false},
		{"token", token, "Bearer " + rightToken, none, true},
		{"the one to come", token, "bearer " + nextToken, none, true},
		{"wrong token", token, "Bearer " + wrongToken, none, false},
		{"beginning of a token", token, "Bearer " + rightToken[:16], none, false},
		{"two tokens at once", token, "Bearer " + rightToken + "\t" + nextToken, none, false},
		{"empty token", token, "Bearer ", none, false},
		{"no scheme", token, rightToken, none, false},
		{"another scheme", token, "Basic " + rightToken, none, false},
		{"token over TLS", private, "Bearer " + rightToken, none, true},
		{"no token over TLS", private, "", none, false},
		{"a certificate where none counts", private, "", with("client"), false},
		{"certificate", mutual, "", with("client"), true},
		{"no certificate", mutual, "", none, false},
		{"token where none counts", mutual, "Bearer " + rightToken, none, false},
		{"certificate in place of a token", both, "", with("client"), true},
		{"token in place of a certificate", both, "Bearer " + rightToken, none, true},
		{"neither", both, "Bearer " + wrongToken, none, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Pprof = true
			tt.cfg.Status = func(context.Context) (any, error) { return map[string]int{"events": 7}, nil }
			tt.cfg.Checks = map[string]telemetry.Check{"nats": func(context.Context) error { return errors.New("connection is CLOSED") }}
			e := serve(t, tt.cfg)
			e.authorization = tt.authorization
			e.use(tt.client())
			if code, body := e.get("/healthz"); code != http.StatusOK || body != "ok\n" {
				t.Errorf("/healthz: %d %s", code, body)
			}
			code, answer := e.ready()
			if code != http.StatusServiceUnavailable || answer.Ready || (answer.Checks["nats"] != "") != tt.admitted {
				t.Errorf("/readyz: %d %+v", code, answer)
			}
			for page, says := range map[string]string{
				"/metrics": "go_goroutines", "/api/v1/status": `{"events":7}`, "/debug/pprof/": "goroutine", "/debug/pprof/heap?debug=1": "heap profile",
			} {
				response, body := e.do(http.MethodGet, page)
				switch {
				case tt.admitted && (response.StatusCode != http.StatusOK || !strings.Contains(body, says)):
					t.Errorf("%s: %d %.100s", page, response.StatusCode, body)
				case !tt.admitted && (response.StatusCode != http.StatusUnauthorized || strings.Contains(body, says) || response.Header.Get("WWW-Authenticate") == ""):
					t.Errorf("%s: %d %.100s", page, response.StatusCode, body)
				}
			}
		})
	}
	t.Run("certificate of somebody else", func(t *testing.T) {
		e := serve(t, both)
		e.authorization = "Bearer " + rightToken
		e.use(with("other")())
		if response, err := e.client.Get(e.url + "/metrics"); err == nil {
			response.Body.Close()
			t.Errorf("it is taken: %d", response.StatusCode)
		}
	})
}

func TestMethodsAndPages(t *testing.T) {
	e := serve(t, telemetry.AdminConfig{Status: func(context.Context) (any, error) { return nil, errors.New("NATS is away") }})
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodHead, "/healthz", http.StatusOK},
		{http.MethodPost, "/healthz", http.StatusMethodNotAllowed},
		{http.MethodPost, "/readyz", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodPut, "/api/v1/status", http.StatusMethodNotAllowed},
		{http.MethodGet, "/api/v1/status", http.StatusServiceUnavailable},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound}, // not enabled
		{http.MethodGet, "/", http.StatusNotFound},
	} {
		if response, body := e.do(tt.method, tt.path); response.StatusCode != tt.want {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, response.StatusCode, body)
		}
	}
	if _, body := e.get("/api/v1/status"); body != "{\"error\":\"NATS is away\"}\n" {
		t.Errorf("/api/v1/status: %s", body)
	}
	e.accept = "application/openmetrics-text; version=1.0.0"
	response, body := e.do(http.MethodGet, "/metrics")
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("/metrics is not OpenMetrics: %s", response.Header.Get("Content-Type"))
	}
}

// A token file that changes counts at once; one that is of no use admits nobody, and
// the log says so once.
func TestTokenRotates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	write(t, file, rightToken)
	var log lockedBuffer
	e := serve(t, telemetry.AdminConfig{TokenFile: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
	check := func(token string, want int) {
		t.Helper()
		e.authorization = "Bearer " + token
		if code, _ := e.get("/metrics"); code != want {
			t.Errorf("%s: %d, want %d", token, code, want)
		}
	}
	check(rightToken, http.StatusOK)
	write(t, file, nextToken)
	check(rightToken, http.StatusUnauthorized)
	check(nextToken, http.StatusOK)
	for _, text := range []string{"", " \n", "short", strings.Repeat("x", 2<<20)} {
		write(t, file, text)
		check(nextToken, http.StatusUnauthorized)
		check("short", http.StatusUnauthorized)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	check(nextToken, http.StatusUnauthorized)
	if n := strings.Count(log.String(), "nobody can use the admin endpoint by a token"); n != 1 || strings.Contains(log.String(), "0123456789") {
		t.Errorf("%d lines:\n%s", n, &log)
	}
	write(t, file, rightToken)
	check(rightToken, http.StatusOK)
}

func TestCertificateRotates(t *testing.T) {
	ca, next := newAuthority(t), newAuthority(t)
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	ca.issue("first", at("cert"), at("key"))
	ca.issue("prometheus", at("client-cert"), at("client-key"))
	write(t, at("ca"), ca.pem())
	var log lockedBuffer
	e := serve(t, telemetry.AdminConfig{Cert: at("cert"), Key: at("key"), ClientCA: at("ca"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	// check asks for /metrics; name is that in the server's certificate.
	check := func(name string, code int) {
		t.Helper()
		response, _ := e.do(http.MethodGet, "/metrics")
		if got := response.TLS.PeerCertificates[0].Subject.CommonName; got != name || response.StatusCode != code {
			t.Errorf("%s: %d, want %s: %d", got, response.StatusCode, name, code)
		}
	}
	anew := func() { e.use(ca.trusts(at("client-cert"), at("client-key"))) }
	anew()
	check("first", http.StatusOK)

	// In the middle of a rotation the certificate has another one's key.
	ca.issue("second", at("cert"), at("key2"))
	for range 3 {
		anew()
		check("first", http.StatusOK)
	}
	if n := strings.Count(log.String(), "keeps its old certificates"); n != 1 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
	if err := os.Rename(at("key2"), at("key")); err != nil {
		t.Fatal(err)
	}
	anew()
	check("second", http.StatusOK)

	// Whom the authority of clients no longer vouches for is turned away, on the
	// connection that is open, too.
	write(t, at("ca"), next.pem())
	check("second", http.StatusUnauthorized)
	next.issue("prometheus", at("client-cert"), at("client-key"))
	anew()
	check("second", http.StatusOK)
}

// Whoever sends slowly or much is cut off. Others are served meanwhile.
func TestSlowAndLargeRequests(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "cert"), filepath.Join(folder, "key")
	ca.issue("server", cert, key)
	plain := serve(t, telemetry.AdminConfig{})
	private := serve(t, telemetry.AdminConfig{Cert: cert, Key: key, ClientCA: cert})
	private.use(ca.trusts())
	dial := func(e *endpoint, sends string) net.Conn {
		t.Helper()
		_, address, _ := strings.Cut(e.url, "://")
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, sends); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	// All wait at the same time.
	slow := map[string]net.Conn{
		"nothing is sent":       dial(plain, ""),
		"header without end":    dial(plain, "GET /metrics HTTP/1.1\r\nHost: a\r\nX-A: "),
		"handshake never begun": dial(private, ""),
		"half a handshake":      dial(private, "\x16\x03\x01"),
		"body without end":      dial(plain, "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx"),
	}
	large := dial(plain, "GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: "+strings.Repeat("a", 20<<10))
	if response, err := http.ReadResponse(bufio.NewReader(large), nil); err != nil || response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: %v", err)
	}
	for _, e := range []*endpoint{plain, private} {
		if code, _ := e.get("/healthz"); code != http.StatusOK {
			t.Errorf("others are not served: %d", code)
		}
	}
	for name, conn := range slow {
		// The limit is far from the bounds, so that only a missing bound meets it.
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection is still open", name)
		}
	}
}

// A wrong setting is told at the start, by its name, without what the files hold.
func TestListenErrors(t *testing.T) {
	ca := newAuthority(t)
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	ca.issue("server", at("cert"), at("key"))
	ca.issue("other", at("cert2"), at("key2"))
	write(t, at("token"), rightToken)
	write(t, at("short"), "SECRET")
	write(t, at("empty"), "\n")
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		want string
		cfg  telemetry.AdminConfig
	}{
		{"open the admin endpoint (http.admin): ", telemetry.AdminConfig{Address: taken.Addr().String()}},
		{"read http.admin_token_file: open /nonexistent", telemetry.AdminConfig{TokenFile: "/nonexistent"}},
		{"empty is empty", telemetry.AdminConfig{TokenFile: at("empty")}},
		{"has a token of less than 16 characters", telemetry.AdminConfig{TokenFile: at("short")}},
		{"read http.tls.cert: open", telemetry.AdminConfig{Cert: "/nonexistent", Key: at("key")}},
		{"read http.tls.key: open", telemetry.AdminConfig{Cert: at("cert"), Key: "/nonexistent"}},
		{"http.tls.cert and http.tls.key are not a certificate and its key", telemetry.AdminConfig{Cert: at("cert"), Key: at("key2")}},
		{"read http.tls.client_ca: open", telemetry.AdminConfig{Cert: at("cert"), Key: at("key"), ClientCA: "/nonexistent"}},
		{"http.tls.client_ca has no certificate in PEM", telemetry.AdminConfig{Cert: at("cert"), Key: at("key"), ClientCA: at("short")}},
	} {
		if tt.cfg.Address == "" {
			tt.cfg.Address = "127.0.0.1:0"
		}
		tt.cfg.Metrics, tt.cfg.Log = telemetry.New(), slog.New(slog.DiscardHandler)
		_, err := telemetry.Listen(t.Context(), tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key = a.newKey()
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// sign completes template; the first certificate of an authority is signed by itself.
func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue writes a certificate for 127.0.0.1, and its key.
func (a *authority) issue(name, certFile, keyFile string) {
	a.t.Helper()
	key := a.newKey()
	cert := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})))
	write(a.t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// trusts returns a client's configuration; files are its certificate and key, if it
// has one.
func (a *authority) trusts(files ...string) *tls.Config {
	a.t.Helper()
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.RootCAs.AddCert(a.cert)
	if len(files) == 2 {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		if err != nil {
			a.t.Fatal(err)
		}
		// Sent whatever authorities the server asks for.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return cfg
}
