package cos_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

// inParts is a cloud whose sinks upload in parts of a MiB.
func inParts(t testing.TB) *cloud {
	t.Helper()
	return newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.SinglePutLimit, c.PartSize, c.PartWorkers = 1<<20, 1<<20, 3 })
}

func TestParts(t *testing.T) {
	t.Parallel()
	for size, parts := range map[int]int{1 << 20: 0, 1<<20 + 1: 2, 5 << 20: 5, 5<<20 - 1: 5} {
		c := inParts(t)
		r := onlyInline(0, size)
		receipts := archive(t, c.open(t, cos.Edges{}), r)
		got, _ := c.server.Body(archiveBucket, keysOf(receipts)[0])
		if sha256.Sum256(got) != r.Assets[0].Digest.SHA256 {
			t.Errorf("%d bytes came as others", size)
		}
		if n := c.asked(0)["UploadPart"]; n != parts {
			t.Errorf("%d bytes went in %d parts, want %d", size, n, parts)
		}
	}
}

// An upload that is given up leaves no parts behind, whatever the reason, and the
// next one is whole.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]costest.Fault{
		"a part fails":       {Action: "UploadPart", Status: 500},
		"parts are lost":     {Action: "UploadPart", Drop: true},
		"the end fails":      {Action: "CompleteMultipartUpload", Status: 503, Code: "SlowDown", RetryAfter: "3"},
		"the end fails late": {Action: "CompleteMultipartUpload", CopyError: true},
		"the CRC differs":    {Action: "CompleteMultipartUpload", WrongCRC: true},
		"the answer is lost": {Action: "CompleteMultipartUpload", LoseAnswer: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := inParts(t)
			sink, r := c.open(t, cos.Edges{}), onlyInline(0, 4<<20)
			lift := c.server.Inject(fault)
			class := sinks.ClassTransient
			if fault.RetryAfter != "" {
				class = sinks.ClassThrottled
			}
			err := fails(t, sink, r, class, "asset 0 (VideoData.LivenessVideo)", archiveBucket)
			if _, after := sinks.ClassOf(err); fault.RetryAfter != "" && after != 3*time.Second {
				t.Errorf("to be asked again after %s", after)
			}
			if uploads := c.server.Uploads(archiveBucket); len(uploads) > 0 {
				t.Errorf("uploads are left: %v", uploads)
			}
			lift()
			archive(t, sink, r)
		})
	}
}

func TestCancelledUpload(t *testing.T) {
	t.Parallel()
	c := inParts(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var parts atomic.Int32
	sink := c.open(t, cos.Edges{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Has("partNumber") && parts.Add(1) == 3 {
				cancel()
			}
			return base.RoundTrip(req)
		})
	}})
	_, err := sink.Archive(ctx, onlyInline(0, 8<<20))
	if class, _ := sinks.ClassOf(err); class != sinks.ClassCanceled {
		t.Errorf("%s: %v", class, err)
	}
	if uploads := c.server.Uploads(archiveBucket); len(uploads) > 0 {
		t.Errorf("uploads are left: %v", uploads)
	}
}

// A cause that the caller gives for its cancellation does not hide it.
func TestCancelledWithCause(t *testing.T) {
	t.Parallel()
	c := inParts(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	sink := c.open(t, cos.Edges{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodGet {
				cancel(errors.New("the lease is lost"))
			}
			return base.RoundTrip(req)
		})
	}})
	_, err := sink.Archive(ctx, onlyInline(0, 8<<20))
	if class, _ := sinks.ClassOf(err); class != sinks.ClassCanceled {
		t.Errorf("%s: %v", class, err)
	}
}

// What COS says it stored is compared with what was sent.
func TestWrongCRC(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	lift := c.server.Inject(costest.Fault{Action: "PutObject", WrongCRC: true})
	sink, r := c.open(t, cos.Edges{}), onlyInline(0, 100)
	fails(t, sink, r, sinks.ClassTransient, archiveBucket, "CRC-64 differs")
	lift()
	archive(t, sink, r)
}

// Bytes that change between two readings are not archived as if they had not.
func TestContentThatChanges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*cloud{
		"one request": newCloud(t, costest.BucketOptions{}, func(*cos.Config) {}), "parts": inParts(t),
		"sealed": newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode, c.Seal = "pull", true }),
	} {
		r := onlyInline(0, 3<<20)
		changing := &changingContent{first: r.Assets[0].Content}
		r.Assets[0].Content = changing
		fails(t, c.open(t, cos.Edges{}), r, sinks.ClassTransient)
		if n := len(c.server.Objects(archiveBucket)); n != 1 {
			t.Errorf("%s: %d objects, want the index alone", name, n)
		}
	}
}

// changingContent gives other bytes of the same length from the second reader on.
type changingContent struct {
	first  result.Content
	opened atomic.Int32
}

func (c *changingContent) Open() (io.ReadSeekCloser, error) {
	if c.opened.Add(1) == 1 {
		return c.first.Open()
	}
	return closing{bytes.NewReader(make([]byte, 3<<20))}, nil
}

type closing struct{ io.ReadSeeker }

func (closing) Close() error { return nil }

// A COS that does not move is given up, whether it does not answer, does not take,
// or does not give.
func TestStandstill(t *testing.T) {
	t.Parallel()
	for _, fault := range []costest.Fault{{Hang: true}, {Action: "PutObject", Hang: true}, {Action: "UploadPart", Hang: true}} {
		c := inParts(t)
		lift := c.server.Inject(fault)
		sink := c.open(t, cos.Edges{Patience: 50 * time.Millisecond})
		fails(t, sink, onlyInline(0, 3<<20), sinks.ClassTransient, archiveBucket, "stood still")
		lift()
	}
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	must(t, c.server.Close())
	sink := c.open(t, cos.Edges{})
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "nobody listens there")
	if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody listens there") {
		t.Errorf("%v", err)
	}
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	c := newCloudWith(t, costest.Options{Now: func() time.Time { return time.Now().Add(3 * time.Hour) }}, costest.BucketOptions{}, func(*cos.Config) {})
	sink := c.open(t, cos.Edges{})
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "clock is off by -3h0m")
	if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("%v", err)
	}
}

// An answer without end is not read without end.
func TestEndlessAnswer(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	var read atomic.Int64
	sink := c.open(t, cos.Edges{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			resp, err := base.RoundTrip(req)
			if err == nil && req.Method == http.MethodPut {
				resp.StatusCode, resp.Body = 500, &endless{resp.Body, &read}
			}
			return resp, err
		})
	}})
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, "in trouble")
	if n := read.Load(); n > 1<<20 {
		t.Errorf("%d bytes of an error were read", n)
	}
}

type endless struct {
	io.Closer
	read *atomic.Int64
}

func (e *endless) Read(p []byte) (int, error) {
	e.read.Add(int64(len(p)))
	return len(p), nil
}

// An asset of more parts than COS allows gets larger parts.
func TestManyParts(t *testing.T) {
	t.Parallel()
	const size = 12_345 << 20
	if got := cos.PartSizeFor(size); got*10_000 < size || got*9_999 > size+10_000 {
		t.Errorf("parts of %d bytes", got)
	}
}
