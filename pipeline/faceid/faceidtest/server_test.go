package faceidtest_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	sdkerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func start(t testing.TB) *faceidtest.Server {
	t.Helper()
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{Clock: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	api.AddCredential("AKID", "secret-key", "")
	api.AddCredential("STS", "other-key", "session")
	return api
}

// call is a request before it is signed. Its signature is worked out here, by
// the published algorithm, and not by any code that the server shares.
type call struct {
	id, key, token string
	at             time.Time
	method, action string
	version        string
	body           string
	// alter changes the signed request on its way.
	alter func(*http.Request)
}

func enhanced(token string) call {
	return call{
		id: "AKID", key: "secret-key", at: noon, method: http.MethodPost, action: "GetDetectInfoEnhanced", version: "2018-03-01",
		body: `{"BizToken":"` + token + `","RuleId":"1"}`,
	}
}

func (c call) send(t testing.TB, url string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), c.method, url+"/", strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	digest := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	mac := func(key, s string) string {
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(s))
		return string(h.Sum(nil))
	}
	date, stamp := c.at.UTC().Format(time.DateOnly), strconv.FormatInt(c.at.Unix(), 10)
	headers := "content-type:application/json\nhost:" + r.Host + "\n"
	canonical := c.method + "\n/\n\n" + headers + "\ncontent-type;host\n" + digest(c.body)
	scope := date + "/faceid/tc3_request"
	signature := mac(mac(mac(mac("TC3"+c.key, date), "faceid"), "tc3_request"), "TC3-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+digest(canonical))
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-TC-Action": c.action, "X-TC-Version": c.version, "X-TC-Timestamp": stamp, "X-TC-Token": c.token,
		"Authorization": "TC3-HMAC-SHA256 Credential=" + c.id + "/" + scope + ", SignedHeaders=content-type;host, Signature=" + hex.EncodeToString([]byte(signature)),
	} {
		r.Header.Set(name, value)
	}
	if c.alter != nil {
		c.alter(r)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		response.Body.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return response
}

