package costest

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // COS signs with HMAC-SHA1
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// authenticate verifies a request's signature (FACTS §6.2) and returns whose it is.
func (s *Server) authenticate(r *http.Request) (Credential, *failure) {
	fields := map[string]string{}
	for pair := range strings.SplitSeq(r.Header.Get("Authorization"), "&") {
		name, value, _ := strings.Cut(pair, "=")
		fields[name] = value
	}
	if fields["q-sign-algorithm"] != "sha1" {
		return Credential{}, &failure{status: http.StatusForbidden, code: "AccessDenied", message: "the request is not signed"}
	}
	s.mu.Lock()
	credential, known := s.credentials[fields["q-ak"]]
	s.mu.Unlock()
	if !known {
		return Credential{}, &failure{status: http.StatusForbidden, code: "InvalidAccessKeyId", message: "no such access key"}
	}
	if fields["q-signature"] != signature(r, credential.SecretKey, fields) || !signsAll(r, fields) {
		return Credential{}, &failure{status: http.StatusForbidden, code: "SignatureDoesNotMatch", message: "the signature is not the one calculated"}
	}
	if r.Header.Get("X-Cos-Security-Token") != credential.Token {
		return Credential{}, &failure{status: http.StatusForbidden, code: "InvalidAccessKeyId", message: "the token is not of the access key"}
	}
	from, to, _ := strings.Cut(fields["q-key-time"], ";")
	begin, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(to, 10, 64)
	if now := s.options.Now().Unix(); err1 != nil || err2 != nil || now < begin-300 || now > end {
		return Credential{}, &failure{status: http.StatusForbidden, code: "AccessDenied", message: "Request has expired"}
	}
	return credential, nil
}

// signature calculates the signature that a request should have.
func signature(r *http.Request, secretKey string, fields map[string]string) string {
	var params, headers []string
	query := r.URL.Query()
	for name := range strings.SplitSeq(fields["q-url-param-list"], ";") {
		for key, values := range query {
			if escape(strings.ToLower(key)) == name {
				params = append(params, pairs(name, values)...)
			}
		}
	}
	for _, name := range slices.Compact(strings.Split(fields["q-header-list"], ";")) {
		switch name {
		case "host":
			headers = append(headers, pairs(name, []string{r.Host})...)
		case "content-length":
			headers = append(headers, pairs(name, []string{strconv.FormatInt(r.ContentLength, 10)})...)
		default:
			headers = append(headers, pairs(name, r.Header.Values(name))...)
		}
	}
	text := fmt.Sprintf("%s\n%s\n%s\n%s\n", strings.ToLower(r.Method), r.URL.Path, strings.Join(params, "&"), strings.Join(headers, "&"))
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	key := mac(secretKey, fields["q-key-time"])
	return mac(key, fmt.Sprintf("sha1\n%s\n%x\n", fields["q-key-time"], sum))
}

// signsAll tells whether everything that must be is under the signature: host,
// parameters, and the headers that are COS's own.
func signsAll(r *http.Request, fields map[string]string) bool {
	headers := strings.Split(fields["q-header-list"], ";")
	params := strings.Split(fields["q-url-param-list"], ";")
	for name := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-cos-") && !slices.Contains(headers, name) {
			return false
		}
	}
	for name := range r.URL.Query() {
		if !slices.Contains(params, escape(strings.ToLower(name))) {
			return false
		}
	}
	return slices.Contains(headers, "host")
}

func pairs(name string, values []string) []string {
	values = slices.Sorted(slices.Values(values))
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = name + "=" + escape(v)
	}
	return out
}

// escape is RFC 3986 with upper-case hex.
func escape(s string) string {
	return strings.NewReplacer("+", "%20", "%7E", "~").Replace(url.QueryEscape(s))
}

func mac(key, text string) string {
	h := hmac.New(sha1.New, []byte(key))
	_, _ = h.Write([]byte(text)) // never fails
	return hex.EncodeToString(h.Sum(nil))
}
