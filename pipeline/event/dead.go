package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const deadPrefix = "faceid.dead."

// Reason says why an event was given up. The set is closed: it is part of
// subjects and the value of a metric label.
type Reason string

const (
	// Malformed means that the body or subject is not an event.
	Malformed Reason = "malformed"
	// Rejected means that the API will never return a result for this token:
	// it does not exist, is not this account's, or the rule does not fit.
	Rejected Reason = "rejected"
	// Unfinished means that the token's life ended before the check did.
	Unfinished Reason = "unfinished"
	// Expired means that the deadline passed and the last try failed.
	Expired Reason = "expired"
	// Refused means that a sink will never take this result.
	Refused Reason = "refused"
	// Crashed means that every worker that took the event died, or lost its
	// connection, before it said what became of it.
	Crashed Reason = "crashed"
)

// Reasons lists every reason.
func Reasons() []Reason { return []Reason{Malformed, Rejected, Unfinished, Expired, Refused, Crashed} }

// Headers of a dead letter.
const (
	headerReason   = "Faceid-Reason"
	headerCode     = "Faceid-Code"
	headerDetail   = "Faceid-Detail"
	headerAttempts = "Faceid-Attempts"
	headerFirst    = "Faceid-First-Time"
	headerLast     = "Faceid-Last-Time"
	headerSubject  = "Faceid-Subject"
	headerSequence = "Faceid-Sequence"
)

// DeadLetter is an event that will not be retried by itself.
type DeadLetter struct {
	// Sequence is the letter's own number in the dead letter stream; set by
	// ReadDeadLetters, ignored when a letter is written.
	Sequence uint64
	Account  string
	Reason   Reason
	// Product and Token are those of the event, as far as they can be read in Subject
	// and Body; ignored when a letter is written.
	Product result.Product
	Token   string
	// Code is the API's error code or the sink's error class; may be empty.
	Code string
	// Detail says in words what happened, without personal data.
	Detail string
	// Attempts is how often the event was delivered.
	Attempts uint64
	// First is when the event was published, Last when it was given up.
	First, Last time.Time
	// Subject and StreamSequence are where the event stood in the event stream.
	Subject        string
	StreamSequence uint64
	// Body is the event's body. A letter that is written keeps of it what this program
	// reads: what else its sender put in, such as extra, lives in clear no longer than
	// the event, and so does the letter of what is no event.
	Body []byte
	// Trace is the event's trace context; may be nil.
	Trace nats.Header
	// Again is that of the event's Past.
	Again Place
	// History are earlier burials of the event, oldest first.
	History []Burial
}

// DeadSubject returns where letters of an account and reason are published.
func DeadSubject(account string, reason Reason) string {
	return deadPrefix + account + "." + string(reason)
}

