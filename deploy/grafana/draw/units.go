package main

import (
	"math"
	"strconv"
	"strings"
)

// units format a value with a number of decimals, or as many as it needs if that is
// negative: Grafana's units, by their names there.
var units = map[string]func(v float64, decimals int) string{
	"none":  number,
	"short": func(v float64, decimals int) string { return scaled(v, decimals, 1000, "", " K", " M", " G") },
	"ops":   func(v float64, decimals int) string { return scaled(v, decimals, 1000, "/s", " K/s", " M/s", " G/s") },
	"reqps": func(v float64, decimals int) string { return scaled(v, decimals, 1000, "/s", " K/s", " M/s", " G/s") },
	"bytes": func(v float64, decimals int) string {
		return scaled(v, decimals, 1024, " B", " KiB", " MiB", " GiB", " TiB")
	},
	"Bps": func(v float64, decimals int) string {
		return scaled(v, decimals, 1000, " B/s", " kB/s", " MB/s", " GB/s")
	},
	"percentunit": func(v float64, decimals int) string { return number(v*100, decimals) + " %" },
	"s":           seconds,
}

// number writes three significant digits, or the decimals asked for.
func number(v float64, decimals int) string {
	if decimals < 0 {
		decimals = 0
		if a := math.Abs(v); a > 0 && a < 100 {
			decimals = min(max(2-int(math.Floor(math.Log10(a))), 0), 4)
		}
		text := strconv.FormatFloat(v, 'f', decimals, 64)
		short, _ := strconv.ParseFloat(text, 64) // just written
		return strconv.FormatFloat(short, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// scaled divides by base until the number is short. Decimals count for numbers that are
// not divided.
func scaled(v float64, decimals int, base float64, suffixes ...string) string {
	i := 0
	for math.Abs(v) >= base && i < len(suffixes)-1 {
		v /= base
		i++
	}
	if i > 0 {
		decimals = -1
	}
	return number(v, decimals) + suffixes[i]
}

// seconds writes a duration in the largest unit it has one of.
func seconds(v float64, decimals int) string {
	steps := []struct {
		size float64
		name string
	}{{86400, " days"}, {3600, " hours"}, {60, " min"}, {1, " s"}, {1e-3, " ms"}}
	if v == 0 {
		return "0 s"
	}
	for _, step := range steps {
		if math.Abs(v) >= step.size {
			text := number(v/step.size, decimals)
			if text == "1" && step.size >= 3600 {
				return text + strings.TrimSuffix(step.name, "s")
			}
			return text + step.name
		}
	}
	return number(v*1e6, decimals) + " µs"
}
