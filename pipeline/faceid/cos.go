package faceid

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// maxKey is the longest object key of COS, in bytes.
const maxKey = 850

// cosHost matches the host of a bucket: <bucket>-<appid>.cos.<region>.myqcloud.com
// or its internal and accelerated-domain relatives of one region.
var cosHost = regexp.MustCompile(`^([a-z0-9][a-z0-9-]*-[0-9]+)\.cos(?:-internal)?\.([a-z]+(?:-[a-z0-9]+)+)\.(?:myqcloud\.com|tencentcos\.cn)$`)

// resolver finds out where the path of an answer points. What such a path looks
// like is not documented (FACTS §6.1), so every form there is evidence for is
// taken: a URL, a host without scheme, a key with and without leading slash.
type resolver struct{ storage Storage }

// resolve returns the object that text names; bucket is what the answer said of
// the bucket, or empty. Errors hold nothing of the key. Only the configured
// bucket is accepted: an answer must not choose where credentials are sent.
func (r resolver) resolve(text, bucket string) (result.COSObject, error) {
	object, err := r.parse(strings.TrimSpace(text), bucket)
	if err != nil {
		return result.COSObject{}, err
	}
	if r.storage.Bucket == "" {
		return result.COSObject{}, errors.New("the result lies in COS, but the account has no storage.bucket configured")
	}
	if object.Bucket != r.storage.Bucket || object.Region != r.storage.Region {
		return result.COSObject{}, fmt.Errorf("the result lies in another bucket or region than storage.bucket %s in %s", r.storage.Bucket, r.storage.Region)
	}
	return object, checkKey(object.Key)
}

func (r resolver) parse(text, bucket string) (result.COSObject, error) {
	if bucket == "" {
		bucket = r.storage.Bucket
	}
	object := result.COSObject{Bucket: bucket, Region: r.storage.Region}
	scheme, _, isURL := strings.Cut(text, "://")
	host, _, _ := strings.Cut(text, "/")
	switch {
	case isURL && scheme != "https" && scheme != "http":
		return object, errors.New("the path in COS has an unknown scheme")
	case !isURL && !cosHost.MatchString(strings.ToLower(host)):
		object.Key = strings.TrimPrefix(text, "/")
		return object, nil
	case !isURL:
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.Port() != "" {
		return object, errors.New("the path in COS is not a valid URL")
	}
	parts := cosHost.FindStringSubmatch(strings.ToLower(u.Host))
	if parts == nil {
		return object, errors.New("the path in COS names a host that is not a COS bucket")
	}
	return result.COSObject{Bucket: parts[1], Region: parts[2], Key: strings.TrimPrefix(u.Path, "/")}, nil
}

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the path in COS has no key")
	case len(key) > maxKey:
		return fmt.Errorf("the path in COS is longer than %d bytes", maxKey)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the path in COS has characters that no key has")
	case path.Clean("/"+key) != "/"+key:
		return errors.New("the path in COS is not in its simplest form")
	}
	return nil
}

// typeByName returns the media type that an object's name shows.
func typeByName(key string) string {
	switch strings.ToLower(path.Ext(key)) {
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".png":
		return "image/png"
	case ".bmp":
		return "image/bmp"
	case ".mp4":
		return "video/mp4"
	case ".mov":
		return "video/quicktime"
	case ".webm":
		return "video/webm"
	case ".wav":
		return "audio/wav"
	case ".mp3":
		return "audio/mpeg"
	case ".amr":
		return "audio/amr"
	}
	return "application/octet-stream"
}
