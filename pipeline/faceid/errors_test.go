package faceid_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

// documented is every code of the API's documentation, with what follows for the
// token (FACTS §3.1).
var documented = map[faceid.Class]string{
	faceid.Transient: `FailedOperation.EncryptSystemError InternalError.EncryptSystemError FailedOperation.UnKnown FailedOperation
		InternalError ResourceUnavailable ServiceUnavailable`,
	faceid.Throttled: `RequestLimitExceeded RequestLimitExceeded.IPLimitExceeded RequestLimitExceeded.UinLimitExceeded
		RequestLimitExceeded.GlobalRegionUinLimitExceeded FailedOperation.RequestLimitExceeded LimitExceeded`,
	faceid.Permanent: `InvalidParameter InvalidParameterValue.BizTokenExpired InvalidParameterValue.BizTokenIllegal`,
	faceid.AccountTrouble: `FailedOperation.StsUnAuthErrError UnauthorizedOperation
		UnauthorizedOperation.ActivateError UnauthorizedOperation.Activating UnauthorizedOperation.Arrears
		UnauthorizedOperation.NonAuthorize UnauthorizedOperation.Nonactivated AuthFailure AuthFailure.InvalidAuthorization
		AuthFailure.InvalidSecretId AuthFailure.MFAFailure AuthFailure.SecretIdNotFound AuthFailure.SignatureExpire
		AuthFailure.SignatureFailure AuthFailure.TokenFailure AuthFailure.UnauthorizedOperation IpInBlacklist
		IpNotInWhitelist UnsupportedRegion ActionOffline InvalidAction NoSuchVersion`,
	faceid.RequestTrouble: `FailedOperation.DecryptSystemError InvalidParameterValue InvalidParameterValue.RuleIdNotExist
		InvalidRequest MissingParameter UnknownParameter RequestSizeLimitExceeded`,
	faceid.TooLarge: `ResponseSizeLimitExceeded`,
}

// undocumented codes take their family's class, but are never permanent.
var undocumented = map[faceid.Class]string{
	faceid.Transient:      `InternalError.Db FailedOperation.Something`,
	faceid.Throttled:      `RequestLimitExceeded.SomeLimit LimitExceeded.Quota`,
	faceid.AccountTrouble: `AuthFailure.New UnauthorizedOperation.New.Deeper`,
	faceid.RequestTrouble: `InvalidParameterValue.NewRule InvalidParameter.New`,
}

func TestEveryCodeOfTheAPI(t *testing.T) {
	rig := newRig(t, nil)
	c := marked()
	rig.api.Put(c)
	codes := 0
	for _, table := range []map[faceid.Class]string{documented, undocumented} {
		for class, names := range table {
			for code := range strings.FieldsSeq(names) {
				codes++
				rig.api.Fail(faceidtest.Fault{Token: c.Token, Code: code})
				_, err := rig.get(t, query(c))
				rig.api.ClearFaults()
				var e *faceid.Error
				if !errors.As(err, &e) || e.Class != class || e.Code != code || e.RequestID == "" {
					t.Errorf("%s: %#v, want class %s", code, err, class)
				}
				if !strings.HasPrefix(err.Error(), code+": ") || strings.Contains(err.Error(), "stand-in") {
					t.Errorf("%s: the message is %q", code, err)
				}
			}
		}
	}
	if codes < 50 {
		t.Errorf("only %d codes", codes)
	}
}

func TestGatewayFaultsAreTransient(t *testing.T) {
	rig := newRig(t, nil)
	c := marked()
	rig.api.Put(c)
	for _, status := range []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		rig.api.Fail(faceidtest.Fault{Times: 1, Status: status})
		if _, err := rig.get(t, query(c)); faceid.ClassOf(err) != faceid.Transient {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
	for _, cut := range []int64{1, 100, 5_000, 50_000} {
		rig.api.Fail(faceidtest.Fault{Times: 1, CutAt: cut})
		if _, err := rig.get(t, query(c)); faceid.ClassOf(err) != faceid.Transient {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
	}
}

func TestClasses(t *testing.T) {
	for _, table := range []map[faceid.Class]string{documented, undocumented} {
		for class := range table {
			if !slices.Contains(faceid.Classes(), class) {
				t.Errorf("Classes has no %s", class)
			}
		}
	}
}
