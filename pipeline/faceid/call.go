package faceid

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// ignored is what the SDK may make of an answer that is already in our hands.
type ignored struct{ *tchttp.BaseResponse }

// caller sends requests to one endpoint, signed by the SDK. It is the only place
// that sees the SDK: its errors hold whole bodies (FACTS §5.4), so they end here.
type caller struct {
	service, version string
	// scheme and host are the endpoint's.
	scheme, host, region string
	credentials          func(ctx context.Context) (Credential, error)
	timeout              time.Duration
	base                 http.RoundTripper
	transport            *extract.Transport
}

// newCaller checks the endpoint and returns a caller for it. base is nil for a
// transport of its own.
func newCaller(service, version, endpoint, region string, credentials func(context.Context) (Credential, error), timeout time.Duration, base http.RoundTripper, limits extract.Config) (*caller, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("the endpoint must be a URL such as https://%s.tencentcloudapi.com, not %q", service, endpoint)
	}
	if credentials == nil {
		return nil, errors.New("a client needs credentials")
	}
	if timeout <= 0 || limits.MaxBody <= 0 {
		return nil, errors.New("a client needs a positive timeout and response limit")
	}
	if base == nil {
		base = NewTransport()
	}
	return &caller{
		service: service, version: version, scheme: strings.ToUpper(u.Scheme), host: u.Host, region: region,
		credentials: credentials, timeout: timeout, base: base, transport: &extract.Transport{Base: wire.Transport{Base: base}, Config: limits},
	}, nil
}

// close ends idle connections.
func (c *caller) close() {
	if t, ok := c.base.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// send sends one request and returns its answer, whose media go into batch. The
// error is an *Error.
func (c *caller) send(ctx context.Context, action string, params map[string]any, batch *spool.Batch) (*extract.Document, error) {
	credential, err := c.credentials(ctx)
	if err != nil {
		return nil, &Error{Class: AccountTrouble, Err: fmt.Errorf("read the credentials: %w", err)}
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request := tchttp.NewCommonRequest(c.service, c.version, action)
	if err := request.SetActionParameters(params); err != nil {
		return nil, failure(Permanent, "the request cannot be built")
	}
	call := &extract.Call{Batch: batch}
	request.SetContext(extract.NewContext(bounded, call))
	sdkErr := c.sdk(credential).Send(request, &ignored{&tchttp.BaseResponse{}})
	switch {
	case ctx.Err() != nil:
		return nil, &Error{Class: Canceled, Err: context.Cause(ctx)}
	case call.Err != nil:
		return nil, c.transportError(call.Err)
	case call.Document == nil:
		if sdkErr != nil && bounded.Err() != nil {
			return nil, c.transportError(bounded.Err())
		}
		return nil, failure(Transient, "the request could not be sent")
	}
	return call.Document, nil
}

// sdk returns a client of the SDK for one call.
func (c *caller) sdk(credential Credential) *common.Client {
	p := profile.NewClientProfile()
	p.SignMethod = "TC3-HMAC-SHA256"
	p.DisableRegionBreaker = true
	p.HttpProfile.ReqMethod = http.MethodPost
	p.HttpProfile.Scheme = c.scheme
	p.HttpProfile.Endpoint = c.host
	// The context bounds the call, to the millisecond and with its cause.
	p.HttpProfile.ReqTimeout = 0
	key := common.NewTokenCredential(credential.SecretID, credential.SecretKey, credential.Token)
	return common.NewCommonClient(key, c.region, p).WithHttpTransport(quiet{c.transport})
}

// quiet hands the SDK an empty answer: ours is with the Call already, and the SDK
// has paniced on the answer "null".
type quiet struct{ http.RoundTripper }

const emptyAnswer = `{"Response":{}}`

func (q quiet) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := q.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := response.Body.Close(); err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(strings.NewReader(emptyAnswer)), int64(len(emptyAnswer))
	return response, nil
}

// transportError says what came in place of an answer.
func (c *caller) transportError(err error) *Error {
	var status *extract.StatusError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Error{Class: AccountTrouble, Err: fmt.Errorf("the endpoint %s does not exist: check endpoint, and name resolution", c.host)}
	case errors.Is(err, spool.ErrFull):
		return failure(Transient, "%w (%s, worker.timeout)", err, c.timeout)
	case errors.Is(err, context.DeadlineExceeded):
		return failure(Transient, "no whole answer within %s", c.timeout)
	case errors.Is(err, extract.ErrTooLarge), errors.Is(err, extract.ErrTooDeep):
		return &Error{Class: RequestTrouble, Err: fmt.Errorf("%w (worker.max_response is %d bytes)", err, c.transport.Config.MaxBody)}
	case errors.As(err, &status) && throttles(status):
		return &Error{Class: Throttled, After: status.RetryAfter, Err: err}
	case errors.As(err, &status):
		return &Error{Class: Transient, After: status.RetryAfter, Err: err}
	default:
		// A transfer may have gone wrong; what is wrong for good ends at the
		// event's deadline.
		return &Error{Class: Transient, Err: err}
	}
}

// throttles tells whether a gateway refuses a call for the number of calls.
func throttles(status *extract.StatusError) bool {
	return status.Status == http.StatusTooManyRequests || status.Status == http.StatusServiceUnavailable && status.RetryAfter > 0
}
