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

// OSFiles is the edge in production.
var OSFiles Files = osFiles{}

// OpenWith opens a sink with another edge.
func OpenWith(ctx context.Context, cfg *Config, env sinks.Env, files Files) (sinks.Sink, error) {
	return open(ctx, cfg, env, files)
}

// ParseManifest is for fuzzing.
var ParseManifest = parseManifest

// FileName names the file of an asset.
var FileName = fileName
