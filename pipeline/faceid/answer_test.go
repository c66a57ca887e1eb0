package faceid_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// canned answers every request with the same body.
type canned string

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(c))), ContentLength: -1,
	}, nil
}

// pull reads one answer and calls look with its result before its media go.
func pull(t testing.TB, product result.Product, body string, look func(*result.Result, error)) {
	t.Helper()
	pullWith(t, faceid.Query{Product: product, Token: "TOKEN", RuleID: "1"}, body, look)
}

// pullWith is pull with a query of the test's own.
func pullWith(t testing.TB, q faceid.Query, body string, look func(*result.Result, error)) {
	t.Helper()
	client, err := faceid.New(faceid.Config{
		Account: "main", Endpoint: "http://127.0.0.1:1", Timeout: time.Minute, MaxResponse: 1 << 20, Transport: canned(body),
		Credentials: func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: "AKID", SecretKey: "key"}, nil
		},
		Storage: faceid.Storage{Bucket: "faceid-1250000000", Region: "ap-guangzhou"},
	})
	if err != nil {
		t.Fatal(err)
	}
	media, err := spool.Open(spool.Config{Dir: t.TempDir(), MemoryLimit: 4 << 10, Quota: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := media.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	look(client.Get(t.Context(), q, batch))
	if err := errors.Join(batch.Close(), media.Close()); err != nil {
		t.Error(err)
	}
}

// TestOddAnswers are forms that are not documented but have been seen, or may be.
func TestOddAnswers(t *testing.T) {
	for _, test := range []struct {
		name, body string
		check      func(*testing.T, *result.Result)
	}{
		{"nearly everything null", `{"Response":{"Text":{"ErrCode":0,"ErrMsg":null,"IdCard":null,"LivenessDetail":null,"LivenessInfoTag":null,"Sim":null},
			"IdCardData":null,"BestFrame":{"BestFrame":null,"BestFrames":null},"VideoData":{"LivenessVideo":""},"Encryption":null,"RequestId":"r"}}`,
			func(t *testing.T, r *result.Result) {
				if !r.Verdict.Passed || len(r.Assets) != 0 || len(r.Attempts) != 0 {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"numbers as strings and strings as numbers", `{"Response":{"Text":{"ErrCode":"2016","Sim":60.5,"LivenessMode":"4","UseIDType":"1"},"RequestId":7}}`,
			func(t *testing.T, r *result.Result) {
				if r.Verdict.Code != 2016 || r.Verdict.Passed || r.Verdict.Similarity != "60.5" || r.Verdict.LivenessMode != 4 || r.RequestID != "7" {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"an unknown code is kept", `{"Response":{"Text":{"ErrCode":987654,"ErrMsg":"new"}}}`,
			func(t *testing.T, r *result.Result) {
				if r.Verdict.Code != 987654 || r.Verdict.Message != "new" {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"duplicate keys: the last one counts", `{"Response":{"Text":{"ErrCode":0,"ErrCode":1001}}}`,
			func(t *testing.T, r *result.Result) {
				if r.Verdict.Code != 1001 {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"an unknown intention mode is no pass", `{"Response":{"Text":{"ErrCode":0},"IsVerifyIntention":true,"IntentionVerifyType":"9"}}`,
			func(t *testing.T, r *result.Result) {
				if r.Verdict.Passed || r.Verdict.Intention != result.IntentionUnknown {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"intention on without its result is no pass", `{"Response":{"Text":{"ErrCode":0},"IsVerifyIntention":true,"IntentionVerifyType":"0","IntentionQuestionResult":null}}`,
			func(t *testing.T, r *result.Result) {
				if r.Verdict.Passed {
					t.Errorf("%+v", r.Verdict)
				}
			}},
		{"a JPEG is no path, even with data storage on", `{"Response":{"Text":{"ErrCode":0},"IsCustomizeStorage":true,"BestFrame":{"BestFrame":"/9j/4AAQSkZJRgABAQ=="}}}`,
			func(t *testing.T, r *result.Result) {
				if a, ok := r.Asset("BestFrame.BestFrame"); !ok || a.COS != nil || a.ContentType != "image/jpeg" {
					t.Errorf("%+v", r.Assets)
				}
			}},
		{"an empty data URI is no medium and no path", `{"Response":{"Text":{"ErrCode":0},"IsCustomizeStorage":true,"BestFrame":{"BestFrame":"data:image/jpeg;base64,"}}}`,
			func(t *testing.T, r *result.Result) {
				if len(r.Assets) != 0 {
					t.Errorf("%+v", r.Assets)
				}
			}},
		{"a path without the flag", `{"Response":{"Text":{"ErrCode":0},"BestFrame":{"BestFrame":"faceid/a.jpg"}}}`,
			func(t *testing.T, r *result.Result) {
				if a, ok := r.Asset("BestFrame.BestFrame"); !ok || a.COS == nil || a.COS.Key != "faceid/a.jpg" {
					t.Errorf("%+v", r.Assets)
				}
			}},
		{"a large string nobody knows is kept", `{"Response":{"Text":{"ErrCode":0},"New":{"Thing":["` + strings.Repeat("QUJD", 40_000) + `"]}}}`,
			func(t *testing.T, r *result.Result) {
				if len(r.Assets) != 1 || r.Assets[0].Kind != result.Unknown || r.Assets[0].Field != "New.Thing[0]" || r.Assets[0].Digest.Size != 160_000 {
					t.Errorf("%+v", r.Assets)
				}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pull(t, result.Enhanced, test.body, func(r *result.Result, err error) {
				if err != nil {
					t.Fatal(err)
				}
				test.check(t, r)
			})
		})
	}
}

// FuzzAnswer: whatever the endpoint sends, it is a result or an *Error, and the
// error holds nothing of it.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		`{"Response":{"Text":{"ErrCode":0,"Name":"测试甲"},"RequestId":"r"}}`,
		`{"Response":{"Error":{"Code":"InternalError","Message":"CANARY"},"RequestId":"r"}}`,
		`{"Response":{"Text":{"ErrCode":0},"BestFrame":{"BestFrame":"/9j/4AAQSkZJRgABAQ==","BestFrames":["x","",null]}}}`,
		`{"Response":{"Text":{"ErrCode":"CANARY"}}}`, `{"Response":[]}`, `{}`, `[]`, ``, `<html>CANARY</html>`,
		`{"Response":{"Text":{"ErrCode":0,"LivenessDetail":[{"Errcode":1,"ReqTime":"1700000000000"}]},"VideoData":{"LivenessVideos":[{"Video":"CANARY!"}]}}}`,
	} {
		f.Add(body, true)
		f.Add(body, false)
	}
	f.Fuzz(func(t *testing.T, body string, eid bool) {
		product := result.Enhanced
		if eid {
			product = result.EID
		}
		pull(t, product, body, func(r *result.Result, err error) {
			var e *faceid.Error
			switch {
			case err == nil:
				if !json.Valid([]byte(r.Raw.Reveal())) {
					t.Errorf("Raw is no JSON")
				}
			case !errors.As(err, &e):
				t.Errorf("%T: %v", err, err)
			case strings.Contains(body, "CANARY") && strings.Contains(strings.ReplaceAll(err.Error(), e.Code, ""), "CANARY"):
				t.Errorf("the error repeats the answer: %v", err)
			}
		})
	})
}

// answerWith returns an answer that passed with one more field; "" if value is not JSON.
func answerWith(path, value string) string {
	var decoded any
	if json.Unmarshal([]byte(value), &decoded) != nil {
		return ""
	}
	response := map[string]any{"Text": map[string]any{"ErrCode": 0}, "RequestId": "r"}
	at := response
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		inner, ok := at[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			at[name] = inner
		}
		at = inner
	}
	at[names[len(names)-1]] = decoded
	body, _ := json.Marshal(map[string]any{"Response": response})
	return string(body)
}
