package cos_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func archive(t testing.TB, sink sinks.Archiver, r *result.Result) []sinks.Receipt {
	t.Helper()
	receipts, err := sink.Archive(t.Context(), r)
	must(t, err)
	return receipts
}

// fails delivers r, which must fail with the class and the words.
func fails(t testing.TB, sink sinks.Archiver, r *result.Result, class sinks.Class, words ...string) error {
	t.Helper()
	_, err := sink.Archive(t.Context(), r)
	if got, _ := sinks.ClassOf(err); got != class {
		t.Fatalf("the class is %q, want %q: %v", got, class, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Fatalf("the error does not say %q: %v", word, err)
		}
	}
	return err
}

// asked counts the requests of each action from the n-th on.
func (c *cloud) asked(from int) map[string]int {
	counts := map[string]int{}
	for _, r := range c.server.Requests()[from:] {
		counts[r.Action]++
	}
	return counts
}

// onlyForeign is a result with one asset, which FaceID put into COS.
func onlyForeign(seed int) *result.Result {
	r := sinktest.Result(seed)
	r.Assets = r.Assets[3:4]
	return r
}

// onlyInline is a result with one inline asset.
func onlyInline(seed int, size int) *result.Result {
	r := sinktest.Result(seed)
	r.Assets = []result.Asset{sinktest.Inline("VideoData.LivenessVideo", result.Video, "video/mp4", bytes.Repeat([]byte{7, 1, 9}, size/3+1)[:size])}
	return r
}

func TestLayout(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) {
		c.StorageClass, c.SSE, c.KMSKeyID = "STANDARD_IA", "kms", "48ba38aa"
		c.Tags = map[string]string{"kind": "evidence of 证据"}
	})
	r := sinktest.Result(0)
	receipts := archive(t, c.open(t, cos.Edges{}), r)
	folder := "2026-03-01/enhanced/" + r.TokenHash() + "/"
	for i, want := range []string{
		"IdCardData.OcrFront.jpg", "BestFrame.BestFrame.png", "BestFrame.BestFrames-0.png",
		"VideoData.LivenessVideo.mp4", "IntentionQuestionResult.Audios-10.wav",
	} {
		if receipts[i].Location != "cos://"+archiveBucket+"/"+folder+want {
			t.Errorf("asset %d is at %s", i, receipts[i].Location)
		}
	}
	if video := receipts[3]; video.Size != 3200 || video.CRC64 == "" || video.SHA256 != "" {
		t.Errorf("the copy's receipt is %+v", video)
	}
	objects := map[string]costest.Object{}
	for _, o := range c.server.Objects(archiveBucket) {
		objects[o.Key] = o
	}
	if want := append([]string{cos.IndexKey(sinks.KeyOf(r.Product, r.Token)), folder + "manifest.json"}, keysOf(receipts)...); !sameSet(slices.Collect(maps.Keys(objects)), want) {
		t.Errorf("objects %q, want %q", slices.Collect(maps.Keys(objects)), want)
	}
	for i, key := range keysOf(receipts) {
		o := objects[key]
		for name, want := range map[string]string{
			"X-Cos-Meta-Token-Hash": r.TokenHash(), "X-Cos-Storage-Class": "STANDARD_IA",
			"X-Cos-Server-Side-Encryption":                "cos/kms",
			"X-Cos-Server-Side-Encryption-Cos-Kms-Key-Id": "48ba38aa",
			"X-Cos-Tagging":                               "kind=evidence+of+%E8%AF%81%E6%8D%AE",
			"X-Cos-Meta-Sha256":                           receipts[i].SHA256, "Content-Type": r.Assets[i].ContentType,
		} {
			if o.Header.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", key, name, o.Header.Get(name), want)
			}
		}
	}
	if class := objects[folder+"manifest.json"].Header.Get("X-Cos-Storage-Class"); class != "" {
		t.Errorf("the manifest has the storage class %s", class)
	}
}

