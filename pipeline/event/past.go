package event

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of an event that was put on a stream again, beside those that dead letters
// have, too.
const (
	headerNotBefore = "Faceid-Not-Before"
	headerHistory   = "Faceid-History"
	headerCrashes   = "Faceid-Crashes"
	// headerAgain marks the events of PublishAgain. On their first message it is "1", on
	// later ones it says where and when that stood.
	headerAgain = "Faceid-Again"
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

// Place is where in its stream, and when, a message was stored, both by the server. The
// zero Place is none.
type Place struct {
	Sequence uint64
	Time     time.Time
}

// PlaceOf returns where a message stands.
func PlaceOf(meta *jetstream.MsgMetadata) Place {
	return Place{meta.Sequence.Stream, meta.Timestamp}
}

// After tells whether a message at p may have been stored after one at q. One of the two
// is enough: sequences begin again in a stream that is made anew, and a server's clock
// may be set back.
func (p Place) After(q Place) bool { return p.Sequence > q.Sequence || p.Time.After(q.Time) }

func (p Place) header() string {
	return strconv.FormatUint(p.Sequence, 10) + " " + p.Time.UTC().Format(time.RFC3339Nano)
}

// parsePlace reads what header has written.
func parsePlace(text string) (p Place, ok bool) {
	number, rest, _ := strings.Cut(text, " ")
	sequence, err := strconv.ParseUint(number, 10, 64)
	if err != nil || sequence == 0 {
		return Place{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, rest)
	if err != nil {
		return Place{}, false
	}
	return Place{sequence, at.UTC()}, true
}

// askedAt returns the place of the message with which PublishAgain began an event that
// stands at p now; zero if the event is none of those. What is of a later time, or
// malformed, counts as p.
func (p Place) askedAt(h nats.Header) Place {
	text := h.Get(headerAgain)
	if text == "" {
		return Place{}
	}
	if asked, ok := parsePlace(text); ok && !asked.Time.After(p.Time) {
		return asked
	}
	return p
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
	// Again is the place of the event's first message if it was published by
	// PublishAgain, and zero if not: all work that was done for earlier events of its
	// token is to be done once more.
	Again Place
}

// PastOf reads the past of an event of which a message stands at the given place. A
// publisher may have forged it: First and the time of Again are never later than the
// message, so that they cannot keep an event longer; a NotBefore of more than an hour after it is ignored,
// attempts, crashes and history are bounded, and what is malformed counts as absent.
func PastOf(at Place, h nats.Header) Past {
	published := at.Time
	p := Past{First: published, Again: at.askedAt(h)}
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
	if p.Again != (Place{}) {
		h.Set(headerAgain, p.Again.header())
	}
}

// Republish puts an event's body, unchanged, on subject, with its trace context from
// header, and with its past. It returns when the stream has it. Within the stream's duplicate window a second message of the same id is not
// stored.
func (p *Publisher) Republish(ctx context.Context, subject string, body []byte, header nats.Header, past Past, id string) error {
	msg := nats.NewMsg(subject)
	msg.Data = body
	copyTrace(msg.Header, header)
	past.set(msg.Header)
	_, err := p.publish(ctx, msg, id)
	return err
}
