package faceid

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// ignored is what the SDK may make of an answer that is already in our hands.
type ignored struct{ *tchttp.BaseResponse }

// call sends one request and returns its answer. It is the only place that sees
// the SDK: its errors hold whole bodies (FACTS §5.4), so they end here.
func (c *Client) call(ctx context.Context, q Query, batch *spool.Batch) (*extract.Document, error) {
	if c.cfg.Limit != nil {
		if err := c.cfg.Limit.Wait(ctx); err != nil {
			return nil, &Error{Class: Canceled, Err: err}
		}
	}
	credential, err := c.cfg.Credentials(ctx)
	if err != nil {
		return nil, &Error{Class: AccountTrouble, Err: fmt.Errorf("read the credentials: %w", err)}
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	name, params := q.action()
	request := tchttp.NewCommonRequest("faceid", apiVersion, name)
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
func (c *Client) sdk(credential Credential) *common.Client {
	p := profile.NewClientProfile()
	p.SignMethod = "TC3-HMAC-SHA256"
	p.DisableRegionBreaker = true
	p.HttpProfile.ReqMethod = http.MethodPost
	p.HttpProfile.Scheme = c.scheme
	p.HttpProfile.Endpoint = c.host
	// The context bounds the call, to the millisecond and with its cause.
	p.HttpProfile.ReqTimeout = 0
	key := common.NewTokenCredential(credential.SecretID, credential.SecretKey, credential.Token)
	return common.NewCommonClient(key, c.cfg.Region, p).WithHttpTransport(c.extract)
}

// transportError says what came in place of an answer.
func (c *Client) transportError(err error) *Error {
	var status *extract.StatusError
	var syntax *extract.SyntaxError
	var field *extract.FieldError
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Error{Class: AccountTrouble, Err: fmt.Errorf("the endpoint %s does not exist: check endpoint, and name resolution", c.host)}
	case errors.Is(err, spool.ErrFull):
		return failure(Transient, "%w (%s, worker.timeout)", err, c.cfg.Timeout)
	case errors.Is(err, context.DeadlineExceeded):
		return failure(Transient, "no whole answer within %s", c.cfg.Timeout)
	case errors.Is(err, extract.ErrTooLarge), errors.Is(err, extract.ErrTooDeep):
		return &Error{Class: AccountTrouble, Err: fmt.Errorf("%w (worker.max_response is %d bytes)", err, c.cfg.MaxResponse)}
	case errors.As(err, &status), errors.As(err, &syntax), errors.As(err, &field):
		// A transfer may have gone wrong; what is wrong for good ends at the
		// event's deadline.
		return &Error{Class: Transient, Err: err}
	default:
		return &Error{Class: Transient, Err: err}
	}
}
