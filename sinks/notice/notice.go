// Package notice is what the notify sinks have in common: the message that they
// send, and the secrets and TLS files of their configuration.
//
// In goes a result that is stored, or the key of one that was erased; out comes
// an event in the structured JSON form of CloudEvents 1.0 (Event), the same one
// whatever carries it:
//
//	{"specversion": "1.0", "id": "<token hash>", "source": "/faceid-ingest/enhanced",
//	 "type": "faceid-ingest.result.stored", "subject": "<token hash>",
//	 "time": "2026-03-01T04:05:06.789Z", "datacontenttype": "application/json",
//	 "data": {"product": "enhanced", "account": "main", "token": "…", …}}
//
// What data holds is Result, or Erasure where the type is TypeErased. A receiver
// ignores keys and types that it does not know: more may come.
//
// Notifications are sent at least once. The id depends on the product and token
// alone, so that a receiver can tell a repetition: it drops an id that it has
// seen, or lets the message with the later data.fetched_at replace the earlier.
// The body of a repeated notification of one result is the same, byte for byte,
// but for the nonces of sealed values.
//
// A message holds no personal value unless the sink's configuration asks for
// some (Fields), and then in the form that the privacy policy gives: plain,
// masked, hashed or sealed. The token is in it, since receivers know the check by
// it; a token opens a result at Tencent for three days, but only with the
// account's credentials.
//
// What may go wrong: the policy cannot protect the result, since its keyring
// cannot be read; that is transient.
package notice

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// ContentType is the media type of a message.
	ContentType = "application/cloudevents+json"
	// TypeStored is the type of an event about a result that is stored.
	TypeStored = "faceid-ingest.result.stored"
	// TypeErased is the type of an event about a result that was erased:
	// receivers erase what they made of it.
	TypeErased = "faceid-ingest.result.erased"

	// maxText bounds each text of the API's, in bytes, so that no answer of it
	// makes a message that receivers refuse. Real ones have some dozen bytes.
	maxText = 4 << 10
)

// Message is an event ready to be sent.
type Message struct {
	// ID is the event's id: the token hash, with "-erased" behind it where the
	// result was erased. Equal ids are of the same message. It is at most 64 of
	// a-z, 0-9 and "-".
	ID string
	// TokenHash is result.TokenHash, for those who sort messages by token.
	TokenHash string
	// Body is the event in JSON, of the type ContentType.
	Body []byte
}

// Event is the envelope of a message: CloudEvents 1.0, JSON format §3. The JSON
// names here and in Data are part of what receivers depend on: they are added to,
// never changed.
type Event struct {
	// SpecVersion is "1.0".
	SpecVersion string `json:"specversion"`
	// ID is Message.ID.
	ID string `json:"id"`
	// Source is "/faceid-ingest/<product>".
	Source string `json:"source"`
	// Type is TypeStored or TypeErased.
	Type string `json:"type"`
	// Subject is the token hash.
	Subject string `json:"subject"`
	// Time is Result.FetchedAt; it is left out where the result was erased.
	Time time.Time `json:"time,omitzero"`
	// DataContentType is "application/json".
	DataContentType string `json:"datacontenttype"`
	// Data is a Result or an Erasure.
	Data json.RawMessage `json:"data"`
}

// Result is the data of a stored result. Texts that came from the API are cut
// after 4 KiB.
type Result struct {
	Product   result.Product `json:"product"`
	Account   string         `json:"account"`
	Token     string         `json:"token"`
	TokenHash string         `json:"token_hash"`
	// RuleID is empty for eid.
	RuleID    string `json:"rule_id,omitempty"`
	RequestID string `json:"request_id"`
	// FetchedAt is in UTC.
	FetchedAt time.Time       `json:"fetched_at"`
	Verdict   privacy.Verdict `json:"verdict"`
	// Assets are in the order of the result.
	Assets []Asset `json:"assets,omitempty"`
	// Missing are parts that the check has and the result has not.
	Missing []result.Missing `json:"missing,omitempty"`
	// Personal are the values of the fields that the sink is configured to send
	// (Fields), as the policy left them, each at its position: one value, or one
	// for each answer or attempt. Sealed ones are opened by privacy.Policy.Open.
	// What the result does not have is left out.
	Personal map[privacy.Field][]privacy.Stored `json:"personal,omitempty"`
}

