package cos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// credential signs requests. token is empty for long-lived keys.
type credential struct{ id, key, token string }

// Format prints no key.
func (credential) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// credentials gives what signs a request that is about to be sent. Any number of
// goroutines may call it.
type credentials func(ctx context.Context) (credential, error)

// credentialError says that there is nothing to sign a request with.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// static reads the keys anew each time, for their files are rotated.
func (a Access) static(context.Context) (c credential, err error) {
	if c.id, err = readSecret("secret_id", a.SecretID, a.SecretIDFile); err != nil {
		return credential{}, err
	}
	if c.key, err = readSecret("secret_key", a.SecretKey, a.SecretKeyFile); err != nil {
		return credential{}, err
	}
	if a.SessionToken != "" || a.SessionTokenFile != "" {
		if c.token, err = readSecret("session_token", a.SessionToken, a.SessionTokenFile); err != nil {
			return credential{}, err
		}
	}
	return c, nil
}

func readSecret(name string, value sinks.Secret, file string) (string, error) {
	text := string(value)
	if file != "" {
		b, err := setting.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read %s_file: %w", name, err)
		}
		text = string(b)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return text, nil
}

const (
	// renewBefore is how long before their end temporary keys are renewed, and
	// renewPause how long to wait after that failed.
	renewBefore = 10 * time.Minute
	renewPause  = 30 * time.Second
	// stsLife is how long keys from STS last.
	stsLife = 30 * time.Minute
	// fetchTimeout bounds one attempt to get keys.
	fetchTimeout = 10 * time.Second
	// maxKeys bounds an answer that holds keys, in bytes.
	maxKeys = 64 << 10
)

// temporary keeps keys that end, and renews them in time.
type temporary struct {
	fetch func(ctx context.Context) (credential, time.Time, error)
	now   func() time.Time

	// turn holds one value while somebody uses what is below.
	turn  chan struct{}
	last  credential
	end   time.Time
	again time.Time
}

func newTemporary(now func() time.Time, fetch func(context.Context) (credential, time.Time, error)) *temporary {
	return &temporary{fetch: fetch, now: now, turn: make(chan struct{}, 1)}
}

// get returns keys that are still good. While they cannot be renewed, the old ones
// serve to their end.
func (t *temporary) get(ctx context.Context) (credential, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return credential{}, ctx.Err()
	}
	now := t.now()
	good := now.Before(t.end)
	if good && (now.Before(t.end.Add(-renewBefore)) || now.Before(t.again)) {
		return t.last, nil
	}
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	fresh, end, err := t.fetch(bounded)
	switch {
	case err == nil && now.Before(end):
		t.last, t.end = fresh, end
	case ctx.Err() != nil:
		return credential{}, ctx.Err()
	case good:
		t.again = now.Add(renewPause)
	case err == nil:
		return credential{}, errors.New("the temporary keys are past their end: check this machine's clock")
	default:
		return credential{}, err
	}
	return t.last, nil
}

// fromRole asks the machine's metadata service for the keys of a CAM role.
func fromRole(client *http.Client, endpoint, role string) func(context.Context) (credential, time.Time, error) {
	return func(ctx context.Context) (credential, time.Time, error) {
		place := endpoint + "/latest/meta-data/cam/security-credentials/" + url.PathEscape(role)
		hint := fmt.Sprintf("is the CAM role %s bound to this machine?", role)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, http.NoBody)
		if err != nil {
			return credential{}, time.Time{}, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return credential{}, time.Time{}, fmt.Errorf("ask the machine's metadata service for keys: %w: %s", bare(err), hint)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			TmpSecretID  string `json:"TmpSecretId"`
			TmpSecretKey string
			Token        string
			ExpiredTime  int64
			Code         string
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxKeys))
		if err != nil {
			return credential{}, time.Time{}, fmt.Errorf("ask the machine's metadata service for keys: %w", bare(err))
		}
		if resp.StatusCode != http.StatusOK || json.Unmarshal(b, &answer) != nil || answer.Code != "Success" || answer.TmpSecretKey == "" {
			return credential{}, time.Time{}, fmt.Errorf("the machine's metadata service gives no keys (status %d): %s", resp.StatusCode, hint)
		}
		return credential{answer.TmpSecretID, answer.TmpSecretKey, answer.Token}, time.Unix(answer.ExpiredTime, 0), nil
	}
}

