package webhook

import (
	"context"
	"net/http"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

var (
	IsPublic   = isPublic
	OnlyPublic = onlyPublic
	RetryAfter = retryAfter
)

// MaxRetryAfter is the longest time that a receiver can ask for.
const MaxRetryAfter = maxRetryAfter

// OpenWith opens a sink whose requests go through wrap.
func OpenWith(ctx context.Context, c *Config, env sinks.Env, wrap func(http.RoundTripper) http.RoundTripper) (sinks.Sink, error) {
	sink, err := c.Open(ctx, env)
	if err != nil {
		return nil, err
	}
	s := sink.(*Sink)
	s.client.Transport = wrap(s.client.Transport)
	return s, nil
}
