package cos

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // COS defines Content-MD5 so
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/tencentyun/cos-go-sdk-v5"
)

// bucket is a client of one bucket. It is the only place that sees the SDK: what
// comes out of it are this package's types, and errors in words with a class.
type bucket struct {
	name, region string
	sdk          *cos.Client
}

func (b *bucket) String() string { return "bucket " + b.name }

// lastWords returns a context in which something may be tidied up although the
// caller has given up.
func lastWords(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// usable tells whether the SDK can address a key: "." and ".." would become the
// bucket itself.
func usable(key string) bool { return key != "" && key != "." && key != ".." && len(key) <= maxKey }

// exists asks for the bucket. An answer to HEAD has no code that would tell wrong keys
// from a missing permission, so where it is refused a listing is asked for.
func (b *bucket) exists(ctx context.Context) error {
	_, err := b.sdk.Bucket.Head(ctx)
	if err == nil {
		return nil
	}
	if cos.IsNotFoundError(bare(err)) {
		return fmt.Errorf("%s: HeadBucket: %w in region %s: check bucket and region, or create it", b, errNoBucket, b.region)
	}
	err = b.fail("HeadBucket", err)
	if errors.Is(err, errForbidden) {
		if _, _, listErr := b.list(ctx, indexPrefix, ""); errors.Is(listErr, errForbidden) {
			return listErr
		}
	}
	return err
}

// locks asks whether objects can be locked. Whoever may not ask learns it when the first
// object is locked.
func (b *bucket) locks(ctx context.Context) error {
	lock, _, err := b.sdk.Bucket.GetObjectLockConfiguration(ctx)
	if err != nil && !cos.IsNotFoundError(bare(err)) {
		err = b.fail("GetBucketObjectLockConfiguration", err)
		if errors.Is(err, errForbidden) {
			return nil
		}
		return err
	}
	if err != nil || lock.ObjectLockEnabled != "Enabled" {
		return fmt.Errorf("%s: it has no object lock, so nothing can be kept from being removed: enable object lock for the bucket, or take retention out", b)
	}
	return nil
}

// stat is what COS says of an object.
type stat struct {
	size int64
	// crc is empty if COS does not know it.
	crc string
	// sha256 is what this package noted when it stored the object.
	sha256 string
}

// head asks for an object; the error is errNoObject if it is not there, which an
// answer to HEAD does not tell from a bucket that is not.
func (b *bucket) head(ctx context.Context, key string) (stat, error) {
	resp, err := b.sdk.Object.Head(ctx, key, nil)
	if err != nil {
		err = b.fail("HeadObject", err)
		if errors.Is(err, errNoObject) {
			if err := b.exists(ctx); errors.Is(err, errNoBucket) {
				return stat{}, err
			}
		}
		return stat{}, err
	}
	return stat{resp.ContentLength, resp.Header.Get("X-Cos-Hash-Crc64ecma"), resp.Header.Get("X-Cos-Meta-Sha256")}, nil
}

// get opens n bytes of an object from offset on; n of -1 means to its end.
func (b *bucket) get(ctx context.Context, key string, offset, n int64) (*download, error) {
	var options cos.ObjectGetOptions
	switch {
	case n >= 0:
		options.Range = fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)
	case offset > 0:
		options.Range = fmt.Sprintf("bytes=%d-", offset)
	}
	resp, err := b.sdk.Object.Get(ctx, key, &options)
	if err != nil {
		return nil, b.fail("GetObject", err)
	}
	if options.Range != "" && resp.StatusCode != http.StatusPartialContent {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: GetObject: COS sent the whole object where a part was asked for", b)
	}
	return &download{resp.Body, b, resp.Header.Get("X-Cos-Version-Id")}, nil
}

// download is the body of an object.
type download struct {
	io.ReadCloser
	bucket *bucket
	// version is empty in a bucket without versions.
	version string
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.bucket.fail("GetObject", err)
	}
	return n, err
}

// getSmall reads a whole object of limit bytes at most. It also returns the version
// that it is in a bucket with versions, and else "".
func (b *bucket) getSmall(ctx context.Context, key string, limit int) (content []byte, version string, err error) {
	body, err := b.get(ctx, key, 0, -1)
	if err != nil {
		return nil, "", err
	}
	content, err = readSmall(body, limit)
	return content, body.version, err
}

