package cos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	manifestVersion = 1
	// maxManifest bounds what is read of a manifest, in bytes. Ours have some 500
	// bytes per asset.
	maxManifest = 16 << 20
)

// errManifest means that an object is no manifest of ours. Whatever wrote it, the
// next delivery of the token replaces it.
var errManifest = fmt.Errorf("%w: not a manifest of version 1", sinks.ErrDamaged)

// Manifest lists what the archive holds of one token. It says nothing about the
// person and nothing that differs from one fetch of a result to the next, so that
// equal results have equal manifests, byte for byte.
type Manifest struct {
	// Version is 1.
	Version   int            `json:"version"`
	Product   result.Product `json:"product"`
	TokenHash string         `json:"token_hash"`
	Account   string         `json:"account"`
	RuleID    string         `json:"rule_id,omitempty"`
	// Assets are in the order of the result.
	Assets []Entry `json:"assets"`
}

// Entry is one asset of a manifest.
type Entry struct {
	// Field is the place in the API's answer.
	Field       string      `json:"field"`
	Kind        result.Kind `json:"kind"`
	ContentType string      `json:"content_type"`
	// Location is where the asset is, as "cos://bucket/key", or would be if it were not
	// missing.
	Location string `json:"location"`
	// Missing says why there is no object, of an asset that could not be had; the
	// sizes and digests below are then of nothing.
	Missing result.MissingReason `json:"missing,omitempty"`
	// Source is where FaceID put an asset that was copied or pulled.
	Source string `json:"source,omitempty"`
	// Region is set for an asset that was left where FaceID put it.
	Region string `json:"region,omitempty"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is lower-case hex; empty for what did not pass through this process.
	SHA256 string `json:"sha256,omitempty"`
	// CRC64 is CRC-64/ECMA-182 in decimal; empty if COS does not know it.
	CRC64 string `json:"crc64,omitempty"`
	// Sealed describes the object if it is sealed; size and digests above are then
	// those of what it holds.
	Sealed *Sealed `json:"sealed,omitempty"`
}

// Sealed describes a sealed object as it is stored, for who has no key to open it.
type Sealed struct {
	// KeyID names the key in the keyring.
	KeyID  string         `json:"key_id"`
	Cipher privacy.Cipher `json:"cipher"`
	// Size is in bytes, SHA256 lower-case hex, CRC64 decimal.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	CRC64  string `json:"crc64"`
}

// describe lets an entry say what bytes the asset has.
func (e *Entry) describe(d result.Digest) {
	e.Size, e.SHA256, e.CRC64 = d.Size, d.SHA256Hex(), d.CRC64String()
}

// digest is what the entry says of the asset's bytes, which have a SHA-256.
func (e *Entry) digest() (result.Digest, error) {
	sum, err := hex.DecodeString(e.SHA256)
	crc, crcErr := strconv.ParseUint(e.CRC64, 10, 64)
	if err != nil || crcErr != nil || len(sum) != sha256.Size {
		return result.Digest{}, errManifest
	}
	return result.Digest{Size: e.Size, SHA256: [sha256.Size]byte(sum), CRC64: crc}, nil
}

// referenced tells whether the asset was left where FaceID put it.
func (e *Entry) referenced() bool { return e.Region != "" }

// whole reports whether no asset of the manifest is missing.
func (m *Manifest) whole() bool {
	return !slices.ContainsFunc(m.Assets, func(e Entry) bool { return e.Missing != "" })
}

// split returns the bucket and key of a location.
func split(location string) (bucket, key string, ok bool) {
	rest, ok := strings.CutPrefix(location, "cos://")
	bucket, key, slash := strings.Cut(rest, "/")
	return bucket, key, ok && slash && key != ""
}

func locate(bucket, key string) string { return "cos://" + bucket + "/" + key }

func (m *Manifest) encode() []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("cos: " + err.Error()) // strings and numbers always encode
	}
	return append(b, '\n')
}

// parseManifest reads what may have been damaged or forged: the objects that it says
// are the archive's are in the token's folder.
func parseManifest(b []byte, bucket string, x index) (*Manifest, error) {
	var m Manifest
	if len(b) > maxManifest || json.Unmarshal(b, &m) != nil || m.Version != manifestVersion ||
		m.Product != x.Product || m.TokenHash != x.TokenHash {
		return nil, errManifest
	}
	for i := range m.Assets {
		if !m.Assets[i].valid(bucket, x) {
			return nil, errManifest
		}
	}
	return &m, nil
}

func (e *Entry) valid(bucket string, x index) bool {
	in, key, ok := split(e.Location)
	if !ok || e.Size < 0 {
		return false
	}
	if e.referenced() {
		return bucketName.MatchString(in) && regionName.MatchString(e.Region) && usable(key) && e.Sealed == nil
	}
	name, inside := strings.CutPrefix(key, x.Folder)
	return in == bucket && inside && name != "" && name != manifestName && !strings.Contains(name, "/")
}

// readManifest returns the manifest of a token; the error is errNoObject if there is
// none, or errManifest.
func (s *Sink) readManifest(ctx context.Context, x index) (*Manifest, error) {
	b, _, err := s.archive.getSmall(ctx, x.manifest(), maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b, s.cfg.Bucket, x)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", s.archive, x.manifest(), err)
	}
	return m, nil
}

// receipts says of each asset where it is.
func (s *Sink) receipts(m *Manifest) []sinks.Receipt {
	receipts := make([]sinks.Receipt, len(m.Assets))
	for i, e := range m.Assets {
		if e.Missing != "" {
			receipts[i] = sinks.Receipt{Sink: s.name, Field: e.Field, Size: -1, Missing: e.Missing}
			continue
		}
		receipts[i] = sinks.Receipt{
			Sink: s.name, Field: e.Field, Location: e.Location,
			Size: e.Size, SHA256: e.SHA256, CRC64: e.CRC64,
		}
	}
	return receipts
}
