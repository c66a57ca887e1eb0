// Package result holds what a finished FaceID check said, in this project's
// own types.
//
// A Result comes out of pipeline/faceid, already decrypted, and goes into
// sinks. It separates what may be shown (verdict, codes, asset kinds and
// sizes) from what may not (names, numbers, addresses), which is of type
// Sensitive and prints as "[redacted]" everywhere. Media is never in a Result:
// an Asset says where its bytes lie, either inline (a Content, usually a spool
// item) or in the owner's COS bucket.
package result

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Product says which FaceID product a token belongs to, and with that which
// API action returns its result.
type Product string

const (
	// Enhanced is served by GetDetectInfoEnhanced; its token is a BizToken.
	Enhanced Product = "enhanced"
	// EID (E证通) is served by GetEidResult; its token is an EidToken.
	EID Product = "eid"
)

// Products lists every product, in the order they are shown to people.
func Products() []Product { return []Product{Enhanced, EID} }

// Valid reports whether p is a known product.
func (p Product) Valid() bool { return p == Enhanced || p == EID }

// Result is one token's finished check. It is built by one goroutine; after
// that it is only read, and any number of goroutines may read it.
type Result struct {
	Product Product
	// Account is the configured name of the Tencent account, not an APPID.
	Account string
	// Token is the BizToken or EidToken. It opens the result for three days
	// and is treated as an identifier, not as personal data.
	Token string
	// RuleID is the business flow of an enhanced check; empty for eid.
	RuleID string
	// RequestID is the API's own id of the call that returned this result.
	RequestID string
	// FetchedAt is when the API answered, in UTC.
	FetchedAt time.Time

	Verdict   Verdict
	Person    Person
	Document  Document
	Intention Intention
	// EID is what only the eid product returns; zero otherwise.
	EID EIDInfo
	// Attempts are the tries of the liveness step, in the API's order
	// (LivenessDetail). A check may pass after several failed ones.
	Attempts []Attempt
	Warnings []Warning
	// Assets are the result's pictures, videos and sounds, in the order they
	// are listed in FACTS §1.2. Asset.Field is unique within a result.
	Assets []Asset

	// Unread are fields of another type than documented, as paths without the indexes of
	// lists, each once. They are read as far as they can be; Raw has what the API sent.
	Unread []string
	// Missing is what the check has and this result has not.
	Missing []Missing

	// Raw is the "Response" object as the API sent it (fields decrypted), with
	// each inline medium replaced by "asset:<field>", so that a field which
	// this version does not know is kept all the same.
	Raw Sensitive
}

// Asset returns the asset of the given field path, and whether there is one.
func (r *Result) Asset(field string) (Asset, bool) {
	for _, a := range r.Assets {
		if a.Field == field {
			return a, true
		}
	}
	return Asset{}, false
}

// MissingReason says why something is missing. The set is closed: it is the value of a
// metric label.
type MissingReason string

const (
	// ForeignPlace means that an asset lies in a bucket that the account's configuration
	// does not name, or where no key points.
	ForeignPlace MissingReason = "foreign_place"
	// NotMedia means that an asset's field holds neither base64 nor a place in COS, or
	// base64 that is damaged.
	NotMedia MissingReason = "not_media"
	// NotOpened means that the account's key does not open what came encrypted.
	NotOpened MissingReason = "not_opened"
	// NotSent means that the service left out what others of its kind have.
	NotSent MissingReason = "not_sent"
	// NotFound means that an asset's object is not where the answer says.
	NotFound MissingReason = "not_found"
)

// MissingReasons lists every reason.
func MissingReasons() []MissingReason {
	return []MissingReason{ForeignPlace, NotMedia, NotOpened, NotSent, NotFound}
}

// Missing is a part of a check that its result has not. What the API said of it is in
// Result.Raw.
type Missing struct {
	// Field is the part's path in the answer, such as "BestFrame.BestFrame".
	Field  string        `json:"field"`
	Reason MissingReason `json:"reason"`
}

// Person is who was checked. What the flow did not ask for is empty.
type Person struct {
	// Name and IDCard are what the check was made against.
	Name, IDCard Sensitive
	// IDType is UseIDType: 0 mainland identity card, 1 residence permit for
	// Hong Kong, Macao and Taiwan, 2 other.
	IDType int64
	Mobile Sensitive
	// Location is where the user's device said it was.
	Location Sensitive
	// Extra is what the caller passed to DetectAuth (at most 1024 characters);
	// owners put order or customer numbers there.
	Extra Sensitive
}

// Document is what OCR or NFC read from the identity document.
type Document struct {
	Name, IDCard     Sensitive
	Gender, Nation   Sensitive
	Birth, Address   Sensitive
	Authority, Valid Sensitive
	// PassNo and VisaNum are of a Hong Kong, Macao and Taiwan permit.
	PassNo, VisaNum Sensitive
	// Source is IdInfoFrom: "NFC", "OCR", "手动输入" or "其他".
	Source string
}

// EIDInfo is what GetEidResult returns about the electronic identity.
type EIDInfo struct {
	// Code is this merchant's identifier of the person; Sign is the eID
	// centre's signature over it.
	Code, Sign Sensitive
	// IDType is the kind of document that the person showed the eID centre: "01"
	// is the identity card.
	IDType string
}

// Intention is what the person said or did when asked for consent, if the flow
// asked. The outcome is in Verdict.
type Intention struct {
	// Answers are the recognised words (AsrResult), one per question.
	Answers []Sensitive
	// AnswerCodes are the per-question outcomes ("0" ok, "-1" mismatch) of the
	// question mode, beside Answers.
	AnswerCodes []string
}

// Attempt is one try of the liveness step (LivenessDetail).
type Attempt struct {
	// Time is when the try was made; zero if the API did not say.
	Time         time.Time
	Seq          string
	Name, IDCard Sensitive
	// Charged says whether Tencent bills this try (IsNeedCharge).
	Charged bool
	// Similarity is "0.00".."100.00", or empty.
	Similarity      string
	Code            *int64
	Message         string
	LivenessCode    *int64
	LivenessMessage string
	CompareCode     *int64
	CompareMessage  string
	CompareLibrary  string
	LivenessMode    int64
}

// Warning is one remark of the document check.
type Warning struct {
	// Side is "front" or "back".
	Side string
	// Code is -9100 to -9107 (FACTS §1.2, WarnInfos).
	Code int64
}

// TokenHash identifies a token where the token itself must not be seen: object
// keys, file names, message ids. It is the first 32 hex digits of
// SHA-256("<product>:<token>"), 128 bits, so two tokens never meet by chance.
func TokenHash(p Product, token string) string {
	sum := sha256.Sum256([]byte(string(p) + ":" + token))
	return hex.EncodeToString(sum[:16])
}

// TokenHash returns the TokenHash of r.
func (r *Result) TokenHash() string { return TokenHash(r.Product, r.Token) }
