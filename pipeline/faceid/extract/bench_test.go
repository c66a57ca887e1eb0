package extract_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// BenchmarkExtract compares, in one run, taking a video out of an answer with
// what it is bound by (its two digests) and with what it replaces
// (encoding/json and base64 of the same answer, and the digests).
func BenchmarkExtract(b *testing.B) {
	for _, size := range []int{1 << 20, 8 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			video := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(video)
			body := []byte(`{"Response":{"Video":"` + base64.StdEncoding.EncodeToString(video) + `"}}`)
			s, err := spool.Open(spool.Config{Dir: b.TempDir(), MemoryLimit: 256 << 10, Quota: 1 << 40})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			var ours, digests, std time.Duration
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				began := time.Now()
				batch, err := s.Begin(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if _, err := extract.Extract(b.Context(), bytes.NewReader(body), batch, small()); err != nil {
					b.Fatal(err)
				}
				if err := batch.Close(); err != nil {
					b.Fatal(err)
				}
				ours += time.Since(began)

				began = time.Now()
				digest(video)
				digests += time.Since(began)

				began = time.Now()
				digest(withStd(b, body))
				std += time.Since(began)
			}
			b.ReportMetric(float64(digests)/float64(ours), "digests/extract")
			b.ReportMetric(float64(std)/float64(ours), "encoding-json/extract")
		})
	}
}

func digest(p []byte) {
	_ = sha256.Sum256(p)
	_ = crc64.Checksum(p, crc64.MakeTable(crc64.ECMA))
}

func withStd(b *testing.B, body []byte) []byte {
	var v struct{ Response struct{ Video string } }
	if err := json.Unmarshal(body, &v); err != nil {
		b.Fatal(err)
	}
	video, err := base64.StdEncoding.DecodeString(v.Response.Video)
	if err != nil {
		b.Fatal(err)
	}
	return video
}
