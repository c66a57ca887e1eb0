// Package event is how faceid-ingest learns that a token is finished: the body
// of a completion event, the subjects, streams and consumers of NATS JetStream
// that carry it, and the dead letters of events that were given up.
//
// An event is a hint, never proof: it may be forged, doubled, late or lost. It
// names a token; whether that token is finished, and how, only the API says.
package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	// MaxBody is the largest event body that is read, in bytes. Events carry
	// references, never media.
	MaxBody = 64 << 10
	// maxToken and maxRuleID bound the two identifiers, in bytes. Real ones are
	// UUIDs, base64 of a few dozen bytes, and small numbers.
	maxToken  = 256
	maxRuleID = 64

	// resultLife is how long Tencent keeps a result after its token was made
	// (FACTS §4).
	resultLife = 72 * time.Hour
	// tokenLife is the longest time between making a token and finishing its
	// check: a BizToken lives two hours, an EidToken ten minutes (FACTS §4).
	tokenLife = 2 * time.Hour
)

// Event is the content of a completion event.
type Event struct {
	// Token is the BizToken or EidToken; never empty.
	Token string
	// RuleID is the business flow of an enhanced token; empty means the
	// account's default.
	RuleID string
	// CompletedAt is when the person finished; zero if the sender did not say.
	CompletedAt time.Time
	// IssuedAt is when the token was made; zero if the sender did not say.
	IssuedAt time.Time
	// Extra is a JSON object that travels with the event; nil if there is none.
	Extra json.RawMessage
}

// Deadline returns when Tencent will have deleted the result: 72 hours after
// the token was made, else 70 hours after the check was completed, else 70
// hours after seen, the time the event was published. An event cannot be older
// than its token, so that it is never later than 72 hours after seen: a sender's
// clock or time zone may be wrong.
func (e Event) Deadline(seen time.Time) time.Time {
	deadline := seen.Add(resultLife - tokenLife)
	switch {
	case !e.IssuedAt.IsZero():
		deadline = e.IssuedAt.Add(resultLife)
	case !e.CompletedAt.IsZero():
		deadline = e.CompletedAt.Add(resultLife - tokenLife)
	}
	if latest := seen.Add(resultLife); deadline.After(latest) {
		return latest
	}
	return deadline
}

// Encode returns the plain form of the event.
func (e Event) Encode() ([]byte, error) {
	w := plain{Token: &e.Token, Extra: e.Extra}
	if e.RuleID != "" {
		w.RuleID = &e.RuleID
	}
	if !e.CompletedAt.IsZero() {
		w.CompletedAt = &e.CompletedAt
	}
	if !e.IssuedAt.IsZero() {
		w.IssuedAt = &e.IssuedAt
	}
	body, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return body, nil
}

// MalformedError says why a body is not an event. It never repeats the body.
type MalformedError struct{ Problem string }

func (e *MalformedError) Error() string { return "malformed event: " + e.Problem }

func malformed(format string, args ...any) error {
	return &MalformedError{Problem: fmt.Sprintf(format, args...)}
}

// plain is the body as it travels, with the spellings that Tencent's own pages
// and callbacks use accepted beside ours.
type plain struct {
	Token       *string         `json:"token,omitempty"`
	BizToken    *string         `json:"BizToken,omitempty"`
	EidToken    *string         `json:"EidToken,omitempty"`
	RuleID      *string         `json:"rule_id,omitempty"`
	TencentRule *string         `json:"RuleId,omitempty"`
	CompletedAt *time.Time      `json:"completed_at,omitempty"`
	IssuedAt    *time.Time      `json:"issued_at,omitempty"`
	Extra       json.RawMessage `json:"extra,omitempty"`
}

// envelope is a CloudEvents 1.0 event in structured JSON mode
// (https://github.com/cloudevents/spec, JSON format §3).
type envelope struct {
	SpecVersion *string         `json:"specversion"`
	Data        json.RawMessage `json:"data"`
	DataBase64  *string         `json:"data_base64"`
}

// Decode reads an event of the given product: plain, with Tencent's spellings,
// or wrapped in a CloudEvents 1.0 envelope. Keys it does not know are ignored.
// The error is a *MalformedError.
func Decode(product result.Product, body []byte) (Event, error) {
	data, err := unwrap(body)
	if err != nil {
		return Event{}, err
	}
	var w plain
	if err := decodeObject(data, &w); err != nil {
		return Event{}, err
	}
	return w.event(product)
}

