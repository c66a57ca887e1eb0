package envelope

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"unicode/utf8"

	"github.com/tjfoc/gmsm/sm4"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// ErrNoUserInfo means that an eid answer holds no person: the merchant has not
// applied for it in the console, or the flow is not finished (FACTS §2.3).
var ErrNoUserInfo = errors.New("the answer holds no user information; it must be applied for in the console (申请返回实名信息)")

// UserInfo is the person of an eid check. It prints as "[redacted]".
type UserInfo struct {
	Name, IDNumber result.Sensitive
	// IDType is the kind of document: "01" is the identity card.
	IDType string
	// JSON is the whole object as it came, so that what this version does not know
	// is not lost. It is personal data.
	JSON json.RawMessage
	// Variant says in which form DesKey and UserInfo came, such as "base64, 0x04,
	// C1C3C2, 16-byte key". The vendor documents none (FACTS §2.4).
	Variant string
}

// Format prints "[redacted]" for every verb.
func (u UserInfo) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// LogValue is what log/slog prints.
func (u UserInfo) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// MarshalJSON prints "[redacted]".
func (u UserInfo) MarshalJSON() ([]byte, error) { return []byte(`"[redacted]"`), nil }

// OpenEID opens the DesKey of an eid answer with the merchant's key, and with what
// is in it the UserInfo.
//
// The vendor does not say how DesKey is laid out, so all customary forms are tried:
// base64 or hex; ASN.1, or C1 with or without the byte 0x04 and then C3 and C2 in
// either order. The hash C3 decides which one it is, and that the key is right:
// ErrKeyMismatch if it fits in none of the forms that begin with a point of the
// curve, ErrMalformed if there is no such form. UserInfo itself has no integrity
// but that it is JSON. If both are empty the error is ErrNoUserInfo.
func (k *PrivateKey) OpenEID(desKey, userInfo string) (*UserInfo, error) {
	if desKey == "" && userInfo == "" {
		return nil, ErrNoUserInfo
	}
	key, variant, err := k.openDesKey(desKey)
	if err != nil {
		return nil, fmt.Errorf("opening DesKey: %w", err)
	}
	defer clear(key)
	u, err := openUserInfo(key, userInfo)
	if err != nil {
		return nil, fmt.Errorf("opening UserInfo: %w", err)
	}
	u.Variant = variant
	return u, nil
}

// sm2Form is one reading of a ciphertext as C1, C3 and C2.
type sm2Form struct {
	name       string
	ciphertext []byte
}

// openDesKey returns the session key, which is of SM4, and how it came.
func (k *PrivateKey) openDesKey(text string) (key []byte, variant string, err error) {
	text = strings.TrimSpace(text)
	forms := 0
	for _, encoding := range []struct {
		name   string
		decode func(string) ([]byte, error)
	}{
		{"base64", func(s string) ([]byte, error) { return decode("it", s) }},
		{"hex", hex.DecodeString},
	} {
		raw, err := encoding.decode(text)
		if err != nil {
			continue
		}
		for _, form := range sm2Forms(raw) {
			forms++
			plaintext, ok := sm2Decrypt(k.sm2, form.ciphertext)
			if !ok {
				continue
			}
			key, kind, err := sessionKey(plaintext)
			return key, encoding.name + ", " + form.name + ", " + kind, err
		}
	}
	if forms == 0 {
		return nil, "", malformed("it is no SM2 ciphertext in base64 or hex")
	}
	return nil, "", mismatch("it was made for another public key, or damaged")
}

// sm2Forms returns the readings of a ciphertext of which C1 is on the curve.
func sm2Forms(raw []byte) []sm2Form {
	var forms []sm2Form
	if c, ok := fromASN1(raw); ok {
		forms = append(forms, sm2Form{"ASN.1", c})
	}
	if len(raw) > 0 && raw[0] == uncompressed {
		forms = append(forms, orders("0x04", raw[1:])...)
	}
	return append(forms, orders("no 0x04", raw)...)
}