func keysOf(receipts []sinks.Receipt) []string {
	keys := make([]string, len(receipts))
	for i, r := range receipts {
		keys[i] = strings.TrimPrefix(r.Location, "cos://"+archiveBucket+"/")
	}
	return keys
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// A redelivery on another day, under another template, finds the place, and neither
// uploads nor copies anything.
func TestRedelivery(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	r := sinktest.Result(0)
	first := archive(t, c.open(t, cos.Edges{}), r)
	before := len(c.server.Requests())
	c.cfg.Key = "elsewhere/{token_hash}/{field}"
	again := *r
	again.FetchedAt = r.FetchedAt.Add(72 * time.Hour)
	if second := archive(t, c.open(t, cos.Edges{}), &again); !slices.Equal(first, second) {
		t.Errorf("%v, want %v", second, first)
	}
	if asked := c.asked(before); !maps.Equal(asked, map[string]int{"GetObject": 2}) {
		t.Errorf("a redelivery asked for %v", asked)
	}
}

// What a crashed process has uploaded is not uploaded again.
func TestUploadedBeforeTheCrash(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	lift := c.server.Inject(costest.Fault{Action: "PutObject", Key: cos.ManifestIn(place), Status: 500})
	fails(t, sink, r, sinks.ClassTransient, "manifest", "in trouble")
	lift()
	before := len(c.server.Requests())
	archive(t, sink, r)
	if asked := c.asked(before); asked["PutObject"] != 1 || asked["PutObjectCopy"] != 0 {
		t.Errorf("the redelivery asked for %v", asked)
	}
}

func TestNotThereYet(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"copy", "reference", "pull"} {
		c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = mode })
		sink, r := c.open(t, cos.Edges{}), onlyForeign(0)
		r.FetchedAt = time.Now()
		c.server.Inject(costest.Fault{Bucket: faceidBucket, Action: "HeadObject", Times: 2, Status: 404})
		for range 2 {
			fails(t, sink, r, sinks.ClassWaiting, "asset 0 (VideoData.LivenessVideo)", faceidBucket, "not there", "asked for again")
		}
		receipt := archive(t, sink, r)[0]
		if want := foreign(r.Assets[0].COS.Key); receipt.Size != int64(len(want)) || receipt.CRC64 == "" || (receipt.SHA256 != "") != (mode == "pull") {
			t.Errorf("%s: %+v", mode, receipt)
		}
	}
}

func TestForeignAssetsInTrouble(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mode  string
		spoil func(*cloud, *result.Result)
		class sinks.Class
		words []string
	}{
		"no such bucket":   {"copy", func(c *cloud, _ *result.Result) { c.server.DeleteBucket(faceidBucket) }, sinks.ClassTransient, []string{faceidBucket, "no such bucket", "region"}},
		"no right to look": {"reference", func(c *cloud, _ *result.Result) { c.forbid("HeadObject") }, sinks.ClassTransient, []string{faceidBucket, "name/cos:HeadObject"}},
		"no right to copy": {"copy", func(c *cloud, _ *result.Result) { c.forbid("GetObject") }, sinks.ClassTransient, []string{archiveBucket, "name/cos:GetObject"}},
		"the copy failed":  {"copy", func(c *cloud, _ *result.Result) { c.server.Inject(costest.Fault{CopyError: true}) }, sinks.ClassTransient, []string{archiveBucket, "began it and then failed"}},
		"gone meanwhile": {"copy", func(c *cloud, _ *result.Result) {
			c.server.Inject(costest.Fault{Action: "PutObjectCopy", Status: 404, Code: "NoSuchKey"})
		}, sinks.ClassWaiting, []string{"FaceID's object is not there"}},
		"gone while it is pulled": {"pull", func(c *cloud, _ *result.Result) {
			c.server.Inject(costest.Fault{Action: "GetObject", Bucket: faceidBucket, Status: 404, Code: "NoSuchKey"})
		}, sinks.ClassWaiting, []string{"FaceID's object is not there"}},
		"cut off": {"pull", func(c *cloud, _ *result.Result) {
			c.server.Inject(costest.Fault{Action: "GetObject", Bucket: faceidBucket, CutBody: 100})
		}, sinks.ClassTransient, []string{faceidBucket, "unexpected EOF"}},
		"another object": {"pull", func(c *cloud, _ *result.Result) {
			c.server.Inject(costest.Fault{Action: "HeadObject", Bucket: faceidBucket, WrongCRC: true})
		}, sinks.ClassTransient, []string{faceidBucket, "other bytes"}},
		"a damaged copy": {"copy", func(c *cloud, _ *result.Result) {
			c.server.Inject(costest.Fault{Action: "HeadObject", Bucket: archiveBucket, WrongCRC: true})
		}, sinks.ClassTransient, []string{archiveBucket, "the copy differs"}},
		"no bucket's name":  {"copy", func(_ *cloud, r *result.Result) { r.Assets[0].COS.Bucket = "evil.example/" }, sinks.ClassPermanent, []string{"where nothing can be"}},
		"the bucket itself": {"copy", func(_ *cloud, r *result.Result) { r.Assets[0].COS.Key = ".." }, sinks.ClassPermanent, []string{"where nothing can be"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = test.mode })
			r := onlyForeign(0)
			r.FetchedAt = time.Now()
			c.server.Put(faceidBucket, r.Assets[0].COS.Key, "video/mp4", foreign("x"))
			test.spoil(c, r)
			sink, err := cos.OpenWith(t.Context(), *c.cfg, c.env(), cos.Edges{})
			must(t, err)
			defer func() { must(t, sink.Close(t.Context())) }()
			if err := fails(t, sink, r, test.class, test.words...); strings.Contains(err.Error(), "liveness/2026") {
				t.Errorf("the error tells FaceID's key: %v", err)
			}
		})
	}
}

