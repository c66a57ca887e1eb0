// Package event is how faceid-ingest learns that a token is finished: the body
// of a completion event, the subjects, streams and consumers of NATS JetStream
// that carry it, and the dead letters of events that were given up.
//
// An event is a hint, never proof: it may be forged, doubled, late or lost. It
// names a token; whether that token is finished, and how, only the API says.
package event

import (
	"encoding/json"
	"fmt"
	"time"
)

const (
	// MaxBody is the largest event body that is published, and the largest Extra that is
	// read, in bytes. Events carry references, never media.
	MaxBody = 64 << 10
	// maxRead is the largest event body that is read, in bytes: the stream of an operator
	// may take more than this program publishes.
	maxRead = 8 << 20
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
	// Extra is a JSON value that travels with the event as it came; nil if there is none.
	Extra json.RawMessage
	// Unread are the fields of the body that could not be read and count as absent, each
	// once, in the order of Fields. The body itself keeps them as they came.
	Unread []Field
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
	body, err := json.Marshal(struct {
		Token       string          `json:"token"`
		RuleID      string          `json:"rule_id,omitempty"`
		CompletedAt time.Time       `json:"completed_at,omitzero"`
		IssuedAt    time.Time       `json:"issued_at,omitzero"`
		Extra       json.RawMessage `json:"extra,omitempty"`
	}{e.Token, e.RuleID, e.CompletedAt, e.IssuedAt, e.Extra})
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
