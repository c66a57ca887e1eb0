package webhook

import (
	"bufio"
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// route sends requests to the receiver itself, or through the proxy that the environment
// names for it. Then it is the proxy that connects to the receiver, whose address only
// its owner's rules bound.
type route struct {
	direct, proxied *http.Transport
	allowPrivate    bool
}

// RoundTrip implements http.RoundTripper.
func (r *route) RoundTrip(req *http.Request) (*http.Response, error) {
	proxy, err := r.proxied.Proxy(req)
	switch {
	case err != nil:
		return nil, err
	case proxy != nil:
		if err := r.check(req.URL); err != nil {
			return nil, err
		}
		return r.proxied.RoundTrip(req)
	default:
		return r.direct.RoundTrip(req)
	}
}

// check refuses what onlyPublic would, as far as the URL shows it.
func (r *route) check(target *url.URL) error {
	at, err := netip.ParseAddr(target.Hostname())
	if isAddress := err == nil; isAddress && !r.allowPrivate && !isPublic(at) {
		return &refusedError{at}
	}
	return nil
}

// CloseIdleConnections ends the connections that are not in use.
func (r *route) CloseIdleConnections() {
	r.direct.CloseIdleConnections()
	r.proxied.CloseIdleConnections()
}

// hostPort returns where a URL's host listens.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case strings.HasPrefix(u.Scheme, "socks5"):
		port = "1080"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// connectThrough has an HTTP proxy connect to address, and returns the connection. To
// other kinds of proxy it only connects.
func connectThrough(ctx context.Context, proxy *url.URL, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(proxy))
	if err != nil || proxy.Scheme != "http" {
		return conn, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if password, ok := proxy.User.Password(); ok {
		credentials := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
		request.Header.Set("Proxy-Authorization", "Basic "+credentials)
	}
	status, err := ask(conn, request)
	if err == nil && status != http.StatusOK {
		err = &wire.ProxyError{Host: proxy.Host, Status: status}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// ask sends a CONNECT on a connection, and returns the status of the answer. An answer
// that grants it has no body.
func ask(conn net.Conn, request *http.Request) (status int, err error) {
	if err := request.Write(conn); err != nil {
		return 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
