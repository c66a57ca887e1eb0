package privacy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"unicode"
)

// indexKey makes blind indexes.
type indexKey struct {
	id  string
	key secret
}

// of returns the index of a value, as Policy.Index describes it.
func (k indexKey) of(f Field, value string) string {
	t := traitOf[f]
	value = normalise(t.kind, value)
	if value == "" || t.group == "" {
		return ""
	}
	mac := hmac.New(sha256.New, k.key.derive("faceid-ingest blind index v1", 32))
	// The group has no zero byte, so the two parts cannot run into each other.
	mac.Write([]byte(t.group))
	mac.Write([]byte{0})
	mac.Write([]byte(value))
	return "h1:" + k.id + ":" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// normalise brings the spellings of one value together before it is indexed.
// It is part of the format of the index: changing it orphans what is stored.
// Of Unicode's NFKC it does what occurs in these values: full-width forms, white
// space and invisible characters; compatibility ideographs stay as they are.
func normalise(k kind, s string) string {
	s = strings.Map(halfWidth, strings.ToValidUTF8(s, "\uFFFD"))
	switch k {
	case personName:
		return normaliseName(s)
	case idNumber:
		return strings.ToUpper(strings.Map(letterOrDigit, s))
	case phone:
		return normalisePhone(s)
	default:
		return strings.Join(strings.Fields(s), " ")
	}
}

// halfWidth maps the full-width forms of ASCII (U+FF01..U+FF5E and the
// ideographic space) to ASCII, and drops what is invisible.
func halfWidth(r rune) rune {
	switch {
	case r >= '！' && r <= '～':
		return r - '！' + '!'
	case unicode.IsSpace(r):
		return ' '
	case unicode.In(r, unicode.Cf, unicode.Cc):
		return -1
	}
	return r
}

// normaliseName unifies the dots inside names of minorities, and upper-cases
// Latin letters. White space inside a name with Chinese characters has no
// meaning (identity cards print "张 三"); between Latin words it has.
func normaliseName(s string) string {
	s = strings.ToUpper(strings.Map(middleDot, s))
	words := strings.Fields(s)
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
		return strings.Join(words, "")
	}
	return strings.Join(words, " ")
}

func middleDot(r rune) rune {
	switch r {
	case '•', '‧', '∙', '⋅', '・', '･', '.':
		return '·'
	}
	return r
}

func letterOrDigit(r rune) rune {
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return r
	}
	return -1
}

// normalisePhone keeps the digits and takes the country code off a mainland
// mobile number.
func normalisePhone(s string) string {
	digits := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, s)
	for _, code := range []string{"0086", "86"} {
		if local, ok := strings.CutPrefix(digits, code); ok && len(local) == 11 && local[0] == '1' {
			return local
		}
	}
	return digits
}