// policy is what keys from STS may do at most: what this sink does. What the keys
// they are made of may not, they may not either.
const policy = `{"version":"2.0","statement":[{"effect":"allow","action":[` +
	`"name/cos:HeadBucket","name/cos:GetBucket","name/cos:GetBucketObjectVersions","name/cos:GetBucketObjectLockConfiguration","name/cos:ListMultipartUploads",` +
	`"name/cos:HeadObject","name/cos:GetObject","name/cos:PutObject","name/cos:DeleteObject",` +
	`"name/cos:PutObjectTagging","name/cos:PutObjectRetention","name/cos:GetObjectRetention",` +
	`"name/cos:InitiateMultipartUpload","name/cos:UploadPart","name/cos:CompleteMultipartUpload","name/cos:AbortMultipartUpload"` +
	`],"resource":["*"]}]}`

// fromSTS exchanges long-lived keys for temporary ones.
func fromSTS(transport http.RoundTripper, endpoint, region string, keys credentials) func(context.Context) (credential, time.Time, error) {
	return func(ctx context.Context) (credential, time.Time, error) {
		long, err := keys(ctx)
		if err != nil {
			return credential{}, time.Time{}, err
		}
		at, err := url.Parse(endpoint)
		if err != nil {
			return credential{}, time.Time{}, err
		}
		p := profile.NewClientProfile()
		p.DisableRegionBreaker = true
		p.HttpProfile.ReqMethod = http.MethodPost
		p.HttpProfile.Scheme = strings.ToUpper(at.Scheme)
		p.HttpProfile.Endpoint = at.Host
		request := tchttp.NewCommonRequest("sts", "2018-08-13", "GetFederationToken")
		request.SetContext(ctx)
		err = request.SetActionParameters(map[string]any{
			"Name": "faceid-ingest", "Policy": url.QueryEscape(policy), "DurationSeconds": int(stsLife / time.Second),
		})
		if err != nil {
			return credential{}, time.Time{}, err
		}
		response := tchttp.NewCommonResponse()
		client := common.NewCommonClient(common.NewCredential(long.id, long.key), region, p).WithHttpTransport(transport)
		if err := client.Send(request, response); err != nil {
			return credential{}, time.Time{}, stsError(ctx, err)
		}
		return parseSTS(response.GetBody())
	}
}

func parseSTS(body []byte) (credential, time.Time, error) {
	var answer struct {
		Response struct {
			ExpiredTime int64
			Credentials struct {
				Token        string
				TmpSecretID  string `json:"TmpSecretId"`
				TmpSecretKey string
			}
		}
	}
	if json.Unmarshal(body, &answer) != nil || answer.Response.Credentials.TmpSecretKey == "" {
		return credential{}, time.Time{}, errors.New("STS answered without keys")
	}
	c := answer.Response.Credentials
	return credential{c.TmpSecretID, c.TmpSecretKey, c.Token}, time.Unix(answer.Response.ExpiredTime, 0), nil
}

// stsError says what STS refused, by its code alone: the SDK's errors hold bodies
// (FACTS §5.4).
func stsError(ctx context.Context, err error) error {
	var refused *tcerrors.TencentCloudSDKError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("STS did not answer: %w", ctx.Err())
	case errors.As(err, &refused) && strings.HasPrefix(refused.Code, "AuthFailure"):
		return fmt.Errorf("STS refuses the keys (%s): check secret_id and secret_key", faceid.ShownCode(refused.Code))
	case errors.As(err, &refused) && !strings.HasPrefix(refused.Code, "ClientError"):
		return fmt.Errorf("STS refuses GetFederationToken (%s): does the CAM policy of the key allow name/sts:GetFederationToken?", faceid.ShownCode(refused.Code))
	}
	return errors.New("STS cannot be reached: check the network and name resolution")
}
