// Package cos archives assets in a bucket of Tencent COS.
//
// In goes a result. Its inline assets are uploaded; those that FaceID put into a
// bucket of its own are copied server side (mode copy), pulled through this process
// (pull), or left where they are (reference). Out come objects in a folder of their
// token, and a manifest beside them:
//
//	.index/<product>/<token hash>                     where the folder is, or a tombstone
//	<date>/<product>/<token hash>/<field>.<ext>       the assets, named by the key template
//	<date>/<product>/<token hash>/manifest.json       what there is, written last
//
// The index object is created before anything else and only if it is not there, so
// that a redelivery on another day, or under another template, finds the same
// place. The manifest is written last: a manifest means complete, and what it lists
// is neither uploaded nor copied again. When an answer about a token differs from
// the one stored, the manifest goes before the first object changes. Objects of an
// earlier answer that the latest one does not have stay: evidence is not removed
// because it came only once.
//
// Erase makes the index object a tombstone and removes the folder. Archive looks at
// the index again when it has written the manifest, and removes what it wrote if it
// finds a tombstone, so an erasure wins whatever order things happen in.
//
// Bytes that pass through this process are read twice: once for their digests,
// which must be those of the result, and once for the upload, which COS verifies by
// Content-MD5 and answers with the CRC-64 of what it stored. No asset is ever in
// memory as a whole. With seal, they are encrypted before they leave the process.
//
// What is wrong with the bucket, its permissions, the network or the clock is
// transient, since it can be mended while events wait; the error says in words what
// to do. Throttling is throttled, and only a result that COS can never take is
// permanent.
//
// Two replicas that archive different answers about one token at the same moment
// are not kept apart, as one event is with one worker at a time; a verification of
// the archive finds what they would leave.
package cos

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func init() {
	sinks.Register("cos", func() sinks.Config { return defaultConfig() })
}

// Sink archives assets in a bucket. All methods but Close may be called by several
// goroutines at once.
type Sink struct {
	name   string
	cfg    Config
	policy *privacy.Policy
	log    *slog.Logger
	keys   template
	links  *links
	// archive is the bucket that the sink writes to.
	archive *bucket
}

var _ sinks.ArchiveKeeper = (*Sink)(nil)

// Open implements sinks.Config. It calls nothing: a bucket that cannot be reached
// now may be when a result comes.
func (c *Config) Open(_ context.Context, env sinks.Env) (sinks.Sink, error) {
	return open(*c, env, productionEdges)
}

// edges are where the sink meets the world; tests have others.
type edges struct {
	// wrap is put around the transport that sends signed requests.
	wrap func(http.RoundTripper) http.RoundTripper
	// metadata and sts are the URLs that temporary credentials come from.
	metadata, sts string
	// patience is how long a request may make no progress at all: no byte sent, no
	// answer, no byte received. Copies and completed uploads of gigabytes take COS a
	// while.
	patience time.Duration
	now      func() time.Time
}

var productionEdges = edges{
	wrap:     func(t http.RoundTripper) http.RoundTripper { return t },
	metadata: "http://metadata.tencentyun.com",
	sts:      "https://sts.tencentcloudapi.com",
	patience: 2 * time.Minute,
	now:      time.Now,
}

func open(cfg Config, env sinks.Env, e edges) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open a COS archive: %w", err)
	}
	keys, err := parseTemplate(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open a COS archive: %w", err)
	}
	if cfg.Seal && !env.Policy.HasKeyring() {
		return nil, errors.New("open a COS archive: seal needs a keyring: set privacy.keyring_file, or seal: false")
	}
	s := &Sink{name: env.Name, cfg: cfg, policy: env.Policy, log: env.Log, keys: keys, links: newLinks(cfg, e)}
	s.archive = s.links.bucket(cfg.Bucket, cfg.Region, s.links.own)
	return s, nil
}

// Name implements sinks.Sink.
func (s *Sink) Name() string { return s.name }

// Close implements sinks.Sink. It ends idle connections.
func (s *Sink) Close(context.Context) error {
	s.links.close()
	return nil
}

// probePrefix begins the keys of the objects that Check writes.
const probePrefix = ".check-"

// Check implements sinks.Sink: it asks for the bucket, and for its object lock where
// objects are to be locked, and writes, reads and removes a small object with the headers
// that assets have.
func (s *Sink) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

func (s *Sink) check(ctx context.Context) (err error) {
	if err := s.archive.exists(ctx); err != nil {
		return err
	}
	if s.cfg.Retention.Mode != "" {
		if err := s.archive.locks(ctx); err != nil {
			return err
		}
	}
	key, body := probePrefix+rand.Text(), []byte("faceid-ingest looks whether it may write here\n")
	version, err := s.archive.putSmall(ctx, key, body, s.headers(object{contentType: "text/plain"}))
	if err != nil {
		return err
	}
	defer func() {
		bounded, cancel := lastWords(ctx)
		defer cancel()
		err = errors.Join(err, s.archive.remove(bounded, key, version))
	}()
	got, _, err := s.archive.getSmall(ctx, key, len(body))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, body) {
		return fmt.Errorf("%s: an object came back with other bytes", s.archive)
	}
	return nil
}

// CheckSource reports whether the sink could take assets from a bucket that FaceID wrote
// them into: it asks for an object that is not there. The error says in words what is
// wrong and what to do.
func (s *Sink) CheckSource(ctx context.Context, name, region string) error {
	from := s.links.bucket(name, region, s.links.source)
	_, _, err := from.getSmall(ctx, probePrefix+rand.Text(), 1)
	if errors.Is(err, errNoObject) {
		return nil
	}
	return err
}
