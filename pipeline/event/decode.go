package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	encoding "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Field is what of an event's body may be unreadable. The set is closed: it is the value
// of a metric label.
type Field string

// The fields of an event.
const (
	// FieldToken is a spelling of the token that holds none, beside another that does.
	FieldToken Field = "token"
	// FieldRule, FieldCompleted, FieldIssued and FieldExtra are those of Event.
	FieldRule      Field = "rule_id"
	FieldCompleted Field = "completed_at"
	FieldIssued    Field = "issued_at"
	FieldExtra     Field = "extra"
	// FieldData is the content of an envelope.
	FieldData Field = "data"
	// FieldProduct means that the token is called as those of the other product are; the
	// subject decides.
	FieldProduct Field = "product"
	// FieldBody means that the body, or something inside of it, is not whole JSON.
	FieldBody Field = "body"
)

// Fields lists every field.
func Fields() []Field {
	return []Field{FieldToken, FieldRule, FieldCompleted, FieldIssued, FieldExtra, FieldData, FieldProduct, FieldBody}
}

// spellings maps names, as fold returns them, to the fields they are taken for: our own,
// those of Tencent's API and pages, and those that other publishers use.
var spellings = map[string]Field{
	"token": FieldToken, "biztoken": FieldToken, "eidtoken": FieldToken, "faceidtoken": FieldToken,

	"ruleid": FieldRule, "rule": FieldRule,

	"completedat": FieldCompleted, "completeat": FieldCompleted, "completedtime": FieldCompleted,
	"completetime": FieldCompleted, "completiontime": FieldCompleted, "finishedat": FieldCompleted,
	"finishat": FieldCompleted, "finishedtime": FieldCompleted, "finishtime": FieldCompleted,
	"endedat": FieldCompleted, "endtime": FieldCompleted,

	"issuedat": FieldIssued, "issueat": FieldIssued, "issuedtime": FieldIssued, "issuetime": FieldIssued,
	"createdat": FieldIssued, "createat": FieldIssued, "createdtime": FieldIssued, "createtime": FieldIssued,
	"iat": FieldIssued,

	"extra": FieldExtra,
}

// FieldOf returns the field that a name is taken for, however it is spelled; "" if it is
// none of an event.
func FieldOf(name string) Field { return spellings[fold(name)] }

// wrappers are the names under which a publisher's own envelope, or the answer of the
// API that made the token, holds the fields.
var wrappers = []string{"data", "response", "detail", "payload", "event", "message", "body"}

// fold returns a name without the differences between usual ways of writing it.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r == '.' || unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
}

// maxNesting bounds how many envelopes are opened, one inside of another.
const maxNesting = 4

// Decode reads an event of the given product: plain, or wrapped in an envelope such as
// that of CloudEvents 1.0 (https://github.com/cloudevents/spec, JSON format §3). Names
// are read in any usual spelling, and values of another type as far as they can be. A
// field that cannot be read is named in Unread and costs nothing else; keys that are not
// known are ignored.
//
// The error is a *MalformedError: the body has no token, or two different ones.
func Decode(product result.Product, body []byte) (Event, error) {
	if len(body) > maxRead {
		return Event{}, malformed("body of %d bytes, the limit is %d", len(body), maxRead)
	}

	r := reader{product: product}
	r.document(body, 0)

	switch {
	case r.two:
		return Event{}, malformed("two different values for token")
	case r.event.Token != "":
	case r.wrong != nil:
		return Event{}, r.wrong
	case r.objects == 0:
		return Event{}, malformed("not a JSON object")
	case slices.Contains(r.event.Unread, FieldBody):
		return Event{}, malformed("token is missing, and the JSON is not whole")
	default:
		return Event{}, CheckToken("")
	}

	slices.SortFunc(r.event.Unread, func(a, b Field) int {
		return slices.Index(Fields(), a) - slices.Index(Fields(), b)
	})
	return r.event, nil
}

// reader collects what a body says.
type reader struct {
	product result.Product
	event   Event
	// objects counts the JSON objects that were seen.
	objects int
	// two is set by a second token that differs from the first.
	two bool
	// wrong is why a value that should be the token cannot be one.
	wrong error
}

// lose notes a field that cannot be read.
func (r *reader) lose(f Field) {
	if !slices.Contains(r.event.Unread, f) {
		r.event.Unread = append(r.event.Unread, f)
	}
}

// member is one key of an object. Unlike a map, a list of them keeps what is there twice.
type member struct {
	name  string
	value json.RawMessage
}

// document reads JSON text: objects, lists of them, or a string that holds them.
func (r *reader) document(data []byte, nesting int) {
	// A byte order mark says how the text is encoded; without one it is UTF-8.
	text, _, err := transform.Bytes(encoding.BOMOverride(transform.Nop), data)
	if err != nil || nesting > maxNesting {
		r.lose(FieldBody)
		return
	}

	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			r.lose(FieldBody)
			return
		}

		switch token := token.(type) {
		case json.Delim:
			var ok bool
			if token == '{' {
				ok = r.object(decoder, nesting)
			} else {
				ok = r.list(decoder, nesting)
			}
			if !ok {
				r.lose(FieldBody)
				return
			}
		case string:
			if inner := textOf(token); inner != nil {
				r.document(inner, nesting+1)
			}
		}
	}
}

