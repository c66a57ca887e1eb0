package extract

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// drainLimit is how much of a useless answer is read so that its connection can
// be used again, in bytes.
const drainLimit = 64 << 10

// Call is what a request's context carries to Transport and back.
type Call struct {
	// Batch takes the media of the answer.
	Batch *spool.Batch
	// Document is what the answer was, once RoundTrip has returned without an
	// error.
	Document *Document
	// Status is the HTTP status of the answer, or 0 if there was none.
	Status int
	// Err is the error that RoundTrip returned. What an SDK above makes of an
	// error need not be parsed to find it.
	Err error
}

type callKey struct{}

// NewContext returns a context for one request through a Transport.
func NewContext(ctx context.Context, call *Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// StatusError says that an answer was not JSON, or not HTTP 200: a gateway's
// page, for instance. It holds nothing of the body.
type StatusError struct {
	Status int
	// ContentType is a usual media type alone, or words.
	ContentType string
	// RetryAfter is how long the endpoint wants not to be asked, at most an hour; 0
	// if it did not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the endpoint answered HTTP %d with %s instead of a JSON result", e.Status, e.ContentType)
}

// Transport is an http.RoundTripper for requests whose context carries a Call:
// it extracts the media of the answer and hands up a response with the small
// JSON as its body. It may be used concurrently.
type Transport struct {
	// Base sends the request.
	Base   http.RoundTripper
	Config Config
}

// RoundTrip sends the request and reads the whole answer.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	call, ok := r.Context().Value(callKey{}).(*Call)
	if !ok {
		return nil, errors.New("extract: the request's context carries no Call")
	}
	response, err := t.Base.RoundTrip(r)
	if err != nil {
		call.Err = err
		return nil, err
	}
	call.Status = response.StatusCode
	body := response.Body
	defer func() { _ = body.Close() }()
	if call.Document, call.Err = t.extract(r.Context(), response, call.Batch); call.Err != nil {
		return nil, call.Err
	}
	response.Body = io.NopCloser(bytes.NewReader(call.Document.JSON))
	response.ContentLength = int64(len(call.Document.JSON))
	response.TransferEncoding = nil
	response.Header.Del("Content-Encoding")
	response.Header.Del("Content-Length")
	return response, nil
}

func (t *Transport) extract(ctx context.Context, response *http.Response, batch *spool.Batch) (*Document, error) {
	if kind := mediaType(response.Header); response.StatusCode != http.StatusOK || !isJSON(kind) {
		_, _ = io.CopyN(io.Discard, response.Body, drainLimit)
		return nil, &StatusError{Status: response.StatusCode, ContentType: shown(kind), RetryAfter: retryAfter(response.Header, time.Now())}
	}
	body := io.Reader(response.Body)
	switch response.Header.Get("Content-Encoding") {
	case "", "identity":
	case "gzip":
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		body = unzipped
	default:
		return nil, &StatusError{Status: response.StatusCode, ContentType: "an unknown Content-Encoding"}
	}
	ctx, step := span.Start(ctx, "extract")
	defer step.End()
	began := time.Now()
	document, err := Extract(ctx, body, batch, t.Config)
	if err != nil {
		span.Fail(step, "unreadable", "")
		return nil, err
	}
	document.Took = time.Since(began)
	step.SetAttributes(span.Media.Int(len(document.Media)))
	return document, nil
}

// maxRetryAfter bounds how long an endpoint can have its callers wait.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name: seconds or a date (RFC 9110 §10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	// Out of range, n is the largest number there is.
	if n, err := strconv.ParseUint(text, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// mediaType returns the media type of an answer, or words where it is none.
func mediaType(h http.Header) string {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || len(kind) > 64 {
		return "no content type"
	}
	return kind
}

// shown returns a media type if it is a usual one: what a stranger made up may be
// anything.
func shown(kind string) string {
	switch kind {
	case "text/html", "text/xml", "application/xml", "application/xhtml+xml", "application/problem+json", "text/event-stream":
		return kind
	}
	if isJSON(kind) {
		return kind
	}
	return "another content type"
}

// isJSON tells JSON from pages. Some gateways label JSON as text, or not at all.
func isJSON(kind string) bool {
	switch kind {
	case "application/json", "text/json", "text/plain", "application/octet-stream", "no content type":
		return true
	}
	return false
}
