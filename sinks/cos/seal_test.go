package cos_test

import (
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// An archive that was unsealed and is locked takes a redelivery after sealing was switched
// on: what is locked cannot get another form.
func TestLockedStaysUnsealed(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{ObjectLock: true}, func(c *cos.Config) {
		c.Retention = cos.Retention{Mode: "compliance", Days: 30}
	})
	r := sinktest.Result(0)
	before := archive(t, c.open(t, cos.Edges{}), r)

	c.cfg.Seal, c.keyring = true, newPolicy(t)
	after := archive(t, c.open(t, cos.Edges{}), r)
	if len(after) != len(before) {
		t.Fatalf("%d receipts, then %d", len(before), len(after))
	}
	for i := range after {
		if after[i] != before[i] {
			t.Errorf("%+v became %+v", before[i], after[i])
		}
	}
}

// With the defaults a redelivery finds everything where it is: copies, which are not
// sealed, and what is.
func TestSealedCopiesAreFound(t *testing.T) {
	t.Parallel()
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) { c.Seal = true })
	sink, r := c.open(t, cos.Edges{}), sinktest.Result(0)
	archive(t, sink, r)
	before := len(c.server.Requests())
	archive(t, sink, r)
	if asked := c.asked(before); asked["PutObject"] != 0 || asked["PutObjectCopy"] != 0 {
		t.Errorf("the redelivery asked for %v", asked)
	}
}
