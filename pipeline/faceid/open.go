package faceid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// EncryptionMode says what of an answer the API is asked to encrypt. Only
// enhanced results can be (FACTS §2.1).
type EncryptionMode string

// The modes.
const (
	EncryptNothing EncryptionMode = ""
	// EncryptFields has names and numbers encrypted (FACTS §1.4).
	EncryptFields EncryptionMode = "fields"
	// EncryptBody has the whole answer encrypted, media included (FACTS §1.5).
	EncryptBody EncryptionMode = "body"
)

// bodyField is the member that holds an encrypted answer.
const bodyField = "EncryptedBody"

// Encryption of answers on the way.
type Encryption struct {
	Mode EncryptionMode
	// Session makes the key of one request; it is not nil unless Mode is
	// EncryptNothing.
	Session func(ctx context.Context) (*envelope.Session, error)
	// Forget drops keys that are kept for later sessions, when the service has
	// refused one; nil where none are.
	Forget func()
}

// parameters returns what asks for the encryption.
func (e Encryption) parameters(session *envelope.Session) map[string]any {
	switch {
	case session == nil:
		return nil
	case e.Mode == EncryptBody:
		return map[string]any{"Encryption": session.Request("EncryptionBody"), "IsEncryptResponse": true}
	default:
		return map[string]any{"Encryption": session.Request()}
	}
}

// session returns the key for one request, or nil if its answer will not be
// encrypted.
func (c *Client) session(ctx context.Context, product result.Product) (*envelope.Session, error) {
	if c.cfg.Encryption.Mode == EncryptNothing || product != result.Enhanced {
		return nil, nil //nolint:nilnil // no encryption is not an error.
	}
	session, err := c.cfg.Encryption.Session(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, &Error{Class: Canceled, Err: context.Cause(ctx)}
		}
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{Class: RequestTrouble, Err: fmt.Errorf("make the key of a request: %w", err)}
	}
	return session, nil
}

// open decrypts an answer without an error in it.
func (c *Client) open(ctx context.Context, doc *extract.Document, members map[string]json.RawMessage, session *envelope.Session, batch *spool.Batch) (*opened, error) {
	for _, damage := range doc.Damaged {
		if damage.Field == bodyField {
			return nil, &Error{Class: Transient, Err: damage}
		}
	}

	var encryption envelope.Encryption
	var odd []string
	if raw := members["Encryption"]; !isNothing(raw) {
		if err := json.Unmarshal(raw, &encryption); err != nil {
			if session != nil {
				return nil, failure(Transient, "%w: Encryption", errUnexpected)
			}
			odd = []string{encryptionField}
		}
	}
	hasBody := !isNothing(members[bodyField])
	switch {
	case session == nil && (hasBody || len(encryption.EncryptList) > 0):
		return nil, failure(RequestTrouble, "the answer is encrypted, which was not asked for: check encryption in the configuration of the account")
	case session == nil:
		return &opened{members: members, media: doc.Media, odd: odd, damaged: doc.Damaged}, nil
	case hasBody:
		return c.openBody(ctx, doc, members, session, encryption, batch)
	case c.cfg.Encryption.Mode == EncryptBody:
		return nil, failure(RequestTrouble, "the answer came in clear, although its encryption was asked for: a proxy may have changed the request")
	}
	if len(encryption.EncryptList) == 0 && namesSomebody(members["Text"]) {
		return nil, failure(RequestTrouble, "the names and numbers came in clear, although their encryption was asked for: a proxy may have changed the request")
	}
	plain, err := session.OpenFields(doc.JSON, encryption)
	if err != nil {
		return nil, sessionError("open the encrypted fields", err)
	}
	if members, err = splitResponse(plain); err != nil {
		return nil, err
	}
	return &opened{members: members, media: doc.Media, damaged: doc.Damaged}, nil
}

// namesSomebody tells whether a text part holds one of the fields that are always
// encrypted when that is asked for (FACTS §1.1).
func namesSomebody(raw json.RawMessage) bool {
	var text struct{ IDCard, Name, OcrIDCard, OcrName json.RawMessage }
	if json.Unmarshal(raw, &text) != nil {
		return false
	}
	nobody := isNothing(text.IDCard) && isNothing(text.Name) && isNothing(text.OcrIDCard) && isNothing(text.OcrName)
	return !nobody
}

// sessionError classes what went wrong with a key that was made for one request:
// the next request has another.
func sessionError(doing string, err error) error {
	if errors.Is(err, envelope.ErrKeyMismatch) {
		err = fmt.Errorf("%w: the answer was damaged on the way, or the service used another key than it was sent", err)
	}
	return &Error{Class: Transient, Err: fmt.Errorf("%s: %w", doing, err)}
}

