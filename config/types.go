package config

import (
	"log/slog"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// The values that sinks' configurations have as well.
type (
	// Duration is a time span as Go writes it: "60s", "1h30m".
	Duration = sinks.Duration
	// Size is a number of bytes, written with a unit: "256MiB", "4GiB", "10MB".
	Size = sinks.Size
	// Secret is a value that is never printed.
	Secret = sinks.Secret
)

// level returns the slog level of the name, and whether there is one.
func level(name string) (slog.Level, bool) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	l, ok := levels[name]
	return l, ok
}

// SlogLevel returns the configured level.
func (l Log) SlogLevel() slog.Level {
	v, _ := level(l.Level)
	return v
}
