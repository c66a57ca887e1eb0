package sinks

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Key names what sinks hold of one token, without the token itself.
type Key struct {
	Product result.Product
	// Hash is result.TokenHash of product and token.
	Hash string
}

// KeyOf returns the key of a token.
func KeyOf(p result.Product, token string) Key { return Key{p, result.TokenHash(p, token)} }

// Compare orders keys by product and hash, the order of Keeper.Keys.
func (k Key) Compare(other Key) int {
	if k.Product != other.Product {
		return strings.Compare(string(k.Product), string(other.Product))
	}
	return strings.Compare(k.Hash, other.Hash)
}

var (
	// ErrNotFound means that a sink holds nothing, or nothing whole, of a token.
	ErrNotFound = errors.New("the sink holds no such result")
	// ErrDamaged means that stored bytes are not those that were archived.
	ErrDamaged = errors.New("the stored bytes are not those that were archived")
	// ErrErased means that a token was erased: the sink stores nothing of it
	// any more. Its class is ClassErased.
	ErrErased = errors.New("the result was erased")
	// ErrOtherKeyring means that a sink notes another keyring than the one given.
	ErrOtherKeyring = errors.New("another keyring is noted there")
)

// Tombstone says that a token was erased.
type Tombstone struct {
	// At is when, in UTC; zero if an earlier version did not note it.
	At time.Time `json:"at,omitzero"`
	// Reason is why, as whoever erased it said; it may be empty.
	Reason string `json:"reason,omitempty"`
}

// maxReason bounds the reason of a tombstone, in bytes.
const maxReason = 512

// NewTombstone returns the tombstone of what is erased now. Of the reason it keeps
// one line of at most 512 bytes.
func NewTombstone(reason string) Tombstone {
	reason = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, reason)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return Tombstone{At: time.Now().UTC().Truncate(time.Microsecond), Reason: strings.TrimSpace(reason)}
}

// Holding is what a sink holds of one token. The zero Holding is nothing.
type Holding struct {
	// Records is how many results there are: rows of results, or manifests.
	Records int `json:"records"`
	// Assets is how many pictures, videos and sounds there are, those of earlier
	// answers included.
	Assets int `json:"assets"`
	// Bytes is how much room they take, as far as the sink knows.
	Bytes int64 `json:"bytes"`
	// Erased is the tombstone of the token; nil if it was not erased.
	Erased *Tombstone `json:"erased,omitempty"`
}

// IsEmpty reports whether nothing of the token is there. A tombstone is nothing.
func (h Holding) IsEmpty() bool { return h.Records == 0 && h.Assets == 0 && h.Bytes == 0 }

// Eraser is a sink from which a person's data can be taken away.
type Eraser interface {
	Sink
	// Erase removes all that the sink holds of a token and leaves a tombstone with
	// the time and the reason: from then on Archive and Record of the token store
	// nothing and return ErrErased, so that a redelivery does not bring the person
	// back. A Notifier, which holds nothing, tells its receivers.
	//
	// It returns what was there and is gone, and the tombstone that the token had
	// before, if it had one, which stays as it was. Erase is idempotent, and
	// tombstones a token of which nothing is there too: its event may still be
	// on the way. It returns when the removal is durable. Calls of Archive or
	// Record that run at the same time may fail, but leave nothing behind.
	Erase(ctx context.Context, key Key, reason string) (Holding, error)
}

// Keeper is a sink whose content can be gone through.
type Keeper interface {
	Eraser
	// Holds returns what the sink holds of a token, whole or not, and changes
	// nothing.
	Holds(ctx context.Context, key Key) (Holding, error)
	// Keys lists the tokens of which the sink holds something whole, in the
	// order of Key.Compare, from the one behind after on; the zero Key is before
	// all others. An error ends the list. Erased tokens are not in it.
	Keys(ctx context.Context, after Key) iter.Seq2[Key, error]
	// Reseal seals what the sink holds sealed of a token under the keyring's
	// active key, and tells whether that changed anything. It stores the new form
	// before the old one goes. The error is ErrNotFound if nothing is there.
	Reseal(ctx context.Context, key Key) (changed bool, err error)
	// KeyUse returns how many values or assets of a token the sink holds sealed, by
	// the id of the sealing key, as they say it themselves. The error is ErrNotFound if
	// nothing is there.
	KeyUse(ctx context.Context, key Key) (map[string]int, error)
	// Keyring returns what the sink notes of the keyring that seals what it holds; the
	// zero Mark if it notes nothing yet. It changes nothing.
	Keyring(ctx context.Context) (privacy.Mark, error)
	// MarkKeyring notes a keyring where none is noted, or in place of a mark with the
	// same fingerprint or the fingerprint instead, which may be empty. Of another
	// keyring the mark stays, and the error is ErrOtherKeyring. Of several first
	// marks at once, one wins.
	MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error
}

// ArchiveKeeper is an Archiver whose assets can be read back.
type ArchiveKeeper interface {
	Archiver
	Keeper
	// Manifest returns a receipt for each asset that the token's manifest lists,
	// as Archive did. The error is ErrNotFound if there is no manifest.
	Manifest(ctx context.Context, key Key) ([]Receipt, error)
	// OpenAsset returns the bytes of an asset as Archive was given them, opened
	// if the sink seals. Bytes that are not those give ErrDamaged, or
	// privacy.ErrNotAuthentic if they are sealed, at the latest at the end. The
	// error is ErrNotFound if the object is gone or if the sink only refers to it
	// and cannot read it.
	OpenAsset(ctx context.Context, key Key, receipt Receipt) (io.ReadCloser, error)
}

// RecordKeeper is a Recorder whose results can be found and read back.
type RecordKeeper interface {
	Recorder
	Keeper
	// Get returns what is recorded of a token, as the policy left it when it was
	// recorded; privacy.Policy.Open opens sealed values. The error is ErrNotFound
	// if there is nothing.
	Get(ctx context.Context, key Key) (*privacy.Record, error)
	// List streams what matches filter, the latest first. An error ends the list.
	List(ctx context.Context, filter Filter) iter.Seq2[Summary, error]
}

// Filter says which results to list; the zero value is all of them.
type Filter struct {
	// From and To bound FetchedAt: From is in, To is not. Zero is no bound.
	From, To time.Time
	// Account, Product and RuleID are compared if they are not empty.
	Account string
	Product result.Product
	RuleID  string
	// Passed is compared if it is not nil.
	Passed *bool
	// Code is compared if it is not nil: with the code of the check, and one that is
	// not 0 with that of the intention step, too.
	Code *int64
	// Index is compared with the blind indexes of the named field (see
	// privacy.Policy.Index) if it is not empty.
	Index      string
	IndexField privacy.Field
	// Limit bounds the list; 0 is no bound.
	Limit int
}

// Summary is a result in one line of a list. It holds no personal data.
type Summary struct {
	Product       result.Product       `json:"product"`
	Token         string               `json:"token"`
	TokenHash     string               `json:"token_hash"`
	Account       string               `json:"account"`
	RuleID        string               `json:"rule_id,omitempty"`
	FetchedAt     time.Time            `json:"fetched_at"`
	Passed        bool                 `json:"passed"`
	Code          int64                `json:"code"`
	Message       string               `json:"message,omitempty"`
	Similarity    string               `json:"similarity,omitempty"`
	Intention     result.IntentionMode `json:"intention,omitempty"`
	IntentionCode *int64               `json:"intention_code,omitempty"`
	// Assets is how many assets the result has.
	Assets int `json:"assets"`
}
