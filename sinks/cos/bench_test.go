package cos_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	sdk "github.com/tencentyun/cos-go-sdk-v5"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// BenchmarkArchive archives a result and puts the same bytes with the SDK alone, by
// turns. "x-raw" is how many times as long the archive takes, of which the index, the
// manifest and the look for a tombstone are four requests; "x-raw" of large assets
// shows what verifying costs.
func BenchmarkArchive(b *testing.B) {
	for _, sizes := range [][]int{{10 << 10}, {200 << 10, 200 << 10, 200 << 10, 4 << 20}, {16 << 20}, {64 << 20}} {
		b.Run(fmt.Sprint(sizes), func(b *testing.B) { benchmarkArchive(b, sizes) })
	}
}

func benchmarkArchive(b *testing.B, sizes []int) {
	b.Helper()
	c := newCloudWith(b, costest.Options{DigestsOnly: true}, costest.BucketOptions{}, func(*cos.Config) {})
	sink, raw := c.open(b, cos.Edges{}), rawClient(b, c)
	r := sinktest.Result(0)
	r.Assets = nil
	total := int64(0)
	for i, size := range sizes {
		r.Assets = append(r.Assets, sinktest.Inline(fmt.Sprintf("BestFrame.BestFrames[%d]", i), result.Video, "video/mp4", make([]byte, size)))
		total += int64(size)
	}
	bodies := make([][]byte, len(sizes))
	for i, size := range sizes {
		bodies[i] = make([]byte, size)
	}
	b.SetBytes(total)
	b.ReportAllocs()
	var archived, put time.Duration
	for n := 0; b.Loop(); n++ {
		r.Token = fmt.Sprint("TOKEN-", n)
		begun := time.Now()
		archive(b, sink, r)
		archived += time.Since(begun)
		b.StopTimer()
		begun = time.Now()
		for i, body := range bodies {
			_, err := raw.Object.Put(b.Context(), fmt.Sprintf("raw/%d/%d", n, i), bytes.NewReader(body), nil)
			must(b, err)
		}
		put += time.Since(begun)
		b.StartTimer()
	}
	b.ReportMetric(float64(archived)/float64(put), "x-raw")
}

// rawClient is the SDK as it comes, but for its address.
func rawClient(t testing.TB, c *cloud) *sdk.Client {
	t.Helper()
	at, err := url.Parse(c.server.URL())
	must(t, err)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := sdk.NewClient(&sdk.BaseURL{BucketURL: at}, &http.Client{Transport: &sdk.AuthorizationTransport{
		SecretID: secretID, SecretKey: secretKey, Transport: transport,
	}})
	client.Host = archiveBucket + ".cos." + region + ".myqcloud.com"
	return client
}
