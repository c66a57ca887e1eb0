package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"

	secretPrefix = "whsec_"
	// minSecret and maxSecret bound a secret, in bytes, as Standard Webhooks does.
	minSecret, maxSecret = 24, 64
	// maxSecrets is how many secrets sign one request: two while one is changed.
	maxSecrets = 8
	// maxSignatures is how many signatures of a request are looked at.
	maxSignatures = 16
)

var (
	// ErrNotAuthentic means that a request carries no signature by the secret over
	// its id, timestamp and body.
	ErrNotAuthentic = errors.New("the request is not signed by this secret")
	// ErrStale means that a request is authentic, but was made too long ago or in
	// the future: it may be recorded and sent again by somebody else.
	ErrStale = errors.New("the request is too old, or from the future")
)

// Verify tells whether a request was signed by the secret, at most tolerance
// before or after now; five minutes suit. The secret is "whsec_" and base64, as
// the sender's configuration has it, or several of them on lines of their own, of
// which any may have signed. body must be all of the request's body, unchanged.
//
// The error is ErrNotAuthentic or ErrStale, or says that the secret is none. A
// request that passes may still be a repetition: its Webhook-Id tells.
func Verify(secret string, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	secrets, err := parseSecrets(secret)
	if err != nil {
		return err
	}
	id, timestamp := header.Get(headerID), header.Get(headerTimestamp)
	if !isSigned(secrets, id, timestamp, header.Get(headerSignature), body) {
		return ErrNotAuthentic
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return ErrNotAuthentic
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return ErrStale
	}
	return nil
}

func isSigned(secrets [][]byte, id, timestamp, list string, body []byte) bool {
	if id == "" || timestamp == "" {
		return false
	}
	looked := 0
	for one := range strings.SplitSeq(list, " ") {
		if looked++; looked > maxSignatures {
			return false
		}
		version, text, _ := strings.Cut(one, ",")
		given, err := base64.StdEncoding.DecodeString(text)
		if version != "v1" || err != nil {
			continue
		}
		for _, secret := range secrets {
			if hmac.Equal(given, signature(secret, id, timestamp, body)) {
				return true
			}
		}
	}
	return false
}

// signatures returns the header with a signature by each secret.
func signatures(secrets [][]byte, id, timestamp string, body []byte) string {
	list := make([]string, len(secrets))
	for i, secret := range secrets {
		list[i] = "v1," + base64.StdEncoding.EncodeToString(signature(secret, id, timestamp, body))
	}
	return strings.Join(list, " ")
}

func signature(secret []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}

// parseSecrets returns the secrets in text, one a line. The error quotes none.
func parseSecrets(text string) ([][]byte, error) {
	var secrets [][]byte
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		encoded, ok := strings.CutPrefix(line, secretPrefix)
		secret, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, fmt.Errorf("secret must be %s and %d to %d random bytes in base64: "+
				"make one by echo whsec_$(openssl rand -base64 32)", secretPrefix, minSecret, maxSecret)
		}
		secrets = append(secrets, secret)
	}
	switch {
	case len(secrets) == 0:
		return nil, errors.New("secret is missing: give secret or secret_file")
	case len(secrets) > maxSecrets:
		return nil, fmt.Errorf("secret is too many: at most %d", maxSecrets)
	}
	return secrets, nil
}