// Bury stores the letter and returns when the stream has it. Burying the same
// event again within the duplicate window stores nothing.
func (p *Publisher) Bury(ctx context.Context, l DeadLetter) error {
	msg := nats.NewMsg(DeadSubject(l.Account, l.Reason))
	body, readable := lasting(l)
	msg.Data = body
	copyTrace(msg.Header, l.Trace)
	if l.Again != (Place{}) {
		msg.Header.Set(headerAgain, l.Again.header())
	}
	msg.Header.Set(headerReason, string(l.Reason))
	msg.Header.Set(headerCode, oneLine(l.Code))
	msg.Header.Set(headerDetail, oneLine(l.Detail))
	msg.Header.Set(headerAttempts, strconv.FormatUint(l.Attempts, 10))
	msg.Header.Set(headerFirst, l.First.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(headerLast, l.Last.UTC().Format(time.RFC3339Nano))
	msg.Header.Set(headerSubject, l.Subject)
	msg.Header.Set(headerSequence, strconv.FormatUint(l.StreamSequence, 10))
	if text := encodeHistory(l.History); text != "" {
		msg.Header.Set(headerHistory, text)
	}
	// With the subject, for lanes have streams of their own, and the time: sequences
	// begin again in a stream that was deleted.
	id := fmt.Sprintf("%s-%d-%d", l.Subject, l.StreamSequence, l.First.UnixNano())
	var err error
	if readable {
		_, err = p.publish(ctx, msg, id)
	} else {
		err = p.buryBriefly(ctx, msg, id)
	}
	if err != nil {
		return fmt.Errorf("store dead letter: %w", err)
	}
	return nil
}

// buryBriefly stores the letter of what is no event. Nobody knows what is in such a body,
// so that the letter lives no longer than the event would. In a stream that cannot have
// that it says all but the body, which is on the event's own stream for as long.
func (p *Publisher) buryBriefly(ctx context.Context, msg *nats.Msg, id string) error {
	// The server is not asked to refuse it: one before 2.11 would keep the letter for as
	// long as any.
	stream, err := p.js.Stream(ctx, DeadStream)
	if err != nil {
		return err
	}
	if stream.CachedInfo().Config.AllowMsgTTL {
		_, err = p.publish(ctx, msg, id, jetstream.WithMsgTTL(maxAge))
		return err
	}

	msg.Data = nil
	_, err = p.publish(ctx, msg, id)
	return err
}

// lasting returns what a letter keeps of its event's body: the body itself if there is
// nothing in it that this program does not read. What is no event is kept as it came, for
// only a person can make sense of it; readable is false then.
func lasting(l DeadLetter) (body []byte, readable bool) {
	_, _, product, err := ParseSubject(l.Subject)
	if err != nil {
		return l.Body, false
	}
	e, err := Decode(product, l.Body)
	if err != nil {
		return l.Body, false
	}

	if e.Extra == nil && len(e.Unread) == 0 && isPlain(l.Body) {
		return l.Body, true
	}
	e.Extra = nil
	short, err := e.Encode()
	if err != nil {
		return l.Body, false
	}
	return short, true
}

// isPlain reports whether a body is a JSON object with the fields of an event and nothing
// else in it.
func isPlain(body []byte) bool {
	var values map[string]json.RawMessage
	if json.Unmarshal(body, &values) != nil {
		return false
	}
	for key, value := range values {
		if spellings[fold(key)] == "" || len(value) > 2*maxToken || bytes.ContainsAny(value, "{[") {
			return false
		}
	}
	return true
}

// oneLine keeps a text inside one header line, and from moving a terminal's cursor.
func oneLine(s string) string {
	const limit = 1024
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// ErrNoDeadLetter is returned by GetDeadLetter for a sequence that is not there.
var ErrNoDeadLetter = errors.New("no such dead letter")

// GetDeadLetter returns one letter by its sequence.
func GetDeadLetter(ctx context.Context, js jetstream.JetStream, sequence uint64) (DeadLetter, error) {
	stream, err := js.Stream(ctx, DeadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return DeadLetter{}, ErrNoDeadLetter
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("open stream %s: %w", DeadStream, err)
	}
	msg, err := stream.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return DeadLetter{}, ErrNoDeadLetter
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %d: %w", sequence, err)
	}
	return deadLetter(msg.Subject, msg.Header, msg.Data, msg.Sequence), nil
}

// ReadDeadLetters calls visit for every dead letter there is now, oldest first,
// until visit returns an error, which it returns.
func ReadDeadLetters(ctx context.Context, js jetstream.JetStream, visit func(DeadLetter) error) error {
	return Scan(ctx, js, DeadStream, 0, nil, func(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
		return visit(deadLetter(msg.Subject(), msg.Headers(), msg.Data(), meta.Sequence.Stream))
	})
}

// deadLetter reads a letter. Whoever may publish may have made it up.
func deadLetter(subject string, h nats.Header, body []byte, sequence uint64) DeadLetter {
	account, _, _ := strings.Cut(strings.TrimPrefix(subject, deadPrefix), ".")
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(h.Get(name), 10, 64)
		return n
	}
	when := func(name string) time.Time {
		t, _ := time.Parse(time.RFC3339Nano, h.Get(name))
		return t
	}
	trace := nats.Header{}
	copyTrace(trace, h)
	again, _ := parsePlace(h.Get(headerAgain))
	_, _, product, err := ParseSubject(h.Get(headerSubject))
	token := ""
	if err == nil {
		if e, err := Decode(product, body); err == nil {
			token = e.Token
		}
	}
	return DeadLetter{
		Product: product, Token: token,
		Sequence: sequence, Account: oneLine(account),
		Reason: Reason(oneLine(h.Get(headerReason))), Code: oneLine(h.Get(headerCode)), Detail: oneLine(h.Get(headerDetail)),
		Attempts: number(headerAttempts), First: when(headerFirst), Last: when(headerLast),
		Subject: oneLine(h.Get(headerSubject)), StreamSequence: number(headerSequence),
		Body: body, Trace: trace, Again: again, History: decodeHistory(h.Get(headerHistory)),
	}
}

// CountDeadLetters returns how many letters there are by account and reason,
// and in all.
func CountDeadLetters(ctx context.Context, js jetstream.JetStream) (map[string]map[string]uint64, uint64, error) {
	counts := map[string]map[string]uint64{}
	stream, err := js.Stream(ctx, DeadStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return counts, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open stream %s: %w", DeadStream, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(deadPrefix+">"))
	if err != nil {
		return nil, 0, fmt.Errorf("look at stream %s: %w", DeadStream, err)
	}
	for subject, n := range info.State.Subjects {
		account, reason, ok := strings.Cut(strings.TrimPrefix(subject, deadPrefix), ".")
		if !ok {
			continue
		}
		if counts[account] == nil {
			counts[account] = map[string]uint64{}
		}
		counts[account][reason] += n
	}
	return counts, info.State.Msgs, nil
}

// ErrNotRetryable is returned by Retry for a letter whose event never had a valid
// subject: no worker would take it.
var ErrNotRetryable = errors.New("the event's subject is not one of an account and product")

// Retry puts the letter's event on a stream again, its body unchanged and with its
// whole past, and removes the letter. A worker that gives it up again makes a letter
// with one burial more. What sinks have of the result already they are not given
// again. A crash in between leaves both the event and the letter; retrying the letter
// again soon adds no second event.
func (p *Publisher) Retry(ctx context.Context, l DeadLetter) error {
	lane, account, product, err := ParseSubject(l.Subject)
	if err != nil {
		return ErrNotRetryable
	}
	if lane == Parked {
		// Only workers use that lane; they send a live event there if it has to go.
		lane = Live
	}
	past := Past{First: l.First, Again: l.Again, Attempts: l.Attempts, History: append(slices.Clone(l.History), l.burial())}
	id := fmt.Sprintf("retry-%d-%d", l.Sequence, l.Last.UnixNano())
	if err := p.Republish(ctx, Subject(lane, account, product), l.Body, l.Trace, past, id); err != nil {
		return err
	}
	return p.Drop(ctx, l)
}

// Drop removes the letter for good. One that is not there is no error.
func (p *Publisher) Drop(ctx context.Context, l DeadLetter) error {
	stream, err := p.js.Stream(ctx, DeadStream)
	if err == nil {
		err = Remove(ctx, stream, l.Sequence)
	}
	if err != nil {
		return fmt.Errorf("remove a dead letter: %w", err)
	}
	return nil
}

func (l DeadLetter) burial() Burial {
	return Burial{Time: l.Last, Reason: l.Reason, Code: l.Code, Attempts: l.Attempts}
}
