package sinks_test

import (
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]sinks.Size{"16MiB": 16 << 20, "1GiB": 1 << 30, "5MB": 5e6, "0B": 0, "3 KiB": 3 << 10, "2TiB": 2 << 40} {
		var s, again sinks.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v, want %d", text, s, err, want)
		}
		out, err := s.MarshalText()
		if err != nil || again.UnmarshalText(out) != nil || again != s {
			t.Errorf("%s is written %s, %v", text, out, err)
		}
	}
	for _, text := range []string{"", "16", "-1B", "1PiB", "xMiB", "99999999999GiB"} {
		var s sinks.Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is a size of %d", text, s)
		}
	}
}

func TestDurations(t *testing.T) {
	var d sinks.Duration
	if err := d.UnmarshalText([]byte("1m30s")); err != nil || d.Duration() != 90*time.Second {
		t.Errorf("%v, %v", d, err)
	}
	if text, err := d.MarshalText(); string(text) != "1m30s" || err != nil {
		t.Errorf("got %s, %v", text, err)
	}
	if d.UnmarshalText([]byte("90")) == nil {
		t.Error("a number without a unit passes")
	}
}
