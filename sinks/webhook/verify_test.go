package webhook_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// vector is that of the Standard Webhooks libraries' own tests.
var vector = struct {
	secret, id, timestamp, signature, body string
	at                                     time.Time
}{
	"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330",
	"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", `{"test": 2432232314}`, time.Unix(1614265330, 0),
}

func signed(id, timestamp, signature string) http.Header {
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", timestamp)
	h.Set("webhook-signature", signature)
	return h
}

func TestVerify(t *testing.T) {
	v := vector
	good := signed(v.id, v.timestamp, v.signature)
	other := "v1," + base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tt := range []struct {
		name   string
		secret string
		header http.Header
		body   string
		now    time.Time
		want   error
	}{
		{"good", v.secret, good, v.body, v.at, nil},
		{"good among others", v.secret, signed(v.id, v.timestamp, "v1a,xyz "+other+" "+v.signature), v.body, v.at, nil},
		{"good by one of two secrets", secret + "\n" + v.secret, good, v.body, v.at, nil},
		{"at the edge", v.secret, good, v.body, v.at.Add(5 * time.Minute), nil},
		{"at the other edge", v.secret, good, v.body, v.at.Add(-5 * time.Minute), nil},
		{"too old", v.secret, good, v.body, v.at.Add(5*time.Minute + time.Second), webhook.ErrStale},
		{"from the future", v.secret, good, v.body, v.at.Add(-5*time.Minute - time.Second), webhook.ErrStale},
		{"far in the future", v.secret, good, v.body, time.Unix(-1<<62, 0), webhook.ErrStale},
		{"another secret", secret, good, v.body, v.at, webhook.ErrNotAuthentic},
		{"another body", v.secret, good, v.body + " ", v.at, webhook.ErrNotAuthentic},
		{"no body", v.secret, good, "", v.at, webhook.ErrNotAuthentic},
		{"another id", v.secret, signed("msg", v.timestamp, v.signature), v.body, v.at, webhook.ErrNotAuthentic},
		{"another time", v.secret, signed(v.id, "1614265331", v.signature), v.body, v.at, webhook.ErrNotAuthentic},
		{"parts moved over the dot", v.secret, signed("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330", "", v.signature), v.body, v.at, webhook.ErrNotAuthentic},
		{"no id", v.secret, signed("", v.timestamp, v.signature), v.body, v.at, webhook.ErrNotAuthentic},
		{"no signature", v.secret, signed(v.id, v.timestamp, ""), v.body, v.at, webhook.ErrNotAuthentic},
		{"no headers", v.secret, http.Header{}, v.body, v.at, webhook.ErrNotAuthentic},
		{"another version", v.secret, signed(v.id, v.timestamp, strings.Replace(v.signature, "v1", "v2", 1)), v.body, v.at, webhook.ErrNotAuthentic},
		{"no base64", v.secret, signed(v.id, v.timestamp, "v1,?"), v.body, v.at, webhook.ErrNotAuthentic},
		{"cut", v.secret, signed(v.id, v.timestamp, v.signature[:len(v.signature)-4]), v.body, v.at, webhook.ErrNotAuthentic},
		{"behind a thousand others", v.secret, signed(v.id, v.timestamp, strings.Repeat(other+" ", 1000)+v.signature), v.body, v.at, webhook.ErrNotAuthentic},
	} {
		if err := webhook.Verify(tt.secret, tt.header, []byte(tt.body), tt.now, 5*time.Minute); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	err := webhook.Verify("hunter2", good, []byte(v.body), v.at, time.Minute)
	if err == nil || errors.Is(err, webhook.ErrNotAuthentic) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret that is none: %v", err)
	}
}

// A timestamp that is signed and no number is the sender's mistake.
func TestVerifyOfAWordForATime(t *testing.T) {
	for _, timestamp := range []string{"now", "99999999999999999999"} {
		req, err := http.NewRequest(http.MethodPost, "http://example.com", nil)
		must(t, err)
		req.Header = signed("id", timestamp, signatureBy(t, secret, "id."+timestamp+".body"))
		if err := webhook.Verify(secret, req.Header, []byte("body"), time.Now(), time.Hour); !errors.Is(err, webhook.ErrNotAuthentic) {
			t.Errorf("%q: %v", timestamp, err)
		}
	}
}

// Whatever is verified, nothing but what the secret signed passes.
func FuzzVerify(f *testing.F) {
	v := vector
	f.Add(v.id, v.timestamp, v.signature, []byte(v.body))
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		header := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		err := webhook.Verify(vector.secret, header, body, vector.at, time.Minute)
		want := signatureBy(t, vector.secret, id+"."+timestamp+"."+string(body))
		if err == nil && !strings.Contains(decoded(signature), decoded(want)) {
			t.Fatalf("passed: %q %q %q %q", id, timestamp, signature, body)
		}
		header.Set("Webhook-Signature", want)
		err = webhook.Verify(vector.secret, header, body, vector.at, time.Minute)
		seconds, notNumber := strconv.ParseInt(timestamp, 10, 64)
		near := notNumber == nil && seconds >= vector.at.Unix()-60 && seconds <= vector.at.Unix()+60
		if signable := id != "" && timestamp != ""; (err == nil) != (signable && near) {
			t.Fatalf("signed, but %v: %q %q %q", err, id, timestamp, body)
		}
	})
}

// decoded are the bytes of all signatures in a header.
func decoded(list string) string {
	var all strings.Builder
	for one := range strings.SplitSeq(list, " ") {
		if text, ok := strings.CutPrefix(one, "v1,"); ok {
			b, _ := base64.StdEncoding.DecodeString(text)
			all.Write(b)
			all.WriteByte('|')
		}
	}
	return all.String()
}
