package cos

import (
	"context"
	"net/http"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Edges are where tests put themselves between the sink and the world. The zero
// value is the world.
type Edges struct {
	Wrap          func(http.RoundTripper) http.RoundTripper
	Metadata, STS string
	// Patience replaces the two minutes for which a request may stand still.
	Patience time.Duration
	Now      func() time.Time
}

// Defaults returns a configuration as the registry makes it.
func Defaults() *Config { return defaultConfig() }

// OpenWith opens a sink with other edges.
func OpenWith(_ context.Context, cfg Config, env sinks.Env, e Edges) (*Sink, error) {
	inner := productionEdges
	if e.Wrap != nil {
		inner.wrap = e.Wrap
	}
	if e.Metadata != "" {
		inner.metadata = e.Metadata
	}
	if e.STS != "" {
		inner.sts = e.STS
	}
	if e.Patience != 0 {
		inner.patience = e.Patience
	}
	if e.Now != nil {
		inner.now = e.Now
	}
	return open(cfg, env, inner)
}

// Place is a token's place in a bucket, for tests of templates.
type Place = place

// PlaceOf fills in a template.
func PlaceOf(text string, r *result.Result) (Place, error) {
	t, err := parseTemplate(text)
	return t.place(r), err
}

// KeyIn returns the key of an asset in a place.
func KeyIn(p Place, field, contentType string) string { return p.key(field, contentType) }

// ManifestIn returns the key of the manifest in a place.
func ManifestIn(p Place) string { return p.manifest() }

// Valid tells whether a place that was read may be one of a token.
func Valid(p Place, hash string) bool { return p.valid(hash) }

// IndexKey is the key of a token's index object.
var IndexKey = indexKey

// ParseIndex reads an index object and returns the place in it, and whether it is a
// tombstone.
func ParseIndex(b []byte, key sinks.Key) (Place, bool, error) {
	x, err := parseIndex(b, key)
	return x.place, x.Erased, err
}

// ParseManifest reads a manifest of a token in a place.
func ParseManifest(b []byte, bucket string, key sinks.Key, p Place) (*Manifest, error) {
	return parseManifest(b, bucket, index{Version: indexVersion, Product: key.Product, TokenHash: key.Hash, place: p})
}

// PartSizeFor is the size of the parts of a large asset, with parts of a MiB
// configured.
func PartSizeFor(size int64) int64 {
	s := &Sink{cfg: Config{PartSize: minPart}}
	return s.planFor(size).partSize
}
