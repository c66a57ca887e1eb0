package sinks

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// Env is what the process gives every sink it opens.
type Env struct {
	// Name is the configured name of the sink.
	Name string
	// Policy says what may be stored of a sensitive value. Never nil.
	Policy *privacy.Policy
	// Log is the sink's logger; it already carries the sink's name. Never nil.
	Log *slog.Logger
	// NATS is the process's own connection, for sinks that are not given one of
	// their own; nil where a command opens sinks without one. Sinks neither close
	// it nor change its handlers.
	NATS *nats.Conn
}

// Config is the part of the configuration file that belongs to one kind of
// sink: a pointer to a struct with yaml tags, holding its defaults until the
// file is decoded over it.
type Config interface {
	// Validate says what is wrong with the values, one error per field, each an
	// *InvalidFieldError where it concerns one field. It touches nothing outside
	// the process.
	Validate() error
	// Open makes the sink ready. What it returns implements at least one of
	// Archiver, Recorder and Notifier.
	Open(ctx context.Context, env Env) (Sink, error)
}

// InvalidFieldError says that one field of a sink's configuration is wrong.
type InvalidFieldError struct {
	// Field is the yaml key.
	Field string
	// Problem says what is expected, as in "must be an absolute path".
	Problem string
}

func (e *InvalidFieldError) Error() string { return e.Field + ": " + e.Problem }

var registry = struct {
	sync.RWMutex
	types map[string]func() Config
}{types: map[string]func() Config{}}

// Register makes a kind of sink known under the name its configuration uses as
// "type". newConfig returns a pointer to a fresh struct that holds the
// defaults. It is called from init functions; a second registration of one name
// panics.
func Register(typ string, newConfig func() Config) {
	registry.Lock()
	defer registry.Unlock()
	if _, twice := registry.types[typ]; twice {
		panic(fmt.Sprintf("sinks: type %q registered twice", typ))
	}
	registry.types[typ] = newConfig
}

// NewConfig returns the defaults of a kind of sink, and whether there is such a
// kind.
func NewConfig(typ string) (Config, bool) {
	registry.RLock()
	defer registry.RUnlock()
	newConfig, ok := registry.types[typ]
	if !ok {
		return nil, false
	}
	return newConfig(), true
}

// Types returns the names of all kinds of sink, sorted.
func Types() []string {
	registry.RLock()
	defer registry.RUnlock()
	names := make([]string, 0, len(registry.types))
	for name := range registry.types {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// CheckLimits returns an *InvalidFieldError for each key of a configuration that is not
// within the limits in its struct's tags.
func CheckLimits(c Config) []error {
	wrong := setting.Check(c)
	problems := make([]error, 0, len(wrong))
	for _, p := range wrong {
		problems = append(problems, &InvalidFieldError{Field: p.Path, Problem: p.Problem})
	}
	return problems
}
