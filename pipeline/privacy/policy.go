// Package privacy protects what is stored of a result.
//
// In goes a *result.Result, whose personal values are result.Sensitive. Out
// comes a *Record, the one form of a result that sinks may store, in which each
// personal value is plain, masked, hashed (a keyed blind index), sealed or
// dropped, by the rule that the configuration gives its Field. No other package
// calls Sensitive.Reveal.
//
// Keys live in a Keyring, a file of mode 0600. Sealing keys are rotated: new
// values are sealed under the active key, older keys open what they sealed until
// they are removed. The blind index has a key of its own.
//
// What may go wrong: the keyring cannot be read (Protect fails and the event
// waits), a value was sealed under a key that is gone (*UnknownKeyError), or a
// stored value was altered or moved to another row or field (ErrNotAuthentic).
// No error of this package holds a personal value or a key.
package privacy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Policy turns results into records. It is safe for use by several goroutines.
type Policy struct {
	cipher Cipher
	rules  map[Field]Rule
	// keys may be nil where no rule seals or hashes.
	keys *Keyring
}

// NewPolicy returns the policy of a valid configuration. keys may be nil if no
// rule seals or hashes.
func NewPolicy(cfg Config, keys *Keyring) (*Policy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("privacy policy: %w", err)
	}
	p := &Policy{cipher: cfg.Cipher, rules: make(map[Field]Rule, len(traits)), keys: keys}
	for _, f := range Fields() {
		r := cfg.rule(f)
		if keys == nil && (r.seals() || r.hashes()) {
			return nil, fmt.Errorf("privacy policy: field %s is %s, which needs a keyring", f, r)
		}
		p.rules[f] = r
	}
	return p, nil
}

// Keyring returns the keyring; nil if there is none.
func (p *Policy) Keyring() *Keyring { return p.keys }

// Rule returns the rule in force for a field; "" if there is no such field.
func (p *Policy) Rule(f Field) Rule { return p.rules[f] }

// Protect returns what may be stored of r. Two records of one result differ in
// nothing but the nonces of sealed values. It looks for a rotated keyring file
// each time, so it fails while that file cannot be read: a value sealed under a
// key that is no longer on disk would be lost.
func (p *Policy) Protect(r *result.Result) (*Record, error) {
	g := guard{policy: p, ref: Ref{Product: r.Product, Token: r.Token}}
	if p.keys != nil {
		set, err := p.keys.current()
		if err != nil {
			return nil, fmt.Errorf("protect a result: %w", err)
		}
		g.keys = set
		g.sealer = newSealer(p.cipher, set.active, g.ref)
	}
	rec := &Record{
		Product: r.Product, Account: r.Account, Token: r.Token, TokenHash: r.TokenHash(),
		RuleID: r.RuleID, RequestID: r.RequestID, FetchedAt: r.FetchedAt.UTC(),
		Verdict:   verdictOf(r.Verdict),
		Person:    g.person(r.Person),
		Document:  g.document(r.Document),
		Intention: g.intention(r.Intention),
		EID:       EID{Code: g.one(EIDCode, r.EID.Code), Sign: g.one(EIDSign, r.EID.Sign), IDType: r.EID.IDType},
		Attempts:  g.attempts(r.Attempts),
		Assets:    assetsOf(r.Assets),
		Unread:    slices.Clone(r.Unread),
		Missing:   slices.Clone(r.Missing),
		Raw:       g.one(Raw, r.Raw),
	}
	for _, w := range r.Warnings {
		rec.Warnings = append(rec.Warnings, Warning(w))
	}
	if g.err != nil {
		return nil, fmt.Errorf("protect a result: %w", g.err)
	}
	return rec, nil
}

// Index returns the blind index of a value for look-ups by equality: the first
// 128 bits of HMAC-SHA-256 under the index key, at most 40 ASCII characters that
// start with the id of that key. The value is normalised first, so that "x" and
// "X" at the end of an ID number, or full-width digits, make no difference.
//
// Fields of one group share their indexes: name, ocr_name and attempt_name;
// id_card, ocr_id_card and attempt_id_card. Every other field is a group of its
// own. A value with nothing left after normalisation has the index "", and so
// has every value of a policy without a keyring.
func (p *Policy) Index(f Field, v result.Sensitive) string {
	if p.keys == nil {
		return ""
	}
	return p.keys.loaded().index.of(f, v.Reveal())
}

// guard protects the values of one result and remembers the first error.
type guard struct {
	policy *Policy
	ref    Ref
	keys   *keyset
	sealer *sealer
	err    error
}

