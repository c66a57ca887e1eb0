package faceid_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// A field of another type holds nothing back: it is read as far as it can be and named,
// and the answer is kept as it came.
func TestFieldsOfOtherTypes(t *testing.T) {
	at := time.Date(2024, 11, 1, 2, 0, 0, 0, time.UTC)
	passed := func(r *result.Result) bool { return r.Verdict.Passed && !r.Verdict.Unreadable }
	attempt := func(r *result.Result) result.Attempt { return append(r.Attempts, result.Attempt{})[0] }
	tests := []struct {
		text   string // the members of Text beside ErrCode 0
		beside string // the members beside Text
		unread string
		holds  func(r *result.Result) bool
	}{
		{`"LivenessInfoTag":"01,02"`, ``, "Text.LivenessInfoTag", func(r *result.Result) bool { return slices.Equal(r.Verdict.LivenessTags, []string{"01", "02"}) }},
		{`"LivenessInfoTag":["01",2,{}]`, ``, "Text.LivenessInfoTag", func(r *result.Result) bool { return slices.Equal(r.Verdict.LivenessTags, []string{"01", "2", ""}) }},
		{`"LivenessInfoTag":7`, ``, "Text.LivenessInfoTag", func(r *result.Result) bool { return slices.Equal(r.Verdict.LivenessTags, []string{"7"}) }},
		{`"Sim":98.50`, ``, "Text.Sim", func(r *result.Result) bool { return r.Verdict.Similarity == "98.50" }},
		{`"Sim":["98.5"]`, ``, "Text.Sim", func(r *result.Result) bool { return r.Verdict.Similarity == "" }},
		{`"LiveStatus":"0"`, ``, "Text.LiveStatus", func(r *result.Result) bool { return *r.Verdict.Liveness == 0 }},
		{`"LiveStatus":"fine"`, ``, "Text.LiveStatus", func(r *result.Result) bool { return r.Verdict.Liveness == nil }},
		{`"UseIDType":{}`, ``, "Text.UseIDType", func(r *result.Result) bool { return r.Person.IDType == 0 }},
		{`"Name":42`, ``, "Text.Name", func(r *result.Result) bool { return r.Person.Name.Reveal() == "42" }},
		{`"Mobile":13800000000`, ``, "Text.Mobile", func(r *result.Result) bool { return r.Person.Mobile.Reveal() == "13800000000" }},
		{`"ErrMsg":{"zh":"x"}`, ``, "Text.ErrMsg", func(r *result.Result) bool { return r.Verdict.Message == "" }},

		{`"LivenessDetail":[{"IsNeedCharge":"Y"}]`, ``, "Text.LivenessDetail.IsNeedCharge", func(r *result.Result) bool { return attempt(r).Charged }},
		{`"LivenessDetail":[{"IsNeedCharge":0}]`, ``, "Text.LivenessDetail.IsNeedCharge", func(r *result.Result) bool { return !attempt(r).Charged }},
		{`"LivenessDetail":[{"IsNeedCharge":"perhaps"}]`, ``, "Text.LivenessDetail.IsNeedCharge", func(r *result.Result) bool { return !attempt(r).Charged }},
		{`"LivenessDetail":[{"ReqTime":"2024-11-01 10:00:00"}]`, ``, "Text.LivenessDetail.ReqTime", func(r *result.Result) bool { return attempt(r).Time.Equal(at) }},
		{`"LivenessDetail":[{"ReqTime":"1730426400000"}]`, ``, "Text.LivenessDetail.ReqTime", func(r *result.Result) bool { return attempt(r).Time.Equal(at) }},
		{`"LivenessDetail":[{"ReqTime":1730426400}]`, ``, "Text.LivenessDetail.ReqTime", func(r *result.Result) bool { return attempt(r).Time.Equal(at) }},
		{`"LivenessDetail":[{"ReqTime":"soon"}]`, ``, "Text.LivenessDetail.ReqTime", func(r *result.Result) bool { return attempt(r).Time.IsZero() }},
		{`"LivenessDetail":{"Seq":"1"}`, ``, "Text.LivenessDetail", func(r *result.Result) bool { return attempt(r).Seq == "1" }},
		{`"LivenessDetail":[[],"x",{"Seq":1}]`, ``, "Text.LivenessDetail,Text.LivenessDetail.Seq", func(r *result.Result) bool { return r.Attempts[2].Seq == "1" }},

		{``, `"IdCardData":{"WarnInfos":-9107}`, "IdCardData.WarnInfos", func(r *result.Result) bool { return len(r.Warnings) == 1 && r.Warnings[0].Code == -9107 }},
		{``, `"IdCardData":{"WarnInfos":"-9107,-9100"}`, "IdCardData.WarnInfos", func(r *result.Result) bool { return len(r.Warnings) == 2 && r.Warnings[1].Code == -9100 }},
		{``, `"IdCardData":["x"]`, "IdCardData", func(r *result.Result) bool { return len(r.Warnings) == 0 }},
		{``, `"IdCardData":"{\"WarnInfos\":[-9100]}"`, "IdCardData", func(r *result.Result) bool { return len(r.Warnings) == 1 }},
		{``, `"IsCustomizeStorage":"maybe"`, "IsCustomizeStorage", passed},
		{``, `"BucketName":{}`, "BucketName", passed},
		{``, `"EidInfo":[1]`, "EidInfo", passed},
		{``, `"Encryption":"none"`, "Encryption", passed},
		{``, `"IntentionQuestionResult":7`, "IntentionQuestionResult", passed},
		// Nothing in place of something is as documented.
		{`"LivenessInfoTag":"","Sim":null,"LivenessDetail":null,"LiveStatus":""`, `"IdCardData":"","EidInfo":[],"BestFrame":null`, "", passed},
	}
	for _, tt := range tests {
		body := `{"Response":{"Text":{"ErrCode":0,` + tt.text + `},` + tt.beside + `,"RequestId":"r"}}`
		body = strings.NewReplacer(",}", "}", "},,", "},").Replace(body)
		pull(t, result.Enhanced, body, func(r *result.Result, err error) {
			if err != nil {
				t.Errorf("%s: %v", body, err)
				return
			}
			if !passed(r) || !tt.holds(r) || strings.Join(r.Unread, ",") != tt.unread {
				t.Errorf("%s: unread %q, want %q; verdict %+v, attempts %+v, warnings %v", body, r.Unread, tt.unread, r.Verdict, r.Attempts, r.Warnings)
			}
			for _, path := range r.Unread {
				if !slices.Contains(faceid.AnswerFields(), path) {
					t.Errorf("%s is none of AnswerFields", path)
				}
			}
		})
	}
}

