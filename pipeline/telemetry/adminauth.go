package telemetry

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

const (
	// minToken is the length of the shortest token, in bytes: one that is guessed
	// opens what it protects.
	minToken = 16
)

// guard knows who may see all of the admin endpoint.
type guard struct {
	// tokenFile holds one token a line, several while one replaces another. It is read
	// for each request that brings one.
	tokenFile string
	// certificates is nil without TLS.
	certificates *certificates
	log          *slog.Logger
	// told says that the log has that the file is of no use.
	told atomic.Bool
}

// newGuard looks at the files once, so that what is wrong is told at the start.
func newGuard(cfg AdminConfig) (*guard, error) {
	g := &guard{tokenFile: cfg.TokenFile, log: cfg.Log}
	if g.tokenFile != "" {
		if _, err := readTokens(g.tokenFile); err != nil {
			return nil, err
		}
	}
	if cfg.Cert == "" {
		return g, nil
	}
	g.certificates = &certificates{cert: cfg.Cert, key: cfg.Key, clientCA: cfg.ClientCA, log: cfg.Log}
	_, err := g.certificates.load()
	return g, err
}

// only serves those whom the guard admits.
func (g *guard) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.admits(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="faceid-ingest"`)
			http.Error(w, "a token (http.admin_token_file) or a client certificate (http.tls.client_ca) is needed", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admits tells whether a request comes from somebody who may see all.
func (g *guard) admits(r *http.Request) bool {
	byCertificate := g.certificates != nil && g.certificates.clientCA != ""
	if g.tokenFile == "" && !byCertificate {
		return true
	}
	return byCertificate && g.certificates.admits(r.TLS) || g.tokenFile != "" && g.knows(r.Header.Get("Authorization"))
}

// knows tells whether an Authorization header holds a token of the file. How long it
// takes tells nothing of the tokens.
func (g *guard) knows(authorization string) bool {
	scheme, brought, found := strings.Cut(authorization, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	tokens, err := readTokens(g.tokenFile)
	if err != nil {
		if !g.told.Swap(true) {
			g.log.Error("nobody can use the admin endpoint by a token", "error", err)
		}
		return false
	}
	g.told.Store(false)
	got := sha256.Sum256([]byte(strings.TrimSpace(brought)))
	known := 0
	for _, token := range tokens {
		want := sha256.Sum256([]byte(token))
		known |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return known == 1
}

func readTokens(file string) ([]string, error) {
	content, err := setting.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read http.admin_token_file: %w", err)
	}
	tokens := strings.Fields(string(content))
	if len(tokens) == 0 {
		return nil, fmt.Errorf("read http.admin_token_file: %s is empty", file)
	}
	for _, token := range tokens {
		if len(token) < minToken {
			return nil, fmt.Errorf("read http.admin_token_file: %s has a token of less than %d characters", file, minToken)
		}
	}
	return tokens, nil
}

// certificates are those of the endpoint, which are read again when a file changes.
// While what is there does not fit together, as in the middle of a rotation, those read
// before stay in force.
type certificates struct {
	cert, key string
	// clientCA may be empty.
	clientCA string
	log      *slog.Logger

	mu     sync.Mutex
	seen   stamp
	config *tls.Config
	// told says that the log has that the files are of no use.
	told bool
}

// stamp tells one version of the files from another.
type stamp [3]struct {
	changed time.Time
	size    int64
}

// server returns the configuration of a listener.
func (c *certificates) server() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.load() },
	}
}

// load returns the configuration for a new connection.
func (c *certificates) load() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.look()
	if c.config != nil && now == c.seen {
		return c.config, nil
	}
	// What was of no use is read each time until it is: the second file of a rotation
	// may be written within the resolution of the first one's time.
	fresh, err := c.read()
	switch {
	case err == nil:
		c.config, c.seen, c.told = fresh, now, false
	case c.config == nil:
		return nil, err
	case !c.told:
		c.told = true
		c.log.Error("the admin endpoint keeps its old certificates", "error", err)
	}
	return c.config, nil
}

// look returns the stamp of the files; one that is not there has none.
func (c *certificates) look() (s stamp) {
	for i, name := range []string{c.cert, c.key, c.clientCA} {
		if info, err := os.Stat(name); err == nil {
			s[i].changed, s[i].size = info.ModTime(), info.Size()
		}
	}
	return s
}

func (c *certificates) read() (*tls.Config, error) {
	cert, err := setting.ReadFile(c.cert)
	if err != nil {
		return nil, fmt.Errorf("read http.tls.cert: %w", err)
	}
	key, err := setting.ReadFile(c.key)
	if err != nil {
		return nil, fmt.Errorf("read http.tls.key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, errors.New("http.tls.cert and http.tls.key are not a certificate and its key in PEM")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.clientCA == "" {
		return config, nil
	}
	authorities, err := setting.ReadFile(c.clientCA)
	if err != nil {
		return nil, fmt.Errorf("read http.tls.client_ca: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, errors.New("http.tls.client_ca has no certificate in PEM")
	}
	// Not required: the kubelet has none and asks for /healthz and /readyz.
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}

// admits tells whether the other end of a connection has a certificate that counts
// now: the authority may have been replaced since the connection began.
func (c *certificates) admits(state *tls.ConnectionState) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	config, err := c.load()
	if err != nil {
		return false
	}
	options := x509.VerifyOptions{
		Roots: config.ClientCAs, Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, more := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(more)
	}
	_, err = state.PeerCertificates[0].Verify(options)
	return err == nil
}
