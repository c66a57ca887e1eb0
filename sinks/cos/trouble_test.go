package cos_test

import (
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// troubles are what the owner of a bucket has.
func troubles(change func(*cos.Config)) []sinktest.Trouble {
	var list []sinktest.Trouble
	add := func(name string, class sinks.Class, checkFails bool, provoke func(c *cloud) (heal func()), words ...string) {
		list = append(list, sinktest.Trouble{
			Name: name, Class: class, CheckFails: checkFails, Words: words,
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				t.Helper()
				c := newCloud(t, costest.BucketOptions{}, change)
				heal := provoke(c)
				return sinktest.Troubled{Sink: c.Open(t, env, nil), Heal: heal}
			},
		})
	}
	transient := sinks.ClassTransient
	add("the bucket is not there", transient, true, func(c *cloud) func() {
		return c.server.DeleteBucket(archiveBucket)
	}, archiveBucket, region, "check bucket and region")
	for action, in := range map[string]bool{"PutObject": true, "GetObject": true} {
		add("no right to "+action, transient, in, func(c *cloud) func() {
			return c.forbid(action)
		}, archiveBucket, "CAM policy", "name/cos:"+action, "uid/1250000000")
	}
	add("the secret key is wrong", transient, true, func(c *cloud) func() {
		return c.credential(costest.Credential{SecretID: secretID, SecretKey: "another"})
	}, archiveBucket, "check both", "SignatureDoesNotMatch")
	return append(list, faulting(change)...)
}

// faulting are the troubles that COS itself has.
func faulting(change func(*cos.Config)) []sinktest.Trouble {
	var list []sinktest.Trouble
	for name, f := range map[string]struct {
		fault costest.Fault
		class sinks.Class
		check bool
		words []string
	}{
		"COS breaks":           {costest.Fault{Status: 500, Code: "InternalError"}, sinks.ClassTransient, true, []string{archiveBucket, "in trouble"}},
		"COS is off":           {costest.Fault{Drop: true}, sinks.ClassTransient, true, []string{archiveBucket}},
		"COS is busy":          {costest.Fault{Action: "PutObject", Status: 503, Code: "SlowDown", RetryAfter: "7"}, sinks.ClassThrottled, true, []string{archiveBucket, "fewer requests", "SlowDown"}},
		"COS asks to wait":     {costest.Fault{Status: 429, RetryAfter: "7"}, sinks.ClassThrottled, true, []string{archiveBucket, "fewer requests"}},
		"no such class":        {costest.Fault{Action: "PutObject", Status: 400, Code: "InvalidStorageClass"}, sinks.ClassTransient, true, []string{archiveBucket, "check storage_class"}},
		"an unknown complaint": {costest.Fault{Action: "PutObject", Status: 418, Code: "Teapot"}, sinks.ClassTransient, true, []string{archiveBucket, "(status 418, request "}},
	} {
		list = append(list, sinktest.Trouble{
			Name: name, Class: f.class, CheckFails: f.check, Words: f.words,
			Provoke: func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
				t.Helper()
				c := newCloud(t, costest.BucketOptions{}, change)
				heal := c.server.Inject(f.fault)
				return sinktest.Troubled{Sink: c.Open(t, env, nil), Heal: heal}
			},
		})
	}
	return append(list, hopeless(change)...)
}

// hopeless are results that COS can never take.
func hopeless(change func(*cos.Config)) []sinktest.Trouble {
	permanent := func(name, words string, spoil func(*result.Result)) sinktest.Trouble {
		return sinktest.Trouble{
			Name: name, Class: sinks.ClassPermanent, Words: []string{words},
			Provoke: func(t testing.TB, env sinks.Env, r *result.Result) sinktest.Troubled {
				t.Helper()
				c := newCloud(t, costest.BucketOptions{}, change)
				spoil(r)
				return sinktest.Troubled{Sink: c.Open(t, env, nil)}
			},
		}
	}
	return []sinktest.Trouble{
		permanent("two assets of one field", "asset 1 has the field of another", func(r *result.Result) {
			r.Assets[1].Field = r.Assets[0].Field
		}),
		permanent("an asset without bytes or place", "asset 0 is neither inline nor in COS", func(r *result.Result) {
			r.Assets[0].Content = nil
		}),
		permanent("an unknown product", "unknown product", func(r *result.Result) { r.Product = "../../.." }),
	}
}

// credential replaces the key pair that the server knows, and returns a function
// that brings it back.
func (c *cloud) credential(with costest.Credential) (heal func()) {
	c.server.AddCredential(with)
	return func() { c.server.AddCredential(costest.Credential{SecretID: secretID, SecretKey: secretKey}) }
}

// forbid takes one action away from the key pair.
func (c *cloud) forbid(action string) (heal func()) {
	return c.credential(costest.Credential{
		SecretID: secretID, SecretKey: secretKey,
		Allow: func(asked, _, _ string) bool { return asked != action },
	})
}
