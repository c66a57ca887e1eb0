package result

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// vendorZone is the zone of a time that names none: Tencent's own times are Beijing's.
var vendorZone = time.FixedZone("", 8*60*60)

// layouts are the forms of times that are read. One of seconds takes fractions, too.
var layouts = []string{
	time.RFC3339,
	"2006-01-02T15:04:05Z0700",
	"2006-01-02T15:04:05Z07",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05Z0700",
	"2006-01-02 15:04:05 Z07:00",
	"2006-01-02 15:04:05 Z0700",
	"2006-01-02 15:04:05 -0700 MST",
	time.RFC1123Z,
	"Mon, 02 Jan 2006 15:04:05Z07:00",

	"2006-01-02T15:04:05",
	"2006-01-02 15:04:05",
	"2006-01-02T15:04",
	"2006-01-02 15:04",
	"2006/1/2 15:04:05",
	"2006/1/2 15:04",
	"2006.1.2 15:04:05",
	"2006年1月2日 15:04:05",
	"20060102T150405Z07:00",
	"20060102T150405",
	"20060102150405",
}

// The times that are taken for one: before the first there was no FaceID, and what is
// after the second is a mistake of units.
var (
	earliest = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)
	furthest = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// ReadTime reads a time as the vendor and publishers of events write it: RFC 3339 and its usual variants, the vendor's form, which
// names no zone and is Beijing's, and seconds, milli-, micro- or nanoseconds since 1970.
// Text that stands for no time ("", 0, Go's zero time) is the zero time and ok.
func ReadTime(text string) (at time.Time, ok bool) {
	at, ok = parseEpoch(text)
	for _, layout := range layouts {
		if ok {
			break
		}
		at, ok = parseLayout(layout, text)
	}

	switch {
	case text == "", ok && (at.Year() <= 1 || at.Unix() == 0):
		return time.Time{}, true
	case !ok, at.Before(earliest), !at.Before(furthest):
		return time.Time{}, false
	}
	return at.UTC(), true
}

// parseLayout reads a time of one form, in capitals or not.
func parseLayout(layout, text string) (time.Time, bool) {
	text = strings.ToUpper(text)
	at, err := time.ParseInLocation(layout, text, vendorZone)
	if zone, named := strings.CutSuffix(strings.Replace(text, "GMT", "UTC", 1), "UTC"); err != nil && named {
		at, err = time.ParseInLocation(layout, strings.TrimSpace(zone)+"Z", vendorZone)
	}
	return at, err == nil
}

// parseEpoch reads a count since 1970, whose size tells its unit. A date written in 14
// digits is none.
func parseEpoch(text string) (time.Time, bool) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > math.MaxInt64 || len(text) == len("20060102150405") && strings.HasPrefix(text, "20") && !strings.Contains(text, ".") {
		return time.Time{}, false
	}

	// Whole numbers are read as such: a float64 has not digits enough for nanoseconds.
	whole, fraction := int64(n), n-math.Trunc(n)
	if exact, err := strconv.ParseInt(text, 10, 64); err == nil {
		whole, fraction = exact, 0
	}
	switch {
	case n < 1e11:
		return time.Unix(whole, int64(math.Round(fraction*1e3))*1e6), true
	case n < 1e14:
		return time.UnixMilli(whole), true
	case n < 1e17:
		return time.UnixMicro(whole), true
	default:
		return time.Unix(0, whole), true
	}
}
