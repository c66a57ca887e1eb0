package main

import (
	"fmt"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// timeLayout is how times are printed, in the local zone, which is named. A flag takes
// what was printed.
const timeLayout = time.DateTime + " -07:00"

// timeText returns a time for people.
func timeText(t time.Time) string { return t.Local().Format(timeLayout) }

// layouts are the times that flags take. Those without a zone are local.
var layouts = []string{
	time.DateOnly, "2006-01-02 15:04", time.DateTime, "2006-01-02T15:04", "2006-01-02T15:04:05",
	time.RFC3339Nano, timeLayout, "2006-01-02 15:04 -07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00",
}

// when is a time on the command line: a day, a time of a day, or how long ago it was.
// The zero value is none.
type when struct{ time.Time }

// UnmarshalText reads a time.
func (w *when) UnmarshalText(text []byte) error {
	for _, layout := range layouts {
		if at, err := time.ParseInLocation(layout, string(text), time.Local); err == nil {
			w.Time = at
			return nil
		}
	}

	var ago config.Duration
	if err := ago.UnmarshalText(text); err == nil && ago >= 0 {
		w.Time = time.Now().Add(-ago.Duration())
		return nil
	}

	now := time.Now()
	return fmt.Errorf("must be a day such as %s, a time such as %q or %s, or how long ago, such as 36h or 2d; without a zone it is that of this machine, %s",
		now.Format(time.DateOnly), now.Format("2006-01-02 15:04"), now.Format(time.RFC3339), now.Format("-07:00"))
}

// day is a day of the local zone on the command line. The zero value is none.
type day struct{ time.Time }

// UnmarshalText reads a day.
func (d *day) UnmarshalText(text []byte) error {
	at, err := time.ParseInLocation(time.DateOnly, string(text), time.Local)
	if err != nil {
		return fmt.Errorf("must be a day such as %s, in the zone of this machine, %s", time.Now().Format(time.DateOnly), time.Now().Format("-07:00"))
	}
	d.Time = at
	return nil
}
