package faceidtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// clockWindow is how far a request's clock may be off (FACTS §4).
const clockWindow = 5 * time.Minute

// authorization is the form of the header (FACTS §5.1).
var authorization = regexp.MustCompile(`^TC3-HMAC-SHA256 Credential=([^/]+)/(\d{4}-\d{2}-\d{2})/(faceid|kms)/tc3_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)

// verify checks the signature of a request by the published algorithm. It
// returns the API's error code, or "".
func (s *Server) verify(r *http.Request, body []byte) string {
	parts := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if parts == nil {
		return "AuthFailure.InvalidAuthorization"
	}
	id, date, service, signed, signature := parts[1], parts[2], parts[3], strings.Split(parts[4], ";"), parts[5]
	s.mu.Lock()
	c, known := s.credentials[id]
	s.mu.Unlock()
	if !known {
		return "AuthFailure.SecretIdNotFound"
	}
	if r.Header.Get("X-TC-Token") != c.sessionToken {
		return "AuthFailure.TokenFailure"
	}
	stamp := r.Header.Get("X-TC-Timestamp")
	unix, err := strconv.ParseInt(stamp, 10, 64)
	when := time.Unix(unix, 0).UTC()
	if err != nil || when.Format(time.DateOnly) != date || s.clock().Sub(when).Abs() > clockWindow {
		return "AuthFailure.SignatureExpire"
	}
	var headers strings.Builder
	has := map[string]bool{}
	for _, name := range signed {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		headers.WriteString(name + ":" + strings.ToLower(strings.TrimSpace(value)) + "\n")
		has[name] = true
	}
	if !has["host"] || !has["content-type"] {
		return "AuthFailure.InvalidAuthorization"
	}
	request := strings.Join([]string{r.Method, "/", r.URL.RawQuery, headers.String(), parts[4], hash(body)}, "\n")
	scope := date + "/" + service + "/tc3_request"
	toSign := strings.Join([]string{"TC3-HMAC-SHA256", stamp, scope, hash([]byte(request))}, "\n")
	signing := mac(mac(mac([]byte("TC3"+c.secretKey), date), service), "tc3_request")
	want := hex.EncodeToString(mac(signing, toSign))
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return "AuthFailure.SignatureFailure"
	}
	return ""
}

func hash(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text))
	return h.Sum(nil)
}