// orders returns both orders of C2 and C3 behind C1, if C1 is on the curve.
func orders(prefix string, raw []byte) []sm2Form {
	if len(raw) <= pointSize+hashSize {
		return nil
	}
	if _, _, ok := point(raw); !ok {
		return nil
	}
	c1, rest := raw[:pointSize], raw[pointSize:]
	c2, c3 := rest[:len(rest)-hashSize], rest[len(rest)-hashSize:]
	return []sm2Form{
		{prefix + ", C1C3C2", raw},
		{prefix + ", C1C2C3", bytes.Join([][]byte{c1, c3, c2}, nil)},
	}
}

// fromASN1 reads SM2Cipher (GM/T 0009 §7.2).
func fromASN1(raw []byte) ([]byte, bool) {
	var c struct {
		X, Y   *big.Int
		C3, C2 []byte
	}
	rest, err := asn1.Unmarshal(raw, &c)
	if err != nil || len(rest) > 0 || len(c.C3) != hashSize || len(c.C2) == 0 || !onCurve(c.X, c.Y) {
		return nil, false
	}
	out := make([]byte, pointSize, pointSize+hashSize+len(c.C2))
	c.X.FillBytes(out[:coordinateSize])
	c.Y.FillBytes(out[coordinateSize:])
	return append(append(out, c.C3...), c.C2...), true
}

// sessionKey reads what was in DesKey: 16 bytes, or else 32 hex digits (FACTS §2.4).
func sessionKey(plaintext []byte) (key []byte, kind string, err error) {
	if len(plaintext) == sm4KeySize {
		return plaintext, "16-byte key", nil
	}
	defer clear(plaintext)
	key = make([]byte, hex.DecodedLen(len(plaintext)))
	if _, err := hex.Decode(key, plaintext); err != nil || len(key) != sm4KeySize {
		clear(key)
		return nil, "", malformed("the key in it is neither 16 bytes nor 32 hex digits, but %d bytes", len(plaintext))
	}
	return key, "hex key", nil
}

// openUserInfo decrypts SM4 in ECB mode without padding (FACTS §2.4). It goes block
// by block, for what gmsm has for ECB loses the text (FACTS §7.1).
func openUserInfo(key []byte, text string) (*UserInfo, error) {
	raw, err := decode("it", strings.TrimSpace(text))
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 || len(raw)%blockSize != 0 {
		return nil, malformed("%d bytes are not whole blocks", len(raw))
	}
	block, err := sm4.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	defer clear(raw)
	for i := 0; i < len(raw); i += blockSize {
		block.Decrypt(raw[i:i+blockSize], raw[i:i+blockSize])
	}
	object, err := firstObject(raw)
	if err != nil {
		return nil, err
	}
	return parseUserInfo(bytes.Clone(object))
}

// firstObject returns the JSON object that b begins with. What fills the last block
// behind it is not documented (FACTS §2.4), so any one block of it is taken for
// fill, and any length of zeros and spaces.
func firstObject(b []byte) ([]byte, error) {
	var object json.RawMessage
	decoder := json.NewDecoder(bytes.NewReader(b))
	if err := decoder.Decode(&object); err != nil || !bytes.HasPrefix(object, []byte("{")) || !utf8.Valid(object) {
		// The decoder's error would quote the text.
		return nil, malformed("what comes out is not JSON")
	}
	fill := b[decoder.InputOffset():]
	if len(fill) > blockSize && len(bytes.Trim(fill, "\x00 \t\r\n")) > 0 {
		return nil, malformed("%d bytes follow its JSON", len(fill))
	}
	return object, nil
}

func parseUserInfo(object []byte) (*UserInfo, error) {
	var fields struct {
		Name   result.Sensitive `json:"name"`
		IDType *string          `json:"idtype"`
		IDNum  result.Sensitive `json:"idnum"`
	}
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, malformed("name, idtype and idnum must be strings")
	}
	if fields.Name.IsEmpty() && fields.IDNum.IsEmpty() {
		return nil, malformed("it has neither name nor idnum")
	}
	u := &UserInfo{Name: fields.Name, IDNumber: fields.IDNum, JSON: object}
	if fields.IDType != nil {
		u.IDType = *fields.IDType
	}
	return u, nil
}
