package sinks

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span as Go writes it, with days besides: "60s", "1h30m", "2d".
type Duration time.Duration

// Duration returns d as the standard library's type.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseSpan(string(text))
	if err != nil {
		return errors.New(`must be a time span such as "60s", "1h30m" or "2d"`)
	}

	*d = Duration(v)
	return nil
}

// maxDays keeps a number of days within what a time.Duration holds, with hours besides.
const maxDays = 100_000

// parseSpan is time.ParseDuration with days of 24 hours, which stand first.
func parseSpan(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}

	n, err := strconv.ParseUint(days, 10, 64)
	if err != nil || n > maxDays {
		return 0, fmt.Errorf("%q is not a number of days up to %d", days, maxDays)
	}
	whole := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return whole, nil
	}

	part, err := time.ParseDuration(rest)
	if err != nil || part < 0 || rest[0] == '+' || part > math.MaxInt64-whole {
		return 0, fmt.Errorf("%q is not the rest of a time span", rest)
	}
	return whole + part, nil
}

// MarshalText writes a duration, without parts that are zero: "10m", not "10m0s".
func (d Duration) MarshalText() ([]byte, error) {
	text := time.Duration(d).String()
	if short, cut := strings.CutSuffix(text, "m0s"); cut {
		text = short + "m"
	}
	if short, cut := strings.CutSuffix(text, "h0m"); cut {
		text = short + "h"
	}
	return []byte(text), nil
}

// Size is a number of bytes, written with a unit: "256MiB", "4GiB", "10MB".
type Size int64

// units of sizes, the longer names first.
var units = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	wrong := errors.New(`must be a size such as "256MiB" or "4GiB"`)
	for _, unit := range units {
		number, ok := strings.CutSuffix(string(text), unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > (1<<62)/unit.bytes {
			return wrong
		}
		*s = Size(n * unit.bytes)
		return nil
	}
	return wrong
}

// MarshalText writes a size with the largest unit that divides it.
func (s Size) MarshalText() ([]byte, error) {
	for i := 3; i >= 0; i-- {
		if s != 0 && int64(s)%units[i].bytes == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/units[i].bytes, units[i].name), nil
		}
	}
	return fmt.Appendf(nil, "%dB", int64(s)), nil
}

// Secret is a value that is never printed.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// Format hides the value from every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue hides the value from log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the value from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
