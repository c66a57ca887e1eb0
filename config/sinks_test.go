package config_test

import (
	"context"
	"errors"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// fake stands for the sinks that the default configuration names: what they do
// is not this package's matter.
type fake struct {
	Path string `yaml:"path"`
}

func (*fake) Validate() error { return nil }

func (*fake) Open(context.Context, sinks.Env) (sinks.Sink, error) {
	return nil, errors.New("not to be opened")
}

func init() {
	sinks.Register("dir", func() sinks.Config { return &fake{"./data/media"} })
	sinks.Register("sqlite", func() sinks.Config { return &fake{"./data/faceid.db"} })
}
