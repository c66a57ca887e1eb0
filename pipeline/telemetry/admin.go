package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check tells whether one part of the daemon is ready: nil, or why not.
type Check func(ctx context.Context) error

// checkWait bounds all checks of one readiness request together.
const checkWait = 5 * time.Second

// Admin serves /healthz, /readyz and /metrics.
type Admin struct {
	server   *http.Server
	listener net.Listener
}

// Listen opens the admin endpoint on address; checks are run at every request
// of /readyz, named in its answer.
func Listen(ctx context.Context, address string, metrics *Metrics, checks map[string]Check) (*Admin, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("open the admin endpoint (http.admin): %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.Handle("GET /readyz", readyz(checks))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return &Admin{
		listener: listener,
		server: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			WriteTimeout:      30 * time.Second,
			MaxHeaderBytes:    16 << 10,
		},
	}, nil
}

// Address returns where the endpoint listens.
func (a *Admin) Address() string { return a.listener.Addr().String() }

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
	// Checks maps each part to "ok" or why it is not ready.
	Checks map[string]string `json:"checks"`
}

func readyz(checks map[string]Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkWait)
		defer cancel()
		answer := readiness{Ready: true, Checks: make(map[string]string, len(checks))}
		for name, check := range checks {
			answer.Checks[name] = "ok"
			if err := check(ctx); err != nil {
				answer.Ready = false
				answer.Checks[name] = err.Error()
			}
		}
		w.Header().Set("Content-Type", "application/json")
		if !answer.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}
