package natsmsg

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// The parts of a template that stand for something else.
const (
	account   = "{account}"
	product   = "{product}"
	tokenHash = "{token_hash}"
)

const (
	// nobody is the account of messages that are not about one; no configured
	// account has this name.
	nobody = "_"
	// anything matches one part of a subject.
	anything = "*"
	// maxSubject bounds a template, in bytes: servers take protocol lines of 4096.
	maxSubject = 256
)

// part is what a part of a subject may be.
var part = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// taken are where events come from: results published there would be taken for
// events, or mixed up with dead letters.
var taken = []string{"faceid.completed.", "faceid.backfill.", "faceid.dead."}

// template is a subject in parts, some of them placeholders.
type template []string

// parseTemplate returns the template, or what is wrong with it.
func parseTemplate(text string) (template, string) {
	t := template(strings.Split(text, "."))
	if len(text) > maxSubject || !part.MatchString(t[0]) {
		return nil, "must begin with a word, as in faceid.results.{account}.{product}"
	}
	for _, one := range t {
		if !part.MatchString(one) && !slices.Contains([]string{account, product, tokenHash}, one) {
			return nil, "must be words of a-z, A-Z, 0-9, _ and -, or {account}, {product} or {token_hash}, with dots between"
		}
	}
	for _, prefix := range taken {
		if strings.HasPrefix(text+".", prefix) {
			return nil, "must not begin with " + prefix + ", where the daemon's own messages are"
		}
	}
	return t, ""
}

// of returns the subject of one message.
func (t template) of(accountName string, p result.Product, hash string) string {
	return t.with(safe(accountName), safe(string(p)), safe(hash))
}

// ofToken returns the subject of all messages of a token.
func (t template) ofToken(key sinks.Key) string {
	return t.with(anything, safe(string(key.Product)), safe(key.Hash))
}

// all returns the subject of all messages.
func (t template) all() string { return t.with(anything, anything, anything) }

func (t template) with(accountPart, productPart, hashPart string) string {
	parts := slices.Clone(t)
	for i, one := range parts {
		switch one {
		case account:
			parts[i] = accountPart
		case product:
			parts[i] = productPart
		case tokenHash:
			parts[i] = hashPart
		}
	}
	return strings.Join(parts, ".")
}

// tellsToken reports whether subjects tell the messages of a token from others.
func (t template) tellsToken() bool { return t[len(t)-1] == tokenHash }

// safe returns s, or a hash of it if it cannot be a part of a subject.
func safe(s string) string {
	if part.MatchString(s) {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return nobody + hex.EncodeToString(sum[:8])
}
