package privacy

import (
	"fmt"
	"slices"
	"strings"
)

// Rule says what is stored of a field. The zero value is no rule. It is decoded
// as a plain string and judged by Config.Validate, which can name the field:
// goccy/go-yaml drops the position of errors from UnmarshalText.
type Rule string

const (
	// Plain stores the value as it is.
	Plain Rule = "plain"
	// Mask stores a masked value for people to recognise, such as "测*".
	Mask Rule = "mask"
	// Hash stores only the keyed blind index: records of one value can be
	// found, the value cannot be read back. Of a field with few values, such as
	// a gender, the index gives away by frequency what it should hide.
	Hash Rule = "hash"
	// Seal stores the value encrypted.
	Seal Rule = "seal"
	// Drop stores nothing.
	Drop Rule = "drop"
	// SealHash is Seal and Hash.
	SealHash Rule = "seal+hash"
	// MaskHash is Mask and Hash.
	MaskHash Rule = "mask+hash"
)

// Rules lists every rule, in the order they are shown to people.
func Rules() []Rule { return []Rule{Plain, Mask, Hash, Seal, Drop, SealHash, MaskHash} }

// RuleNames lists every way to write a rule.
func RuleNames() []string {
	var names []string
	for _, r := range Rules() {
		names = append(names, string(r))
		if a, b, both := strings.Cut(string(r), "+"); both {
			names = append(names, b+"+"+a)
		}
	}
	return names
}

// ParseRule reads a rule. A combination may be written in either order. The
// error lists what is allowed.
func ParseRule(s string) (Rule, error) {
	r := Rule(s)
	if a, b, both := strings.Cut(s, "+"); both && a == string(Hash) {
		r = Rule(b + "+" + a)
	}
	if slices.Contains(Rules(), r) {
		return r, nil
	}
	return "", fmt.Errorf("unknown rule %q: want %s", s, orList(Rules()))
}

func (r Rule) hashes() bool { return r == Hash || r == SealHash || r == MaskHash }
func (r Rule) seals() bool  { return r == Seal || r == SealHash }

// orList writes a list for people: "a, b or c".
func orList[S ~string](items []S) string {
	var b strings.Builder
	for i, item := range items {
		switch {
		case i == 0:
		case i == len(items)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(item))
	}
	return b.String()
}