// Asset is one picture, video or sound of a result.
type Asset struct {
	Field       string      `json:"field"`
	Kind        result.Kind `json:"kind"`
	ContentType string      `json:"content_type"`
	// Stored says where archive sinks put it.
	Stored []result.Receipt `json:"stored,omitempty"`
}

// Erasure is the data of an erased result.
type Erasure struct {
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
}

// OfResult returns the message about a stored result, with the personal values of
// the given fields, which must be valid. It does not change r.
func OfResult(policy *privacy.Policy, r *result.Result, fields Fields) (Message, error) {
	bare := *r
	bare.Raw = result.Sensitive{} // never sent, so that it need not be sealed
	rec, err := policy.Protect(&bare)
	if err != nil {
		return Message{}, fmt.Errorf("protect a notification: %w", err)
	}
	data, err := json.Marshal(Result{
		Product: rec.Product, Account: rec.Account, Token: rec.Token, TokenHash: rec.TokenHash,
		RuleID: rec.RuleID, RequestID: cut(rec.RequestID), FetchedAt: rec.FetchedAt,
		Verdict: verdictOf(rec.Verdict), Assets: assetsOf(rec.Assets), Missing: rec.Missing, Personal: fields.of(rec),
	})
	if err != nil {
		return Message{}, fmt.Errorf("encode a notification: %w", err)
	}
	return complete(Event{
		ID: rec.TokenHash, Type: TypeStored, Time: rec.FetchedAt, Data: data,
	}, sinks.Key{Product: rec.Product, Hash: rec.TokenHash})
}

// OfErasure returns the message about an erased result.
func OfErasure(key sinks.Key) (Message, error) {
	data, err := json.Marshal(Erasure{Product: key.Product, TokenHash: key.Hash})
	if err != nil {
		return Message{}, fmt.Errorf("encode a notification: %w", err)
	}
	return complete(Event{ID: key.Hash + "-erased", Type: TypeErased, Data: data}, key)
}

// complete fills in the rest of an event and encodes it.
func complete(e Event, key sinks.Key) (Message, error) {
	e.SpecVersion, e.DataContentType, e.Subject = "1.0", "application/json", key.Hash
	e.Source = "/faceid-ingest/" + string(key.Product)
	body, err := json.Marshal(e)
	if err != nil {
		return Message{}, fmt.Errorf("encode a notification: %w", err)
	}
	return Message{ID: e.ID, TokenHash: key.Hash, Body: body}, nil
}

func verdictOf(v privacy.Verdict) privacy.Verdict {
	for _, text := range []*string{
		&v.Message, &v.LivenessMessage, &v.CompareMessage, &v.Similarity, &v.CompareLibrary, &v.IntentionMessage,
	} {
		*text = cut(*text)
	}
	v.Intention = result.IntentionMode(cut(string(v.Intention)))
	v.LivenessTags = slices.Clone(v.LivenessTags)
	for i, tag := range v.LivenessTags {
		v.LivenessTags[i] = cut(tag)
	}
	return v
}

func assetsOf(in []privacy.Asset) []Asset {
	out := make([]Asset, len(in))
	for i, a := range in {
		out[i] = Asset{
			Field: cut(a.Field), Kind: result.Kind(cut(string(a.Kind))), ContentType: cut(a.ContentType),
			Stored: slices.Clone(a.Stored),
		}
		for j := range out[i].Stored {
			out[i].Stored[j].Field = out[i].Field
		}
	}
	return out
}

// cut shortens a text of the API's to maxText, at the end of a character.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText - len("…")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// Fields are the personal fields that a sink's messages hold: any of
// privacy.Fields but raw.
type Fields []privacy.Field

