package faceid_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// typed is a response as the SDK's faceid module declares it: strings for media.
// The module itself is not a dependency of this project; what costs time, the
// reading and decoding, is done by the SDK's common module in both.
type typed struct {
	*tchttp.BaseResponse
	Response *struct {
		Text *struct {
			ErrCode      *int64
			ErrMsg, Name *string
		}
		IDCardData *struct{ OcrFront, OcrBack *string } `json:"IdCardData"`
		BestFrame  *struct{ BestFrame *string }
		VideoData  *struct{ LivenessVideo *string }
		RequestID  *string `json:"RequestId"`
	}
}

// BenchmarkGet pulls the same answer, with a video of each size, through the
// client and through the SDK's own path followed by what its caller must do for
// the same outcome: decode the base64 and take the digest. The two take turns,
// so that they see the same machine; their ratio is what counts.
func BenchmarkGet(b *testing.B) {
	for _, mib := range []int{1, 8} {
		b.Run(fmt.Sprintf("%dMiB", mib), func(b *testing.B) { benchmarkGet(b, mib<<20) })
	}
}

func benchmarkGet(b *testing.B, size int) {
	body := answerWithVideo(size)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}))
	defer api.Close()
	client, err := faceid.New(faceid.Config{
		Account: "main", Endpoint: api.URL, Timeout: time.Minute, MaxResponse: 1 << 30,
		Credentials: func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: "AKID", SecretKey: "key"}, nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	media, err := spool.Open(spool.Config{Dir: b.TempDir(), MemoryLimit: 64 << 10, Quota: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	defer media.Close()
	sdk := newSDKClient(api.URL)

	var ours, theirs cost
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		ours.add(func() { getWithClient(b, client, media) })
		theirs.add(func() { getWithSDK(b, sdk, size) })
	}
	b.ReportMetric(float64(theirs.time)/float64(ours.time), "sdk/client-time")
	b.ReportMetric(float64(theirs.bytes)/float64(ours.bytes), "sdk/client-alloc")
	b.ReportMetric(float64(ours.bytes)/float64(b.N), "client-B/op")
}

// cost is what one side took: time, and bytes allocated.
type cost struct {
	time  time.Duration
	bytes uint64
}

func (c *cost) add(f func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	c.time += time.Since(start)
	runtime.ReadMemStats(&after)
	c.bytes += after.TotalAlloc - before.TotalAlloc
}

func getWithClient(b *testing.B, client *faceid.Client, media *spool.Spool) {
	batch, err := media.Begin(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer batch.Close()
	r, err := client.Get(b.Context(), faceid.Query{Product: result.Enhanced, Token: "TOKEN", RuleID: "1"}, batch)
	if err != nil {
		b.Fatal(err)
	}
	if len(r.Assets) != 4 {
		b.Fatalf("%d assets", len(r.Assets))
	}
}

func newSDKClient(url string) *common.Client {
	p := profile.NewClientProfile()
	p.HttpProfile.Scheme, p.HttpProfile.Endpoint, _ = strings.Cut(url, "://")
	return common.NewCommonClient(common.NewCredential("AKID", "key"), "", p)
}

func getWithSDK(b *testing.B, client *common.Client, size int) {
	request := tchttp.NewCommonRequest("faceid", "2018-03-01", "GetDetectInfoEnhanced")
	if err := request.SetActionParameters(map[string]any{"BizToken": "TOKEN", "RuleId": "1"}); err != nil {
		b.Fatal(err)
	}
	response := &typed{BaseResponse: &tchttp.BaseResponse{}}
	if err := client.Send(request, response); err != nil {
		b.Fatal(err)
	}
	r := response.Response
	for i, media := range []*string{r.VideoData.LivenessVideo, r.IDCardData.OcrFront, r.IDCardData.OcrBack, r.BestFrame.BestFrame} {
		decoded, err := base64.StdEncoding.DecodeString(*media)
		if err != nil {
			b.Fatal(err)
		}
		if sum := sha256.Sum256(decoded); i == 0 && (len(decoded) != size || sum == [32]byte{}) {
			b.Fatalf("%d bytes", len(decoded))
		}
	}
}

func answerWithVideo(size int) string {
	random := rand.NewChaCha8([32]byte{1})
	medium := func(n int) string {
		p := make([]byte, n)
		_, _ = random.Read(p)
		return base64.StdEncoding.EncodeToString(p)
	}
	return fmt.Sprintf(`{"Response":{"Text":{"ErrCode":0,"ErrMsg":"成功","IdCard":"000000190001010000","Name":"测试甲"},"IdCardData":{"OcrFront":%q,"OcrBack":%q},`+
		`"BestFrame":{"BestFrame":%q},"VideoData":{"LivenessVideo":%q},"RequestId":"r"}}`, medium(60_000), medium(60_000), medium(40_000), medium(size))
}