// code returns the error code of an answer, or "".
func code(t testing.TB, response *http.Response) string {
	t.Helper()
	var answer struct {
		Response struct{ Error struct{ Code string } }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.Response.Error.Code
}

func TestRequests(t *testing.T) {
	api := start(t)
	api.Put(faceidtest.Check{Product: result.Enhanced, Token: "T", RuleID: "1", Made: noon})
	api.Put(faceidtest.Check{Product: result.Enhanced, Token: "OLD", RuleID: "1", Made: noon.Add(-73 * time.Hour)})
	for _, test := range []struct {
		name   string
		change func(*call)
		want   string
	}{
		{"right", func(*call) {}, ""},
		{"temporary credentials", func(c *call) { c.id, c.key, c.token = "STS", "other-key", "session" }, ""},
		{"four minutes late", func(c *call) { c.at = noon.Add(4 * time.Minute) }, ""},
		{"six minutes early", func(c *call) { c.at = noon.Add(-6 * time.Minute) }, "AuthFailure.SignatureExpire"},
		{"unknown id", func(c *call) { c.id = "NOBODY" }, "AuthFailure.SecretIdNotFound"},
		{"wrong key", func(c *call) { c.key = "guess" }, "AuthFailure.SignatureFailure"},
		{"missing session token", func(c *call) { c.id, c.key = "STS", "other-key" }, "AuthFailure.TokenFailure"},
		{"body changed on the way", func(c *call) {
			c.alter = func(r *http.Request) {
				r.Body = io.NopCloser(strings.NewReader(strings.Replace(c.body, `"T"`, `"U"`, 1)))
			}
		}, "AuthFailure.SignatureFailure"},
		{"content type changed on the way", func(c *call) {
			c.alter = func(r *http.Request) { r.Header.Set("Content-Type", "text/json") }
		}, "AuthFailure.SignatureFailure"},
		{"not signed", func(c *call) { c.alter = func(r *http.Request) { r.Header.Del("Authorization") } }, "AuthFailure.InvalidAuthorization"},
		{"GET", func(c *call) { c.method, c.body = http.MethodGet, "" }, "InvalidRequest"},
		{"other version", func(c *call) { c.version = "2017-03-12" }, "NoSuchVersion"},
		{"other action", func(c *call) { c.action = "DetectAuth" }, "InvalidAction"},
		{"no JSON", func(c *call) { c.body = "BizToken=T" }, "InvalidParameter"},
		{"unknown parameter", func(c *call) { c.body = `{"BizToken":"T","RuleId":"1","Rule":1}` }, "UnknownParameter"},
		{"no rule", func(c *call) { c.body = `{"BizToken":"T"}` }, "MissingParameter"},
		{"other rule", func(c *call) { c.body = `{"BizToken":"T","RuleId":"2"}` }, "InvalidParameterValue.RuleIdNotExist"},
		{"unknown token", func(c *call) { c.body = `{"BizToken":"X","RuleId":"1"}` }, "InvalidParameter"},
		{"unknown EID token", func(c *call) { c.action, c.body = "GetEidResult", `{"EidToken":"T"}` }, "InvalidParameterValue.BizTokenIllegal"},
		{"result is gone", func(c *call) { c.body = `{"BizToken":"OLD","RuleId":"1"}` }, "InvalidParameterValue.BizTokenExpired"},
		{"too large", func(c *call) { c.body = `{"BizToken":"` + strings.Repeat("x", 11<<20) + `"}` }, "RequestSizeLimitExceeded"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := enhanced("T")
			test.change(&c)
			if got := code(t, c.send(t, api.URL())); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// sdk calls the server as Tencent's SDK does.
func sdk(t testing.TB, url, action string, parameters map[string]any) (map[string]json.RawMessage, error) {
	t.Helper()
	settings := profile.NewClientProfile()
	settings.HttpProfile.Scheme, settings.HttpProfile.Endpoint, _ = strings.Cut(url, "://")
	client := common.NewCommonClient(common.NewCredential("AKID", "secret-key"), "ap-guangzhou", settings)
	request := tchttp.NewCommonRequest("faceid", "2018-03-01", action)
	if err := request.SetActionParameters(parameters); err != nil {
		t.Fatal(err)
	}
	response := tchttp.NewCommonResponse()
	if err := client.Send(request, response); err != nil {
		return nil, err
	}
	var answer struct{ Response map[string]json.RawMessage }
	if err := json.Unmarshal(response.GetBody(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Response, nil
}

// startNow is start with the clock that the SDK signs with.
func startNow(t testing.TB) *faceidtest.Server {
	t.Helper()
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	api.AddCredential("AKID", "secret-key", "")
	return api
}

func TestInfoType(t *testing.T) {
	api := startNow(t)
	c := faceidtest.NewCheck(0, 1<<10)
	c.Intention, c.Code = "", 0
	api.Put(c)
	parts := []string{"Text", "IdCardData", "BestFrame", "VideoData"}
	for infoType, want := range map[string]string{
		"": "Text IdCardData BestFrame VideoData", "0": "Text IdCardData BestFrame VideoData",
		"1": "Text", "12": "Text IdCardData", "34": "BestFrame VideoData",
	} {
		answer, err := sdk(t, api.URL(), "GetDetectInfoEnhanced", map[string]any{"BizToken": c.Token, "RuleId": "1", "InfoType": infoType})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, part := range parts {
			if string(answer[part]) != "null" {
				got = append(got, part)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("InfoType %q answers %v, want %s", infoType, got, want)
		}
	}
	if api.Calls(c.Token) != 5 || api.Stats().Requests != 5 {
		t.Errorf("%d calls, %+v", api.Calls(c.Token), api.Stats())
	}
}

func TestFaults(t *testing.T) {
	api := start(t)
	api.Put(faceidtest.Check{
		Product: result.Enhanced, Token: "T", RuleID: "1", Made: noon,
		Media: []faceidtest.Medium{{Field: "BestFrame.BestFrame", Kind: result.Image, Size: 1 << 20}},
	})
	read := func() (int, string, error) {
		response := enhanced("T").send(t, api.URL())
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}
	whole := func(t *testing.T) {
		t.Helper()
		if status, body, err := read(); status != 200 || err != nil || !json.Valid([]byte(body)) {
			t.Errorf("after the fault: %d, %d bytes, %v", status, len(body), err)
		}
	}
	t.Run("code", func(t *testing.T) {
		api.Fail(faceidtest.Fault{Token: "T", Times: 1, Code: "InternalError"})
		if status, body, err := read(); status != 200 || err != nil || !strings.Contains(body, `"Code":"InternalError"`) {
			t.Errorf("%d %s %v", status, body, err)
		}
		whole(t)
	})
	t.Run("status", func(t *testing.T) {
		api.Fail(faceidtest.Fault{Times: 1, Status: 502})
		if status, body, err := read(); status != 502 || err != nil || !strings.Contains(body, "<html>") {
			t.Errorf("%d %s %v", status, body, err)
		}
		whole(t)
	})
	t.Run("cut", func(t *testing.T) {
		api.Fail(faceidtest.Fault{Times: 1, CutAt: 500_000})
		if _, body, err := read(); !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != 500_000 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		whole(t)
	})
	t.Run("garbage", func(t *testing.T) {
		api.Fail(faceidtest.Fault{Times: 1, Garbage: "{"})
		if _, body, err := read(); body != "{" || err != nil {
			t.Errorf("%s %v", body, err)
		}
		whole(t)
	})
	t.Run("another token's", func(t *testing.T) {
		api.Fail(faceidtest.Fault{Token: "U", Status: 500})
		whole(t)
		api.ClearFaults()
	})
}

func TestReader(t *testing.T) {
	for kind, magic := range map[result.Kind]string{result.Image: "\xff\xd8\xff", result.Video: "\x00\x00\x00\x18ftyp", result.Audio: "RIFF"} {
		m := faceidtest.Medium{Kind: kind, Size: 1000, Seed: 7}
		one, err := io.ReadAll(m.Reader())
		if err != nil {
			t.Fatal(err)
		}
		two, _ := io.ReadAll(m.Reader())
		m.Seed = 8
		three, _ := io.ReadAll(m.Reader())
		if len(one) != 1000 || !bytes.HasPrefix(one, []byte(magic)) || !bytes.Equal(one, two) || bytes.Equal(one, three) {
			t.Errorf("%s: bytes do not follow from kind, size and seed alone", kind)
		}
	}
}

// TestLargeMedia shows that an answer is never built whole.
func TestLargeMedia(t *testing.T) {
	api := start(t)
	const size = 48 << 20
	api.Put(faceidtest.Check{
		Product: result.Enhanced, Token: "T", RuleID: "1", Made: noon,
		Media: []faceidtest.Medium{{Field: "VideoData.LivenessVideo", Kind: result.Video, Size: size}},
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.Copy(io.Discard, enhanced("T").send(t, api.URL()).Body)
	runtime.ReadMemStats(&after)
	if want := int64(size / 3 * 4); n < want || n > want+10_000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/8 {
		t.Errorf("%d bytes allocated for an answer of %d", allocated, n)
	}
}

func ExampleStart() {
	api, err := faceidtest.Start(context.Background(), faceidtest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer api.Close()
	api.AddCredential("AKID", "secret-key", "")

	check := faceidtest.NewCheck(0, 1<<20)
	api.Put(check)                                                                        // what it answers
	api.Fail(faceidtest.Fault{Token: check.Token, Times: 2, Code: "InternalError"})       // but twice an error first
	api.Fail(faceidtest.Fault{Token: check.Token, Times: 1, CutAt: 10_000})               // then half an answer
	fmt.Println(check.Product, check.Person.IDCard, strings.HasPrefix(api.URL(), "http")) // no real person's
	// Output: enhanced 000000190001010000 true
}

func TestUnknownIDIsRefusedBySDKToo(t *testing.T) {
	api := startNow(t)
	_, err := sdk(t, api.URL(), "GetEidResult", map[string]any{"EidToken": "T"})
	var refusal *sdkerrors.TencentCloudSDKError
	if !errors.As(err, &refusal) || refusal.Code != "InvalidParameterValue.BizTokenIllegal" {
		t.Errorf("%v", err)
	}
}
