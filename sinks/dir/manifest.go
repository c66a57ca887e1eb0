package dir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	manifestName    = "manifest.json"
	manifestVersion = 1
	// maxManifest bounds what is read of a manifest, in bytes. Ours have some
	// 300 bytes per asset.
	maxManifest = 16 << 20
)

// errManifest means that a file is no manifest of ours. Whatever wrote it, the
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

// Entry is one asset of a manifest: a file, or an object in COS.
type Entry struct {
	// Field is the place in the API's answer.
	Field       string      `json:"field"`
	Kind        result.Kind `json:"kind"`
	ContentType string      `json:"content_type"`
	// File is the name of the file beside the manifest; empty for an object in COS.
	File string `json:"file,omitempty"`
	// Location and Region name the object in COS, as "cos://bucket/key"; empty
	// for a file.
	Location string `json:"location,omitempty"`
	Region   string `json:"region,omitempty"`
	// Size is in bytes, -1 for an object in COS.
	Size int64 `json:"size"`
	// SHA256 is lower-case hex, CRC64 is CRC-64/ECMA-182 in decimal; both are
	// empty for an object in COS.
	SHA256 string `json:"sha256,omitempty"`
	CRC64  string `json:"crc64,omitempty"`
	// Sealed describes the file if it is sealed; size and digests above are then
	// those of what it holds. It is nil for a file that is the asset.
	Sealed *Sealed `json:"sealed,omitempty"`
}

// Sealed describes a sealed file as it is stored, for who has no key to open it.
type Sealed struct {
	// KeyID names the key in the keyring.
	KeyID  string         `json:"key_id"`
	Cipher privacy.Cipher `json:"cipher"`
	// Size is in bytes.
	Size int64 `json:"size"`
	// SHA256 is lower-case hex.
	SHA256 string `json:"sha256"`
}

// digest is what the entry of a file says of its asset.
func (e Entry) digest() (result.Digest, error) {
	sum, err := hex.DecodeString(e.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return result.Digest{}, errManifest
	}
	return result.Digest{Size: e.Size, SHA256: [sha256.Size]byte(sum)}, nil
}

func newManifest(r *result.Result) (*Manifest, error) {
	if !r.Product.Valid() {
		return nil, errors.New("unknown product")
	}
	m := &Manifest{
		Version: manifestVersion, Product: r.Product, TokenHash: r.TokenHash(),
		Account: r.Account, RuleID: r.RuleID, Assets: make([]Entry, len(r.Assets)),
	}
	fields := make(map[string]bool, len(r.Assets))
	for i, a := range r.Assets {
		if fields[a.Field] {
			return nil, fmt.Errorf("asset %d has the field of another", i)
		}
		fields[a.Field] = true
		e := Entry{Field: a.Field, Kind: a.Kind, ContentType: a.ContentType}
		switch {
		case a.Content != nil:
			e.File = fileName(a)
			e.Size, e.SHA256, e.CRC64 = a.Digest.Size, a.Digest.SHA256Hex(), a.Digest.CRC64String()
		case a.COS != nil:
			e.Location, e.Region, e.Size = "cos://"+a.COS.Bucket+"/"+a.COS.Key, a.COS.Region, -1
		default:
			return nil, fmt.Errorf("asset %d is neither inline nor in COS", i)
		}
		m.Assets[i] = e
	}
	return m, nil
}

func (m *Manifest) encode() []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("dir: " + err.Error()) // strings and numbers always encode
	}
	return append(b, '\n')
}

// ReadManifest returns the manifest of a token in the archive folder root. The
// error is an fs.ErrNotExist where there is none: the token is not archived, or
// not completely. It is sinks.ErrErased where the token was erased.
func ReadManifest(root string, p result.Product, token string) (*Manifest, error) {
	key := sinks.KeyOf(p, token)
	folder := filepath.Join(root, filepath.FromSlash(folder(key)))
	gone, err := tree(root).erased(folder)
	if gone {
		err = sinks.ErrErased
	}
	if err != nil {
		return nil, fmt.Errorf("read a manifest: %w", err)
	}
	m, err := tree(root).readManifestOf(key, folder)
	if err != nil {
		return nil, fmt.Errorf("read a manifest: %w", err)
	}
	return m, nil
}

func (t tree) readManifestOf(key sinks.Key, folder string) (*Manifest, error) {
	m, err := t.readManifest(folder)
	if err == nil && (m.Product != key.Product || m.TokenHash != key.Hash) {
		return nil, errors.New("it is of another token")
	}
	return m, err
}

func (t tree) readManifest(folder string) (*Manifest, error) {
	f, err := t.Open(filepath.Join(folder, manifestName))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return parseManifest(b)
}

// parseManifest reads what may have been damaged or forged: the files it names
// are in the folder of the manifest.
func parseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if len(b) > maxManifest || json.Unmarshal(b, &m) != nil || m.Version != manifestVersion {
		return nil, errManifest
	}
	for _, e := range m.Assets {
		if e.File != "" && (e.File != filepath.Base(e.File) || !filepath.IsLocal(e.File)) ||
			e.File == "" && e.Location == "" ||
			strings.HasSuffix(e.File, sealedSuffix) != (e.Sealed != nil) {
			return nil, errManifest
		}
	}
	return &m, nil
}

// Verify reads every file that the manifest of a token lists and compares its
// digest; of a sealed file, that of the file as it is stored, for which no key is
// needed. It returns the manifest, and an error that names each file which is gone
// or differs. Assets in COS are not looked at.
func Verify(ctx context.Context, root string, p result.Product, token string) (*Manifest, error) {
	m, err := ReadManifest(root, p, token)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(root, filepath.FromSlash(Folder(p, token)))
	var problems []error
	for _, e := range m.Assets {
		if e.File == "" {
			continue
		}
		if err := tree(root).verifyFile(ctx, filepath.Join(folder, e.File), e); err != nil {
			problems = append(problems, fmt.Errorf("verify %s: %w", e.File, err))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return m, errors.Join(problems...)
}

func (t tree) verifyFile(ctx context.Context, name string, e Entry) (err error) {
	f, err := t.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if e.Sealed != nil {
		e.Size, e.SHA256 = e.Sealed.Size, e.Sealed.SHA256
	}
	want, err := e.digest()
	if err != nil {
		return err
	}
	return copyAsset(ctx, io.Discard, f, want)
}
