package faceid_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// A medium whose base64 is damaged is asked for again while there is time; then it costs
// itself alone.
func TestDamagedMedium(t *testing.T) {
	const good = `"/9j/4AAQSkZJRgABAQ=="`
	large := strings.Repeat("AAAA", 3000)
	for name, video := range map[string]string{
		"another character": large + "*" + large,
		"escaped":           large + `一`,
		"cut off":           large + "A",
		"padded in between": large + "QQ==" + large,
	} {
		for _, body := range []struct{ video, field string }{
			{`"VideoData":{"LivenessVideo":"` + video + `"}`, "VideoData.LivenessVideo"},
			{`"VideoData":{"LivenessVideos":[{"Video":` + good + `},{"Video":"` + video + `"}]}`, "VideoData.LivenessVideos[1].Video"},
		} {
			answer := `{"Response":{"Text":{"ErrCode":0},"BestFrame":{"BestFrame":` + good + `},` + body.video + `,"RequestId":"r"}}`
			q := faceid.Query{Product: result.Enhanced, Token: "TOKEN", RuleID: "1"}
			pullWith(t, q, answer, func(_ *result.Result, err error) {
				wants(t, err, faceid.Transient, body.field+": not base64")
			})
			q.Last = true
			pullWith(t, q, answer, func(r *result.Result, err error) {
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				want := []result.Missing{{Field: body.field, Reason: result.NotMedia}}
				if _, there := r.Asset("BestFrame.BestFrame"); !r.Verdict.Passed || !reflect.DeepEqual(r.Missing, want) || !there {
					t.Errorf("%s: missing %v, want %v; %+v", name, r.Missing, want, r.Assets)
				}
				if _, there := r.Asset(body.field); there || !json.Valid([]byte(r.Raw.Reveal())) || strings.Contains(r.Raw.Reveal(), "AAAA") {
					t.Errorf("%s: %s", name, r.Raw.Reveal())
				}
			})
		}
	}
}

// The same in parts, and in an encrypted answer; a damaged ciphertext is asked for again
// to the end.
func TestDamagedMediumElsewhere(t *testing.T) {
	damaged := `"VideoData":{"LivenessVideo":"` + strings.Repeat("AAAA", 3000) + `*"}`
	inParts := func(q sent) string {
		switch q.InfoType {
		case "":
			return `{"Response":{"Error":{"Code":"ResponseSizeLimitExceeded","Message":"x"},"RequestId":"r"}}`
		case "4":
			return `{"Response":{"Text":null,` + damaged + `}}`
		}
		return `{"Response":{"Text":{"ErrCode":0},"VideoData":{"LivenessVideo":null}}}`
	}
	inBody := func(q sent) string { return sealedAnswer(t, q.Encryption.Iv, `{"Text":{"ErrCode":0},`+damaged+`}`) }
	body := faceid.Encryption{Mode: faceid.EncryptBody, Session: dataKeySession}

	for _, test := range []struct {
		encryption faceid.Encryption
		script     scripted
	}{{faceid.Encryption{}, inParts}, {body, inBody}} {
		_, err := ask(t, test.encryption, faceid.Query{}, test.script)
		wants(t, err, faceid.Transient, "VideoData.LivenessVideo: not base64")
		r, err := ask(t, test.encryption, faceid.Query{Last: true}, test.script)
		if err != nil || len(r.Missing) != 1 || r.Missing[0].Reason != result.NotMedia || !r.Verdict.Passed {
			t.Errorf("%v", err)
		}
	}

	_, err := ask(t, body, faceid.Query{Last: true}, func(q sent) string {
		return `{"Response":{"EncryptedBody":"` + strings.Repeat("AAAA", 3000) + `*","Encryption":{"Iv":"` + q.Encryption.Iv + `","Algorithm":"AES-256-CBC"}}}`
	})
	wants(t, err, faceid.Transient, "EncryptedBody: not base64")
}

// spelled are members in every spelling that a decoder may be tempted to change.
const spelled = `"Text":{"ErrCode":0,"ErrMsg":"成功 \u0041\/\"\\\t\ud83d\ude00 <&>","Name":"n","Sim":98.50,"LivenessDetail":[
		{"ReqTime":1.7304264e12,"Errcode":0.0,"errcode":"0","Idcard":null,"IsNeedCharge":true,"Seq":12345678901234567890123}],
		"BigNumber":123456789012345678901234567890,"Tiny":1e-400,"Huge":1E+400,"MinusZero":-0,"Zeros":1.000,"new_field":{"A":[],"a":{}}},
	"IdCardData":{"OcrFront":null,"WarnInfos":[-9107,1e3,"x"],"warninfos":[1.0]},
	"VideoData":null,"IsVerifyIntention":false,"Later":{"Nested":[[1.10,[true]],"\u2028"]},"lower":1.0,"RequestId":"r"`

