package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// A schema has bounds for numbers only. Of sizes and durations, which are texts, the
// bounds are in the pattern: for each unit the whole numbers that are within them.

// unit is one that a size or a duration is written with.
type unit struct {
	name string
	// one is how much it is, in bytes or nanoseconds.
	one float64
}

var (
	sizeUnits = []unit{
		{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	}
	durationUnits = []unit{
		{"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9},
		{"m", float64(time.Minute)}, {"h", float64(time.Hour)}, {"d", float64(24 * time.Hour)},
	}
)

// sizePattern returns what sizes within the limits look like.
func sizePattern(l setting.Limits) string {
	least, most := bounds(l, func(text string) float64 {
		var s config.Size
		must(s.UnmarshalText([]byte(text)))
		return float64(s)
	})
	return "^0*(" + whole(sizeUnits, " ?", least, most) + ")$"
}

// durationPattern returns what durations within the limits look like. Of those with
// fractions or several units, the program alone knows.
func durationPattern(l setting.Limits) string {
	least, most := bounds(l, func(text string) float64 {
		var d config.Duration
		must(d.UnmarshalText([]byte(text)))
		return float64(d)
	})
	pattern := "^0*(" + whole(durationUnits, "", least, most) + ")$|^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h)){2,}$|^[0-9]+d[0-9.]+(ns|us|µs|ms|s|m|h)$|^[0-9]*[.][0-9]*(ns|us|µs|ms|s|m|h)$"
	if least <= 0 {
		pattern += "|^0$"
	}
	return pattern
}

func bounds(l setting.Limits, read func(string) float64) (least, most float64) {
	most = math.Inf(1)
	if l.Min != "" {
		least = read(l.Min)
	}
	if l.Max != "" {
		most = read(l.Max)
	}
	return least, most
}

func must(err error) {
	if err != nil {
		panic(err) // the bound is in our own source
	}
}

// whole returns the alternatives of whole numbers of each unit.
func whole(units []unit, space string, least, most float64) string {
	var alternatives []string
	for _, u := range units {
		low := uint64(math.Ceil(least / u.one))
		if math.IsInf(most, 1) {
			// As many digits as the bound has, and all with more.
			digits := len(strconv.FormatUint(low, 10))
			alternatives = append(alternatives, fmt.Sprintf("(%s|[1-9][0-9]{%d,})%s", numbers(low, pow10(digits)-1), digits, space+u.name))
			continue
		}
		if high := uint64(math.Floor(most / u.one)); low <= high {
			alternatives = append(alternatives, "("+numbers(low, high)+")"+space+u.name)
		}
	}
	return strings.Join(alternatives, "|")
}

// numbers returns a pattern of the decimal numbers from low to high, without zeros in
// front.
func numbers(low, high uint64) string {
	var alternatives []string
	for low <= high {
		// The longest run of numbers that differ only in their last digits.
		digits := 0
		for step := uint64(10); low%step == 0 && low+step-1 <= high && (low != 0 || step == 1) && step <= math.MaxUint64/10; step *= 10 {
			digits++
		}
		last, step := pow10(digits), pow10(digits)
		// And of those, as many as only the digit before them tells apart.
		first := low / step % 10
		until := first
		for until < 9 && low+last+step-1 <= high {
			until, last = until+1, last+step
		}
		head := ""
		if low/step >= 10 {
			head = strconv.FormatUint(low/step/10, 10)
		}
		alternatives = append(alternatives, head+digit(first, until)+anyDigits(digits))
		low += last
	}
	return strings.Join(alternatives, "|")
}

func pow10(n int) uint64 {
	p := uint64(1)
	for range n {
		p *= 10
	}
	return p
}

func digit(from, to uint64) string {
	if from == to {
		return strconv.FormatUint(from, 10)
	}
	return fmt.Sprintf("[%d-%d]", from, to)
}

func anyDigits(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "[0-9]"
	default:
		return fmt.Sprintf("[0-9]{%d}", n)
	}
}
