package cos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	indexPrefix  = ".index/"
	indexVersion = 1
	// maxIndex bounds an index object, in bytes; ours have some 200.
	maxIndex = 4 << 10
)

// index is the object at a token's fixed place. It says where the token's folder is,
// or that the token was erased.
type index struct {
	// Version is 1.
	Version   int            `json:"version"`
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
	// Erased makes it a tombstone.
	Erased bool `json:"erased,omitempty"`
	// ErasedAt and Reason say when and why, in a tombstone that notes it.
	ErasedAt time.Time `json:"erased_at,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	// Since is when the first result of the token was fetched; zero if an earlier
	// version did not note it.
	Since time.Time `json:"since,omitzero"`
	// place is empty in the tombstone of a token of which there was nothing.
	place
	// versioned says that the bucket has versions.
	versioned bool
}

var tokenHash = regexp.MustCompile(`^[0-9a-f]{32}$`)

// validKey tells whether a token can have this key.
func validKey(k sinks.Key) bool { return k.Product.Valid() && tokenHash.MatchString(k.Hash) }

func indexKey(k sinks.Key) string { return indexPrefix + string(k.Product) + "/" + k.Hash }

// keyOfIndex is the reverse of indexKey.
func keyOfIndex(object string) (sinks.Key, bool) {
	product, hash, _ := strings.Cut(strings.TrimPrefix(object, indexPrefix), "/")
	k := sinks.Key{Product: result.Product(product), Hash: hash}
	return k, validKey(k) && object == indexKey(k)
}

func (x index) key() sinks.Key { return sinks.Key{Product: x.Product, Hash: x.TokenHash} }

func (x index) encode() []byte {
	b, err := json.Marshal(x)
	if err != nil {
		panic("cos: " + err.Error()) // strings and numbers always encode
	}
	return append(b, '\n')
}

var errIndex = fmt.Errorf("%w: the index object is not one that this version wrote: look who did, and move it away", sinks.ErrDamaged)

// parseIndex reads what may have been damaged or forged. The folder it names can be
// no other token's.
func parseIndex(b []byte, key sinks.Key) (index, error) {
	var x index
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if len(b) > maxIndex || d.Decode(&x) != nil || x.Version != indexVersion || x.key() != key || !validKey(key) {
		return index{}, errIndex
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return index{}, errIndex
	}
	if x.Erased && x.place == (place{}) || x.valid(x.TokenHash) {
		return x, nil
	}
	return index{}, errIndex
}

// readIndex returns the index object of a token; the error is errNoObject if there
// is none.
func (s *Sink) readIndex(ctx context.Context, key sinks.Key) (index, error) {
	b, version, err := s.archive.getSmall(ctx, indexKey(key), maxIndex)
	if err != nil {
		return index{}, err
	}
	x, err := parseIndex(b, key)
	x.versioned = version != ""
	if err != nil {
		return index{}, fmt.Errorf("%s/%s: %w", s.archive, indexKey(key), err)
	}
	return x, nil
}

// indexTries bounds how often a writer looks again because somebody else has just
// written the index object.
const indexTries = 5

// settle returns the index object of a token, which it creates if it is not there,
// and whether it did.
func (s *Sink) settle(ctx context.Context, fresh index) (index, bool, error) {
	key := fresh.key()
	for range indexTries {
		x, err := s.readIndex(ctx, key)
		if !errors.Is(err, errNoObject) {
			return x, false, err
		}
		version, err := s.archive.create(ctx, indexKey(key), fresh.encode())
		if errors.Is(err, errExists) {
			continue
		}
		if err != nil {
			return index{}, false, err
		}
		if version == "" {
			return fresh, true, nil
		}
		if fresh, lost, err := s.settleVersion(ctx, fresh, version); err != nil || !lost {
			return fresh, !lost, err
		}
	}
	return index{}, false, fmt.Errorf("%s/%s: others keep writing the index object", s.archive, indexKey(key))
}

// settleVersion sees to it that an index object just created hides no tombstone. In a
// bucket with versions COS ignores x-cos-forbid-overwrite, so the version before may
// be the tombstone of an erasure that ran at the same moment: the new one is taken
// back then, and lost. And the other way round: a tombstone that was put over the
// index of a delivery takes its place over.
func (s *Sink) settleVersion(ctx context.Context, fresh index, version string) (_ index, lost bool, err error) {
	fresh.versioned = true
	key := fresh.key()
	buried, place, err := s.history(ctx, key, version)
	switch {
	case err != nil:
		return index{}, false, err
	case buried:
		return index{}, true, s.archive.remove(ctx, indexKey(key), version)
	case !fresh.Erased || !place.valid(key.Hash):
		return fresh, false, nil
	}
	fresh.place = place
	_, err = s.archive.putSmall(ctx, indexKey(key), fresh.encode(), plainHeaders())
	return fresh, false, err
}

// history goes through the versions of an index object but for one. It tells whether
// a tombstone is among them, and the place that a live one names.
func (s *Sink) history(ctx context.Context, key sinks.Key, but string) (buried bool, at place, err error) {
	versions, err := s.archive.versions(ctx, indexKey(key))
	if err != nil {
		return false, place{}, err
	}
	for _, v := range versions {
		if v.id == but || v.key != indexKey(key) || v.marker {
			continue
		}
		b, err := s.archive.getVersion(ctx, v.key, v.id, maxIndex)
		if errors.Is(err, errNoObject) {
			continue // another writer took its own back
		}
		if err != nil {
			return false, place{}, err
		}
		x, err := parseIndex(b, key)
		if err != nil {
			continue
		}
		buried = buried || x.Erased
		if x.place != (place{}) {
			at = x.place
		}
	}
	return buried, at, nil
}

// buried tells whether a token was erased meanwhile. In a bucket with versions, a
// tombstone holds also while another index object is in front of it (see
// settleVersion).
func (s *Sink) buried(ctx context.Context, x index) (bool, error) {
	if x.versioned {
		buried, _, err := s.history(ctx, x.key(), "")
		return buried, err
	}
	now, err := s.readIndex(ctx, x.key())
	return now.Erased, err
}

// tombstone returns what a tombstone says; nil if x is none.
func (x index) tombstone() *sinks.Tombstone {
	if !x.Erased {
		return nil
	}
	return &sinks.Tombstone{At: x.ErasedAt, Reason: x.Reason}
}

// bury makes the index object of a token a tombstone and returns it, and the one that
// was there before, if there was one.
func (s *Sink) bury(ctx context.Context, key sinks.Key, stone sinks.Tombstone) (x index, before *sinks.Tombstone, err error) {
	x, created, err := s.settle(ctx, index{
		Version: indexVersion, Product: key.Product, TokenHash: key.Hash, Erased: true, ErasedAt: stone.At, Reason: stone.Reason,
	})
	if err != nil || created || x.Erased {
		if !created {
			before = x.tombstone()
		}
		return x, before, err
	}

	x.Erased, x.ErasedAt, x.Reason = true, stone.At, stone.Reason
	_, err = s.archive.putSmall(ctx, indexKey(key), x.encode(), plainHeaders())
	return x, nil, err
}
