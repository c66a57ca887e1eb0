package dir

import (
	"context"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Files and File are the edge that tests put faults into.
type (
	Files = files
	File  = file
)

// OpenWith opens a sink with something before its edge.
func OpenWith(ctx context.Context, cfg *Config, env sinks.Env, wrap func(Files) Files) (sinks.Sink, error) {
	return open(ctx, cfg, env, wrap)
}

// ParseManifest is for fuzzing.
var ParseManifest = parseManifest

// FileName names the file of an asset.
var FileName = fileName
