package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

// maxRetryAfter bounds what a receiver can ask for: a result's event does not
// wait for ever.
const maxRetryAfter = time.Hour

// outcome returns what an answer's status means.
func outcome(target *url.URL, status int, after string, now time.Time) error {
	if status >= 200 && status < 300 {
		return nil
	}
	err := fmt.Errorf("webhook %s: the answer is %d%s", origin(target), status, statusHint(status))
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return sinks.Permanent(err)
	case http.StatusTooManyRequests:
		return sinks.Throttled(err, retryAfter(after, now))
	case http.StatusServiceUnavailable:
		if wait := retryAfter(after, now); wait > 0 {
			return sinks.Throttled(err, wait)
		}
	}
	return err
}

func statusHint(status int) string {
	text := http.StatusText(status)
	if text != "" {
		text = " (" + text + ")"
	}
	switch {
	case status >= 300 && status < 400:
		return text + ": redirects are not followed, set url to where it leads"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return text + ": the receiver does not know us, check secret and headers"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return text + ": the receiver takes no webhooks there, check url"
	case status == http.StatusGone:
		return text + ": the receiver wants no more webhooks there, change url or remove the sink"
	case status == http.StatusRequestEntityTooLarge:
		return text + ": the receiver takes no message of this size, raise its limit or send fewer fields"
	case status == http.StatusTooManyRequests:
		return text + ": the receiver wants fewer requests"
	case status >= 500, status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return text + ": the receiver is in trouble"
	}
	return text + ": the receiver refuses the request"
}

// retryAfter reads the Retry-After header, in seconds or as a date (RFC 9110
// §10.2.3); 0 if it says nothing. It is at most maxRetryAfter.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		return maxRetryAfter
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(date.Sub(now), 0), maxRetryAfter)
}

// origin is what may be shown of a URL.
func origin(target *url.URL) string { return target.Scheme + "://" + target.Host }

// explain says where a request failed and what to do about it. ctx is the
// caller's, without the sink's own timeout.
func (s *Sink) explain(ctx context.Context, target *url.URL, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // which does not show the URL
	}
	at := "webhook " + origin(target)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", at, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: no answer within %s: the receiver is slow or a firewall drops the packets: %w",
			at, s.cfg.Timeout.Duration(), err)
	}
	var network *net.OpError
	var lookup *net.DNSError
	var refused *refusedError
	var proxy *wire.ProxyError
	hint := notice.TLSHint(err)
	if errors.Is(err, http.ErrSchemeMismatch) {
		hint = notice.TLSHint(tls.RecordHeaderError{})
	}
	switch {
	case errors.As(err, &proxy):
		return fmt.Errorf("%s: %w", at, proxy)
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %w", at, refused)
	case errors.As(err, &lookup):
		return fmt.Errorf("%s: the name does not resolve: check url and the DNS: %w", at, lookup)
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%s: nobody listens there: check url, or start the receiver: %w", at, err)
	case hint != "":
		return fmt.Errorf("%s: %s: %w", at, hint, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("%s: the receiver closed the connection without an answer%s: %w", at, s.certificateHint(target), err)
	case errors.As(err, &network):
		return fmt.Errorf("%s: %w", at, err)
	}
	// The other errors are about what was answered, and may quote it.
	return fmt.Errorf("%s: the connection was lost, or what listens there is no HTTP server: check url%s", at, s.certificateHint(target))
}

// certificateHint serves connections that are lost for no reason that we see: see
// notice.TLSHint.
func (s *Sink) certificateHint(target *url.URL) string {
	if target.Scheme != "https" || s.cfg.TLS.Cert != "" {
		return ""
	}
	return "; it may want a client certificate, see tls.cert and tls.key"
}
