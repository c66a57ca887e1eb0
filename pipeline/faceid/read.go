package faceid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// notFinished is the code of a flow that somebody is still in (FACTS §3.2).
const notFinished = 17

// read turns an answer into a result, but for what the query says about it.
func (c *Client) read(ctx context.Context, o *opened, batch *spool.Batch) (*result.Result, error) {
	requestID := requestIDOf(o.members)
	response, a, err := parse(o.members)
	if err != nil {
		return nil, err
	}
	if a.Text == nil || a.Text.ErrCode.value == nil || *a.Text.ErrCode.value == notFinished {
		return nil, &Error{Class: NotReady, RequestID: requestID, Err: ErrNotFinished}
	}
	r := &result.Result{
		RequestID: requestID,
		Verdict:   verdict(a),
		Person:    person(a.Text),
		Document:  document(a.Text),
		Intention: intention(a),
		Attempts:  attempts(a.Text.LivenessDetail),
		Warnings:  warnings(a),
	}
	if a.EidInfo != nil {
		r.EID = result.EIDInfo{Code: a.EidInfo.EidCode, Sign: a.EidInfo.EidSign}
	}
	if err := c.openEID(r, a, response); err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.RequestID = requestID
		}
		return nil, err
	}
	found := &finder{ctx: ctx, batch: batch, media: o.media, resolver: c.resolver, inCOS: bool(a.IsCustomizeStorage), bucket: string(a.BucketName)}
	if r.Assets, err = found.assets(response); err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Class: Transient, Err: err}
		}
		e.RequestID = requestID
		return nil, e
	}
	// The finder left "asset:<field>" in place of media.
	raw := &bytes.Buffer{}
	encoder := json.NewEncoder(raw)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(response); err != nil {
		return nil, failure(Transient, "the answer cannot be encoded again")
	}
	r.Raw = result.NewSensitive(string(bytes.TrimSpace(raw.Bytes())))
	return r, nil
}

// parse decodes an answer twice: into the fields this version knows, and as it
// is.
func parse(members map[string]json.RawMessage) (map[string]any, *answer, error) {
	unexpected := &Error{Class: Transient, Err: errUnexpected}
	whole, err := json.Marshal(members)
	if err != nil {
		return nil, nil, unexpected
	}
	var a answer
	if err := json.Unmarshal(whole, &a); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			// Field is a path in our own types, not the sender's text.
			return nil, nil, failure(Transient, "%w: %s", errUnexpected, kind.Field)
		}
		return nil, nil, unexpected
	}
	decoder := json.NewDecoder(bytes.NewReader(whole))
	decoder.UseNumber()
	var response map[string]any
	if err := decoder.Decode(&response); err != nil {
		return nil, nil, unexpected
	}
	return response, &a, nil
}

func person(t *detectText) result.Person {
	return result.Person{
		Name: t.Name, IDCard: t.IDCard, IDType: t.UseIDType.or(0),
		Mobile: t.Mobile, Location: t.Location, Extra: t.Extra,
	}
}

func document(t *detectText) result.Document {
	return result.Document{
		Name: t.OcrName, IDCard: t.OcrIDCard, Gender: t.OcrGender, Nation: t.OcrNation,
		Birth: t.OcrBirth, Address: t.OcrAddress, Authority: t.OcrAuthority, Valid: t.OcrValidDate,
		PassNo: t.PassNo, VisaNum: t.VisaNum, Source: string(t.IDInfoFrom),
	}
}

func attempts(list []attempt) []result.Attempt {
	out := make([]result.Attempt, 0, len(list))
	for _, a := range list {
		one := result.Attempt{
			Seq: string(a.Seq), Name: a.Name, IDCard: a.Idcard, Charged: bool(a.IsNeedCharge), Similarity: string(a.Sim),
			Code: a.Errcode.value, Message: string(a.Errmsg),
			LivenessCode: a.Livestatus.value, LivenessMessage: string(a.Livemsg),
			CompareCode: a.Comparestatus.value, CompareMessage: string(a.Comparemsg),
			CompareLibrary: string(a.CompareLibType), LivenessMode: a.LivenessMode.or(0),
		}
		if a.ReqTime.value != nil {
			one.Time = time.UnixMilli(*a.ReqTime.value).UTC()
		}
		out = append(out, one)
	}
	return out
}

func warnings(a *answer) []result.Warning {
	if a.IDCardData == nil {
		return nil
	}
	var out []result.Warning
	for _, side := range []struct {
		name  string
		codes []number
	}{{"front", a.IDCardData.WarnInfos}, {"back", a.IDCardData.BackWarnInfos}} {
		for _, code := range side.codes {
			if code.value != nil {
				out = append(out, result.Warning{Side: side.name, Code: *code.value})
			}
		}
	}
	return out
}

// verdict states the outcome: the face step's, or the intention step's where the
// flow has one (FACTS §1.2, IsVerifyIntention).
func verdict(a *answer) result.Verdict {
	t := a.Text
	v := result.Verdict{
		Code: t.ErrCode.or(0), Message: string(t.ErrMsg),
		Liveness: t.LiveStatus.value, LivenessMessage: string(t.LiveMsg),
		Compare: t.Comparestatus.value, CompareMessage: string(t.Comparemsg),
		Similarity: string(t.Sim), CompareLibrary: string(t.CompareLibType),
		LivenessMode: t.LivenessMode.or(0), LivenessTags: texts(t.LivenessInfoTag),
	}
	v.Passed = v.Code == 0
	if !a.IsVerifyIntention {
		return v
	}
	consented := false
	switch a.IntentionVerifyType {
	case "0":
		v.Intention = result.IntentionQuestion
		if q := a.IntentionQuestionResult; q != nil {
			v.IntentionCode, v.IntentionMessage = q.FinalResultDetailCode.value, string(q.FinalResultMessage)
			consented = q.FinalResultCode == "0"
		}
	case "1":
		v.Intention = result.IntentionNod
		if n := a.IntentionActionResult; n != nil {
			v.IntentionCode, v.IntentionMessage = n.FinalResultDetailCode.value, string(n.FinalResultMessage)
			consented = n.FinalResultDetailCode.or(-1) == 0
		}
	case "2":
		v.Intention = result.IntentionReadAloud
		if r := a.IntentionVerifyData; r != nil {
			v.IntentionCode, v.IntentionMessage = r.ErrorCode.value, string(r.ErrorMessage)
			consented = r.ErrorCode.or(-1) == 0
		}
	default:
		v.Intention = result.IntentionUnknown
	}
	v.Passed = v.Passed && consented
	return v
}

func intention(a *answer) result.Intention {
	var out result.Intention
	if q := a.IntentionQuestionResult; q != nil {
		out.Answers, out.AnswerCodes = q.AsrResult, texts(q.ResultCode)
	}
	if r := a.IntentionVerifyData; r != nil && !r.AsrResult.IsEmpty() {
		out.Answers = append(out.Answers, r.AsrResult)
	}
	return out
}