// A key that the SDK cannot name in a copy is pulled instead.
func TestQuestionMarkInAKey(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	r := onlyForeign(0)
	r.Assets[0].COS.Key = "a?versionId=b"
	receipt := archive(t, c.open(t, cos.Edges{}), r)[0]
	if got, _ := c.server.Body(archiveBucket, keysOf([]sinks.Receipt{receipt})[0]); !bytes.Equal(got, foreign("a?versionId=b")) {
		t.Error("other bytes")
	}
}

// The credentials of the source are used for it, and no other.
func TestSourceCredentials(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) {
		c.Mode, c.Source = "pull", cos.Access{SecretID: "source", SecretKey: "source-key"}
	})
	c.server.AddCredential(costest.Credential{SecretID: "source", SecretKey: "source-key", Allow: func(_, in, _ string) bool { return in == faceidBucket }})
	c.server.AddCredential(costest.Credential{SecretID: secretID, SecretKey: secretKey, Allow: func(_, in, _ string) bool { return in == archiveBucket }})
	archive(t, c.open(t, cos.Edges{}), sinktest.Result(0))
}

// Only the archive bucket and the one of the asset are ever touched.
func TestTouchesNothingElse(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = "reference" })
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	archive(t, sink, r)
	must(t, sink.Check(t.Context()))
	must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
	for _, request := range c.server.Requests() {
		if request.Bucket != archiveBucket && (request.Bucket != faceidBucket || request.Key == "") {
			t.Errorf("%s of %s/%s", request.Action, request.Bucket, request.Key)
		}
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{ObjectLock: true}, func(c *cos.Config) {
		c.Retention = cos.Retention{Mode: "compliance", Days: 30}
	})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	// A crash between the assets and the manifest: what is locked is as good.
	lift := c.server.Inject(costest.Fault{Action: "PutObject", Key: cos.ManifestIn(place), Status: 500})
	fails(t, sink, r, sinks.ClassTransient)
	lift()
	archive(t, sink, r)
	archive(t, sink, r)
	for _, o := range c.server.Objects(archiveBucket) {
		days := time.Until(o.RetainUntil).Hours() / 24
		if locked := days > 29 && days < 31; locked == strings.HasPrefix(o.Key, ".index/") {
			t.Errorf("%s is locked for %.1f days", o.Key, days)
		}
	}
	other := *r
	other.Assets = slices.Clone(r.Assets)
	other.Assets[1] = sinktest.Inline(r.Assets[1].Field, result.Image, "image/png", []byte("another"))
	fails(t, sink, &other, sinks.ClassPermanent, "is locked until", "differs from the one that is kept")

	key := sinks.KeyOf(r.Product, r.Token)
	err = sinktest.Erase(t.Context(), sink, key)
	if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || !strings.Contains(err.Error(), "is locked until") {
		t.Errorf("%v", err)
	}
	// The tombstone stands.
	if _, err := sink.Manifest(t.Context(), key); !errors.Is(err, sinks.ErrNotFound) {
		t.Errorf("%v", err)
	}
	must(t, sink.Check(t.Context()))
}

// Replicas that store and lock the same objects at the same time do not take each
// other's locks for refusals.
func TestLockedByAnotherReplica(t *testing.T) {
	t.Parallel()
	for _, seal := range []bool{true, false} {
		c := newCloud(t, costest.BucketOptions{ObjectLock: true}, func(c *cos.Config) {
			c.Retention = cos.Retention{Mode: "compliance", Days: 30}
			if seal {
				c.Mode, c.Seal = "pull", true
			}
		})
		replicas := []sinks.ArchiveKeeper{c.open(t, cos.Edges{}), c.open(t, cos.Edges{})}
		for seed := range 5 {
			errs := make(chan error)
			for i := range 8 {
				go func() {
					_, err := replicas[i%2].Archive(t.Context(), sinktest.Result(seed))
					errs <- err
				}()
			}
			for range 8 {
				if err := <-errs; err != nil {
					t.Errorf("sealed %v: %v", seal, err)
				}
			}
		}
	}
}

