package result

import (
	"encoding/json"
	"fmt"
	"log/slog"
)

// redacted is all that anybody but Reveal's caller sees of a sensitive value.
const redacted = "[redacted]"

// Sensitive is a string that must not be seen by accident: fmt with any verb,
// log/slog, encoding/json and encoding.TextMarshaler print "[redacted]". The
// zero value is an empty string and prints as such, so that "not there" can be
// told from "there".
//
// Only pipeline/privacy may call Reveal; a test in this package holds the
// project to that.
type Sensitive struct {
	// A pointer keeps the value out of reflection-based printers that walk
	// structs, and makes Sensitive values compare by identity, not by content.
	value *string
}

// NewSensitive wraps s.
func NewSensitive(s string) Sensitive {
	if s == "" {
		return Sensitive{}
	}
	return Sensitive{value: &s}
}

// Reveal returns the value itself.
func (s Sensitive) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsEmpty reports whether there is no value.
func (s Sensitive) IsEmpty() bool { return s.value == nil }

// String returns "[redacted]", or "" if the value is empty.
func (s Sensitive) String() string {
	if s.value == nil {
		return ""
	}
	return redacted
}

// GoString is String; it serves %#v.
func (s Sensitive) GoString() string { return s.String() }

// Format prints String for every verb, so that no verb reaches the value.
func (s Sensitive) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is what log/slog prints.
func (s Sensitive) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText serves encoders that look for encoding.TextMarshaler.
func (s Sensitive) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON prints String.
func (s Sensitive) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON takes a JSON string, or a number as it is written, for a sender may
// take a phone number for one; null leaves the value empty. The error does not
// repeat the input.
func (s *Sensitive) UnmarshalJSON(b []byte) error {
	var number json.Number
	if len(b) > 0 && b[0] != '"' && json.Unmarshal(b, &number) == nil {
		*s = NewSensitive(number.String())
		return nil
	}
	var v *string
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("a sensitive value must be a JSON string or null")
	}
	*s = Sensitive{}
	if v != nil {
		*s = NewSensitive(*v)
	}
	return nil
}