// openBody decrypts a whole answer, which lies in the spool, and extracts the
// media that it holds. Its members may stand in a Response object or not (FACTS
// §1.5); what is only beside the body is kept.
func (c *Client) openBody(ctx context.Context, doc *extract.Document, members map[string]json.RawMessage, session *envelope.Session, encryption envelope.Encryption, batch *spool.Batch) (*opened, error) {
	ciphertext, err := bodyOf(members[bodyField], doc.Media)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ciphertext.Close() }() // only read
	plain, err := session.OpenBody(ciphertext, encryption)
	if err != nil {
		return nil, sessionError("open the encrypted body", err)
	}
	inner, err := extract.Extract(ctx, plain, batch, c.caller.transport.Config)
	if err != nil {
		return nil, c.caller.transportError(fmt.Errorf("read the decrypted body: %w", err))
	}
	opened, err := membersOf(inner)
	if err != nil {
		return nil, err
	}
	// An error may be inside as well as outside.
	if err := apiError(opened.members); err != nil {
		return nil, err
	}
	outer := maps.Clone(members)
	delete(outer, bodyField)
	delete(outer, "Encryption")
	for name, value := range outer {
		if isNothing(opened.members[name]) {
			opened.members[name] = value
		}
	}
	return opened, nil
}

// membersOf returns the members of a decrypted document, with or without the
// Response object around them.
func membersOf(doc *extract.Document) (*opened, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc.JSON, &members); err != nil || members == nil {
		return nil, failure(Transient, "%w: the decrypted body is no object", errUnexpected)
	}
	if inner, wrapped := members["Response"]; wrapped {
		members = nil
		if err := json.Unmarshal(inner, &members); err != nil || members == nil {
			return nil, failure(Transient, "%w: the decrypted body is no object", errUnexpected)
		}
	}
	return &opened{members: members, media: doc.Media, damaged: doc.Damaged}, nil
}

// bodyOf returns the ciphertext of an encrypted body: from the spool or, if it is
// short, from the document itself.
func bodyOf(raw json.RawMessage, media map[string]extract.Medium) (io.ReadSeekCloser, error) {
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, failure(Transient, "%w: EncryptedBody", errUnexpected)
	}
	if medium, taken := media[value]; taken {
		ciphertext, err := medium.Item.Open()
		if err != nil {
			return nil, &Error{Class: Transient, Err: fmt.Errorf("read the encrypted body from the spool: %w", err)}
		}
		return ciphertext, nil
	}
	decoded, err := extract.DecodeBase64(value)
	if err != nil {
		return nil, failure(Transient, "EncryptedBody: not base64")
	}
	return readSeekNopCloser{strings.NewReader(string(decoded))}, nil
}

type readSeekNopCloser struct{ io.ReadSeeker }

func (readSeekNopCloser) Close() error { return nil }

// openEID opens the person of an eid answer, and puts what was inside in place of
// UserInfo in the response. It does nothing for other answers.
func (c *Client) openEID(q Query, r *result.Result, a *parsed, response map[string]any) error {
	if a.EidInfo == nil {
		return nil
	}
	if a.EidInfo.DesKey == "" && a.EidInfo.UserInfo == "" {
		// A merchant who did not apply for names gets none, and nobody gets one of a
		// check that is not passed.
		if c.cfg.EIDKey != nil && r.Verdict.Passed {
			r.Missing = append(r.Missing, result.Missing{Field: "EidInfo.UserInfo", Reason: result.NotSent})
		}
		return nil
	}

	user, err := c.openUser(a.EidInfo)
	switch {
	case err != nil && q.Last:
		// The raw answer keeps the ciphertext, for whoever finds the key.
		r.Missing = append(r.Missing, result.Missing{Field: "EidInfo.UserInfo", Reason: result.NotOpened})
		return nil
	case err != nil:
		return &Error{Class: RequestTrouble, Err: err}
	}

	c.eidVariant.Do(func() { c.cfg.Log.Debug("opened the person of an eid result", "variant", user.Variant) })
	r.Person.Name, r.Person.IDCard, r.EID.IDType = user.Name, user.IDNumber, user.IDType
	if info, ok := response["EidInfo"].(map[string]any); ok {
		info["UserInfo"] = user.JSON
	}
	return nil
}

// openUser opens the person with the account's key.
func (c *Client) openUser(info *eidInfo) (*envelope.UserInfo, error) {
	if c.cfg.EIDKey == nil {
		return nil, errors.New("the person of an eid result is encrypted for the merchant: configure eid.private_key_file")
	}
	key, err := c.cfg.EIDKey()
	if err != nil {
		return nil, err
	}

	user, err := key.OpenEID(string(info.DesKey), string(info.UserInfo))
	switch {
	case errors.Is(err, envelope.ErrKeyMismatch):
		return nil, fmt.Errorf("open the person of an eid result: %w: eid.private_key_file is not the key that the merchant registered", err)
	case err != nil:
		return nil, fmt.Errorf("open the person of an eid result: %w", err)
	}
	return user, nil
}
