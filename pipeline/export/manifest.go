package export

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	manifestName = "manifest.json"
	recordName   = "record.json"
	// recordField stands for the record among the fields of what is missing.
	recordField     = "record"
	manifestVersion = 1
	// maxManifest bounds what is read of a manifest, in bytes. Ours have some 400
	// bytes per asset.
	maxManifest = 16 << 20
)

// Manifest describes an export. It is the last file that is written.
type Manifest struct {
	// Version is 1.
	Version   int            `json:"version"`
	Product   result.Product `json:"product"`
	Token     string         `json:"token"`
	TokenHash string         `json:"token_hash"`
	Account   string         `json:"account,omitempty"`
	RuleID    string         `json:"rule_id,omitempty"`
	// ExportedAt is in UTC. User and Host say who exported, Reason why.
	ExportedAt time.Time `json:"exported_at"`
	User       string    `json:"user"`
	Host       string    `json:"host"`
	Reason     string    `json:"reason"`
	// Only are the fields that were asked for; left out if that was all.
	Only []string `json:"only,omitempty"`
	// Complete says that nothing is missing of what was asked for.
	Complete   bool      `json:"complete"`
	Files      []File    `json:"files"`
	Missing    []Missing `json:"missing,omitempty"`
	PassedOver []Missing `json:"passed_over,omitempty"`
}

// File is a file of an export.
type File struct {
	// Name is that of the file beside the manifest.
	Name string `json:"file"`
	// Field is the place of an asset in the API's answer; empty for the record.
	Field       string      `json:"field,omitempty"`
	Kind        result.Kind `json:"kind,omitempty"`
	ContentType string      `json:"content_type"`
	// Size is in bytes, SHA256 lower-case hex.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Sink and Location say where it came from; a record has no location.
	Sink     string `json:"sink"`
	Location string `json:"location,omitempty"`
}

// Missing is something that should be in an export and is not, or is not right.
type Missing struct {
	// Field is a personal value, an asset or "record".
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

func (m *Manifest) encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the manifest: %w", err)
	}
	return append(text, '\n'), nil
}

// equal reports whether two exports have the same content, whoever made them when and
// why, and from whichever sink.
func (m *Manifest) equal(other *Manifest) bool {
	return m.Complete && other.Complete && m.TokenHash == other.TokenHash && m.Product == other.Product &&
		slices.EqualFunc(m.Files, other.Files, func(a, b File) bool {
			return a.Name == b.Name && a.Field == b.Field && a.Size == b.Size && a.SHA256 == b.SHA256
		})
}
