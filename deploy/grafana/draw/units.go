package main

import (
	"fmt"
	"math"
	"time"
)

// format writes a value in one of Grafana's units.
func format(value float64, unit string) string {
	switch unit {
	case "s":
		return duration(value)
	case "percentunit":
		return trimmed(100*value) + " %"
	case "bytes", "Bps":
		return bytes(value) + map[string]string{"Bps": "/s"}[unit]
	case "ops", "reqps":
		return trimmed(value) + "/s"
	}
	return trimmed(value)
}

func trimmed(value float64) string {
	switch size := math.Abs(value); {
	case size >= 1e6:
		return fmt.Sprintf("%.3gM", value/1e6)
	case size >= 1e4:
		return fmt.Sprintf("%.3gk", value/1e3)
	}
	return fmt.Sprintf("%.3g", value)
}

func bytes(value float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if math.Abs(value) < 1024 || unit == "GiB" {
			return fmt.Sprintf("%.3g %s", value, unit)
		}
		value /= 1024
	}
	return ""
}

func duration(seconds float64) string {
	sign := ""
	if seconds < 0 {
		sign, seconds = "-", -seconds
	}
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d == 0:
		return "0"
	case d < time.Second:
		return fmt.Sprintf("%s%.3g ms", sign, seconds*1000)
	case d < 2*time.Minute:
		return fmt.Sprintf("%s%.3g s", sign, seconds)
	case d < 2*time.Hour:
		return fmt.Sprintf("%s%.3g min", sign, d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%s%.3g h", sign, d.Hours())
	default:
		return fmt.Sprintf("%s%.3g d", sign, d.Hours()/24)
	}
}
