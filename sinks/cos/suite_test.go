package cos_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	archiveBucket = "archive-1250000000"
	faceidBucket  = "faceid-1250000000"
	region        = "ap-guangzhou"
	secretID      = "AKIDinvented"
	secretKey     = "invented-secret-key"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, factory(func(*cos.Config) {}))
}

// With the defaults, what FaceID put into COS is copied, and all else is sealed.
func TestSuiteCopySealed(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, factory(func(c *cos.Config) { c.Seal = cos.Defaults().Seal }))
}

func TestSuiteReferenceSealed(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, factory(func(c *cos.Config) { c.Mode, c.Seal = "reference", true }))
}

// Everything sealed, and in parts of a MiB, which only the large assets have more
// than one of.
func TestSuitePullSealedInParts(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, factory(func(c *cos.Config) {
		c.Mode, c.Seal, c.SinglePutLimit, c.PartSize = "pull", true, 1<<20, 1<<20
	}))
}

func TestSuiteVersioned(t *testing.T) {
	t.Parallel()
	f := factory(func(*cos.Config) {})
	f.New = func(t testing.TB) sinktest.Destination {
		return newCloud(t, costest.BucketOptions{Versioned: true}, func(*cos.Config) {})
	}
	sinktest.Run(t, f)
}

func factory(change func(*cos.Config)) sinktest.Factory {
	return sinktest.Factory{
		New: func(t testing.TB) sinktest.Destination {
			return newCloud(t, costest.BucketOptions{}, change)
		},
		Troubles: troubles(change),
	}
}

// cloud is a COS with an archive bucket and FaceID's bucket, and sinks on it.
type cloud struct {
	server *costest.Server
	cfg    *cos.Config
	// keyring seals for sinks whose environment has no policy that does, and policy is
	// what the last sink had.
	keyring, policy *privacy.Policy
	// gone are keys of FaceID's objects that are not there.
	gone sync.Map
}

// Vanish implements sinktest.Vanisher.
func (c *cloud) Vanish(_ testing.TB, object result.COSObject) (back func()) {
	c.gone.Store(object.Key, true)
	c.server.Delete(object.Bucket, object.Key)
	return func() { c.gone.Delete(object.Key) }
}

func newCloud(t testing.TB, options costest.BucketOptions, change func(*cos.Config)) *cloud {
	t.Helper()
	return newCloudWith(t, costest.Options{}, options, change)
}

func newCloudWith(t testing.TB, server costest.Options, options costest.BucketOptions, change func(*cos.Config)) *cloud {
	t.Helper()
	s, err := costest.Start(context.WithoutCancel(t.Context()), server)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	s.AddCredential(costest.Credential{SecretID: secretID, SecretKey: secretKey})
	s.CreateBucket(archiveBucket, region, options)
	s.CreateBucket(faceidBucket, region, costest.BucketOptions{})
	cfg := cos.Defaults()
	cfg.Seal = false // most tests look at the bytes
	cfg.Bucket, cfg.Region, cfg.Endpoint = archiveBucket, region, s.URL()
	cfg.SecretID, cfg.SecretKey = secretID, secretKey
	change(cfg)
	c := &cloud{server: s, cfg: cfg}
	if cfg.Seal {
		c.keyring = newPolicy(t)
	}
	return c
}

func newPolicy(t testing.TB) *privacy.Policy {
	t.Helper()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	return policy
}

func (c *cloud) env() sinks.Env {
	if c.keyring == nil {
		return sinks.Env{Name: "media", Log: slog.New(slog.DiscardHandler)}
	}
	return sinks.Env{Name: "media", Policy: c.keyring, Log: slog.New(slog.DiscardHandler)}
}

// open opens a sink and closes it when the test is over.
func (c *cloud) open(t testing.TB, edges cos.Edges) sinks.ArchiveKeeper {
	t.Helper()
	sink, err := cos.OpenWith(t.Context(), *c.cfg, c.env(), edges)
	must(t, err)
	t.Cleanup(func() { must(t, sink.Close(context.Background())) })
	return c.seeding(sink)
}

func (c *cloud) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	if c.cfg.Seal && !env.Policy.HasKeyring() {
		env.Policy = c.keyring
	}
	c.policy = env.Policy
	sink, err := cos.OpenWith(t.Context(), *c.cfg, env, cos.Edges{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return faulty{base, faults}
	}})
	must(t, err)
	return c.seeding(sink)
}

// seeding is a sink for whose results FaceID has put the objects into its bucket.
func (c *cloud) seeding(sink *cos.Sink) sinks.ArchiveKeeper { return &seeding{sink, c} }

type seeding struct {
	*cos.Sink
	cloud *cloud
}