// getVersion reads a version of a small object.
func (b *bucket) getVersion(ctx context.Context, key, version string, limit int) ([]byte, error) {
	resp, err := b.sdk.Object.Get(ctx, key, nil, url.QueryEscape(version))
	if err != nil {
		return nil, b.fail("GetObject", err)
	}
	return readSmall(&download{ReadCloser: resp.Body, bucket: b}, limit)
}

// readSmall reads one byte more than the limit, so that parsers see what is too
// long.
func readSmall(body io.ReadCloser, limit int) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(body, int64(limit)+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	return content, nil
}

// plainHeaders are those of objects that are not assets.
func plainHeaders() *cos.ObjectPutHeaderOptions {
	return &cos.ObjectPutHeaderOptions{ContentType: "application/json"}
}

// putSmall stores bytes that are in memory. It returns the version that they are in
// a bucket with versions, and else "".
func (b *bucket) putSmall(ctx context.Context, key string, body []byte, headers *cos.ObjectPutHeaderOptions) (version string, err error) {
	sum := md5.Sum(body) //nolint:gosec // see the import
	headers.ContentMD5 = base64.StdEncoding.EncodeToString(sum[:])
	resp, err := b.sdk.Object.Put(ctx, key, bytes.NewReader(body), &cos.ObjectPutOptions{ObjectPutHeaderOptions: headers})
	if err != nil {
		return "", b.fail("PutObject", err)
	}
	return resp.Header.Get("X-Cos-Version-Id"), nil
}

// create is putSmall of an object that must not be there yet; the error is errExists
// if it is. In a bucket with versions COS does not look (see Sink.lostTo).
func (b *bucket) create(ctx context.Context, key string, body []byte) (version string, err error) {
	headers := plainHeaders()
	headers.XOptionHeader = &http.Header{"X-Cos-Forbid-Overwrite": {"true"}}
	return b.putSmall(ctx, key, body, headers)
}

// put stores size bytes of body, which COS compares with sum, and compares the CRC-64
// that it answers with crc.
func (b *bucket) put(ctx context.Context, key string, body io.Reader, size int64, sum [md5.Size]byte, crc string, headers *cos.ObjectPutHeaderOptions) error {
	headers.ContentMD5 = base64.StdEncoding.EncodeToString(sum[:])
	headers.ContentLength = size
	if size == 0 {
		body = bytes.NewReader(nil) // which the SDK sends without chunks
	}
	resp, err := b.sdk.Object.Put(ctx, key, body, &cos.ObjectPutOptions{ObjectPutHeaderOptions: headers})
	if err != nil {
		return b.fail("PutObject", err)
	}
	if got := resp.Header.Get("X-Cos-Hash-Crc64ecma"); got != crc && (got != "" || size > 0) {
		return fmt.Errorf("%s: PutObject: %w", b, errStored)
	}
	return nil
}

// remove takes an object away for good. In a bucket with versions, an empty version
// means all of them. Removing what is not there is no error.
func (b *bucket) remove(ctx context.Context, key, version string) error {
	hides, err := b.removeVersion(ctx, key, version)
	if err != nil || !hides || version != "" {
		return err
	}
	versions, err := b.versions(ctx, key)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.key != key {
			continue
		}
		if _, err := b.removeVersion(ctx, key, v.id); err != nil {
			return err
		}
	}
	return nil
}

// removeVersion tells whether COS, instead of removing anything, put a delete marker
// in front.
func (b *bucket) removeVersion(ctx context.Context, key, version string) (hides bool, err error) {
	var options cos.ObjectDeleteOptions
	if version != "" {
		options.XOptionQuery = &url.Values{"versionId": {version}}
	}
	resp, err := b.sdk.Object.Delete(ctx, key, &options)
	if err == nil {
		return resp.Header.Get("X-Cos-Delete-Marker") == "true", nil
	}
	if err = b.fail("DeleteObject", err); errors.Is(err, errNoObject) {
		return false, nil
	}
	return false, b.whyLocked(ctx, key, version, err)
}

// whyLocked returns a better error for one that may come of an object lock.
func (b *bucket) whyLocked(ctx context.Context, key, version string, err error) error {
	if !errors.Is(err, errForbidden) {
		return err
	}
	if version != "" { // the SDK asks for the lock of the latest version only
		return fmt.Errorf("%w; or an object lock keeps this version of %s", err, key)
	}
	until, locked := b.lockedUntil(ctx, key)
	if !locked {
		return err
	}
	return &lockedError{fmt.Errorf("%s: %s is locked until %s: nobody can remove or change it before", b, key, until.UTC().Format(time.RFC3339))}
}

