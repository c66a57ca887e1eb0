package event

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	// skew is how far the clocks of two machines may be apart.
	skew = time.Hour
	// oldest is the age past which a time is taken for a mistake: its result is gone, and
	// no zone explains the difference.
	oldest = resultLife + 24*time.Hour
)

// Parse is Decode for an event that somebody hands over and can correct: what Decode
// leaves out is an error, and so are keys that an event does not have and times that do
// not fit now. The error is a *MalformedError.
func Parse(product result.Product, body []byte, now time.Time) (Event, error) {
	e, err := Decode(product, body)
	if err != nil {
		return Event{}, err
	}

	if len(e.Unread) > 0 {
		return Event{}, malformed("%s cannot be read", e.Unread[0])
	}
	if key := strangeKey(body); key != "" {
		return Event{}, malformed("an event has no key %q, only token, rule_id, completed_at, issued_at and extra", key)
	}
	return e, e.CheckTimes(now)
}

// strangeKey returns a key of an object that is none of an event, "" if there is none.
// An envelope may have any, and so may a line of the list command.
func strangeKey(body []byte) string {
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		return ""
	}

	for _, key := range slices.Sorted(maps.Keys(object)) {
		if name := fold(key); name == "specversion" || name == "tokenhash" || slices.Contains(wrappers, name) {
			return ""
		}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if _, known := spellings[fold(key)]; !known {
			return printableKey(key)
		}
	}
	return ""
}

// printableKey bounds what a message repeats of a key.
func printableKey(key string) string {
	key = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, key)
	return key[:min(len(key), 32)]
}

// CheckTimes reports, as a *MalformedError, whether the event's times cannot be true now.
func (e Event) CheckTimes(now time.Time) error {
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"issued_at", e.IssuedAt}, {"completed_at", e.CompletedAt}} {
		switch {
		case t.at.IsZero():
		case t.at.After(now.Add(skew)):
			return malformed("%s is %s, which is in the future", t.name, t.at.Format(time.RFC3339))
		case t.at.Before(now.Add(-oldest)):
			return malformed("%s is %s: Tencent has deleted the result, %s after the token was made", t.name, t.at.Format(time.RFC3339), hours(resultLife))
		}
	}

	if !e.CompletedAt.IsZero() && e.CompletedAt.Before(e.IssuedAt.Add(-skew)) {
		return malformed("completed_at is before issued_at")
	}
	return nil
}

func hours(d time.Duration) string { return fmt.Sprintf("%.0f hours", d.Hours()) }