// Archive lets the objects be there first. What the suite names hostile is put where
// an object can be: pipeline/faceid lets no other place through.
func (s *seeding) Archive(ctx context.Context, r *result.Result) ([]sinks.Receipt, error) {
	c := *r
	c.Assets = slices.Clone(r.Assets)
	for i, a := range c.Assets {
		if a.COS == nil {
			continue
		}
		object := *a.COS
		if object.Bucket != faceidBucket {
			object.Bucket, object.Region = faceidBucket, region
			if object.Key == "." || object.Key == ".." || len(object.Key) > 850 {
				object.Key = "hostile"
			}
		}
		_, there := s.cloud.server.Body(object.Bucket, object.Key)
		if _, gone := s.cloud.gone.Load(object.Key); !there && !gone {
			s.cloud.server.Put(object.Bucket, object.Key, "video/mp4", foreign(object.Key))
		}
		c.Assets[i].COS = &object
	}
	return s.Sink.Archive(ctx, &c)
}

// foreign returns the bytes of an object of FaceID.
func foreign(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return bytes.Repeat(sum[:], 100)
}

func (c *cloud) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	s := sinktest.Stored{Objects: map[string][]byte{}, Dump: c.server.Dump()}
	key := sinks.KeyOf(p, token)
	fields := map[string]string{}
	for _, o := range c.server.Objects(archiveBucket) {
		location := "cos://" + archiveBucket + "/" + o.Key
		body, _ := c.server.Body(archiveBucket, o.Key)
		switch {
		case o.Key == cos.IndexKey(key):
			s.State += string(body)
		case strings.HasSuffix(o.Key, key.Hash+"/manifest.json"):
			s.Manifest = c.manifest(t, key, body)
			if s.Manifest == nil {
				s.Objects[location] = body
			}
			if !c.cfg.Seal { // it names keys, which differ from run to run
				s.Objects[location] = body
			}
		case strings.Contains(o.Key, key.Hash):
			s.Objects[location] = body
			fields[location] = index.ReplaceAllString(o.Header.Get("X-Cos-Meta-Field"), "[$1]")
		}
	}
	for _, receipt := range s.Manifest {
		fields[receipt.Location] = receipt.Field
	}
	for location, field := range fields {
		c.unseal(privacy.MediaRef{Product: key.Product, TokenHash: key.Hash, Field: field}, s.Objects, location)
	}
	return s
}

// index is an array index of a field, as it is in metadata.
var index = regexp.MustCompile(`-([0-9]+)`)

// unseal puts what a sealed object holds in its place. One that does not open stays
// what it is.
func (c *cloud) unseal(ref privacy.MediaRef, objects map[string][]byte, location string) {
	sealed, there := objects[location]
	if !there || c.policy == nil {
		return
	}
	if r, err := c.policy.OpenMedia(ref, bytes.NewReader(sealed)); err == nil {
		if plain, err := io.ReadAll(r); err == nil {
			objects[location] = plain
		}
	}
}

// manifest reads the manifest of a token that is not erased.
func (c *cloud) manifest(t testing.TB, key sinks.Key, body []byte) []result.Receipt {
	t.Helper()
	index, _ := c.server.Body(archiveBucket, cos.IndexKey(key))
	place, erased, err := cos.ParseIndex(index, key)
	must(t, err)
	if erased {
		return nil
	}
	m, err := cos.ParseManifest(body, archiveBucket, key, place)
	must(t, err)
	receipts := []result.Receipt{}
	for _, e := range m.Assets {
		if e.Missing != "" {
			receipts = append(receipts, result.Receipt{Field: e.Field, Size: -1, Missing: e.Missing})
			continue
		}
		receipts = append(receipts, result.Receipt{Field: e.Field, Location: e.Location, Size: e.Size, SHA256: e.SHA256, CRC64: e.CRC64})
	}
	return receipts
}

// faulty asks for a fault before every request that changes something, and once more
// half way through its body.
type faulty struct {
	base   http.RoundTripper
	faults *sinktest.Faults
}

func (f faulty) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return f.base.RoundTrip(req)
	}
	if err := f.faults.Step(); err != nil {
		if req.Body != nil {
			must(nil, req.Body.Close())
		}
		return nil, err
	}
	if req.Body != nil && req.Body != http.NoBody && req.ContentLength > 1 {
		req = req.Clone(req.Context())
		req.Body = &faultyBody{ReadCloser: req.Body, faults: f.faults, until: req.ContentLength / 2}
	}
	return f.base.RoundTrip(req)
}

type faultyBody struct {
	io.ReadCloser
	faults *sinktest.Faults
	until  int64
}

func (b *faultyBody) Read(p []byte) (int, error) {
	switch {
	case b.until == 0:
		b.until = -1
		if err := b.faults.Step(); err != nil {
			return 0, err
		}
	case b.until > 0:
		p = p[:min(int64(len(p)), b.until)]
	}
	n, err := b.ReadCloser.Read(p)
	if b.until > 0 {
		b.until -= int64(n)
	}
	return n, err
}

func must(t testing.TB, err error) {
	if err == nil {
		return
	}
	if t == nil {
		panic(err)
	}
	t.Helper()
	t.Fatal(err)
}

// plainPolicy stores every value plainly and has no keyring.
func plainPolicy(t testing.TB) *privacy.Policy {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	policy, err := privacy.NewPolicy(cfg, nil)
	must(t, err)
	return policy
}