// Of a token that was left where FaceID put it, Erase removes what is there.
func TestEraseReferenced(t *testing.T) {
	t.Parallel()
	for mode, left := range map[string]int{"reference": 0, "copy": 1} {
		c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = mode })
		sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
		archive(t, sink, r)
		must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
		if n := len(c.server.Objects(faceidBucket)); n != left {
			t.Errorf("%s: %d objects of FaceID are left, want %d", mode, n, left)
		}
	}
}

// All versions go, and so do uploads that were never completed.
func TestEraseIsThorough(t *testing.T) {
	t.Parallel()
	for _, versioned := range []bool{true, false} {
		c := newCloud(t, costest.BucketOptions{Versioned: versioned}, func(c *cos.Config) { c.SinglePutLimit, c.PartSize = 1<<20, 1<<20 })
		sink, r := c.open(t, cos.Edges{}), onlyInline(0, 3<<20)
		// Neither the upload nor its end succeeds.
		lift := c.server.Inject(costest.Fault{Action: "CompleteMultipartUpload", Status: 500})
		liftAbort := c.server.Inject(costest.Fault{Action: "AbortMultipartUpload", Status: 500})
		fails(t, sink, r, sinks.ClassTransient)
		lift()
		liftAbort()
		if n := len(c.server.Uploads(archiveBucket)); n != 1 {
			t.Fatalf("%d uploads", n)
		}
		archive(t, sink, r)
		archive(t, sink, onlyInline(0, 100))
		must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
		for _, o := range c.server.Objects(archiveBucket) {
			if !strings.HasPrefix(o.Key, ".index/") {
				t.Errorf("%s is left", o.Key)
			}
		}
		if n := len(c.server.Uploads(archiveBucket)); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
		if dump := c.server.Dump(); bytes.Contains(dump, bytes.Repeat([]byte{7, 1, 9}, 20)) {
			t.Errorf("versioned %v: bytes of the asset are left", versioned)
		}
	}
}

// An Erase between the upload and the manifest wins.
func TestEraseMeanwhile(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	r := sinktest.Result(0)
	key := sinks.KeyOf(r.Product, r.Token)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	eraser := c.open(t, cos.Edges{})
	sink := c.open(t, cos.Edges{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && req.URL.Path == "/"+cos.ManifestIn(place) {
				must(t, sinktest.Erase(context.WithoutCancel(req.Context()), eraser, key))
			}
			return base.RoundTrip(req)
		})
	}})
	fails(t, sink, r, sinks.ClassErased)
	if n := len(c.server.Objects(archiveBucket)); n != 1 {
		t.Errorf("%d objects are left, want the tombstone", n)
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestForeignIndex(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	key := sinks.KeyOf(r.Product, r.Token)
	c.server.Put(archiveBucket, cos.IndexKey(key), "application/json", []byte(`{"version":2}`))
	c.server.Put(archiveBucket, ".index/notes.txt", "text/plain", nil)
	fails(t, sink, r, sinks.ClassTransient, "index object", "move it away")
	if err := sinktest.Erase(t.Context(), sink, key); err == nil {
		t.Error("a foreign index object was made a tombstone")
	}
	// A manifest that is none is replaced.
	c.server.Delete(archiveBucket, cos.IndexKey(key))
	archive(t, sink, r)
	place, err := cos.PlaceOf(c.cfg.Key, r)
	must(t, err)
	c.server.Put(archiveBucket, cos.ManifestIn(place), "application/json", []byte("half"))
	archive(t, sink, r)
	if _, err := sink.Manifest(t.Context(), key); err != nil {
		t.Error(err)
	}
}

func TestCheckLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, versioned := range []bool{true, false} {
		c := newCloud(t, costest.BucketOptions{Versioned: versioned}, func(*cos.Config) {})
		sink := c.open(t, cos.Edges{})
		must(t, sink.Check(t.Context()))
		if n := c.server.Versions(archiveBucket); n != 0 {
			t.Errorf("versioned %v: %d versions of objects are left", versioned, n)
		}
		heal := c.forbid("DeleteObject")
		if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "name/cos:DeleteObject") {
			t.Errorf("%v", err)
		}
		heal()
	}
}

