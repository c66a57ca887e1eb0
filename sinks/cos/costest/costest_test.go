package costest_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tencentyun/cos-go-sdk-v5"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	bucket = "media-1250000000"
	region = "ap-guangzhou"
)

func start(t testing.TB, options costest.Options) *costest.Server {
	t.Helper()
	s, err := costest.Start(context.WithoutCancel(t.Context()), options)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	s.AddCredential(costest.Credential{SecretID: "id", SecretKey: "key"})
	s.CreateBucket(bucket, region, costest.BucketOptions{})
	return s
}

// client is the SDK's, which signs as COS wants it.
func client(t testing.TB, s *costest.Server, bucket string, keys *cos.AuthorizationTransport) *cos.Client {
	t.Helper()
	u, err := url.Parse(s.URL())
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	keys.Transport = transport
	c := cos.NewClient(&cos.BaseURL{BucketURL: u}, &http.Client{Transport: keys})
	c.Host = bucket + ".cos." + region + ".myqcloud.com"
	c.Conf.RetryOpt.Count = 1
	return c
}

func standard(t testing.TB, s *costest.Server) *cos.Client {
	t.Helper()
	return client(t, s, bucket, &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused returns the status and code of a refusal.
func refused(t testing.TB, err error) string {
	t.Helper()
	var r *cos.ErrorResponse
	if !errors.As(err, &r) {
		t.Fatalf("not a refusal of COS: %v", err)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", r.Response.StatusCode, r.Code))
}

func put(t testing.TB, c *cos.Client, key, body string, change func(*cos.ObjectPutHeaderOptions)) error {
	t.Helper()
	o := &cos.ObjectPutHeaderOptions{ContentType: "text/plain", XOptionHeader: &http.Header{}}
	if change != nil {
		change(o)
	}
	_, err := c.Object.Put(t.Context(), key, strings.NewReader(body), &cos.ObjectPutOptions{ObjectPutHeaderOptions: o})
	return err
}

func TestWhoMayWhat(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	s.AddCredential(costest.Credential{SecretID: "temporary", SecretKey: "key", Token: "token"})
	s.AddCredential(costest.Credential{SecretID: "reader", SecretKey: "key", Allow: func(action, _, _ string) bool {
		return action == "GetObject"
	}})
	for _, test := range []struct {
		name string
		keys *cos.AuthorizationTransport
		want string
	}{
		{"right", &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"}, ""},
		{"another key", &cos.AuthorizationTransport{SecretID: "id", SecretKey: "yek"}, "403 SignatureDoesNotMatch"},
		{"unknown id", &cos.AuthorizationTransport{SecretID: "di", SecretKey: "key"}, "403 InvalidAccessKeyId"},
		{"no keys", &cos.AuthorizationTransport{}, "403 AccessDenied"},
		{"with token", &cos.AuthorizationTransport{SecretID: "temporary", SecretKey: "key", SessionToken: "token"}, ""},
		{"without token", &cos.AuthorizationTransport{SecretID: "temporary", SecretKey: "key"}, "403 InvalidAccessKeyId"},
		{"no permission", &cos.AuthorizationTransport{SecretID: "reader", SecretKey: "key"}, "403 AccessDenied"},
	} {
		err := put(t, client(t, s, bucket, test.keys), "a", "body", nil)
		if test.want == "" {
			must(t, err)
		} else if got := refused(t, err); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	elsewhere := client(t, s, "elsewhere-1250000000", &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"})
	if got := refused(t, put(t, elsewhere, "a", "", nil)); got != "404 NoSuchBucket" {
		t.Error(got)
	}
}

// What is changed on the way is not under the signature any more.
func TestSignatureCoversTheRequest(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request){
		"host":      func(r *http.Request) { r.Host = strings.Replace(r.Host, "media", "other", 1) },
		"path":      func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/b", "" },
		"method":    func(r *http.Request) { r.Method = http.MethodPost },
		"parameter": func(r *http.Request) { r.URL.RawQuery = "acl" },
		"header":    func(r *http.Request) { r.Header.Set("Content-Type", "text/html") },
		"own":       func(r *http.Request) { r.Header.Set("X-Cos-Acl", "public-read") },
		"time": func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "q-key-time=1", "q-key-time=0", 1))
		},
	} {
		s := start(t, costest.Options{})
		s.CreateBucket("other-1250000000", region, costest.BucketOptions{})
		keys := &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"}
		c := client(t, s, bucket, keys)
		keys.Transport = meddling{keys.Transport, change}
		if got := refused(t, put(t, c, "a", "body", nil)); got != "403 SignatureDoesNotMatch" {
			t.Errorf("%s: %s", name, got)
		}
		if len(s.Objects(bucket)) > 0 {
			t.Errorf("%s: something was stored", name)
		}
	}
}

type meddling struct {
	http.RoundTripper
	change func(*http.Request)
}

func (m meddling) RoundTrip(r *http.Request) (*http.Response, error) {
	m.change(r)
	return m.RoundTripper.RoundTrip(r)
}

func TestKeyTime(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{2 * time.Hour, -time.Hour} {
		s := start(t, costest.Options{Now: func() time.Time { return time.Now().Add(off) }})
		if got := refused(t, put(t, standard(t, s), "a", "body", nil)); got != "403 AccessDenied" {
			t.Errorf("%s: %s", off, got)
		}
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	c := standard(t, s)
	key := "a folder/ä?&%2F.txt"
	sum := md5.Sum([]byte("some bytes"))
	must(t, put(t, c, key, "some bytes", func(o *cos.ObjectPutHeaderOptions) {
		o.ContentMD5 = base64.StdEncoding.EncodeToString(sum[:])
		o.XCosMetaXXX = &http.Header{"X-Cos-Meta-Note": {"a note"}}
		o.XCosStorageClass, o.XCosServerSideEncryption = "STANDARD_IA", "AES256"
		o.XOptionHeader.Set("X-Cos-Tagging", "a=b")
	}))
	head, err := c.Object.Head(t.Context(), key, nil)
	must(t, err)
	for name, want := range map[string]string{
		"Content-Length": "10", "Content-Type": "text/plain", "X-Cos-Meta-Note": "a note", "X-Cos-Storage-Class": "STANDARD_IA",
		"X-Cos-Server-Side-Encryption": "AES256", "X-Cos-Hash-Crc64ecma": fmt.Sprint(crc64.Checksum([]byte("some bytes"), crc64.MakeTable(crc64.ECMA))),
	} {
		if got := head.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	got, err := c.Object.Get(t.Context(), key, &cos.ObjectGetOptions{Range: "bytes=5-7"})
	must(t, err)
	if b := read(t, got.Body); b != "byt" || got.StatusCode != http.StatusPartialContent {
		t.Errorf("%d %q", got.StatusCode, b)
	}
	tags, _, err := c.Object.GetTagging(t.Context(), key)
	must(t, err)
	if len(tags.TagSet) != 1 || tags.TagSet[0].Key != "a" || tags.TagSet[0].Value != "b" {
		t.Errorf("%v", tags.TagSet)
	}
	for want, err := range map[string]error{
		"400 BadDigest":           put(t, c, "b", "other bytes", func(o *cos.ObjectPutHeaderOptions) { o.ContentMD5 = base64.StdEncoding.EncodeToString(sum[:]) }),
		"409 FileAlreadyExists":   put(t, c, key, "x", func(o *cos.ObjectPutHeaderOptions) { o.XOptionHeader.Set("X-Cos-Forbid-Overwrite", "true") }),
		"400 InvalidStorageClass": put(t, c, "b", "x", func(o *cos.ObjectPutHeaderOptions) { o.XCosStorageClass = "COLD" }),
		"400 KeyTooLong":          put(t, c, strings.Repeat("k", 851), "x", nil),
	} {
		if got := refused(t, err); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	_, err = c.Object.Delete(t.Context(), key)
	must(t, err)
	_, err = c.Object.Get(t.Context(), key, nil)
	if got := refused(t, err); got != "404 NoSuchKey" {
		t.Error(got)
	}
}

func read(t testing.TB, body io.ReadCloser) string {
	t.Helper()
	b, err := io.ReadAll(body)
	must(t, errors.Join(err, body.Close()))
	return string(b)
}

func TestMultipart(t *testing.T) {
	t.Parallel()
	for _, dropped := range []bool{false, true} {
		s := start(t, costest.Options{DigestsOnly: dropped})
		c := standard(t, s)
		body := make([]byte, 3<<20+7)
		_, _ = rand.NewChaCha8([32]byte{}).Read(body)
		started, _, err := c.Object.InitiateMultipartUpload(t.Context(), "large", nil)
		must(t, err)
		var done cos.CompleteMultipartUploadOptions
		for i, part := range slices.Collect(slices.Chunk(body, 1<<20)) {
			resp, err := c.Object.UploadPart(t.Context(), "large", started.UploadID, i+1, bytes.NewReader(part), nil)
			must(t, err)
			done.Parts = append(done.Parts, cos.Object{PartNumber: i + 1, ETag: resp.Header.Get("ETag")})
		}
		listed, _, err := c.Object.ListParts(t.Context(), "large", started.UploadID, nil)
		must(t, err)
		if len(listed.Parts) != 4 || len(s.Uploads(bucket)) != 1 {
			t.Errorf("%d parts, uploads %v", len(listed.Parts), s.Uploads(bucket))
		}
		_, resp, err := c.Object.CompleteMultipartUpload(t.Context(), "large", started.UploadID, &done)
		must(t, err)
		if want := fmt.Sprint(crc64.Checksum(body, crc64.MakeTable(crc64.ECMA))); resp.Header.Get("X-Cos-Hash-Crc64ecma") != want {
			t.Errorf("the CRC is %s, want %s", resp.Header.Get("X-Cos-Hash-Crc64ecma"), want)
		}
		if got, _ := s.Body(bucket, "large"); !dropped && !bytes.Equal(got, body) {
			t.Error("other bytes")
		}
		again, _, err := c.Object.InitiateMultipartUpload(t.Context(), "large", nil)
		must(t, err)
		_, err = c.Object.AbortMultipartUpload(t.Context(), "large", again.UploadID)
		must(t, err)
		_, err = c.Object.UploadPart(t.Context(), "large", again.UploadID, 1, strings.NewReader("x"), nil)
		if got := refused(t, err); got != "404 NoSuchUpload" || len(s.Uploads(bucket)) != 0 {
			t.Error(got, s.Uploads(bucket))
		}
	}
}

func TestCopy(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	s.CreateBucket("source-1250000000", region, costest.BucketOptions{})
	s.Put("source-1250000000", "a b/c", "text/plain", []byte("bytes"))
	s.AddCredential(costest.Credential{SecretID: "writer", SecretKey: "key", Allow: func(_, in, _ string) bool { return in == bucket }})
	from := "source-1250000000.cos.ap-guangzhou.myqcloud.com/a b/c"
	_, _, err := standard(t, s).Object.Copy(t.Context(), "copy", from, nil)
	must(t, err)
	if got, _ := s.Body(bucket, "copy"); string(got) != "bytes" {
		t.Errorf("%q", got)
	}
	_, _, err = client(t, s, bucket, &cos.AuthorizationTransport{SecretID: "writer", SecretKey: "key"}).Object.Copy(t.Context(), "copy", from, nil)
	if got := refused(t, err); got != "403 AccessDenied" {
		t.Error(got)
	}
	_, _, err = standard(t, s).Object.Copy(t.Context(), "copy", from+"d", nil)
	if got := refused(t, err); got != "404 NoSuchKey" {
		t.Error(got)
	}
}

func TestListing(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	c := standard(t, s)
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("x/%02d é", i)
		s.Put(bucket, key, "text/plain", nil)
		want = append(want, key)
	}
	s.Put(bucket, "y", "text/plain", nil)
	var got []string
	for marker := ""; ; {
		page, _, err := c.Bucket.Get(t.Context(), &cos.BucketGetOptions{Prefix: "x/", Marker: marker, MaxKeys: 10, EncodingType: "url"})
		must(t, err)
		for _, o := range page.Contents {
			key, err := cos.DecodeURIComponent(o.Key)
			must(t, err)
			got = append(got, key)
		}
		if !page.IsTruncated {
			break
		}
		marker = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	deleted, _, err := c.Object.DeleteMulti(t.Context(), &cos.ObjectDeleteMultiOptions{Objects: []cos.Object{{Key: want[0]}, {Key: "y"}}})
	must(t, err)
	if len(deleted.DeletedObjects) != 2 || len(s.Objects(bucket)) != 24 {
		t.Errorf("%v, %d left", deleted, len(s.Objects(bucket)))
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	const versioned = "versioned-1250000000"
	s.CreateBucket(versioned, region, costest.BucketOptions{Versioned: true})
	c := client(t, s, versioned, &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"})
	for range 3 {
		must(t, put(t, c, "a", "body", func(o *cos.ObjectPutHeaderOptions) { o.XOptionHeader.Set("X-Cos-Forbid-Overwrite", "true") }))
	}
	resp, err := c.Object.Delete(t.Context(), "a")
	must(t, err)
	if resp.Header.Get("X-Cos-Delete-Marker") != "true" || len(s.Objects(versioned)) != 0 || s.Versions(versioned) != 4 {
		t.Errorf("%v, %d versions", resp.Header, s.Versions(versioned))
	}
	for options := (&cos.BucketGetObjectVersionsOptions{MaxKeys: 1}); ; {
		page, _, err := c.Bucket.GetObjectVersions(t.Context(), options)
		must(t, err)
		ids := []string{}
		for _, v := range page.Version {
			ids = append(ids, v.VersionId)
		}
		for _, v := range page.DeleteMarker {
			ids = append(ids, v.VersionId)
		}
		if len(ids) != 1 {
			t.Fatalf("%v", ids)
		}
		_, err = c.Object.Delete(t.Context(), "a", &cos.ObjectDeleteOptions{XOptionQuery: &url.Values{"versionId": ids}})
		must(t, err)
		if !page.IsTruncated {
			break
		}
	}
	if n := s.Versions(versioned); n != 0 {
		t.Errorf("%d versions are left", n)
	}
}

func TestObjectLock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := start(t, costest.Options{Now: func() time.Time { return now }})
	const locking = "locking-1250000000"
	s.CreateBucket(locking, region, costest.BucketOptions{ObjectLock: true})
	c := client(t, s, locking, &cos.AuthorizationTransport{SecretID: "id", SecretKey: "key"})
	until := now.Add(time.Hour).UTC().Format(time.RFC3339)
	lock := func(o *cos.ObjectPutHeaderOptions) {
		o.XOptionHeader.Set("X-Cos-Object-Lock-Mode", "COMPLIANCE")
		o.XOptionHeader.Set("X-Cos-Object-Lock-Retain-Until-Date", until)
	}
	must(t, put(t, c, "a", "body", lock))
	must(t, put(t, c, "b", "body", nil))
	_, err := c.Object.PutRetention(t.Context(), "b", &cos.ObjectPutRetentionOptions{Mode: "COMPLIANCE", RetainUntilDate: until})
	must(t, err)
	kept, _, err := c.Object.GetRetention(t.Context(), "b", &cos.ObjectGetRetentionOptions{})
	must(t, err)
	if kept.RetainUntilDate != until {
		t.Errorf("%v", kept)
	}
	for _, key := range []string{"a", "b"} {
		_, err := c.Object.Delete(t.Context(), key)
		for _, err := range []error{err, put(t, c, key, "other", nil)} {
			if got := refused(t, err); got != "403 AccessDenied" {
				t.Error(got)
			}
		}
	}
	if got := refused(t, put(t, standard(t, s), "a", "body", lock)); got != "400 InvalidRequest" {
		t.Error(got)
	}
	now = now.Add(2 * time.Hour)
	// The SDK signs by the real clock, and would be too late for the server's.
	s.Delete(locking, "a")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := start(t, costest.Options{})
	c := standard(t, s)
	s.Put(bucket, "a", "text/plain", []byte("some bytes"))
	lift := s.Inject(costest.Fault{Action: "GetObject", Key: "a", Times: 2, Status: 404, Code: "NoSuchKey"})
	for range 2 {
		_, err := c.Object.Get(t.Context(), "a", nil)
		if got := refused(t, err); got != "404 NoSuchKey" {
			t.Error(got)
		}
	}
	resp, err := c.Object.Get(t.Context(), "a", nil)
	must(t, err)
	_ = read(t, resp.Body)
	lift()

	lift = s.Inject(costest.Fault{CutBody: 4})
	resp, err = c.Object.Get(t.Context(), "a", nil)
	must(t, err)
	if b, err := io.ReadAll(resp.Body); string(b) != "some" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
	must(t, resp.Body.Close())
	lift()

	lift = s.Inject(costest.Fault{WrongCRC: true})
	if err := put(t, c, "b", "body", nil); err == nil || !strings.Contains(err.Error(), "verification failed") {
		t.Errorf("%v", err)
	}
	lift()
	lift = s.Inject(costest.Fault{LoseAnswer: true})
	if err := put(t, c, "c", "body", nil); err == nil {
		t.Error("an answer came")
	}
	lift()
	if _, there := s.Body(bucket, "c"); !there {
		t.Error("the request had no effect")
	}
	lift = s.Inject(costest.Fault{CopyError: true})
	_, _, err = c.Object.Copy(t.Context(), "d", bucket+".cos.ap-guangzhou.myqcloud.com/a", nil)
	if got := refused(t, err); got != "200 InternalError" {
		t.Error(got)
	}
	lift()
	revive := s.Die()
	if err := put(t, c, "d", "body", nil); err == nil {
		t.Error("a dead server answered")
	}
	revive()
	lift = s.Inject(costest.Fault{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Object.Head(ctx, "a", nil); !errors.Is(ctx.Err(), context.DeadlineExceeded) || err == nil {
		t.Errorf("%v", err)
	}
	lift()
	defer s.Inject(costest.Fault{Delay: time.Millisecond, Times: 1})()
	must(t, put(t, c, "d", "body", nil))
}

// The CRC of parts in a row is that of the whole.
func TestCombinedCRC(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		table := crc64.MakeTable(crc64.ECMA)
		got := costest.Combine(crc64.Checksum(a, table), crc64.Checksum(b, table), int64(len(b)))
		if want := crc64.Checksum(slices.Concat(a, b), table); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

func Example() {
	s, err := costest.Start(context.Background(), costest.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Close() }()
	s.AddCredential(costest.Credential{SecretID: "AKIDinvented", SecretKey: "invented"})
	s.CreateBucket("media-1250000000", "ap-guangzhou", costest.BucketOptions{})
	// … let the program under test write to s.URL() …
	fmt.Println(len(s.Objects("media-1250000000")), "objects")
	// Output: 0 objects
}
