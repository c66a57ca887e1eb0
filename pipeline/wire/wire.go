// Package wire says in closed words what went wrong between this program and another.
//
// Errors of net/http, of drivers and of SDKs quote what the other side sent, and a
// server that echoes has it send what it was told of a person. Whatever comes from one
// therefore passes through Closed, and every HTTP client of this program sends by a
// Transport.
package wire

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Error is an error of a connection. Its words are this package's, or name what this
// side chose: the address that it dials, the host that it looks up, its own file.
type Error struct {
	words string
	// cause may quote anything, so that it is only compared and never unwrapped.
	cause error
}

// Error returns the words.
func (e *Error) Error() string { return e.words }

// Is reports whether the cause is target.
func (e *Error) Is(target error) bool { return errors.Is(e.cause, target) }

// As finds the cause's type. What it finds may quote the other side: it is to be looked
// at, and not to be printed.
func (e *Error) As(target any) bool { return errors.As(e.cause, target) }

// Timeout reports whether the other side took too long.
func (e *Error) Timeout() bool { return timedOut(e.cause) }

// Temporary is for clients that ask it before they try once more.
func (e *Error) Temporary() bool { return e.Timeout() }

// Closed returns err with words that quote nothing of what another program sent. What
// readers compare by identity, io.EOF and the like, stays itself.
func Closed(err error) error {
	switch err { //nolint:errorlint // Only the bare ones hold nothing but themselves.
	case nil, io.EOF, io.ErrUnexpectedEOF, context.Canceled, context.DeadlineExceeded:
		return err
	}
	if closed, ok := err.(*Error); ok { //nolint:errorlint // One inside another error leaves that one's words.
		return closed
	}
	return &Error{words: words(err), cause: err}
}

func words(err error) string {
	var network *net.OpError
	if !errors.As(err, &network) {
		return reason(err)
	}
	if network.Op == "proxyconnect" {
		return "the proxy that HTTPS_PROXY or HTTP_PROXY names: " + words(network.Err)
	}
	at := network.Op + " " + network.Net
	if network.Addr != nil {
		at += " " + network.Addr.String()
	}
	switch network.Op {
	case "remote error", "local error":
		// An alert of TLS, whose words are those of its number.
		return network.Op + ": " + network.Err.Error()
	}
	return at + ": " + reason(network.Err)
}

// reason is words without the place.
func reason(err error) string {
	var (
		lookup    *net.DNSError
		file      *fs.PathError
		stranger  x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		proxy     *ProxyError
		number    syscall.Errno
		isLookup  = errors.As(err, &lookup)
		notClosed = "an error whose words are not shown, for they may repeat what was sent"
	)
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded.Error()
	case errors.As(err, &proxy):
		return proxy.Error()
	case isLookup && lookup.IsNotFound:
		return "lookup " + lookup.Name + ": no such host"
	case isLookup:
		return "lookup " + lookup.Name + ": name resolution failed"
	case errors.As(err, &file):
		return file.Error()
	case errors.As(err, &stranger):
		return "x509: certificate signed by unknown authority"
	case errors.As(err, &name):
		return "x509: certificate is not valid for " + name.Host
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "x509: certificate has expired or is not yet valid"
	case errors.As(err, &number):
		return number.Error()
	case timedOut(err):
		return "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the other side closed the connection too early"
	}
	text := err.Error()
	for _, phrase := range phrases {
		if strings.Contains(text, phrase) {
			return phrase
		}
	}
	return fmt.Sprintf("%s (%T)", notClosed, innermost(err))
}

// phrases are what libraries begin their errors with, before they quote.
var phrases = []string{
	"malformed HTTP response", "malformed HTTP version", "malformed HTTP status code", "malformed MIME header",
	"malformed chunked encoding", "invalid byte in chunk length", "http chunk length too large", "chunked encoding contains too much non-data",
	"bad Content-Length", "unsupported transfer encoding", "too many transfer encodings", "http: suspiciously long trailer",
	"response headers exceeded", "too many 1xx informational responses", "server closed idle connection",
	"server gave HTTP response to HTTPS client", "server sent GOAWAY", "stream error", "connection error",
	"gzip: invalid header", "gzip: invalid checksum", "flate: corrupt input", "XML syntax error",
	"use of closed network connection", "first record does not look like a TLS handshake",
	"nats: authorization violation", "nats: authentication expired", "nats: permissions violation", "nats: no servers available for connection",
	"nats: connection closed", "nats: stale connection", "nats: slow consumer", "nats: timeout",
	"x509: ", "tls: ", "sasl", "SASL", "http2: ", "net/http: ", "http: ", "nats: ",
}

func timedOut(err error) bool {
	var slow net.Error
	return errors.As(err, &slow) && slow.Timeout()
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// Transport sends requests by Base. Neither its errors nor those of reading an answer
// quote the other side, and it takes from an answer what clients print of it or follow:
// the words of its status, and Location, so that nobody is redirected.
type Transport struct{ Base http.RoundTripper }

// RoundTrip sends one request.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.Base.RoundTrip(r)
	if err != nil {
		return nil, Closed(err)
	}
	if response.StatusCode == http.StatusProxyAuthRequired {
		// No server says so, only the proxy before one that is reached in clear.
		_ = response.Body.Close()
		return nil, Closed(&ProxyError{Host: "before " + r.URL.Host, Status: response.StatusCode})
	}
	response.Status = fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode))
	response.Header.Del("Location")
	response.Body = body{response.Body}
	return response, nil
}

// CloseIdleConnections ends the connections of Base that are not in use.
func (t Transport) CloseIdleConnections() {
	if base, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

type body struct{ io.ReadCloser }

func (b body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	return n, Closed(err)
}

func (b body) Close() error { return Closed(b.ReadCloser.Close()) }