// Keys of more tokens than a page of a listing has.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
	sink := c.open(t, cos.Edges{})
	var want []sinks.Key
	for i := range 1050 {
		key := sinks.KeyOf(result.Products()[i%2], fmt.Sprint("token ", i))
		folder := "f/" + key.Hash + "/"
		index := fmt.Sprintf(`{"version":1,"product":%q,"token_hash":%q,"folder":%q,"name":"{field}"}`, key.Product, key.Hash, folder)
		c.server.Put(archiveBucket, cos.IndexKey(key), "application/json", []byte(index))
		c.server.Put(archiveBucket, folder+"manifest.json", "application/json", nil)
		want = append(want, key)
	}
	slices.SortFunc(want, sinks.Key.Compare)
	var got []sinks.Key
	for key, err := range sink.Keys(t.Context(), sinks.Key{}) {
		must(t, err)
		got = append(got, key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	lift := c.server.Inject(costest.Fault{Action: "GetObject", Status: 500})
	defer lift()
	for _, err := range sink.Keys(t.Context(), sinks.Key{}) {
		if err == nil || !strings.Contains(err.Error(), "in trouble") {
			t.Errorf("%v", err)
		}
	}
}

// What somebody did to an object is seen when it is read.
func TestOpenAssetThatDiffers(t *testing.T) {
	t.Parallel()
	for _, seal := range []bool{false, true} {
		c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode, c.Seal = "pull", seal })
		sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
		receipts := archive(t, sink, r)
		key, object := sinks.KeyOf(r.Product, r.Token), keysOf(receipts)[1]
		whole, _ := c.server.Body(archiveBucket, object)
		for name, body := range map[string][]byte{
			"shorter": whole[:len(whole)-1], "longer": append(slices.Clone(whole), 0), "empty": nil,
			"other": append([]byte{whole[0] ^ 1}, whole[1:]...), "end": append(slices.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1),
		} {
			c.server.Put(archiveBucket, object, "image/png", body)
			asset, err := sink.OpenAsset(t.Context(), key, receipts[1])
			if err == nil {
				_, err = io.ReadAll(asset)
				must(t, asset.Close())
			}
			if err == nil {
				t.Errorf("sealed %v: %s bytes are read without complaint", seal, name)
			}
		}
		c.server.Delete(archiveBucket, object)
		if _, err := sink.OpenAsset(t.Context(), key, receipts[1]); !errors.Is(err, sinks.ErrNotFound) {
			t.Errorf("%v", err)
		}
	}
}

// A referenced object that is gone or may not be read is not found.
func TestOpenReferenced(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode = "reference" })
	sink, r := c.open(t, cos.Edges{}), onlyForeign(0)
	receipt := archive(t, sink, r)[0]
	if receipt.Location != "cos://"+faceidBucket+"/liveness/2026/0.mp4" {
		t.Errorf("%+v", receipt)
	}
	key := sinks.KeyOf(r.Product, r.Token)
	asset, err := sink.OpenAsset(t.Context(), key, receipt)
	must(t, err)
	b, err := io.ReadAll(asset)
	must(t, errors.Join(err, asset.Close()))
	if !bytes.Equal(b, foreign("liveness/2026/0.mp4")) {
		t.Error("other bytes")
	}
	c.credential(costest.Credential{SecretID: secretID, SecretKey: secretKey, Allow: func(_, in, _ string) bool { return in != faceidBucket }})
	if _, err := sink.OpenAsset(t.Context(), key, receipt); !errors.Is(err, sinks.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

func TestSealNeedsAKeyring(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode, c.Seal = "pull", true })
	env := c.env()
	env.Policy = plainPolicy(t)
	if _, err := cos.OpenWith(t.Context(), *c.cfg, env, cos.Edges{}); err == nil || !strings.Contains(err.Error(), "keyring") {
		t.Errorf("%v", err)
	}
}

// Nothing that could be shown is in the bucket when the archive seals.
func TestSealedObjects(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Mode, c.Seal = "pull", true })
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	receipts := archive(t, sink, r)
	for i, key := range keysOf(receipts) {
		body, there := c.server.Body(archiveBucket, key)
		if !there || !bytes.HasPrefix(body, []byte("FIMEDIA")) || receipts[i].Size == int64(len(body)) {
			t.Errorf("%s is not sealed", key)
		}
	}
	for _, o := range c.server.Objects(archiveBucket) {
		if strings.Contains(o.Key, "BestFrame") && o.ContentType != "application/octet-stream" {
			t.Errorf("%s is said to be %s", o.Key, o.ContentType)
		}
	}
	// Turned off, the next delivery stores it plainly; and back on.
	c.cfg.Seal = false
	archive(t, c.open(t, cos.Edges{}), r)
	if body, _ := c.server.Body(archiveBucket, keysOf(receipts)[0]); bytes.HasPrefix(body, []byte("FIMEDIA")) {
		t.Error("still sealed")
	}
}
