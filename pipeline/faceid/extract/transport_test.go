package extract_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
)

func tempDir() (string, func()) {
	dir, err := os.MkdirTemp("", "extract")
	if err != nil {
		panic(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}

var longVideo = strings.Repeat("QUJD", 5000)

// serve starts a server with one answer and returns a client through a Transport.
func serve(t *testing.T, handler http.HandlerFunc) (*http.Client, string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	base := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: &extract.Transport{Base: base, Config: small()}}, server.URL
}

func do(ctx context.Context, t *testing.T, client *http.Client, url string, header http.Header) (*extract.Call, string, error) {
	t.Helper()
	call := &extract.Call{Batch: newBatch(t)}
	request, err := http.NewRequestWithContext(extract.NewContext(ctx, call), http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		request.Header[k] = v
	}
	response, err := client.Do(request)
	if err != nil {
		return call, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.ContentLength != int64(len(body)) {
		t.Errorf("content length %d for %d bytes", response.ContentLength, len(body))
	}
	return call, string(body), nil
}

func TestTransport(t *testing.T) {
	plain := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"Response":{"Video":"`+longVideo+`"}}`)
	}
	zipped := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"Response":{"Video":"`+longVideo+`"}}`)
		_ = z.Close()
	}
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		header  http.Header
	}{
		"plain":                     {plain, nil},
		"gzip undone by net/http":   {zipped, nil},
		"gzip asked for by the SDK": {zipped, http.Header{"Accept-Encoding": {"gzip"}}},
	} {
		t.Run(name, func(t *testing.T) {
			client, url := serve(t, tt.handler)
			call, body, err := do(t.Context(), t, client, url, tt.header)
			if err != nil {
				t.Fatal(err)
			}
			if len(body) > 100 || call.Status != http.StatusOK || call.Err != nil {
				t.Errorf("handed up %d bytes, status %d, %v", len(body), call.Status, call.Err)
			}
			if got := medium(t, call.Document, "Video").Item.Digest().Size; got != 15000 {
				t.Errorf("%d bytes", got)
			}
		})
	}
}

func TestTransportErrors(t *testing.T) {
	page := "<html>SECRET</html>"
	status := func(code int) func(error) bool {
		return func(err error) bool {
			var wrong *extract.StatusError
			return errors.As(err, &wrong) && wrong.Status == code
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    func(error) bool
	}{
		{"a gateway's page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, page)
		}, status(502)},
		{"a page with 200", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, page)
		}, status(200)},
		{"500 with JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"a":"SECRET"}`)
		}, status(500)},
		{"unknown encoding", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, "SECRET")
		}, status(200)},
		{"not gzip at all", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "SECRET SECRET SECRET")
		}, func(err error) bool { return errors.Is(err, gzip.ErrHeader) }},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100000")
			_, _ = io.WriteString(w, `{"Video":"`+longVideo)
			panic(http.ErrAbortHandler)
		}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"a gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, `{"Video":"`+strings.Repeat("QUJD", 100<<20/4)+`"}`)
			_ = z.Close()
		}, func(err error) bool { return errors.Is(err, extract.ErrTooLarge) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, url := serve(t, tt.handler)
			client.Transport.(*extract.Transport).Config.MaxBody = 50 << 20
			call, _, err := do(t.Context(), t, client, url, nil)
			if err == nil || !tt.want(err) || !tt.want(call.Err) {
				t.Fatalf("got %v, in the call %v", err, call.Err)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error holds content: %v", err)
			}
		})
	}
}

func TestTransportHearsTheContext(t *testing.T) {
	started := make(chan struct{})
	client, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"Video":"`)
		_ = http.NewResponseController(w).Flush()
		close(started)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	if _, _, err := do(ctx, t, client, url, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A useless answer does not cost its connection.
func TestTransportReusesConnections(t *testing.T) {
	client, url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
	})
	fresh := 0
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			fresh++
		}
	}}
	for range 5 {
		if _, _, err := do(httptrace.WithClientTrace(t.Context(), trace), t, client, url, nil); err == nil {
			t.Fatal("no error")
		}
	}
	if fresh != 1 {
		t.Errorf("%d connections for 5 calls", fresh)
	}
}

func TestTransportNeedsACall(t *testing.T) {
	client, url := serve(t, func(http.ResponseWriter, *http.Request) {})
	response, err := client.Get(url)
	if err == nil {
		_ = response.Body.Close()
		t.Error("went through")
	}
}

func ExampleStatusError() {
	fmt.Println(&extract.StatusError{Status: 502, ContentType: "text/html"})
	// Output: the endpoint answered HTTP 502 with text/html instead of a JSON result
}