// textOf returns the JSON object that a string holds, as it is or in base64; nil if there
// is none.
func textOf(s string) []byte {
	isObject := func(b []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n\ufeff"), []byte("{")) }
	if isObject([]byte(s)) {
		return []byte(s)
	}
	if data, ok := decodeBase64(s); ok && isObject(data) {
		return data
	}
	return nil
}

// list reads the rest of a JSON list and reports whether it is whole.
func (r *reader) list(decoder *json.Decoder, nesting int) bool {
	for decoder.More() {
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return false
		}
		r.document(value, nesting+1)
	}
	_, err := decoder.Token()
	return err == nil
}

// object reads the rest of a JSON object and reports whether it is whole. What stands
// before a fault is read all the same.
func (r *reader) object(decoder *json.Decoder, nesting int) bool {
	r.objects++
	var members []member
	whole := true
	for whole && decoder.More() {
		name, err := decoder.Token()
		key, isKey := name.(string)
		m := member{name: fold(key)}
		if whole = err == nil && isKey && decoder.Decode(&m.value) == nil; whole {
			members = append(members, m)
		}
	}
	if whole {
		_, err := decoder.Token()
		whole = err == nil
	}

	r.fields(members)
	r.envelope(members, nesting)
	return whole
}

// fields reads those members that are fields of an event.
func (r *reader) fields(members []member) {
	for _, m := range members {
		switch spellings[m.name] {
		case FieldToken:
			r.token(m)
		case FieldRule:
			r.rule(m.value)
		case FieldCompleted:
			readTime(r, FieldCompleted, m.value)
		case FieldIssued:
			readTime(r, FieldIssued, m.value)
		case FieldExtra:
			r.extra(m.value)
		}
	}
}

// envelope reads what members wrap. An envelope that has a token of its own is none,
// unless it is one of CloudEvents: "data" may be anything then.
func (r *reader) envelope(members []member, nesting int) {
	cloudEvent := slices.ContainsFunc(members, func(m member) bool { return m.name == "specversion" })
	if r.event.Token != "" && !cloudEvent {
		return
	}

	for _, m := range members {
		switch {
		case m.name == "database64":
			text, _ := scalar(m.value)
			data, ok := decodeBase64(text)
			if !ok {
				r.lose(FieldData)
				continue
			}
			r.document(data, nesting+1)
		case slices.Contains(wrappers, m.name):
			r.document(m.value, nesting+1)
		}
	}
}

// decodeBase64 reads base64 of either alphabet, with padding or without.
func decodeBase64(text string) ([]byte, bool) {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), r == '=':
			return -1
		case r == '-':
			return '+'
		case r == '_':
			return '/'
		}
		return r
	}, text)
	data, err := base64.RawStdEncoding.DecodeString(text)
	return data, err == nil && text != ""
}

// token takes a value for the token.
func (r *reader) token(m member) {
	text, ok := scalar(m.value)
	switch err := CheckToken(text); {
	case ok && text == "":
		return
	case !ok:
		r.wrong = malformed("token must be a string")
		r.lose(FieldToken)
		return
	case err != nil:
		r.wrong = err
		r.lose(FieldToken)
		return
	}

	if r.event.Token != "" && r.event.Token != text {
		r.two = true
		return
	}
	r.event.Token = text
	if m.name == "eidtoken" && r.product != result.EID || m.name == "biztoken" && r.product != result.Enhanced {
		r.lose(FieldProduct)
	}
}

// rule takes a value for the rule; of two different ones the first stays.
func (r *reader) rule(value json.RawMessage) {
	text, ok := scalar(value)
	switch {
	case ok && text == "":
	case !ok, len(text) > maxRuleID, !printable(text), r.event.RuleID != "" && r.event.RuleID != text:
		r.lose(FieldRule)
	default:
		r.event.RuleID = text
	}
}

// extra keeps a value as it came; of two the first stays.
func (r *reader) extra(value json.RawMessage) {
	switch {
	case string(value) == "null":
	case r.event.Extra != nil, len(value) > MaxBody:
		r.lose(FieldExtra)
	default:
		r.event.Extra = value
	}
}

// scalar returns the text of a string or number, without white space around it, or of a
// list of one; null and nothing are "". The numbers 1 and 1.0 have the same text.
func scalar(value json.RawMessage) (text string, ok bool) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil && len(list) == 1 && list[0][0] != '[' {
		value = list[0]
	}

	var decoded any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	if decoder.Decode(&decoded) != nil {
		return "", false
	}
	switch v := decoded.(type) {
	case nil:
		return "", true
	case string:
		return strings.TrimFunc(v, invisible), true
	case json.Number:
		if n, err := v.Float64(); err == nil && strings.ContainsAny(v.String(), ".eE") && n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return strconv.FormatFloat(n, 'f', 0, 64), true
		}
		return v.String(), true
	default:
		return "", false
	}
}

// invisible reports whether r has no place at the ends of an identifier, though it may
// get there by copying: white space, control characters, marks of width zero.
func invisible(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// readTime takes a value for a time; of two different ones the first stays.
func readTime(r *reader, f Field, value json.RawMessage) {
	to := &r.event.CompletedAt
	if f == FieldIssued {
		to = &r.event.IssuedAt
	}

	text, ok := scalar(value)
	at, isTime := result.ReadTime(text)
	switch {
	case !ok || !isTime || !to.IsZero() && !at.IsZero() && !at.Equal(*to):
		r.lose(f)
	case !at.IsZero():
		*to = at
	}
}
