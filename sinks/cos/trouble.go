package cos

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tencentyun/cos-go-sdk-v5"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

var (
	// errNoObject means that there is no object under a key.
	errNoObject = errors.New("no such object")
	// errMissing means that there is no object where FaceID is said to have put one.
	errMissing = errors.New("FaceID's object is not there")
	// errNoBucket means that the bucket is not there, or in another region.
	errNoBucket = errors.New("there is no such bucket")
	// errExists means that an object that was to be created is there already.
	errExists = errors.New("the object is there already")
	// errForbidden is in every error of a request that COS refused for want of a
	// permission, or because the object is locked.
	errForbidden = errors.New("COS refuses it")
	// errContent is of an asset whose bytes are not what the result says. The next
	// fetch of the result may bring the right ones.
	errContent = errors.New("the bytes are not those that the result describes")
	// errStored means that COS stored other bytes than it was sent.
	errStored = errors.New("COS stored other bytes than were sent (its CRC-64 differs)")
)

// fail says in words what came of a request, and gives the error its class. An
// object's key is not in it: FaceID's may hold what it likes.
func (b *bucket) fail(action string, err error) error {
	err = bare(err)
	var refused *cos.ErrorResponse
	if errors.As(err, &refused) && refused.Response != nil {
		return b.refusal(action, refused)
	}
	var keys *credentialError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %s: %w", b, action, err)
	case errors.As(err, &keys):
		return fmt.Errorf("%s: credentials: %w", b, err)
	case errors.Is(err, privacy.ErrWrongContent):
		return errContent
	case errors.Is(err, errStalled):
		return fmt.Errorf("%s: %s: %w", b, action, errStalled)
	}
	err = wire.Closed(err)
	if hint := networkHint(err); hint != "" {
		return fmt.Errorf("%s: %s: %w: %s", b, action, err, hint)
	}
	return fmt.Errorf("%s: %s: %w", b, action, err)
}

// bare takes the SDK's and net/http's wrapping off, which holds URLs.
func bare(err error) error {
	for {
		var retried *cos.RetryError
		var located *url.Error
		switch {
		case errors.As(err, &retried) && len(retried.Errs) > 0:
			err = retried.Errs[len(retried.Errs)-1]
		case errors.As(err, &located):
			err = located.Err
		default:
			return err
		}
	}
}

func networkHint(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host does not exist: check bucket and region, and name resolution"
	case errors.As(err, &dns):
		return "name resolution does not work"
	case errors.As(err, &certificate):
		return "the server's certificate is not trusted: is something in between?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there: check endpoint, and the firewall"
	}
	return ""
}

// refusal says what COS's answer means.
func (b *bucket) refusal(action string, r *cos.ErrorResponse) error {
	status, code := r.Response.StatusCode, shownCode(r.Code)
	said := fmt.Sprintf("status %d", status)
	if code != "" {
		said += " " + code
	}
	if id := shownID(r.Response.Header.Get("X-Cos-Request-Id")); id != "" {
		said += ", request " + id
	}
	tell := func(words string) error { return fmt.Errorf("%s: %s: %s (%s)", b, action, words, said) }
	switch {
	case status == http.StatusOK:
		return tell("COS began it and then failed; it is tried again")
	case code == "NoSuchBucket":
		return fmt.Errorf("%s: %s: %w in region %s: check bucket and region, or create it (%s)", b, action, errNoBucket, b.region, said)
	case status == http.StatusNotFound:
		return fmt.Errorf("%s: %s: %w (%s)", b, action, errNoObject, said)
	case code == "FileAlreadyExists":
		return fmt.Errorf("%s: %s: %w", b, action, errExists)
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return fmt.Errorf("%s: %s: %w: %s (%s)", b, action, errForbidden, b.forbidden(action, code, r.Response), said)
	case status == http.StatusTooManyRequests, code == "SlowDown", code == "RequestLimitExceeded",
		status == http.StatusServiceUnavailable && r.Response.Header.Get("Retry-After") != "":
		return sinks.Throttled(tell("COS asks for fewer requests"), retryAfter(r.Response))
	case status >= 500:
		return tell("COS is in trouble; it is tried again")
	case status >= 300 && status < 400:
		return tell("COS says that the bucket is elsewhere: check region")
	case hopeless[code]:
		return sinks.Permanent(tell("COS will never take this"))
	case configured[code] != "":
		return tell(configured[code])
	}
	return tell("COS does not take the request")
}