// However an answer comes, what is kept of it is what was sent: numbers to the digit,
// names to the letter, characters whatever their spelling.
func TestRawIsWhatWasSent(t *testing.T) {
	body := faceid.Encryption{Mode: faceid.EncryptBody, Session: dataKeySession}
	parts := func(whole func(sent, string) string) scripted {
		return func(q sent) string {
			switch q.InfoType {
			case "":
				return whole(q, `"Error":{"Code":"ResponseSizeLimitExceeded","Message":"x"},"RequestId":"r"`)
			case "1":
				return whole(q, strings.Replace(spelled, `"IdCardData":{`, `"IdCardData":null,"Unused":{`, 1))
			case "2":
				_, card, _ := strings.Cut(spelled, `"IdCardData"`)
				return whole(q, `"Text":{"ErrCode":null},"IdCardData"`+card)
			}
			return whole(q, `"Text":null,"IdCardData":{"OcrFront":"","WarnInfos":[]},"VideoData":null,"RequestId":"other"`)
		}
	}
	inClear := func(_ sent, members string) string { return `{"Response":{` + members + `}}` }
	sealed := func(q sent, members string) string { return sealedAnswer(t, q.Encryption.Iv, `{`+members+`}`) }
	wrapped := func(q sent, members string) string {
		return sealedAnswer(t, q.Encryption.Iv, `{"Response":{`+members+`}}`)
	}

	for name, test := range map[string]struct {
		encryption faceid.Encryption
		script     scripted
	}{
		"in clear":          {faceid.Encryption{}, func(q sent) string { return inClear(q, spelled) }},
		"in a body":         {body, func(q sent) string { return sealed(q, spelled) }},
		"in a wrapped body": {body, func(q sent) string { return wrapped(q, spelled) }},
		"in parts":          {faceid.Encryption{}, parts(inClear)},
		"in sealed parts":   {body, parts(sealed)},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ask(t, test.encryption, faceid.Query{}, test.script)
			if err != nil {
				t.Fatal(err)
			}
			want := literal(t, `{`+spelled+`}`).(map[string]any)
			got := literal(t, r.Raw.Reveal()).(map[string]any)
			delete(got, "Unused")
			for member, value := range want {
				if !reflect.DeepEqual(got[member], value) {
					t.Errorf("%s became %v, want %v", member, got[member], value)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d members, want %d: %s", len(got), len(want), r.Raw.Reveal())
			}
		})
	}
}

// literal decodes JSON with numbers as they are written.
func literal(t *testing.T, text string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// A name in another case counts, also beside the usual one that has nothing.
func TestNamesInAnotherCase(t *testing.T) {
	for _, body := range []string{
		`{"Response":{"text":{"errcode":0}}}`,
		`{"Response":{"Text":null,"TEXT":{"ErrCode":null,"errCode":0}}}`,
	} {
		pull(t, result.Enhanced, body, func(r *result.Result, err error) {
			if err != nil || !r.Verdict.Passed {
				t.Errorf("%s: %v", body, err)
			}
		})
	}
	r, err := ask(t, faceid.Encryption{Mode: faceid.EncryptBody, Session: dataKeySession}, faceid.Query{}, func(q sent) string {
		return strings.Replace(sealedAnswer(t, q.Encryption.Iv, `{"text":{"errCode":0}}`), `"RequestId"`, `"Text":null,"RequestId"`, 1)
	})
	if err != nil || !r.Verdict.Passed {
		t.Errorf("in a body: %v", err)
	}
}

// A service that has no video part of eid results says so once for each, and the result
// is whole.
func TestVideoPartRefused(t *testing.T) {
	for _, code := range []string{"InvalidParameterValue", "InvalidParameter", "ResponseSizeLimitExceeded", "UnknownParameter"} {
		var log bytes.Buffer
		rig := newRig(t, func(cfg *faceid.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		rig.api.Fail(faceidtest.Fault{InfoType: "4", Code: code})
		c := faceidtest.NewCheck(0, 50<<10)
		for number := 1; c.Product != result.EID; number++ {
			c = faceidtest.NewCheck(number, 50<<10)
		}
		c.TooLarge = true
		rig.api.Put(c)

		r, err := rig.get(t, query(c))
		if err != nil {
			t.Errorf("%s: %v", code, err)
			continue
		}
		same(t, c, r)
		if len(r.Missing) != 0 || rig.api.Calls(c.Token) != 7 {
			t.Errorf("%s: missing %v, %d calls", code, r.Missing, rig.api.Calls(c.Token))
		}
		if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "video part") || !strings.Contains(log.String(), code) {
			t.Errorf("%s: the log has %d lines: %s", code, lines, log.String())
		}
	}

	// Of an enhanced result the video is a part that nobody may leave out.
	rig := newRig(t, nil)
	rig.api.Fail(faceidtest.Fault{InfoType: "4", Code: "InvalidParameterValue"})
	c := faceidtest.NewCheck(0, 50<<10)
	for number := 1; c.Product != result.Enhanced; number++ {
		c = faceidtest.NewCheck(number, 50<<10)
	}
	c.TooLarge = true
	rig.api.Put(c)
	if _, err := rig.get(t, query(c)); faceid.ClassOf(err) != faceid.RequestTrouble {
		t.Errorf("%v", err)
	}
}
