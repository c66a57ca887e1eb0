package cos

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/tencentyun/cos-go-sdk-v5"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

const (
	// maxError and maxAnswer bound what is read of an error and of an answer that is
	// not an object, in bytes. A listing of a thousand keys has some 500 KiB.
	maxError  = 64 << 10
	maxAnswer = 16 << 20
	// signLife is how long a signature is good, and clockSlack how much it is
	// dated back for clocks that go ahead.
	signLife   = 30 * time.Minute
	clockSlack = time.Minute
)

var errStalled = errors.New("the connection stood still for too long")

// links are the sink's connections: one pool for all buckets.
type links struct {
	endpoint *url.URL
	pool     *http.Transport
	// local is for the machine's metadata service, which no proxy may see.
	local *http.Transport
	base  http.RoundTripper
	edges edges
	// own and source are the credentials for the archive and for FaceID's bucket.
	own, source credentials
}

func newLinks(cfg Config, e edges) *links {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	l := &links{
		edges: e,
		pool: wire.ThroughProxy(&http.Transport{
			DialContext:         dialer.DialContext,
			TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second,
			// Enough that the slots of a busy worker keep their connections.
			MaxIdleConns: 256, MaxIdleConnsPerHost: 128,
			WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		}),
		local: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
	}
	if cfg.Endpoint != "" {
		l.endpoint, _ = url.Parse(cfg.Endpoint) // a valid one parses
	}
	l.base = wire.Transport{Base: e.wrap(l.pool)}
	l.own = l.credentials(cfg.access(), cfg.Region)
	l.source = l.own
	if cfg.Source != (Access{}) {
		l.source = l.credentials(cfg.Source, cfg.Region)
	}
	return l
}

func (l *links) credentials(a Access, region string) credentials {
	switch a.Credentials {
	case cvmRole:
		client := &http.Client{Transport: wire.Transport{Base: l.local}}
		return newTemporary(l.edges.now, fromRole(client, l.edges.metadata, a.Role)).get
	case sts:
		return newTemporary(l.edges.now, fromSTS(limited{wire.Transport{Base: l.pool}}, l.edges.sts, region, a.static)).get
	}
	return a.static
}

func (l *links) close() {
	l.pool.CloseIdleConnections()
	l.local.CloseIdleConnections()
}

// bucket returns a client of a bucket. It keeps nothing but the links.
func (l *links) bucket(name, region string, keys credentials) *bucket {
	host := name + ".cos." + region + ".myqcloud.com"
	at := &url.URL{Scheme: "https", Host: host}
	if l.endpoint != nil {
		at = l.endpoint
	}
	client := cos.NewClient(&cos.BaseURL{BucketURL: at}, &http.Client{
		Transport: &signing{keys: keys, base: l.base, patience: l.edges.patience, now: l.edges.now},
	})
	client.Host = host
	client.Conf.RetryOpt.Count = 1
	// The sums that COS answers with are compared with those taken before.
	client.Conf.EnableCRC = false
	return &bucket{name: name, region: region, sdk: client}
}

// signing signs requests, ends those that make no progress, and bounds answers.
type signing struct {
	keys     credentials
	base     http.RoundTripper
	patience time.Duration
	now      func() time.Time
}

// RoundTrip implements http.RoundTripper.
func (t *signing) RoundTrip(req *http.Request) (*http.Response, error) {
	c, err := t.keys(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, &credentialError{err}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{patience: t.patience}
	w.timer = time.AfterFunc(t.patience, func() { cancel(errStalled) })
	end := func() { w.timer.Stop(); cancel(nil) }

	signed := req.Clone(ctx)
	if signed.Body != nil && signed.Body != http.NoBody {
		signed.Body = &watched{ReadCloser: signed.Body, watch: w}
	}
	now := t.now()
	cos.AddAuthorizationHeader(c.id, c.key, c.token, signed, &cos.AuthTime{
		SignStartTime: now.Add(-clockSlack), SignEndTime: now.Add(signLife),
		KeyStartTime: now.Add(-clockSlack), KeyEndTime: now.Add(signLife),
	})
	resp, err := t.base.RoundTrip(signed)
	if err != nil {
		defer end()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		return nil, err
	}
	w.moved()
	resp.Body = &watched{ReadCloser: resp.Body, watch: w, cause: ctx, end: end, left: bound(req, resp)}
	return resp, nil
}

// bound is how many bytes of an answer are read.
func bound(req *http.Request, resp *http.Response) int64 {
	switch {
	case resp.StatusCode >= 300:
		return maxError
	case req.Method == http.MethodGet && req.URL.RawQuery == "":
		return 1 << 62 // an object; its reader knows how much it wants
	}
	return maxAnswer
}

// watch is the clock of a request.
type watch struct {
	timer    *time.Timer
	patience time.Duration
}

func (w *watch) moved() { w.timer.Reset(w.patience) }

// watched tells a watch of what is read.
type watched struct {
	io.ReadCloser
	watch *watch
	// The rest is for answers.
	cause context.Context
	end   func()
	left  int64
}

func (b *watched) Read(p []byte) (int, error) {
	if b.end == nil {
		n, err := b.ReadCloser.Read(p)
		b.watch.moved()
		return n, err
	}
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == nil {
		b.watch.moved()
	} else if errors.Is(context.Cause(b.cause), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *watched) Close() error {
	err := b.ReadCloser.Close()
	if b.end != nil {
		b.end()
	}
	return err
}

// limited bounds answers of other services.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxKeys), resp.Body}
	}
	return resp, err
}
