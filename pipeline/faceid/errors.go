package faceid

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Class is what the pipeline does about an error of the API, and the value of
// the metric label "class".
type Class string

const (
	// Transient is over by itself: try again, soon and then later.
	Transient Class = "transient"
	// Throttled means that the account calls more often than it may.
	Throttled Class = "throttled"
	// NotReady means that the check is not finished; it is nobody's fault.
	NotReady Class = "not_ready"
	// Permanent means that this token will never give a result.
	Permanent Class = "permanent"
	// AccountTrouble means that every call of the account fails until somebody
	// acts: credentials, arrears, clock, permissions. It says nothing about the
	// token.
	AccountTrouble Class = "account"
	// RequestTrouble means that this way of asking fails until somebody acts: a rule
	// that does not exist, a parameter, a key, a limit of ours. It may be this
	// token's event that has it wrong, so that it says nothing about others.
	RequestTrouble Class = "request"
	// TooLarge means that the API refuses to send all parts in one answer.
	TooLarge Class = "too_large"
	// Canceled means that the caller gave up.
	Canceled Class = "canceled"
)

// Classes lists every class, for metrics that show all of them from the start.
func Classes() []Class {
	return []Class{Transient, Throttled, NotReady, Permanent, AccountTrouble, RequestTrouble, TooLarge, Canceled}
}

// Error says why a result could not be had. Its words hold nothing of an answer but
// the API's own code, and its id of the call if that has the form of one: the rest may
// repeat what was sent.
type Error struct {
	Class Class
	// Code is the API's error code: one that is documented, or a new one below those.
	// Anything else is Undocumented; empty means that the API did not answer.
	Code string
	// RequestID is the API's id of the call, for Tencent's support; may be empty.
	RequestID string
	// After is how long the endpoint wants not to be asked, at most an hour; 0 if it
	// did not say.
	After time.Duration
	Err   error
}

