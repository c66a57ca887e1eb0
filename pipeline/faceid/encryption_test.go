package faceid_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// sent is what of a request an answer may depend on.
type sent struct {
	InfoType   string
	Encryption struct{ Iv string }
}

// scripted answers each request by a function.
type scripted func(sent) string

func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var q sent
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	return canned(s(q)).RoundTrip(r)
}

var dataKey = bytes.Repeat([]byte{7}, 32)

// dataKeySession makes sessions of one known key.
func dataKeySession(context.Context) (*envelope.Session, error) {
	key, err := envelope.NewDataKey(dataKey, "blob")
	if err != nil {
		return nil, err
	}
	return envelope.NewDataKeySession(key), nil
}

// ask pulls a result from a scripted API.
func ask(t *testing.T, e faceid.Encryption, q faceid.Query, script scripted) (*result.Result, error) {
	t.Helper()
	client, err := faceid.New(faceid.Config{
		Account: "main", Endpoint: "http://127.0.0.1:1", Timeout: time.Minute, MaxResponse: 1 << 20, Transport: script,
		Credentials: func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: "AKID", SecretKey: "key"}, nil
		},
		Encryption: e,
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
	t.Cleanup(func() {
		if err := errors.Join(batch.Close(), media.Close()); err != nil {
			t.Error(err)
		}
	})
	q.Product, q.Token, q.RuleID = result.Enhanced, "TOKEN", "1"
	return client.Get(t.Context(), q, batch)
}

// wants checks the class and words of an error.
func wants(t *testing.T, err error, class faceid.Class, words string) {
	t.Helper()
	if err == nil || faceid.ClassOf(err) != class || !strings.Contains(err.Error(), words) {
		t.Errorf("%s: %v, want %s: %s", faceid.ClassOf(err), err, class, words)
	}
}

