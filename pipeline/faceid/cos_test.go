package faceid

import (
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

var ours = resolver{storage: Storage{Bucket: "faceid-1250000000", Region: "ap-guangzhou"}}

func TestResolve(t *testing.T) {
	const key = "faceid/2026/11/24/video.mp4"
	for _, test := range []struct {
		text, bucket string
		// want is the key, or part of the error after "!".
		want string
	}{
		{key, "", key},
		{key, "faceid-1250000000", key},
		{"/" + key, "", key},
		{" " + key + "\n", "", key},
		{"faceid-1250000000.cos.ap-guangzhou.myqcloud.com/" + key, "", key},
		{"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/" + key, "", key},
		{"http://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/" + key + "?sign=old", "", key},
		{"https://FACEID-1250000000.cos-internal.ap-guangzhou.tencentcos.cn/" + key, "", key},
		{"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/a%5B0%5D%20b.jpg", "", "a[0] b.jpg"},
		{"目录/照片.jpg", "", "目录/照片.jpg"},
		{"9j/x.jpg", "", "9j/x.jpg"},

		{key, "other-1250000000", "!another bucket"},
		{"https://other-1250000000.cos.ap-guangzhou.myqcloud.com/" + key, "", "!another bucket"},
		{"https://faceid-1250000000.cos.ap-beijing.myqcloud.com/" + key, "", "!another bucket or region"},
		{"https://evil.example/" + key, "", "!not a COS bucket"},
		{"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com.evil.example/" + key, "", "!not a COS bucket"},
		{"https://169.254.0.23/" + key, "", "!not a COS bucket"},
		{"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com:8443/" + key, "", "!not a valid URL"},
		{"https://user@faceid-1250000000.cos.ap-guangzhou.myqcloud.com/" + key, "", "!not a valid URL"},
		{"file:///etc/passwd", "", "!unknown scheme"},
		{"https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/", "", "!no key"},
		{"/", "", "!no key"},
		{"a/../b", "", "!simplest form"},
		{"a//b", "", "!simplest form"},
		{"a\x00b", "", "!characters"},
		{"a\xffb", "", "!characters"},
		{strings.Repeat("k", 851), "", "!longer than 850 bytes"},
	} {
		object, err := ours.resolve(test.text, test.bucket)
		if wrong, isError := strings.CutPrefix(test.want, "!"); isError {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%q: %+v, %v; want an error with %q", test.text, object, err, wrong)
			}
			continue
		}
		want := result.COSObject{Bucket: "faceid-1250000000", Region: "ap-guangzhou", Key: test.want}
		if err != nil || object != want {
			t.Errorf("%q: %+v, %v", test.text, object, err)
		}
	}
	if _, err := (resolver{}).resolve(key, "faceid-1250000000"); err == nil || !strings.Contains(err.Error(), "no storage.bucket configured") {
		t.Errorf("an account without data storage: %v", err)
	}
}

// FuzzResolve looks for a text that leads out of the configured bucket.
func FuzzResolve(f *testing.F) {
	f.Add("faceid/2026/video.mp4", "")
	f.Add("https://faceid-1250000000.cos.ap-guangzhou.myqcloud.com/a%2e%2e/b?x#y", "")
	f.Add("faceid-1250000000.cos.ap-guangzhou.myqcloud.com/../x", "other-1")
	f.Add("http://[::1]/", "faceid-1250000000")
	f.Fuzz(func(t *testing.T, text, bucket string) {
		object, err := ours.resolve(text, bucket)
		if err != nil {
			return
		}
		if object.Bucket != ours.storage.Bucket || object.Region != ours.storage.Region {
			t.Fatalf("led to %+v", object)
		}
		if object.Key == "" || len(object.Key) > 850 || !utf8.ValidString(object.Key) || "/"+object.Key != path.Clean("/"+object.Key) {
			t.Fatalf("the key is %q", object.Key)
		}
	})
}