func (e *Error) Error() string {
	text := e.Err.Error()
	if e.Code != "" {
		text = e.Code + ": " + text
	}
	if id := shownID(e.RequestID); id != "" {
		text += " (request " + id + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// ErrNotFinished is wrapped by the error for a token whose check is not finished
// (FACTS §3.2: Text.ErrCode null or 17).
var ErrNotFinished = errors.New("the check is not finished yet")

// ClassOf returns the class of an error of this package. Errors of anything else
// are Transient, or Canceled if a context ended.
func ClassOf(err error) Class {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Class
	case errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Transient
	}
}

// OfWholeAccount tells whether an error of class AccountTrouble is of the account
// itself, as arrears are, and not of what one machine may have wrong by itself: its
// clock, its address or an old key.
func OfWholeAccount(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == AccountTrouble && strings.HasPrefix(e.Code, "UnauthorizedOperation.")
}

// IsExpired reports whether the API says that a token has expired, and its result with
// it.
func IsExpired(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == Permanent && expired(e.Code)
}

// expired reports whether a code is one of those that say so. Only BizTokenExpired is
// documented; other tokens have codes of their own.
func expired(code string) bool {
	return strings.HasPrefix(code, "InvalidParameter") && strings.HasSuffix(code, "Expired")
}

// CodeLabel returns a code for counting: "ok" without an error, that of the API if it is
// documented, "other" if not, and "none" where no answer came. So whatever an endpoint
// sends, there are few of them.
func CodeLabel(err error) string {
	var e *Error
	switch {
	case err == nil:
		return "ok"
	case !errors.As(err, &e) || e.Code == "":
		return "none"
	}
	if _, documented := apiCodes[e.Code]; documented {
		return e.Code
	}
	return "other"
}

// apiCode is one row of the table of the API's error codes.
type apiCode struct {
	class Class
	text  string
}

// apiCodes are the documented error codes (FACTS §3.1). Only what the service
// says of a token itself is permanent: what the owner can mend, the wrong rule or
// endpoint included, waits for that. A code that is not here is looked up without
// its last part, and in the end taken for transient: a result that waits is not
// lost, one that is given up may be.
var apiCodes = map[string]apiCode{
	"FailedOperation.DecryptSystemError":                {RequestTrouble, "the service cannot open the request's key: check encryption.public_key_file and encryption.algorithm"},
	"FailedOperation.EncryptSystemError":                {Transient, "the service failed to encrypt the answer"},
	"FailedOperation.RequestLimitExceeded":              {Throttled, "the account calls too often"},
	"FailedOperation.StsUnAuthErrError":                 {AccountTrouble, "the STS credentials are not authorised"},
	"FailedOperation.UnKnown":                           {Transient, "unknown error inside the service"},
	"FailedOperation":                                   {Transient, "the operation failed inside the service"},
	"InternalError.EncryptSystemError":                  {Transient, "the service failed to encrypt the answer"},
	"InternalError":                                     {Transient, "error inside the service"},
	"InvalidParameter":                                  {Permanent, "the service does not know this token, or a parameter is wrong"},
	"InvalidParameterValue":                             {RequestTrouble, "the service refuses a parameter: check rule_id and request"},
	"InvalidParameterValue.BizTokenExpired":             {Permanent, "the token expired; Tencent has deleted the result"},
	"InvalidParameterValue.BizTokenIllegal":             {Permanent, "the service does not know this token"},
	"InvalidParameterValue.RuleIdNotExist":              {RequestTrouble, "the rule id does not exist: check rule_id, and where the event has its own from"},
	"UnauthorizedOperation":                             {AccountTrouble, "the account is not allowed to do this: check its CAM policy"},
	"UnauthorizedOperation.ActivateError":               {AccountTrouble, "the FaceID service of the account is not active: check the console"},
	"UnauthorizedOperation.Activating":                  {AccountTrouble, "the FaceID service of the account is being activated"},
	"UnauthorizedOperation.Arrears":                     {AccountTrouble, "the account is in arrears: pay, or results are deleted three days after their check"},
	"UnauthorizedOperation.NonAuthorize":                {AccountTrouble, "the account has no verified identity: check the console"},
	"UnauthorizedOperation.Nonactivated":                {AccountTrouble, "FaceID is not activated for the account: check the console"},
	"ActionOffline":                                     {AccountTrouble, "the API action was taken offline: this program may be too old"},
	"AuthFailure":                                       {AccountTrouble, "the credentials were refused"},
	"AuthFailure.InvalidAuthorization":                  {AccountTrouble, "the signature has a wrong form: a proxy may have changed the request"},
	"AuthFailure.InvalidSecretId":                       {AccountTrouble, "the secret_id is not one of the API's keys: check secret_id"},
	"AuthFailure.MFAFailure":                            {AccountTrouble, "the account asks for multi-factor authentication"},
	"AuthFailure.SecretIdNotFound":                      {AccountTrouble, "the secret_id does not exist or is disabled: check secret_id"},
	"AuthFailure.SignatureExpire":                       {AccountTrouble, "this machine's clock is more than five minutes off: synchronise it"},
	"AuthFailure.SignatureFailure":                      {AccountTrouble, "the signature is wrong: check secret_key"},
	"AuthFailure.TokenFailure":                          {AccountTrouble, "the STS token is wrong or expired"},
	"AuthFailure.UnauthorizedOperation":                 {AccountTrouble, "the CAM policy of these credentials does not allow this action"},
	"InvalidAction":                                     {AccountTrouble, "the endpoint does not know this action: check endpoint"},
	"InvalidRequest":                                    {RequestTrouble, "the request has a wrong form: a proxy may have changed it"},
	"MissingParameter":                                  {RequestTrouble, "the service misses a parameter: check endpoint and request"},
	"UnknownParameter":                                  {RequestTrouble, "the endpoint does not know a parameter: check request and endpoint"},
	"NoSuchVersion":                                     {AccountTrouble, "the endpoint does not know this version of the API: check endpoint"},
	"IpInBlacklist":                                     {AccountTrouble, "this machine's address is on the account's black list"},
	"IpNotInWhitelist":                                  {AccountTrouble, "this machine's address is not on the account's white list"},
	"RequestLimitExceeded":                              {Throttled, "the account calls too often"},
	"LimitExceeded":                                     {Throttled, "the account is over a limit"},
	"RequestSizeLimitExceeded":                          {RequestTrouble, "the request is too large"},
	"ResponseSizeLimitExceeded":                         {TooLarge, "the answer is larger than the service sends at once"},
	"ResourceUnavailable":                               {Transient, "a resource of the service is unavailable"},
	"ServiceUnavailable":                                {Transient, "the service is unavailable"},
	"UnsupportedRegion":                                 {AccountTrouble, "the service does not exist in this region: check region and endpoint"},
	"RequestLimitExceeded.IPLimitExceeded":              {Throttled, "this machine's address calls too often"},
	"RequestLimitExceeded.UinLimitExceeded":             {Throttled, "the account calls too often"},
	"RequestLimitExceeded.GlobalRegionUinLimitExceeded": {Throttled, "the account calls too often over all regions"},
}

// maxCode bounds what is kept of a code that the endpoint sent, in bytes.
const maxCode = 128

// Undocumented stands for a code of no known family, which may be anything.
const Undocumented = "undocumented"

// newCode is a code below a family, such as InternalError.Db: letters alone, for digits
// may be somebody's number.
var newCode = regexp.MustCompile(`^[A-Z][A-Za-z]*(\.[A-Z][A-Za-z]*){1,2}$`)

// ShownCode returns what may be shown of an error code that an endpoint of Tencent Cloud
// sent: see Error.Code.
func ShownCode(code string) string {
	if _, documented := apiCodes[code]; documented {
		return code
	}
	family, _, _ := strings.Cut(code, ".")
	if !families[family] {
		return Undocumented
	}
	if len(code) > maxCode || !newCode.MatchString(code) {
		return family + "." + Undocumented
	}
	return code
}

// families are the first parts of the documented codes.
var families = func() map[string]bool {
	all := map[string]bool{}
	for code := range apiCodes {
		family, _, _ := strings.Cut(code, ".")
		all[family] = true
	}
	return all
}()

var callID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// shownID returns an id of a call if it has the form of the vendor's, and else nothing.
func shownID(id string) string {
	if callID.MatchString(id) {
		return id
	}
	return ""
}

// newAPIError makes the error for a code of the API.
func newAPIError(code, requestID string) *Error {
	row := lookUp(code)
	return &Error{Class: row.class, Code: ShownCode(code), RequestID: plainASCII(requestID), Err: errors.New(row.text)}
}

// namePermission has an error that says that a permission is missing say which.
func namePermission(err error, permission string) error {
	var e *Error
	if errors.As(err, &e) && (e.Code == "AuthFailure.UnauthorizedOperation" || e.Code == "UnauthorizedOperation") {
		e.Err = fmt.Errorf("the credentials lack a permission: their CAM policy must allow %s", permission)
	}
	return err
}

func lookUp(code string) apiCode {
	if row, ok := apiCodes[code]; ok {
		return row
	}
	if expired(code) {
		return apiCodes["InvalidParameterValue.BizTokenExpired"]
	}
	for family := code; ; {
		dot := strings.LastIndexByte(family, '.')
		if dot < 0 {
			return apiCode{Transient, "an error this version does not know"}
		}
		family = family[:dot]
		row, ok := apiCodes[family]
		switch {
		case ok && row.class == Permanent:
			return apiCode{RequestTrouble, "an error this version does not know, of a request that the service refuses"}
		case ok:
			return row
		}
	}
}

// plainASCII keeps identifiers from carrying anything else into logs.
func plainASCII(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r == '.', r == '-', r == '_':
			return r
		}
		return -1
	}, s[:min(len(s), maxCode)])
	return s
}

func failure(class Class, format string, args ...any) *Error {
	return &Error{Class: class, Err: fmt.Errorf(format, args...)}
}
