package cos_test

import (
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

// A bucket that cannot lock what is to be locked is told before the first result comes.
func TestCheckObjectLock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		locks bool
		// allow is what the key may do.
		allow func(action, bucket, key string) bool
		says  string
	}{
		"enabled":          {true, nil, ""},
		"missing":          {false, nil, "enable object lock"},
		"nobody may ask":   {true, func(action, _, _ string) bool { return action != "GetBucketObjectLockConfiguration" }, ""},
		"nothing may read": {true, func(action, _, _ string) bool { return action != "GetObject" }, "name/cos:GetObject"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, costest.BucketOptions{ObjectLock: tt.locks}, func(c *cos.Config) {
				c.Retention = cos.Retention{Mode: "compliance", Days: 1}
			})
			c.server.AddCredential(costest.Credential{SecretID: secretID, SecretKey: secretKey, Allow: tt.allow})
			says(t, c.open(t, cos.Edges{}).Check(t.Context()), tt.says)
		})
	}
}

// The bucket of FaceID is tried as an asset would be taken from it.
func TestCheckSource(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bucket string
		allow  func(action, bucket, key string) bool
		says   string
	}{
		"there":       {faceidBucket, nil, ""},
		"missing":     {"nowhere-1250000000", nil, "there is no such bucket"},
		"not allowed": {faceidBucket, func(_, bucket, _ string) bool { return bucket != faceidBucket }, "name/cos:GetObject"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCloud(t, costest.BucketOptions{}, func(*cos.Config) {})
			c.server.AddCredential(costest.Credential{SecretID: secretID, SecretKey: secretKey, Allow: tt.allow})
			sink, err := cos.OpenWith(t.Context(), *c.cfg, c.env(), cos.Edges{})
			must(t, err)
			t.Cleanup(func() { must(t, sink.Close(t.Context())) })
			says(t, sink.CheckSource(t.Context(), tt.bucket, region), tt.says)
		})
	}
}

// says checks the words of an error; empty means that there is none.
func says(t *testing.T, err error, words string) {
	t.Helper()
	if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
		t.Errorf("%v, want %q", err, words)
	}
}
