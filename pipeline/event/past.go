package event

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of an event that was put on a stream again, beside those that dead letters
// have, too.
const (
	headerNotBefore = "Faceid-Not-Before"
	headerHistory   = "Faceid-History"
	headerCrashes   = "Faceid-Crashes"
)

const (
	// maxHistory is how many burials an event remembers; maxHistoryText bounds what
	// is read of them, in bytes.
	maxHistory     = 16
	maxHistoryText = 4 << 10
	// maxWait is the longest that an event may say it waits, after its publication:
	// longer than any worker has one wait.
	maxWait = time.Hour
	// maxAttempts bounds what an event may say of its deliveries.
	maxAttempts = 1_000_000
)

// Burial is one time that an event was given up.
type Burial struct {
	Time     time.Time `json:"time"`
	Reason   Reason    `json:"reason"`
	Code     string    `json:"code,omitempty"`
	Attempts uint64    `json:"attempts"`
}

// Past is what an event went through before this message of it: an event that is
// put on a stream again, by a worker or by an operator, carries it in headers.
type Past struct {
	// First is when the event was first published.
	First time.Time
	// Attempts are the deliveries of earlier messages of the event.
	Attempts uint64
	// NotBefore is when it is to be worked on; zero means at once.
	NotBefore time.Time
	// Crashes is how many messages of the event in a row, the last ones, were delivered
	// again and again without a worker saying what became of them.
	Crashes uint64
	// History are its burials, oldest first. The newest 16 are kept.
	History []Burial
}

// PastOf reads the past of an event that was published at the given time. A
// publisher may have forged it: First is never later than published, so that it
// cannot keep an event longer; a NotBefore of more than an hour after published is
// ignored, attempts and history are bounded, and what is malformed counts as absent.
func PastOf(published time.Time, h nats.Header) Past {
	p := Past{First: published}
	if first, err := time.Parse(time.RFC3339Nano, h.Get(headerFirst)); err == nil && first.Before(published) {
		p.First = first.UTC()
	}
	if n, err := strconv.ParseUint(h.Get(headerAttempts), 10, 64); err == nil {
		p.Attempts = min(n, maxAttempts)
	}
	if n, err := strconv.ParseUint(h.Get(headerCrashes), 10, 64); err == nil {
		p.Crashes = min(n, maxAttempts)
	}
	if at, err := time.Parse(time.RFC3339Nano, h.Get(headerNotBefore)); err == nil && !at.After(published.Add(maxWait)) {
		p.NotBefore = at.UTC()
	}
	p.History = decodeHistory(h.Get(headerHistory))
	return p
}

func decodeHistory(text string) []Burial {
	var list []Burial
	if text == "" || len(text) > maxHistoryText || json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	list = slices.DeleteFunc(list, func(b Burial) bool { return !slices.Contains(Reasons(), b.Reason) })
	for i := range list {
		list[i].Code = oneLine(list[i].Code)
	}
	return list[max(0, len(list)-maxHistory):]
}

// encodeHistory returns the header's value: the newest burials that fit.
func encodeHistory(list []Burial) string {
	list = list[max(0, len(list)-maxHistory):]
	for ; len(list) > 0; list = list[1:] {
		if text, err := json.Marshal(list); err == nil && len(text) <= maxHistoryText {
			return string(text)
		}
	}
	return ""
}

// set writes p into headers.
func (p Past) set(h nats.Header) {
	h.Set(headerFirst, p.First.UTC().Format(time.RFC3339Nano))
	h.Set(headerAttempts, strconv.FormatUint(p.Attempts, 10))
	if !p.NotBefore.IsZero() {
		h.Set(headerNotBefore, p.NotBefore.UTC().Format(time.RFC3339Nano))
	}
	if p.Crashes > 0 {
		h.Set(headerCrashes, strconv.FormatUint(p.Crashes, 10))
	}
	if text := encodeHistory(p.History); text != "" {
		h.Set(headerHistory, text)
	}
}

// Republish puts an event's body, unchanged, on subject, with its trace context and
// its mark of PublishAgain from header, and with its past. It returns when the stream
// has it. Within the stream's duplicate window a second message of the same id is not
// stored.
func (p *Publisher) Republish(ctx context.Context, subject string, body []byte, header nats.Header, past Past, id string) error {
	msg := nats.NewMsg(subject)
	msg.Data = body
	copyTrace(msg.Header, header)
	if Again(header) {
		msg.Header.Set(headerAgain, "1")
	}
	past.set(msg.Header)
	_, err := p.publish(ctx, msg, id)
	return err
}
