package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/singleflight"
)

// Check tells whether one part of the daemon is ready: nil, or why not.
type Check func(ctx context.Context) error

const (
	// checkWait bounds all checks of one readiness request together.
	checkWait = 5 * time.Second
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
	// Checks are run at every request of /readyz, named in its answer.
	Checks map[string]Check
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
	if err != nil {
		return nil, fmt.Errorf("open the admin endpoint (http.admin): %w", err)
	}
	scheme := "http"
	if g.certificates != nil {
		listener, scheme = tls.NewListener(listener, g.certificates.server()), "https"
	}
	return &Admin{
		listener: listener,
		scheme:   scheme,
		server: &http.Server{
			Handler:           newAdminMux(cfg, g),
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
	mux.Handle("GET /readyz", &readyz{checks: cfg.Checks, guard: g})
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

// URL returns where the endpoint listens.
func (a *Admin) URL() string { return a.scheme + "://" + a.listener.Addr().String() }

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

// readyz runs the checks. Requests at the same time share one run: anybody may ask,
// and a check may cost a database something.
type readyz struct {
	checks map[string]Check
	guard  *guard
	flight singleflight.Group
}

// ServeHTTP answers with 200, or 503 if something is not ready.
func (z *readyz) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ran, _, _ := z.flight.Do("", func() (any, error) { return z.run(r), nil })
	answer, _ := ran.(readiness)
	code := http.StatusOK
	if !answer.Ready {
		code = http.StatusServiceUnavailable
	}
	if !z.guard.admits(r) {
		answer.Checks = nil
	}
	writeJSON(w, code, answer)
}

// run does not end with the request that came first: others wait for the answer, too.
func (z *readyz) run(r *http.Request) readiness {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), checkWait)
	defer cancel()
	answer := readiness{Ready: true, Checks: make(map[string]string, len(z.checks))}
	var mu sync.Mutex
	var group sync.WaitGroup
	for name, check := range z.checks {
		group.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			answer.Checks[name] = "ok"
			if err != nil {
				answer.Ready, answer.Checks[name] = false, err.Error()
			}
		})
	}
	group.Wait()
	return answer
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