// TestPartsOfObjectsWithNulls: what was not asked for may come as an object of
// nothing but nulls, which must not stand in the way of the real one.
func TestPartsOfObjectsWithNulls(t *testing.T) {
	const nothing = `"IdCardData":{"OcrFront":null,"OcrBack":"","WarnInfos":[]},"BestFrame":{"BestFrame":null,"BestFrames":[]},"VideoData":{"LivenessVideo":null},"IntentionActionResult":{"Details":null,"FinalResultMessage":null}`
	r, err := ask(t, faceid.Encryption{}, faceid.Query{}, func(q sent) string {
		switch q.InfoType {
		case "":
			return `{"Response":{"Error":{"Code":"ResponseSizeLimitExceeded","Message":"x"},"RequestId":"r"}}`
		case "1":
			return `{"Response":{"Text":{"ErrCode":0},` + nothing + `}}`
		case "2":
			return `{"Response":{"Text":{"ErrCode":null},"IdCardData":{"OcrFront":"/9j/4AAQSkZJRgABAQ==","OcrBack":null}}}`
		case "4":
			return `{"Response":{` + strings.Replace(nothing, `"VideoData":{"LivenessVideo":null}`, `"VideoData":{"LivenessVideo":"AAAAGGZ0eXBtcDQyAAAAAA=="}`, 1) + `}}`
		}
		return `{"Response":{` + nothing + `}}`
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Assets) != 2 || r.Assets[0].Field != "IdCardData.OcrFront" || r.Assets[1].Field != "VideoData.LivenessVideo" || !r.Verdict.Passed {
		t.Errorf("%+v, %+v", r.Assets, r.Verdict)
	}
}

// TestIntentionPartNotAskedFor: a verdict that depends on what was left out is not
// guessed.
func TestIntentionPartNotAskedFor(t *testing.T) {
	script := func(sent) string {
		return `{"Response":{"Text":{"ErrCode":0},"IsVerifyIntention":"true","IntentionVerifyType":"1","IntentionActionResult":null}}`
	}
	_, err := ask(t, faceid.Encryption{}, faceid.Query{InfoType: "13"}, script)
	wants(t, err, faceid.RequestTrouble, "add 5 and 6 to request.info_type")
	if r, err := ask(t, faceid.Encryption{}, faceid.Query{InfoType: "1356"}, script); err != nil || r.Verdict.Passed {
		t.Errorf("%v", err)
	}
}

// TestClearAnswers: what was to come encrypted and does not is no answer.
func TestClearAnswers(t *testing.T) {
	inClear := func(sent) string {
		return `{"Response":{"Text":{"ErrCode":0,"Name":"测试甲"},"Encryption":null}}`
	}
	_, err := ask(t, faceid.Encryption{Mode: faceid.EncryptFields, Session: dataKeySession}, faceid.Query{}, inClear)
	wants(t, err, faceid.RequestTrouble, "the names and numbers came in clear")
	_, err = ask(t, faceid.Encryption{Mode: faceid.EncryptBody, Session: dataKeySession}, faceid.Query{}, inClear)
	wants(t, err, faceid.RequestTrouble, "the answer came in clear")
	// A check in which nobody was seen has nothing to encrypt.
	unnamed := func(sent) string { return `{"Response":{"Text":{"ErrCode":1001,"Name":"","IdCard":null}}}` }
	if r, err := ask(t, faceid.Encryption{Mode: faceid.EncryptFields, Session: dataKeySession}, faceid.Query{}, unnamed); err != nil || r.Verdict.Code != 1001 {
		t.Errorf("%v", err)
	}
	_, err = ask(t, faceid.Encryption{}, faceid.Query{}, func(sent) string {
		return `{"Response":{"Text":{"ErrCode":0},"Encryption":{"EncryptList":["Response.Text.Name"]}}}`
	})
	wants(t, err, faceid.RequestTrouble, "which was not asked for")
}

// TestErrorInsideABody: an error may be encrypted like an answer.
func TestErrorInsideABody(t *testing.T) {
	for _, inner := range []string{
		`{"Error":{"Code":"InvalidParameterValue.BizTokenExpired","Message":"x"},"RequestId":"r"}`,
		`{"Response":{"Error":{"Code":"InvalidParameterValue.BizTokenExpired","Message":"x"}}}`,
	} {
		_, err := ask(t, faceid.Encryption{Mode: faceid.EncryptBody, Session: dataKeySession}, faceid.Query{}, func(q sent) string {
			return sealedAnswer(t, q.Encryption.Iv, inner)
		})
		wants(t, err, faceid.Permanent, "BizTokenExpired")
	}
}

func sealedAnswer(t *testing.T, iv, inner string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(iv)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := envelopetest.NewSealer(envelope.AES256CBC, dataKey, raw)
	if err != nil {
		t.Fatal(err)
	}
	var sealed bytes.Buffer
	if _, err := sealer.Body(&sealed, strings.NewReader(inner)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"Response":{"EncryptedBody":%q,"Encryption":{"Iv":%q,"Algorithm":"AES-256-CBC"},"RequestId":"r"}}`,
		base64.StdEncoding.EncodeToString(sealed.Bytes()), iv)
}

// TestRefusedKey: a key that is kept is given up when the service does not open it,
// and another one is tried once.
func TestRefusedKey(t *testing.T) {
	forgotten, calls := 0, 0
	e := faceid.Encryption{Mode: faceid.EncryptFields, Session: dataKeySession, Forget: func() { forgotten++ }}
	script := func(fail int) scripted {
		calls = 0
		return func(sent) string {
			if calls++; calls <= fail {
				return `{"Response":{"Error":{"Code":"FailedOperation.DecryptSystemError","Message":"x"}}}`
			}
			return `{"Response":{"Text":{"ErrCode":0}}}`
		}
	}
	if _, err := ask(t, e, faceid.Query{}, script(1)); err != nil || forgotten != 1 || calls != 2 {
		t.Errorf("%v, forgotten %d times, %d calls", err, forgotten, calls)
	}
	_, err := ask(t, e, faceid.Query{}, script(9))
	wants(t, err, faceid.RequestTrouble, "check encryption.public_key_file")
	if forgotten != 2 || calls != 2 {
		t.Errorf("forgotten %d times, %d calls", forgotten, calls)
	}
}

// TestKMSRefusals: what KMS says of a key never gives an event up.
func TestKMSRefusals(t *testing.T) {
	for code, want := range map[string]faceid.Class{
		"InvalidParameter":                      faceid.RequestTrouble,
		"InvalidParameterValue.InvalidKeyId":    faceid.RequestTrouble,
		"ResourceUnavailable.CmkDisabled":       faceid.RequestTrouble,
		"ResourceUnavailable.CmkNotFound":       faceid.RequestTrouble,
		"ResponseSizeLimitExceeded":             faceid.RequestTrouble,
		"UnauthorizedOperation":                 faceid.RequestTrouble,
		"AuthFailure.SignatureFailure":          faceid.AccountTrouble,
		"InternalError":                         faceid.Transient,
		"RequestLimitExceeded.UinLimitExceeded": faceid.Throttled,
	} {
		kms, err := faceid.NewKMS(faceid.KMSConfig{
			Endpoint: "http://127.0.0.1:1", KeyID: "key", Timeout: time.Minute,
			Transport: canned(`{"Response":{"Error":{"Code":"` + code + `","Message":"x"},"RequestId":"r"}}`),
			Credentials: func(context.Context) (faceid.Credential, error) {
				return faceid.Credential{SecretID: "AKID", SecretKey: "key"}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = kms.DataKey(t.Context())
		wants(t, err, want, "KMS GenerateDataKey")
		if strings.Contains(err.Error(), "rule_id") {
			t.Errorf("%s: %v", code, err)
		}
		kms.Close()
	}
}
