package wire_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// What a proxy refuses is said to be the proxy's refusal, with what to do, and nothing of
// its words.
func TestProxyRefusals(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusForbidden:         "refuses the connection with status 403: ask whoever runs the proxy",
		http.StatusProxyAuthRequired: "refuses the connection with status 407: give its user and password in HTTPS_PROXY",
		http.StatusBadGateway:        "refuses the connection with status 502",
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte("MARKED"))
		}))
		at, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		transport := wire.ThroughProxy(&http.Transport{DisableKeepAlives: true})
		transport.Proxy = http.ProxyURL(at)
		client := &http.Client{Transport: wire.Transport{Base: transport}}
		schemes := []string{"https"}
		if status == http.StatusProxyAuthRequired {
			schemes = append(schemes, "http")
		}
		for _, scheme := range schemes {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://faceid.example", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Do(request)
			var refused *wire.ProxyError
			if !errors.As(err, &refused) || refused.Status != status || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "MARKED") {
				t.Errorf("%s, %d: %v, want %q", scheme, status, err, want)
			}
		}
		proxy.Close()
	}

	// One that is not there is named, too.
	transport := wire.ThroughProxy(&http.Transport{})
	transport.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://faceid.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&http.Client{Transport: wire.Transport{Base: transport}}).Do(request)
	if err == nil || !strings.Contains(err.Error(), "the proxy that HTTPS_PROXY or HTTP_PROXY names: ") {
		t.Errorf("a proxy that is away: %v", err)
	}
}