// lockedError says that an object lock forbids something.
type lockedError struct{ err error }

func (e *lockedError) Error() string { return e.err.Error() }

// lockedUntil asks for the object lock, without one of which, or the right to see
// it, the answer is no.
func (b *bucket) lockedUntil(ctx context.Context, key string) (time.Time, bool) {
	lock, _, err := b.sdk.Object.GetRetention(ctx, key, &cos.ObjectGetRetentionOptions{})
	if err != nil {
		return time.Time{}, false
	}
	until, err := time.Parse(time.RFC3339, lock.RetainUntilDate)
	return until, err == nil && time.Now().Before(until)
}

// lockSlack is how much shorter than asked for a lock may be that another replica set
// a moment before: it cannot be made shorter, and need not be made longer.
const lockSlack = 24 * time.Hour

// retain locks an object.
func (b *bucket) retain(ctx context.Context, key string, until time.Time) error {
	_, err := b.sdk.Object.PutRetention(ctx, key, &cos.ObjectPutRetentionOptions{
		Mode: "COMPLIANCE", RetainUntilDate: until.UTC().Format("2006-01-02T15:04:05.000Z"),
	})
	if err == nil {
		return nil
	}
	err = b.fail("PutObjectRetention", err)
	if errors.Is(err, errForbidden) {
		if there, locked := b.lockedUntil(ctx, key); locked && there.After(until.Add(-lockSlack)) {
			return nil
		}
	}
	return err
}

// pageSize is how many keys a listing asks for at once.
const pageSize = 1000

// list returns keys that begin with prefix, from the one behind marker on, and the
// marker of the next page, or "".
func (b *bucket) list(ctx context.Context, prefix, marker string) (objects []listed, next string, err error) {
	page, _, err := b.sdk.Bucket.Get(ctx, &cos.BucketGetOptions{Prefix: prefix, Marker: marker, MaxKeys: pageSize, EncodingType: "url"})
	if err != nil {
		return nil, "", b.fail("GetBucket", err)
	}
	for _, o := range page.Contents {
		key, err := cos.DecodeURIComponent(o.Key)
		if err != nil {
			return nil, "", fmt.Errorf("%s: GetBucket: a key in the listing is not URL-encoded", b)
		}
		objects = append(objects, listed{key, o.Size})
	}
	if page.IsTruncated && len(objects) > 0 {
		next = objects[len(objects)-1].key
	}
	return objects, next, nil
}

// listed is an object in a listing.
type listed struct {
	key string
	// size is in bytes.
	size int64
}

// version is one version of an object, or a delete marker.
type version struct {
	key, id string
	marker  bool
}

// versions lists all versions of keys that begin with prefix.
func (b *bucket) versions(ctx context.Context, prefix string) (all []version, err error) {
	options := &cos.BucketGetObjectVersionsOptions{Prefix: prefix, MaxKeys: pageSize, EncodingType: "url"}
	for {
		page, _, err := b.sdk.Bucket.GetObjectVersions(ctx, options)
		if err != nil {
			return nil, b.fail("GetBucketObjectVersions", err)
		}
		add := func(encoded, id string, marker bool) {
			key, keyErr := cos.DecodeURIComponent(encoded)
			err = errors.Join(err, keyErr)
			all = append(all, version{key, id, marker})
		}
		for _, v := range page.Version {
			add(v.Key, v.VersionId, false)
		}
		for _, v := range page.DeleteMarker {
			add(v.Key, v.VersionId, true)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: GetBucketObjectVersions: a key in the listing is not URL-encoded", b)
		}
		if !page.IsTruncated {
			return all, nil
		}
		next, err := cos.DecodeURIComponent(page.NextKeyMarker)
		if err != nil || next+page.NextVersionIdMarker == options.KeyMarker+options.VersionIdMarker {
			return nil, fmt.Errorf("%s: GetBucketObjectVersions: the listing does not go on", b)
		}
		options.KeyMarker, options.VersionIdMarker = next, page.NextVersionIdMarker
	}
}

