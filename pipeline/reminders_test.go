package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is most urgent is said, once an hour; a deadline that is past is said to be past.
func TestReminders(t *testing.T) {
	began := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	type look struct {
		after time.Duration
		want  []string
	}
	for _, test := range []struct {
		name string
		// left is the time to each deadline at the beginning.
		left  []time.Duration
		looks []look
	}{
		{"one that comes nearer", []time.Duration{30 * time.Hour}, []look{
			{0, nil}, {7 * time.Hour, []string{"within 24h: 1"}}, {7*time.Hour + time.Minute, nil}, {9 * time.Hour, []string{"within 24h: 1"}},
			{25 * time.Hour, []string{"within 6h: 1"}}, {29*time.Hour + time.Minute, []string{"within 1h: 1"}}, {29*time.Hour + 2*time.Minute, nil},
			{30*time.Hour + time.Minute, []string{"past: 1"}}, {30*time.Hour + 2*time.Minute, nil}, {31*time.Hour + 2*time.Minute, []string{"past: 1"}},
		}},
		{"near from the first look on", []time.Duration{30 * time.Minute}, []look{
			{0, []string{"within 1h: 1"}}, {time.Minute, nil}, {2 * time.Minute, nil}, {31 * time.Minute, []string{"past: 1"}}, {32 * time.Minute, nil},
		}},
		{"past, near and far", []time.Duration{-time.Hour, 20 * time.Minute, 5 * time.Hour, 40 * time.Hour}, []look{
			{0, []string{"past: 1", "within 1h: 1"}}, {time.Minute, nil}, {21 * time.Minute, nil}, {61 * time.Minute, []string{"past: 2", "within 6h: 1"}},
		}},
		{"nothing", nil, []look{{0, nil}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := reminders{map[string]time.Time{}}
			for _, look := range test.looks {
				var open []openEvent
				for _, left := range test.left {
					open = append(open, openEvent{deadline: began.Add(left)})
				}
				var got []string
				for _, one := range r.of(began.Add(look.after), open) {
					label := "past"
					if before, within, ok := strings.Cut(one.text, " within "); ok && strings.Contains(before, "will be deleted") {
						label = "within " + within
					}
					got = append(got, fmt.Sprintf("%s: %d", label, one.events))
				}
				if !slices.Equal(got, look.want) {
					t.Errorf("after %s: %q, want %q", look.after, got, look.want)
				}
			}
		})
	}
}
