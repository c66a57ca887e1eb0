package wire

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// ProxyError is what a proxy answered in place of a connection: the refusal is its own,
// not that of the server behind it.
type ProxyError struct {
	// Host is the proxy's, with its port.
	Host string
	// Status is the HTTP status of its answer.
	Status int
}

// Error says what to do about the refusal.
func (e *ProxyError) Error() string {
	todo := "ask whoever runs the proxy to let this program through, or name the host in NO_PROXY"
	if e.Status == http.StatusProxyAuthRequired {
		todo = "give its user and password in HTTPS_PROXY (http://user:password@host:port)"
	}
	return fmt.Sprintf("the proxy %s refuses the connection with status %d: %s", e.Host, e.Status, todo)
}

// ThroughProxy has t send through the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY
// name, and tell the proxy's refusals as a *ProxyError.
func ThroughProxy(t *http.Transport) *http.Transport {
	t.Proxy = http.ProxyFromEnvironment
	t.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
		if answer.StatusCode == http.StatusOK {
			return nil
		}
		return &ProxyError{Host: proxy.Host, Status: answer.StatusCode}
	}
	return t
}