// copyFrom copies an object of another bucket on COS's side.
func (b *bucket) copyFrom(ctx context.Context, key string, from *bucket, source string, headers *cos.ObjectPutHeaderOptions) error {
	extra := http.Header{}
	if headers.XOptionHeader != nil {
		extra = headers.XOptionHeader.Clone()
	}
	if extra.Get("X-Cos-Tagging") != "" {
		extra.Set("X-Cos-Tagging-Directive", "Replaced")
	}
	_, _, err := b.sdk.Object.Copy(ctx, key, from.sdk.Host+"/"+source, &cos.ObjectCopyOptions{ObjectCopyHeaderOptions: &cos.ObjectCopyHeaderOptions{
		XCosMetadataDirective: "Replaced", ContentType: headers.ContentType, XCosMetaXXX: headers.XCosMetaXXX,
		XCosStorageClass: headers.XCosStorageClass, XCosServerSideEncryption: headers.XCosServerSideEncryption,
		XOptionHeader: &extra,
	}})
	if err == nil {
		return nil
	}
	if err = b.fail("PutObject", err); errors.Is(err, errForbidden) {
		err = fmt.Errorf("%w; a copy also needs name/cos:GetObject on %s", err, from)
	}
	return err
}

// initiate begins a multipart upload.
func (b *bucket) initiate(ctx context.Context, key string, headers *cos.ObjectPutHeaderOptions) (upload string, err error) {
	started, _, err := b.sdk.Object.InitiateMultipartUpload(ctx, key, &cos.InitiateMultipartUploadOptions{ObjectPutHeaderOptions: headers})
	if err != nil {
		return "", b.fail("InitiateMultipartUpload", err)
	}
	return url.QueryEscape(started.UploadID), nil
}

// uploadPart sends a part and returns its ETag.
func (b *bucket) uploadPart(ctx context.Context, key, upload string, number int, body io.Reader, size int64, sum [md5.Size]byte) (string, error) {
	resp, err := b.sdk.Object.UploadPart(ctx, key, upload, number, body, &cos.ObjectUploadPartOptions{
		ContentLength: size, ContentMD5: base64.StdEncoding.EncodeToString(sum[:]),
	})
	if err != nil {
		return "", b.fail("UploadPart", err)
	}
	return resp.Header.Get("ETag"), nil
}

// complete puts the parts together, and compares the CRC-64 of the whole with crc.
func (b *bucket) complete(ctx context.Context, key, upload string, etags []string, crc string) error {
	options := &cos.CompleteMultipartUploadOptions{Parts: make([]cos.Object, len(etags))}
	for i, etag := range etags {
		options.Parts[i] = cos.Object{PartNumber: i + 1, ETag: etag}
	}
	_, resp, err := b.sdk.Object.CompleteMultipartUpload(ctx, key, upload, options)
	if err != nil && resp != nil && resp.Response != nil && resp.StatusCode == http.StatusOK && ctx.Err() == nil {
		// The SDK puts the whole body into the error.
		return fmt.Errorf("%s: CompleteMultipartUpload: COS began it and then failed; it is tried again", b)
	}
	if err != nil {
		return b.fail("CompleteMultipartUpload", err)
	}
	got := resp.Header.Get("X-Cos-Hash-Crc64ecma")
	if got == "" {
		whole, err := b.head(ctx, key)
		if err != nil {
			return err
		}
		got = whole.crc
	}
	if got != crc {
		return fmt.Errorf("%s: CompleteMultipartUpload: %w", b, errStored)
	}
	return nil
}

// abort gives a multipart upload up. One that is not there is no error.
func (b *bucket) abort(ctx context.Context, key, upload string) error {
	_, err := b.sdk.Object.AbortMultipartUpload(ctx, key, upload)
	if err == nil {
		return nil
	}
	if err = b.fail("AbortMultipartUpload", err); errors.Is(err, errNoObject) {
		return nil
	}
	return err
}

// abortAll gives up all multipart uploads of keys that begin with prefix.
func (b *bucket) abortAll(ctx context.Context, prefix string) error {
	for {
		page, _, err := b.sdk.Bucket.ListMultipartUploads(ctx, &cos.ListMultipartUploadsOptions{Prefix: prefix, EncodingType: "url"})
		if err != nil {
			return b.fail("ListMultipartUploads", err)
		}
		for _, u := range page.Uploads {
			key, err := cos.DecodeURIComponent(u.Key)
			if err != nil {
				return fmt.Errorf("%s: ListMultipartUploads: a key in the listing is not URL-encoded", b)
			}
			if err := b.abort(ctx, key, url.QueryEscape(u.UploadID)); err != nil {
				return err
			}
		}
		if !page.IsTruncated || len(page.Uploads) == 0 {
			return nil
		}
	}
}