func unwrap(body []byte) ([]byte, error) {
	if len(body) > MaxBody {
		return nil, malformed("body of %d bytes, the limit is %d", len(body), MaxBody)
	}
	var env envelope
	if err := decodeObject(body, &env); err != nil {
		return nil, err
	}
	if env.SpecVersion == nil {
		return body, nil
	}
	if *env.SpecVersion != "1.0" {
		return nil, malformed("CloudEvents specversion must be \"1.0\"")
	}
	switch {
	case len(env.Data) > 0:
		return env.Data, nil
	case env.DataBase64 != nil:
		data, err := base64.StdEncoding.DecodeString(*env.DataBase64)
		if err != nil {
			return nil, malformed("CloudEvents data_base64 is not base64")
		}
		return data, nil
	default:
		return nil, malformed("CloudEvents envelope without data")
	}
}

// decodeObject decodes exactly one JSON object. encoding/json's errors can
// repeat the input, so only their kind and place are passed on.
func decodeObject(data []byte, v any) error {
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return malformed("not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		var when *time.ParseError
		switch {
		case errors.As(err, &syntax):
			return malformed("invalid JSON at byte %d", syntax.Offset)
		case errors.As(err, &kind):
			return malformed("%q must not be a %s", fieldName(kind.Field), firstWord(kind.Value))
		case errors.As(err, &when):
			return malformed("completed_at and issued_at must be RFC 3339 times")
		default:
			return malformed("incomplete or invalid JSON")
		}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return malformed("something follows the JSON object")
	}
	return nil
}

// firstWord drops the number that encoding/json reports beside its kind.
func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// fieldName keeps only names this package knows: encoding/json reports keys the
// way the sender spelled them.
func fieldName(name string) string {
	switch name {
	case "token", "BizToken", "EidToken", "rule_id", "RuleId", "completed_at", "issued_at", "extra",
		"specversion", "data", "data_base64":
		return name
	}
	return "a field"
}

func (w plain) event(product result.Product) (Event, error) {
	if product == result.Enhanced && w.EidToken != nil {
		return Event{}, malformed("an EidToken on a subject of product %q", product)
	}
	if product == result.EID && w.BizToken != nil {
		return Event{}, malformed("a BizToken on a subject of product %q", product)
	}
	token, err := one("token", w.Token, w.BizToken, w.EidToken)
	if err != nil {
		return Event{}, err
	}
	if err := CheckToken(token); err != nil {
		return Event{}, err
	}
	rule, err := one("rule_id", w.RuleID, w.TencentRule)
	if err != nil {
		return Event{}, err
	}
	if len(rule) > maxRuleID || !printable(rule) {
		return Event{}, malformed("rule_id must be at most %d printable ASCII characters", maxRuleID)
	}
	e := Event{Token: token, RuleID: rule}
	if w.CompletedAt != nil {
		e.CompletedAt = w.CompletedAt.UTC()
	}
	if w.IssuedAt != nil {
		e.IssuedAt = w.IssuedAt.UTC()
	}
	if extra := bytes.TrimSpace(w.Extra); len(extra) > 0 && !bytes.Equal(extra, []byte("null")) {
		if extra[0] != '{' {
			return Event{}, malformed("extra must be an object")
		}
		e.Extra = json.RawMessage(extra)
	}
	return e, nil
}

// one returns the value that the given spellings of one field agree on.
func one(name string, spellings ...*string) (string, error) {
	value := ""
	for _, s := range spellings {
		switch {
		case s == nil || *s == "":
		case value == "":
			value = *s
		case value != *s:
			return "", malformed("two different values for %s", name)
		}
	}
	return value, nil
}

// CheckToken reports, as a *MalformedError, why token cannot be one: it must be
// 1 to 256 printable ASCII characters without spaces, because it travels in
// message headers.
func CheckToken(token string) error {
	switch {
	case token == "":
		return malformed("token is missing")
	case len(token) > maxToken:
		return malformed("token has more than %d characters", maxToken)
	case !printable(token):
		return malformed("token must be printable ASCII without spaces")
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
