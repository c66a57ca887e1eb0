package cos_test

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// hasMissing reports whether one of the receipts is of a missing asset.
func hasMissing(receipts []sinks.Receipt) bool {
	return slices.ContainsFunc(receipts, func(r sinks.Receipt) bool { return r.Missing == result.NotFound })
}

// What is not there is waited for from the first answer on, however often the result is
// pulled again, and less often the longer it is gone.
func TestMissingIsWaitedFor(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		patience time.Duration
		waits    []time.Duration // after the first answer
		gives    time.Duration
	}{
		"an hour": {time.Hour, []time.Duration{0, time.Minute, 30 * time.Minute, 59*time.Minute + 59*time.Second}, time.Hour},
		"a day":   {24 * time.Hour, []time.Duration{0, 23 * time.Hour}, 25 * time.Hour},
		"not":     {0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now().UTC()
			var passed atomic.Int64
			now := func() time.Time { return began.Add(time.Duration(passed.Load())) }
			c := newCloudWith(t, costest.Options{Now: now}, costest.BucketOptions{}, func(c *cos.Config) { c.MissingAfter = sinks.Duration(test.patience) })
			sink, r := c.open(t, cos.Edges{Now: now}), sinktest.Result(0)
			c.Vanish(t, *r.Assets[3].COS)

			for _, later := range test.waits {
				passed.Store(int64(later))
				r.FetchedAt = now()
				err := fails(t, sink, r, sinks.ClassWaiting, "VideoData.LivenessVideo", "not there")
				_, after := sinks.ClassOf(err)
				if after > 10*time.Minute || after > test.patience-later || later > 0 && after == 0 {
					t.Errorf("after %s it is looked for again after %s", later, after)
				}
			}

			passed.Store(int64(test.gives))
			r.FetchedAt = now()
			if receipts := archive(t, sink, r); !hasMissing(receipts) || receipts[0].SHA256 == "" {
				t.Errorf("%+v", receipts)
			}
		})
	}
}

// A clock that was set does not have results wait for days.
func TestMissingAndTheClock(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	c.Vanish(t, *r.Assets[3].COS)
	r.FetchedAt = time.Now().Add(48 * time.Hour)
	if receipts := archive(t, sink, r); !hasMissing(receipts) {
		t.Errorf("%+v", receipts)
	}
}

// What is still missing is looked for by every call, which changes nothing.
func TestMissingStill(t *testing.T) {
	t.Parallel()
	for _, versioned := range []bool{false, true} {
		c := newCloud(t, costest.BucketOptions{Versioned: versioned}, func(*cos.Config) {})
		sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
		back := c.Vanish(t, *r.Assets[3].COS)
		archive(t, sink, r)

		before := len(c.server.Requests())
		archive(t, sink, r)
		asked := c.asked(before)
		delete(asked, "GetBucketObjectVersions")
		if !maps.Equal(asked, map[string]int{"GetObject": asked["GetObject"], "HeadObject": 1, "HeadBucket": 1}) {
			t.Errorf("another call asked for %v", asked)
		}

		back()
		before = len(c.server.Requests())
		if receipts := archive(t, sink, r); hasMissing(receipts) {
			t.Errorf("%+v", receipts)
		}
		if asked := c.asked(before); asked["DeleteObject"] > 0 || asked["PutObject"] != 1 || asked["PutObjectCopy"] != 1 {
			t.Errorf("what was found is stored by %v", asked)
		}
	}
}

// Objects are locked although one is missing; the manifest is when it was found.
func TestMissingAndRetention(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{ObjectLock: true}, func(c *cos.Config) {
		c.Retention = cos.Retention{Mode: "compliance", Days: 30}
	})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	locked := func() (manifest bool, objects int) {
		for _, o := range c.server.Objects(archiveBucket) {
			if !o.RetainUntil.IsZero() {
				objects++
				manifest = manifest || o.Key == cos.ManifestIn(place)
			}
		}
		return manifest, objects
	}

	back := c.Vanish(t, *r.Assets[3].COS)
	archive(t, sink, r)
	if manifest, objects := locked(); manifest || objects != 4 {
		t.Errorf("with a missing asset, %d objects are locked, the manifest: %v", objects, manifest)
	}
	back()
	archive(t, sink, r)
	if manifest, objects := locked(); !manifest || objects != 6 {
		t.Errorf("with all assets, %d objects are locked, the manifest: %v", objects, manifest)
	}
}

// An object that comes after it was given up is of the archive, if that refers to it: an
// erasure takes it along.
func TestEraseWhatWasMissing(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = "reference" })
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	key, object := sinks.KeyOf(r.Product, r.Token), *r.Assets[3].COS
	c.Vanish(t, object)
	archive(t, sink, r)
	held, err := sink.Holds(t.Context(), key)
	must(t, err)
	if held.Assets != 4 || held.Records != 1 {
		t.Errorf("%+v", held)
	}

	c.server.Put(object.Bucket, object.Key, "video/mp4", foreign(object.Key))
	must(t, sinktest.Erase(t.Context(), sink, key))
	if _, there := c.server.Body(object.Bucket, object.Key); there {
		t.Error("the object is still there")
	}
}

// Whatever is damaged says so: a verification goes by it, and goes on.
func TestDamaged(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"copy", "reference", "pull"} {
		c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = mode })
		sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
		key := sinks.KeyOf(r.Product, r.Token)
		for _, receipt := range archive(t, sink, r) {
			bucket, object := archiveBucket, keysOf([]sinks.Receipt{receipt})[0]
			if mode == "reference" && receipt.Field == r.Assets[3].Field {
				bucket, object = faceidBucket, r.Assets[3].COS.Key
			}
			whole, _ := c.server.Body(bucket, object)
			for name, harmed := range map[string][]byte{
				"another byte": append([]byte{^whole[0]}, whole[1:]...),
				"cut off":      whole[:len(whole)/2],
				"nothing":      {},
				"longer":       append(slices.Clone(whole), 'x'),
			} {
				c.server.Put(bucket, object, "video/mp4", harmed)
				content, err := sink.OpenAsset(t.Context(), key, receipt)
				if err == nil {
					_, err = io.Copy(io.Discard, content)
					must(t, content.Close())
				}
				if !errors.Is(err, sinks.ErrDamaged) {
					t.Errorf("%s, %s, %s: %v, want sinks.ErrDamaged", mode, receipt.Field, name, err)
				}
			}
		}
	}
}

func TestDamagedManifestAndIndex(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	archive(t, sink, r)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	key := sinks.KeyOf(r.Product, r.Token)

	for _, object := range []string{cos.ManifestIn(place), cos.IndexKey(key)} {
		c.server.Put(archiveBucket, object, "application/json", []byte("{"))
		if _, err := sink.Manifest(t.Context(), key); !errors.Is(err, sinks.ErrDamaged) {
			t.Errorf("%s: %v, want sinks.ErrDamaged", object, err)
		}
		for found, err := range sink.Keys(t.Context(), sinks.Key{}) {
			if err != nil || found != key {
				t.Errorf("%s: Keys gives %v, %v", object, found, err)
			}
		}
	}
}
