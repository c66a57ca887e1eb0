// Package faceidtest is a FaceID API in this process, for tests and the demo.
//
// It listens on a free loopback port and answers GetDetectInfoEnhanced and
// GetEidResult the way Tencent's documentation says: it verifies the TC3
// signature and the clock of every request, checks parameters, filters by
// InfoType, encrypts fields or the whole as it is asked to, and streams its
// answers, so that media may be of any size. What it answers is put into it as a
// Check; how it fails, as a Fault. It is KMS, too, as far as data keys and small texts go.
package faceidtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Options say how a Server behaves.
type Options struct {
	// Clock is the server's time; nil means time.Now.
	Clock func() time.Time
}

// Server is a running API. Its methods may be called concurrently.
type Server struct {
	clock    func() time.Time
	listener net.Listener
	http     *http.Server
	served   chan error

	mu          sync.Mutex
	credentials map[string]credential
	checks      map[key]Check
	faults      []*fault
	calls       map[string]int
	perSecond   map[int64]int
	requests    int
	keys        map[envelope.Algorithm]*envelopetest.Keys
	kmsKeys     map[string]bool
	kmsTexts    map[string]kmsText
	merchant    *envelopetest.Merchant
	eidForm     envelopetest.Form
}

type credential struct{ secretKey, sessionToken string }

// key is what an API call names: a token of one product.
type key struct {
	product result.Product
	token   string
}

// Start starts a server; ctx bounds only the start.
func Start(ctx context.Context, o Options) (*Server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the FaceID stand-in: %w", err)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := &Server{
		clock: o.Clock, listener: listener, served: make(chan error, 1),
		credentials: map[string]credential{}, checks: map[key]Check{}, calls: map[string]int{}, perSecond: map[int64]int{},
		keys: map[envelope.Algorithm]*envelopetest.Keys{}, kmsKeys: map[string]bool{}, kmsTexts: map[string]kmsText{},
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// URL is the endpoint to configure.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close ends the server and its connections.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// AddCredential makes a pair of secrets known; sessionToken is empty for
// permanent ones.
func (s *Server) AddCredential(secretID, secretKey, sessionToken string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials[secretID] = credential{secretKey, sessionToken}
}

// Put makes a check known, or replaces it.
func (s *Server) Put(c Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[key{c.Product, c.Token}] = c
}

// UseKeys sets the key pair that the console shows the public half of. Requests
// for another key of the algorithm are refused from now on.
func (s *Server) UseKeys(algorithm envelope.Algorithm, keys *envelopetest.Keys) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[algorithm] = keys
}

// UseMerchant has the persons of eid checks sealed for a merchant, in the given
// form. Without one they are left out, as for a merchant who has not applied for
// them.
func (s *Server) UseMerchant(m *envelopetest.Merchant, form envelopetest.Form) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.merchant, s.eidForm = m, form
}

// Calls returns how often a token was asked for with a valid signature.
func (s *Server) Calls(token string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[token]
}

// Stats counts what the server was asked.
type Stats struct {
	// Requests is the number of requests, wrong ones included.
	Requests int
	// PeakPerSecond is the highest number within one second of the clock.
	PeakPerSecond int
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{Requests: s.requests}
	for _, n := range s.perSecond {
		stats.PeakPerSecond = max(stats.PeakPerSecond, n)
	}
	return stats
}