// Validate says what is wrong with the list, which has the yaml key "fields".
func (f Fields) Validate() error {
	for _, field := range f {
		switch _, known := values[field]; {
		case field == privacy.Raw:
			return &sinks.InvalidFieldError{Field: "fields", Problem: "raw is never sent, since it holds all others"}
		case !known:
			return &sinks.InvalidFieldError{Field: "fields", Problem: "holds an unknown field; known are: " + knownFields()}
		}
	}
	return nil
}

func knownFields() string {
	var names []string
	for _, field := range privacy.Fields() {
		if _, ok := values[field]; ok {
			names = append(names, string(field))
		}
	}
	return strings.Join(names, ", ")
}

// of returns the values of the fields in a record; nil if there are none.
func (f Fields) of(rec *privacy.Record) map[privacy.Field][]privacy.Stored {
	personal := map[privacy.Field][]privacy.Stored{}
	for _, field := range f {
		stored := values[field](rec)
		if slices.ContainsFunc(stored, func(s privacy.Stored) bool { return s != privacy.Stored{} }) {
			personal[field] = stored
		}
	}
	return personal
}

// values finds the values of each field that may be sent in a record.
var values = map[privacy.Field]func(*privacy.Record) []privacy.Stored{
	privacy.Name:         one(func(r *privacy.Record) privacy.Stored { return r.Person.Name }),
	privacy.IDCard:       one(func(r *privacy.Record) privacy.Stored { return r.Person.IDCard }),
	privacy.Mobile:       one(func(r *privacy.Record) privacy.Stored { return r.Person.Mobile }),
	privacy.Location:     one(func(r *privacy.Record) privacy.Stored { return r.Person.Location }),
	privacy.Extra:        one(func(r *privacy.Record) privacy.Stored { return r.Person.Extra }),
	privacy.OCRName:      one(func(r *privacy.Record) privacy.Stored { return r.Document.Name }),
	privacy.OCRIDCard:    one(func(r *privacy.Record) privacy.Stored { return r.Document.IDCard }),
	privacy.OCRGender:    one(func(r *privacy.Record) privacy.Stored { return r.Document.Gender }),
	privacy.OCRNation:    one(func(r *privacy.Record) privacy.Stored { return r.Document.Nation }),
	privacy.OCRBirth:     one(func(r *privacy.Record) privacy.Stored { return r.Document.Birth }),
	privacy.OCRAddress:   one(func(r *privacy.Record) privacy.Stored { return r.Document.Address }),
	privacy.OCRAuthority: one(func(r *privacy.Record) privacy.Stored { return r.Document.Authority }),
	privacy.OCRValidDate: one(func(r *privacy.Record) privacy.Stored { return r.Document.Valid }),
	privacy.PassNo:       one(func(r *privacy.Record) privacy.Stored { return r.Document.PassNo }),
	privacy.VisaNum:      one(func(r *privacy.Record) privacy.Stored { return r.Document.VisaNum }),
	privacy.EIDCode:      one(func(r *privacy.Record) privacy.Stored { return r.EID.Code }),
	privacy.EIDSign:      one(func(r *privacy.Record) privacy.Stored { return r.EID.Sign }),
	privacy.Answer:       func(r *privacy.Record) []privacy.Stored { return r.Intention.Answers },
	privacy.AttemptName: func(r *privacy.Record) []privacy.Stored {
		return ofAttempts(r, func(a privacy.Attempt) privacy.Stored { return a.Name })
	},
	privacy.AttemptIDCard: func(r *privacy.Record) []privacy.Stored {
		return ofAttempts(r, func(a privacy.Attempt) privacy.Stored { return a.IDCard })
	},
}

func one(value func(*privacy.Record) privacy.Stored) func(*privacy.Record) []privacy.Stored {
	return func(r *privacy.Record) []privacy.Stored { return []privacy.Stored{value(r)} }
}

func ofAttempts(r *privacy.Record, value func(privacy.Attempt) privacy.Stored) []privacy.Stored {
	out := make([]privacy.Stored, len(r.Attempts))
	for i, a := range r.Attempts {
		out[i] = value(a)
	}
	return out
}