// one protects a value of which there is one per result.
func (g *guard) one(f Field, v result.Sensitive) Stored { return g.at(f, 0, v) }

// at protects the value at a position of a list.
func (g *guard) at(f Field, position int, v result.Sensitive) Stored {
	if v.IsEmpty() || g.err != nil {
		return Stored{}
	}
	var s Stored
	rule := g.policy.rules[f]
	switch rule {
	case Plain:
		// Databases refuse text that is not UTF-8; encoding/json would mend it.
		s.Value = strings.ToValidUTF8(v.Reveal(), "\uFFFD")
	case Mask, MaskHash:
		s.Value = mask(f, v.Reveal())
	case Seal, SealHash:
		ref := g.ref
		ref.Field, ref.Position = f, position
		s.Value, g.err = g.sealer.seal(ref, v.Reveal())
	case Hash, Drop:
	default:
		g.err = errors.New("no rule for field " + string(f))
	}
	if rule.hashes() {
		s.Index = g.keys.index.of(f, v.Reveal())
	}
	return s
}

func (g *guard) person(p result.Person) Person {
	return Person{
		Name:     g.one(Name, p.Name),
		IDCard:   g.one(IDCard, p.IDCard),
		IDType:   p.IDType,
		Mobile:   g.one(Mobile, p.Mobile),
		Location: g.one(Location, p.Location),
		Extra:    g.one(Extra, p.Extra),
	}
}

func (g *guard) document(d result.Document) Document {
	return Document{
		Name:      g.one(OCRName, d.Name),
		IDCard:    g.one(OCRIDCard, d.IDCard),
		Gender:    g.one(OCRGender, d.Gender),
		Nation:    g.one(OCRNation, d.Nation),
		Birth:     g.one(OCRBirth, d.Birth),
		Address:   g.one(OCRAddress, d.Address),
		Authority: g.one(OCRAuthority, d.Authority),
		Valid:     g.one(OCRValidDate, d.Valid),
		PassNo:    g.one(PassNo, d.PassNo),
		VisaNum:   g.one(VisaNum, d.VisaNum),
		Source:    d.Source,
	}
}

func (g *guard) intention(in result.Intention) Intention {
	out := Intention{AnswerCodes: slices.Clone(in.AnswerCodes)}
	for i, a := range in.Answers {
		out.Answers = append(out.Answers, g.at(Answer, i, a))
	}
	return out
}

func (g *guard) attempts(in []result.Attempt) []Attempt {
	out := make([]Attempt, 0, len(in))
	for i, a := range in {
		at := a.Time
		if !at.IsZero() {
			at = at.UTC()
		}
		out = append(out, Attempt{
			Time: at, Seq: a.Seq,
			Name: g.at(AttemptName, i, a.Name), IDCard: g.at(AttemptIDCard, i, a.IDCard),
			Charged: a.Charged, Similarity: a.Similarity,
			Code: a.Code, Message: a.Message,
			LivenessCode: a.LivenessCode, LivenessMessage: a.LivenessMessage,
			CompareCode: a.CompareCode, CompareMessage: a.CompareMessage,
			CompareLibrary: a.CompareLibrary, LivenessMode: a.LivenessMode,
		})
	}
	return out
}

func verdictOf(v result.Verdict) Verdict {
	return Verdict{
		Passed: v.Passed, Unreadable: v.Unreadable, Code: v.Code, Message: v.Message,
		Liveness: v.Liveness, LivenessMessage: v.LivenessMessage,
		Compare: v.Compare, CompareMessage: v.CompareMessage,
		Similarity: v.Similarity, CompareLibrary: v.CompareLibrary,
		LivenessMode: v.LivenessMode, LivenessTags: slices.Clone(v.LivenessTags),
		Intention: v.Intention, IntentionCode: v.IntentionCode, IntentionMessage: v.IntentionMessage,
	}
}

func assetsOf(in []result.Asset) []Asset {
	out := make([]Asset, 0, len(in))
	for _, a := range in {
		asset := Asset{Field: a.Field, Kind: a.Kind, ContentType: a.ContentType, Stored: slices.Clone(a.Stored)}
		if a.COS != nil {
			asset.COS = &COSObject{Bucket: a.COS.Bucket, Region: a.COS.Region, Key: a.COS.Key}
		} else {
			asset.Inline = &Digest{Size: a.Digest.Size, SHA256: a.Digest.SHA256Hex(), CRC64: a.Digest.CRC64String()}
		}
		out = append(out, asset)
	}
	return out
}