// hopeless are the codes of requests that only another result would make right.
var hopeless = map[string]bool{
	"KeyTooLong": true, "InvalidArgument": true, "InvalidObjectName": true, "InvalidURI": true,
	"EntityTooLarge": true, "MetadataTooLarge": true,
}

// configured are the codes that concern the configuration, with what to do.
var configured = map[string]string{
	"InvalidStorageClass": "the bucket has no such storage class: check storage_class",
	"InvalidTag":          "COS does not take the tags: check tags",
	"InvalidRequest":      "the bucket cannot do what is configured: check retention (the bucket needs object lock), sse and storage_class",
	"MalformedXML":        "COS does not understand the request",
	"BadDigest":           "the bytes were damaged on the way; they are sent again",
	"InvalidDigest":       "the bytes were damaged on the way; they are sent again",
	"IncompleteBody":      "the bytes did not all arrive; they are sent again",
	"RequestTimeout":      "the bytes came too slowly; they are sent again",
}

// maxSkew is how far a clock may be off before COS refuses signatures for it.
const maxSkew = 5 * time.Minute

func (b *bucket) forbidden(action, code string, r *http.Response) string {
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		if skew := time.Since(date).Round(time.Minute); skew.Abs() > maxSkew {
			return fmt.Sprintf("this machine's clock is off by %s: set it, signatures depend on it", skew)
		}
	}
	switch {
	case code == "RequestTimeTooSkewed", code == "RequestIsExpired":
		return "this machine's clock is off: set it, signatures depend on it"
	case code == "InvalidAccessKeyId", code == "InvalidSecretId":
		return "the secret_id is not known, or the session_token is not of it: check them"
	case code == "SignatureDoesNotMatch":
		return "the secret_key is not of the secret_id: check both"
	case code == "ExpiredToken", code == "InvalidToken":
		return "the session_token is past its end"
	case code == "InvalidObjectState":
		return "the object is in an archive storage class: restore it first"
	case strings.HasPrefix(strings.ToUpper(code), "KMS"):
		return "KMS refuses its key: check kms_key_id, and that COS may use it"
	}
	_, appID, _ := cutLast(b.name, "-")
	return fmt.Sprintf("the CAM policy of the key, or the bucket's, does not allow name/cos:%s on qcs::cos:%s:uid/%s:%s/*", action, b.region, appID, b.name)
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// retryAfter reads how long COS wants to be left alone; 0 if it does not say.
func retryAfter(r *http.Response) time.Duration {
	text := r.Header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// otherCodes are the codes of COS that need no words of their own but tell its owner
// something.
var otherCodes = strings.Fields(`
	AccessDenied BucketAlreadyExists BucketAlreadyOwnedByYou BucketNotEmpty EntityTooSmall ExpiredToken FileAlreadyExists
	InternalError InvalidAccessKeyId InvalidBucketName InvalidBucketState InvalidObjectState InvalidPart InvalidPartOrder
	InvalidRange InvalidRegionName InvalidSecretId InvalidSHA1Digest InvalidToken MethodNotAllowed MissingContentLength
	NoSuchBucket NoSuchKey NoSuchObjectLockConfiguration NoSuchUpload NoSuchVersion NotImplemented OperationAborted
	PathConflict PreconditionFailed RequestIsExpired RequestLimitExceeded RequestTimeTooSkewed ServiceUnavailable
	SignatureDoesNotMatch SlowDown TooManyBuckets UnavailableForLegalReasons
	KMSAccessDenied KMSDisabled KMSInvalidKey KMSKeyDisabled KMSKeyNotExist KMSException`)

// shownCode returns a code if it is one of COS, and else nothing: it may be anything.
func shownCode(code string) string {
	if hopeless[code] || configured[code] != "" || slices.Contains(otherCodes, code) {
		return code
	}
	return ""
}

// requestID is what COS's ids say once their base64 is decoded: times and counters.
var requestID = regexp.MustCompile(`^[0-9a-f]{8}(_[0-9a-f]{1,16}){2,4}$`)

// shownID returns the id of a request if it has the form of COS's, and else nothing.
func shownID(id string) string {
	text, err := base64.StdEncoding.DecodeString(id)
	if err != nil || !requestID.Match(text) {
		return ""
	}
	return id
}
