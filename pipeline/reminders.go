package pipeline

import "time"

// reminders remember what was warned of, so that each warning comes once and then from
// time to time.
type reminders struct {
	// said is when a warning was given last, by its label.
	said map[string]time.Time
}

// reminder is one warning about events whose results are not stored.
type reminder struct {
	text   string
	events int
	// nearest is the event with the nearest deadline of those.
	nearest openEvent
}

// of returns what is to be said now about open events, which are sorted by deadline: of
// those past it that they are, of the others only what is most urgent.
func (r *reminders) of(now time.Time, open []openEvent) []reminder {
	past := countWithin(open, now, 0)
	var list []reminder
	if r.isDue("past", past, now) {
		list = append(list, reminder{"results that are not stored were due to be deleted by Tencent: each is tried once more", past, open[0]})
	}

	ahead := open[past:]
	for i, due := range dueWithin {
		count := countWithin(ahead, now, due.left)
		if count == 0 {
			delete(r.said, due.label)
			continue
		}
		if r.isDue(due.label, count, now) {
			list = append(list, reminder{"results that are not stored will be deleted by Tencent within " + due.label, count, ahead[0]})
		}
		// The shorter time says it all, now and at the next look.
		for _, longer := range dueWithin[i+1:] {
			r.said[longer.label] = r.said[due.label]
		}
		break
	}
	return list
}

// isDue reports whether something is to be said of so many events now, and remembers
// that it is.
func (r *reminders) isDue(label string, count int, now time.Time) bool {
	if count == 0 {
		delete(r.said, label)
		return false
	}
	if last, ok := r.said[label]; ok && now.Sub(last) < remindEvery {
		return false
	}
	r.said[label] = now
	return true
}

// countWithin counts the first of open, which are sorted by deadline, that have less than
// left until it.
func countWithin(open []openEvent, now time.Time, left time.Duration) int {
	count := 0
	for count < len(open) && open[count].deadline.Sub(now) < left {
		count++
	}
	return count
}
