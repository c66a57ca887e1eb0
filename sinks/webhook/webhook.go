// Package webhook sends a signed HTTPS request about each result.
//
// In goes a result that is stored; out goes one POST whose body is the message of
// package notice, with the headers
//
//	Content-Type: application/cloudevents+json
//	Webhook-Id: the message's id, the same each time it is sent
//	Webhook-Timestamp: when this request was made, in Unix seconds
//	Webhook-Signature: v1,<base64 of HMAC-SHA256(secret, id.timestamp.body)>
//
// which is the scheme of Standard Webhooks (standardwebhooks.com), for which there
// are libraries in many languages; in Go, Verify is one. The secret is written as
// "whsec_" and 24 to 64 random bytes in base64:
//
//	echo whsec_$(openssl rand -base64 32)
//
// To change it without a gap, put the new one on a second line of secret_file:
// each request then carries a signature by each. The file is read anew for every
// request.
//
// A request is sent at least once per result, and again for as long as it is not
// answered with a status of 2xx: a receiver drops an id that it has seen. What the
// statuses mean:
//
//	2xx                   done; the answer's body is not looked at
//	400, 413, 415, 422    the receiver refuses this very message: permanent
//	429, 503              as often as Retry-After says, at most an hour: throttled
//	any other             transient: 401, 403, 404, 405 and 410 are for the owner of
//	                      either side to mend, and so is a redirect, which is never
//	                      followed
//
// A receiver therefore answers a wrong signature with 401, not with 400.
//
// The URL must be https. Where a name leads is checked when the connection is
// made, after the name was resolved: addresses that are not of the public
// internet (private, loopback, link-local, shared, multicast and the like, in
// IPv4, in IPv6, and IPv4 inside IPv6) are refused unless allow_private is set, so
// that neither a mistaken URL nor a changed DNS entry makes the daemon call the
// inside of its own network. Where HTTPS_PROXY names a proxy, that connects to the
// receiver: only an address in the URL itself is checked then, and the proxy's rules
// bound where names lead. With allow_private, plain http is allowed to this machine
// itself.
//
// What else may go wrong, all of it transient: the name does not resolve, nobody
// listens, the certificate is not trusted, no answer within the timeout, a secret
// that cannot be read. The errors say which in words. They name the host, never the
// whole URL, whose path may be a secret, and never quote the answer.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

const (
	// maxAnswer bounds what is read of an answer, in bytes, so that the connection
	// can be used again.
	maxAnswer = 64 << 10
	// maxAnswerHeader bounds the headers of an answer, in bytes.
	maxAnswerHeader = 64 << 10
	// idleConnections is how many connections are kept for the next requests.
	idleConnections = 32
	idleTimeout     = 90 * time.Second
)

// Sink sends webhooks. All methods but Close may be called by several goroutines
// at once.
type Sink struct {
	name   string
	cfg    Config
	policy *privacy.Policy
	dialer *net.Dialer
	tls    *tls.Config
	route  *route
	client *http.Client
}

var (
	_ sinks.Notifier = (*Sink)(nil)
	_ sinks.Eraser   = (*Sink)(nil)
)

// Open implements sinks.Config. It reads the files that the configuration names,
// and connects to nobody.
func (c *Config) Open(_ context.Context, env sinks.Env) (sinks.Sink, error) {
	settings, err := c.TLS.Client()
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	s := &Sink{name: env.Name, cfg: *c, policy: env.Policy, tls: settings, dialer: &net.Dialer{}}
	if !c.AllowPrivate {
		s.dialer.Control = onlyPublic
	}
	transport := func(dialer *net.Dialer) *http.Transport {
		return &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: settings.Clone(), ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: idleConnections, IdleConnTimeout: idleTimeout,
			MaxResponseHeaderBytes: maxAnswerHeader, DisableCompression: true,
		}
	}
	s.route = &route{
		direct: transport(s.dialer), proxied: wire.ThroughProxy(transport(&net.Dialer{})), allowPrivate: c.AllowPrivate,
	}
	s.client = &http.Client{Transport: wire.Transport{Base: s.route}}
	if _, err := s.target(); err != nil {
		return nil, err
	}
	if _, err := s.secrets(); err != nil {
		return nil, err
	}
	return s, nil
}

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink.
func (s *Sink) Close(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

// Check implements sinks.Sink. It resolves the name, connects, and shakes hands;
// it sends no request, so that it does not notice what the receiver would answer.
func (s *Sink) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	target, err := s.target()
	if err != nil {
		return err
	}
	if _, err := s.secrets(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Duration())
	defer cancel()
	if err := s.shakeHands(limited, target); err != nil {
		return s.explain(ctx, target, wire.Closed(err))
	}
	return nil
}