// What the outcome is, is never guessed: what cannot be read is not passed, and marked.
func TestUnreadableVerdicts(t *testing.T) {
	tests := []struct {
		body               string
		passed, unreadable bool
		ready              bool
	}{
		{`"Text":{"ErrCode":0.0}`, true, false, true},
		{`"Text":{"ErrCode":"0"}`, true, false, true},
		{`"Text":{"ErrCode":" 0 "}`, true, false, true},
		{`"Text":{"ErrCode":1e3}`, false, false, true},
		{`"Text":{"errcode":0}`, true, false, true},
		{`"Text":"{\"ErrCode\":0}"`, true, false, true},
		{`"Text":[{"ErrCode":0}]`, true, false, true},

		{`"Text":{"ErrCode":"ok"}`, false, true, true},
		{`"Text":{"ErrCode":0.5}`, false, true, true},
		{`"Text":{"ErrCode":true}`, false, true, true},
		{`"Text":{"ErrCode":{}}`, false, true, true},
		{`"Text":{"ErrCode":[0]}`, false, true, true},
		{`"Text":"passed"`, false, true, true},
		{`"Text":7`, false, true, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":"perhaps"`, false, true, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":true,"IntentionVerifyType":{}`, false, true, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":true,"IntentionVerifyType":"1","IntentionActionResult":{"FinalResultDetailCode":"done"}`, false, true, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":true,"IntentionVerifyType":"2","IntentionVerifyData":[1,2]`, false, true, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":"true","IntentionVerifyType":1,"IntentionActionResult":{"FinalResultDetailCode":"0"}`, true, false, true},
		{`"Text":{"ErrCode":0},"IsVerifyIntention":1,"IntentionVerifyType":"0","IntentionQuestionResult":{"FinalResultCode":0,"FinalResultDetailCode":0}`, true, false, true},

		{`"Text":null`, false, false, false},
		{`"Text":""`, false, false, false},
		{`"Text":[]`, false, false, false},
		{`"Text":{}`, false, false, false},
		{`"Text":{"ErrCode":null}`, false, false, false},
		{`"Text":{"ErrCode":""}`, false, false, false},
		{`"Text":{"ErrCode":17}`, false, false, false},
		{`"Text":{"ErrCode":"17"}`, false, false, false},
		{`"Text":{"ErrCode":17.0}`, false, false, false},
	}
	for _, tt := range tests {
		for _, body := range []string{`{"Response":{` + tt.body + `}}`, `{` + tt.body + `}`} {
			pull(t, result.Enhanced, body, func(r *result.Result, err error) {
				switch {
				case !tt.ready:
					if faceid.ClassOf(err) != faceid.NotReady || err == nil {
						t.Errorf("%s: %v, want not finished", body, err)
					}
				case err != nil:
					t.Errorf("%s: %v", body, err)
				case r.Verdict.Passed != tt.passed || r.Verdict.Unreadable != tt.unreadable:
					t.Errorf("%s: %+v", body, r.Verdict)
				case tt.unreadable && (len(r.Unread) == 0 || faceid.VerdictLabel(r.Verdict) != faceid.UnreadableLabel):
					t.Errorf("%s: unread %v, label %s", body, r.Unread, faceid.VerdictLabel(r.Verdict))
				}
			})
		}
	}
}

// An answer that is not what the API sends says what it is.
func TestErrorsSayWhatCame(t *testing.T) {
	for body, want := range map[string]string{
		`["x"]`:                                  "no JSON object, as from a proxy",
		`"x"`:                                    "no JSON object, as from a proxy",
		`{"status":"ok"}`:                        "a JSON object without Response",
		`{"Response":"x"}`:                       "Response is no object",
		`{"Response":{"Error":7}}`:               "Error is no object",
		`{"Response":{"Error":{"Message":"x"}}}`: "Error has no code",
	} {
		pull(t, result.Enhanced, body, func(_ *result.Result, err error) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", body, err, want)
			}
		})
	}
}

// A place that cannot be followed, and a person that cannot be opened, cost themselves
// once there is no time left to mend what is wrong.
func TestWhatIsMissingOnTheLastTry(t *testing.T) {
	foreign := `{"Response":{"Text":{"ErrCode":0},"BestFrame":{"BestFrame":"https://other-1250000001.cos.ap-beijing.myqcloud.com/a.jpg"},"IdCardData":{"OcrFront":"/9j/4AAQSkZJRgABAQ=="}}}`
	sealed := `{"Response":{"Text":{"ErrCode":0},"EidInfo":{"DesKey":"eA==","UserInfo":"eA=="}}}`
	tests := []struct {
		product result.Product
		body    string
		want    result.Missing
	}{
		{result.Enhanced, foreign, result.Missing{Field: "BestFrame.BestFrame", Reason: result.ForeignPlace}},
		{result.EID, sealed, result.Missing{Field: "EidInfo.UserInfo", Reason: result.NotOpened}},
	}
	for _, tt := range tests {
		q := faceid.Query{Product: tt.product, Token: "TOKEN", RuleID: "1"}
		pullWith(t, q, tt.body, func(_ *result.Result, err error) {
			if faceid.ClassOf(err) != faceid.RequestTrouble || err == nil {
				t.Errorf("with time left: %v", err)
			}
		})
		q.Last = true
		pullWith(t, q, tt.body, func(r *result.Result, err error) {
			if err != nil || !slices.Equal(r.Missing, []result.Missing{tt.want}) {
				t.Errorf("on the last try: %+v, %v", r, err)
			}
		})
	}
	// What no other answer will mend costs itself at once.
	pull(t, result.Enhanced, `{"Response":{"Text":{"ErrCode":0},"BestFrame":{"BestFrame":"not-a_picture!"}}}`, func(r *result.Result, err error) {
		if err != nil || !slices.Equal(r.Missing, []result.Missing{{Field: "BestFrame.BestFrame", Reason: result.NotMedia}}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// FuzzFieldsNeverHoldBack: an answer with a readable code is a result, whatever one of
// its other fields is.
func FuzzFieldsNeverHoldBack(f *testing.F) {
	for i := range faceid.AnswerFields() {
		for _, value := range []string{`"x"`, `7`, `[[]]`, `{"a":1}`, `true`, `null`, `"2024-11-01 10:00:00"`} {
			f.Add(uint8(i), value)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		body := answerWith(faceid.AnswerFields()[int(which)%len(faceid.AnswerFields())], value)
		if body == "" {
			return
		}
		pull(t, result.Enhanced, body, func(_ *result.Result, err error) {
			if err != nil && faceid.ClassOf(err) != faceid.NotReady && !strings.Contains(err.Error(), "storage.bucket") && !strings.Contains(err.Error(), "in COS") && !strings.Contains(err.Error(), "deeper than") && !strings.Contains(err.Error(), "eid.private_key_file") && !strings.Contains(err.Error(), "request.info_type") && !strings.Contains(err.Error(), "which was not asked for") {
				t.Errorf("%s: %v", body, err)
			}
		})
	})
}
