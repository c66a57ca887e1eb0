package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/singleflight"
)

// Check tells whether one part of the daemon is ready: nil, or why not.
type Check func(ctx context.Context) error

const (
	// checkWait bounds all checks of one readiness request together.
	checkWait = 5 * time.Second
	// checkEvery is how long what they found is good for: anybody may ask, and a check
	// may cost a database or a bucket something.
	checkEvery = 10 * time.Second
	// statusWait bounds the reading of the status.
	statusWait = 20 * time.Second
	// answerWait bounds one answer; a CPU profile takes half of it.
	answerWait = time.Minute
)

// AdminConfig says what the admin endpoint serves, and to whom.
type AdminConfig struct {
	// Address is host and port to listen on.
	Address string
	// TokenFile holds the tokens that requests may bring, one a line; empty means none.
	TokenFile string
	// Cert, Key and ClientCA are PEM files. With Cert and Key the endpoint speaks TLS,
	// with ClientCA a client certificate of that authority does in place of a token.
	Cert, Key, ClientCA string
	// Pprof also serves /debug/pprof.
	Pprof bool
	// Metrics are what /metrics shows.
	Metrics *Metrics
	// Checks are what /readyz looks at, named in its answer. Whoever asks how often, they
	// run once in ten seconds at most.
	Checks map[string]Check
	// Known returns what is known already of parts of the daemon, those in Checks and
	// others: nil, or why it is not ready. It is asked at each request; may be nil.
	Known func() map[string]error
	// Status returns what /api/v1/status shows, as JSON.
	Status func(ctx context.Context) (any, error)
	Log    *slog.Logger
}

// Admin serves /healthz, /readyz, /metrics and /api/v1/status.
type Admin struct {
	server   *http.Server
	listener net.Listener
	scheme   string
}

// Listen opens the admin endpoint. Without token and client authority it serves
// everybody who reaches it; otherwise others learn from /healthz and /readyz whether
// the daemon is alive and ready, and nothing else. The error names the setting.
func Listen(ctx context.Context, cfg AdminConfig) (*Admin, error) {
	g, err := newGuard(cfg)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", cfg.Address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("open the admin endpoint (http.admin): %w: another program, or another daemon, has the port: stop it, or choose another", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the admin endpoint (http.admin): %w", err)
	}
	handler, scheme := newAdminMux(cfg, g), "http"
	switch at, _ := listener.Addr().(*net.TCPAddr); {
	case g.certificates != nil:
		// Who is asked for is in the certificate.
		listener, scheme = tls.NewListener(listener, g.certificates.server()), "https"
	case at != nil && at.IP.IsLoopback():
		handler = onlyLoopback(cfg.Address, handler)
	}
	return &Admin{
		listener: listener,
		scheme:   scheme,
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      answerWait,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
		},
	}, nil
}

func newAdminMux(cfg AdminConfig, g *guard) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", &readyz{checks: cfg.Checks, known: cfg.Known, guard: g})
	mux.Handle("GET /metrics", g.only(promhttp.HandlerFor(cfg.Metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 8})))
	mux.Handle("GET /api/v1/status", g.only(&status{read: cfg.Status}))
	if cfg.Pprof {
		mux.Handle("GET /debug/pprof/", g.only(http.HandlerFunc(pprof.Index)))
		mux.Handle("GET /debug/pprof/profile", g.only(http.HandlerFunc(pprof.Profile)))
		mux.Handle("GET /debug/pprof/trace", g.only(http.HandlerFunc(pprof.Trace)))
		mux.Handle("GET /debug/pprof/symbol", g.only(http.HandlerFunc(pprof.Symbol)))
	}
	return mux
}

// onlyLoopback refuses requests that name another host than this machine or the
// configured one: a page of a browser here, whose name was made to lead here (DNS
// rebinding), could read the answer otherwise.
func onlyLoopback(address string, next http.Handler) http.Handler {
	configured, _, _ := net.SplitHostPort(address)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.Trim(host, "[]")
		ip := net.ParseIP(host)
		switch {
		case host == "", strings.EqualFold(host, "localhost"), strings.EqualFold(host, configured), ip != nil && ip.IsLoopback():
			next.ServeHTTP(w, r)
		default:
			http.Error(w, "this endpoint is for this machine only: ask for it as localhost or 127.0.0.1, or name the host in http.admin", http.StatusMisdirectedRequest)
		}
	})
}

// URL returns where the endpoint listens.
func (a *Admin) URL() string { return a.scheme + "://" + a.Address() }

// Address returns host and port where the endpoint listens.
func (a *Admin) Address() string { return a.listener.Addr().String() }

// Close ends the endpoint, whether it serves or not.
func (a *Admin) Close() error {
	err := errors.Join(a.server.Close(), a.listener.Close())
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve answers requests until ctx is done.
func (a *Admin) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.server.Close() })
	defer stop()
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the admin endpoint: %w", err)
	}
	return nil
}

// readiness is the body of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Checks maps each part to "ok" or why it is not ready; those who may not see the
	// rest do not see them.
	Checks map[string]string `json:"checks,omitempty"`
}

// readyz answers from what is known, and from checks that are made at most once in
// checkEvery. Requests at the same time share one run.
type readyz struct {
	checks map[string]Check
	known  func() map[string]error
	guard  *guard
	flight singleflight.Group

	mu   sync.Mutex
	last map[string]error
	at   time.Time
}

// ServeHTTP answers with 200, or 503 if something is not ready.
func (z *readyz) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := maps.Clone(z.latest(r.Context()))
	if z.known != nil {
		for name, err := range z.known() {
			// A check that fails is newer than a result that got in.
			if err != nil || parts[name] == nil {
				parts[name] = err
			}
		}
	}
	answer := readiness{Ready: true, Checks: make(map[string]string, len(parts))}
	for name, err := range parts {
		answer.Checks[name] = "ok"
		if err != nil {
			answer.Ready, answer.Checks[name] = false, err.Error()
		}
	}

	code := http.StatusOK
	if !answer.Ready {
		code = http.StatusServiceUnavailable
	}
	if !z.guard.admits(r) {
		answer.Checks = nil
	}
	writeJSON(w, code, answer)
}

// latest returns what the checks found last, and runs them if that is too long ago.
func (z *readyz) latest(ctx context.Context) map[string]error {
	z.mu.Lock()
	last, at := z.last, z.at
	z.mu.Unlock()
	if last != nil && time.Since(at) < checkEvery {
		return last
	}

	ran, _, _ := z.flight.Do("", func() (any, error) {
		found := z.run(ctx)
		z.mu.Lock()
		defer z.mu.Unlock()
		z.last, z.at = found, time.Now()
		return found, nil
	})
	found, _ := ran.(map[string]error)
	return found
}

// run does not end with the request that came first: others wait for the answer, too.
func (z *readyz) run(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkWait)
	defer cancel()
	found := make(map[string]error, len(z.checks))
	var mu sync.Mutex
	var group sync.WaitGroup
	for name, check := range z.checks {
		group.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			found[name] = err
		})
	}
	group.Wait()
	return found
}

// status shows what read returns. Requests at the same time share one reading.
type status struct {
	read   func(ctx context.Context) (any, error)
	flight singleflight.Group
}

// ServeHTTP answers with the status, or 503 and why there is none.
func (s *status) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	value, err, _ := s.flight.Do("", func() (any, error) { return s.load(r) })
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, value)
}

// load does not end with the request that came first: others wait for it, too.
func (s *status) load(r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), statusWait)
	defer cancel()
	return s.read(ctx)
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(value)
}