func (s *Sink) shakeHands(ctx context.Context, target *url.URL) error {
	at := hostPort(target)
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: target})
	if err != nil {
		return err
	}

	var conn net.Conn
	if proxy == nil {
		conn, err = s.dialer.DialContext(ctx, "tcp", at)
	} else if err = s.route.check(target); err == nil {
		conn, err = connectThrough(ctx, proxy, at)
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	if target.Scheme != "https" {
		return nil
	}
	settings := s.tls.Clone()
	settings.ServerName = target.Hostname()
	return tls.Client(conn, settings).HandshakeContext(ctx)
}

// Notify implements sinks.Notifier. It returns when the receiver has answered.
func (s *Sink) Notify(ctx context.Context, r *result.Result) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := notice.OfResult(s.policy, r, s.cfg.Fields)
	if err != nil {
		return err
	}
	return s.send(ctx, m)
}

// Erase implements sinks.Eraser: it tells the receiver, which holds what it made
// of the notifications, and nothing else is held anywhere.
func (s *Sink) Erase(ctx context.Context, key sinks.Key, _ string) (sinks.Holding, error) {
	if err := ctx.Err(); err != nil {
		return sinks.Holding{}, err
	}
	m, err := notice.OfErasure(key)
	if err != nil {
		return sinks.Holding{}, err
	}
	return sinks.Holding{}, s.send(ctx, m)
}

func (s *Sink) send(ctx context.Context, m notice.Message) error {
	target, err := s.target()
	if err != nil {
		return err
	}
	secrets, err := s.secrets()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.cfg.Timeout.Duration())
	defer cancel()
	now := time.Now()
	req, err := http.NewRequestWithContext(limited, http.MethodPost, target.String(), bytes.NewReader(m.Body))
	if err != nil {
		return errors.New("webhook: url cannot be called: it must be such as https://example.com/faceid")
	}
	for name, value := range s.cfg.Headers {
		req.Header.Set(name, string(value))
	}
	req.Header.Set("Content-Type", notice.ContentType)
	req.Header.Set("User-Agent", "faceid-ingest")
	req.Header.Set(headerID, m.ID)
	req.Header.Set(headerTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(headerSignature, signatures(secrets, m.ID, req.Header.Get(headerTimestamp), m.Body))
	resp, err := s.client.Do(req)
	if err != nil {
		return s.explain(ctx, target, err)
	}
	// What is not read only costs the connection.
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	_ = resp.Body.Close()
	return outcome(target, resp.StatusCode, resp.Header.Get("Retry-After"), now)
}

// target returns the URL, which the file may have changed.
func (s *Sink) target() (*url.URL, error) {
	text, err := notice.ReadSecret("url", s.cfg.URL, s.cfg.URLFile)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	target, problem := parseURL(text, s.cfg.AllowPrivate)
	if problem != "" {
		return nil, fmt.Errorf("webhook: url %s", problem)
	}
	return target, nil
}

// secrets returns the secrets, of which the file may hold several.
func (s *Sink) secrets() ([][]byte, error) {
	text, err := notice.ReadSecret("secret", s.cfg.Secret, s.cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	secrets, err := parseSecrets(text)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return secrets, nil
}
