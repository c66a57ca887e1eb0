package privacy

import (
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Record is a result in the one form that may be stored: every sink writes this
// and nothing else. It holds no Sensitive value; its JSON shows exactly what
// leaves the process. The JSON names are part of what other people's tools
// depend on: they are added to, never changed.
type Record struct {
	Product result.Product `json:"product"`
	Account string         `json:"account"`
	Token   string         `json:"token"`
	// TokenHash is result.TokenHash: what object keys use in place of the token.
	TokenHash string `json:"token_hash"`
	// RuleID is empty for eid.
	RuleID    string `json:"rule_id,omitempty"`
	RequestID string `json:"request_id"`
	// FetchedAt is in UTC.
	FetchedAt time.Time `json:"fetched_at"`

	Verdict   Verdict   `json:"verdict"`
	Person    Person    `json:"person"`
	Document  Document  `json:"document"`
	Intention Intention `json:"intention,omitzero"`
	// EID is zero for enhanced.
	EID      EID       `json:"eid,omitzero"`
	Attempts []Attempt `json:"attempts,omitempty"`
	Warnings []Warning `json:"warnings,omitempty"`
	Assets   []Asset   `json:"assets,omitempty"`
	// Unread and Missing are those of result.Result.
	Unread  []string         `json:"unread,omitempty"`
	Missing []result.Missing `json:"missing,omitempty"`
	Raw     Stored           `json:"raw,omitzero"`
}

// Stored is what the policy leaves of one personal value. The zero value means
// that there was none, or that it was dropped.
type Stored struct {
	// Value is the plain or masked value, or a sealed one (see Policy.Open).
	Value string `json:"value,omitempty"`
	// Index is the blind index (see Policy.Index): equal values of one group of
	// fields have equal indexes.
	Index string `json:"index,omitempty"`
}

// Verdict is result.Verdict. Its messages are the vendor's fixed texts, not
// personal data.
type Verdict struct {
	Passed           bool                 `json:"passed"`
	Unreadable       bool                 `json:"unreadable,omitempty"`
	Code             int64                `json:"code"`
	Message          string               `json:"message,omitempty"`
	Liveness         *int64               `json:"liveness,omitempty"`
	LivenessMessage  string               `json:"liveness_message,omitempty"`
	Compare          *int64               `json:"compare,omitempty"`
	CompareMessage   string               `json:"compare_message,omitempty"`
	Similarity       string               `json:"similarity,omitempty"`
	CompareLibrary   string               `json:"compare_library,omitempty"`
	LivenessMode     int64                `json:"liveness_mode,omitempty"`
	LivenessTags     []string             `json:"liveness_tags,omitempty"`
	Intention        result.IntentionMode `json:"intention,omitempty"`
	IntentionCode    *int64               `json:"intention_code,omitempty"`
	IntentionMessage string               `json:"intention_message,omitempty"`
}

// Person is result.Person.
type Person struct {
	Name     Stored `json:"name,omitzero"`
	IDCard   Stored `json:"id_card,omitzero"`
	IDType   int64  `json:"id_type"`
	Mobile   Stored `json:"mobile,omitzero"`
	Location Stored `json:"location,omitzero"`
	Extra    Stored `json:"extra,omitzero"`
}

// Document is result.Document.
type Document struct {
	Name      Stored `json:"name,omitzero"`
	IDCard    Stored `json:"id_card,omitzero"`
	Gender    Stored `json:"gender,omitzero"`
	Nation    Stored `json:"nation,omitzero"`
	Birth     Stored `json:"birth,omitzero"`
	Address   Stored `json:"address,omitzero"`
	Authority Stored `json:"authority,omitzero"`
	Valid     Stored `json:"valid_date,omitzero"`
	PassNo    Stored `json:"pass_no,omitzero"`
	VisaNum   Stored `json:"visa_num,omitzero"`
	Source    string `json:"source,omitempty"`
}

// Intention is result.Intention. Answers keeps the place of each answer, even
// where the policy drops it.
type Intention struct {
	Answers     []Stored `json:"answers,omitempty"`
	AnswerCodes []string `json:"answer_codes,omitempty"`
}

// EID is result.EIDInfo.
type EID struct {
	Code Stored `json:"code,omitzero"`
	Sign Stored `json:"sign,omitzero"`
	// IDType is the kind of document, in the eID centre's numbers.
	IDType string `json:"id_type,omitempty"`
}

// Attempt is result.Attempt.
type Attempt struct {
	// Time is in UTC, and left out where the API did not say.
	Time            time.Time `json:"time,omitzero"`
	Seq             string    `json:"seq,omitempty"`
	Name            Stored    `json:"name,omitzero"`
	IDCard          Stored    `json:"id_card,omitzero"`
	Charged         bool      `json:"charged"`
	Similarity      string    `json:"similarity,omitempty"`
	Code            *int64    `json:"code,omitempty"`
	Message         string    `json:"message,omitempty"`
	LivenessCode    *int64    `json:"liveness_code,omitempty"`
	LivenessMessage string    `json:"liveness_message,omitempty"`
	CompareCode     *int64    `json:"compare_code,omitempty"`
	CompareMessage  string    `json:"compare_message,omitempty"`
	CompareLibrary  string    `json:"compare_library,omitempty"`
	LivenessMode    int64     `json:"liveness_mode,omitempty"`
}

// Warning is result.Warning.
type Warning struct {
	Side string `json:"side"`
	Code int64  `json:"code"`
}

// Asset describes one picture, video or sound. Its bytes are not in a record.
type Asset struct {
	Field       string      `json:"field"`
	Kind        result.Kind `json:"kind"`
	ContentType string      `json:"content_type"`
	// Inline describes the bytes that were in the answer; nil for an asset that
	// FaceID put in COS.
	Inline *Digest `json:"inline,omitempty"`
	// COS is where FaceID put the asset; nil for an inline one.
	COS *COSObject `json:"cos,omitempty"`
	// Stored lists where archive sinks put the asset.
	Stored []result.Receipt `json:"stored,omitempty"`
}

// Digest is result.Digest in text.
type Digest struct {
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is lower-case hex.
	SHA256 string `json:"sha256"`
	// CRC64 is CRC-64/ECMA-182 in decimal.
	CRC64 string `json:"crc64"`
}

// COSObject is result.COSObject.
type COSObject struct {
	Bucket string `json:"bucket"`
	Region string `json:"region"`
	Key    string `json:"key"`
}
