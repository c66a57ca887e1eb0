package faceid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// notFinished is the code of a flow that somebody is still in (FACTS §3.2).
const notFinished = 17

// read turns an answer into a result, but for what the query says about it.
func (c *Client) read(ctx context.Context, q Query, o *opened, batch *spool.Batch) (*result.Result, error) {
	requestID := requestIDOf(o.members)
	a, response, err := parse(o)
	if err != nil {
		return nil, err
	}
	if !a.unreadable() && (a.Text == nil || a.Text.ErrCode.value == nil || *a.Text.ErrCode.value == notFinished) {
		return nil, &Error{Class: NotReady, RequestID: requestID, Err: ErrNotFinished}
	}
	if len(o.damaged) > 0 && !q.Last {
		// A transfer may have gone wrong.
		return nil, &Error{Class: Transient, RequestID: requestID, Err: o.damaged[0]}
	}
	if a.Text == nil {
		a.Text = &detectText{} // of which nothing could be read
	}

	r := &result.Result{
		RequestID: requestID,
		Verdict:   verdict(a),
		Person:    person(a.Text),
		Document:  document(a.Text),
		Intention: intention(a),
		Attempts:  attempts(a.Text.LivenessDetail),
		Warnings:  warnings(a),
		Unread:    a.odd,
	}
	if a.EidInfo != nil {
		r.EID = result.EIDInfo{Code: a.EidInfo.EidCode, Sign: a.EidInfo.EidSign}
	}
	if err := c.openEID(q, r, a, response); err != nil {
		return nil, withRequestID(err, requestID)
	}

	found := &finder{ctx: ctx, batch: batch, media: o.media, resolver: c.resolver, inCOS: bool(a.IsCustomizeStorage), bucket: string(a.BucketName), last: q.Last}
	if r.Assets, err = found.assets(response); err != nil {
		return nil, withRequestID(err, requestID)
	}
	r.Missing = append(r.Missing, found.missing...)
	for _, damage := range o.damaged {
		r.Missing = append(r.Missing, result.Missing{Field: damage.Field, Reason: result.NotMedia})
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

// withRequestID returns err as an Error that names the call.
func withRequestID(err error, id string) error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Class: Transient, Err: err}
	}
	e.RequestID = id
	return e
}

// parsed is an answer, with what of it could not be read as documented.
type parsed struct {
	answer
	filler
}

// parse decodes an answer as it is, and fills from it the fields this version knows.
func parse(o *opened) (*parsed, map[string]any, error) {
	response := make(map[string]any, len(o.members))
	for name, value := range o.members {
		decoder := json.NewDecoder(bytes.NewReader(value))
		decoder.UseNumber()
		var decoded any
		if err := decoder.Decode(&decoded); err != nil {
			return nil, nil, failure(Transient, "the answer is not valid JSON in one of its members")
		}
		response[name] = decoded
	}

	a := &parsed{}
	for _, path := range o.odd {
		a.note(path, false)
	}
	a.members(reflect.ValueOf(&a.answer).Elem(), response, "")
	return a, response, nil
}

// unreadable reports whether the answer has a verdict that cannot be read.
func (a *parsed) unreadable() bool {
	return slices.Contains(a.lost, "Text") || slices.Contains(a.lost, "Text.ErrCode")
}

// lostAny reports whether one of the fields has a value that cannot be read.
func (a *parsed) lostAny(paths ...string) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return slices.Contains(a.lost, path) })
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
			Time: a.ReqTime.Time, Seq: string(a.Seq), Name: a.Name, IDCard: a.Idcard, Charged: bool(a.IsNeedCharge), Similarity: string(a.Sim),
			Code: a.Errcode.value, Message: string(a.Errmsg),
			LivenessCode: a.Livestatus.value, LivenessMessage: string(a.Livemsg),
			CompareCode: a.Comparestatus.value, CompareMessage: string(a.Comparemsg),
			CompareLibrary: string(a.CompareLibType), LivenessMode: a.LivenessMode.or(0),
		}
		out = append(out, one)
	}
	return out
}

func warnings(a *parsed) []result.Warning {
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
// flow has one (IsVerifyIntention). Of what decides, nothing is guessed: a check whose
// outcome cannot be read is not passed.
func verdict(a *parsed) result.Verdict {
	t := a.Text
	v := result.Verdict{
		Code: t.ErrCode.or(0), Message: string(t.ErrMsg),
		Liveness: t.LiveStatus.value, LivenessMessage: string(t.LiveMsg),
		Compare: t.Comparestatus.value, CompareMessage: string(t.Comparemsg),
		Similarity: string(t.Sim), CompareLibrary: string(t.CompareLibType),
		LivenessMode: t.LivenessMode.or(0), LivenessTags: texts(t.LivenessInfoTag),
	}
	v.Unreadable = a.unreadable() || a.lostAny("IsVerifyIntention")
	v.Passed = v.Code == 0 && !v.Unreadable
	if !a.IsVerifyIntention {
		return v
	}

	v.Unreadable = v.Unreadable || a.lostAny("IntentionVerifyType")
	consented := false
	switch strings.TrimSpace(string(a.IntentionVerifyType)) {
	case "0":
		v.Intention = result.IntentionQuestion
		v.Unreadable = v.Unreadable || a.lostAny("IntentionQuestionResult", "IntentionQuestionResult.FinalResultCode")
		if q := a.IntentionQuestionResult; q != nil {
			v.IntentionCode, v.IntentionMessage = q.FinalResultDetailCode.value, string(q.FinalResultMessage)
			consented = strings.TrimSpace(string(q.FinalResultCode)) == "0"
		}
	case "1":
		v.Intention = result.IntentionNod
		v.Unreadable = v.Unreadable || a.lostAny("IntentionActionResult", "IntentionActionResult.FinalResultDetailCode")
		if n := a.IntentionActionResult; n != nil {
			v.IntentionCode, v.IntentionMessage = n.FinalResultDetailCode.value, string(n.FinalResultMessage)
			consented = n.FinalResultDetailCode.or(-1) == 0
		}
	case "2":
		v.Intention = result.IntentionReadAloud
		v.Unreadable = v.Unreadable || a.lostAny("IntentionVerifyData", "IntentionVerifyData.ErrorCode")
		if r := a.IntentionVerifyData; r != nil {
			v.IntentionCode, v.IntentionMessage = r.ErrorCode.value, string(r.ErrorMessage)
			consented = r.ErrorCode.or(-1) == 0
		}
	default:
		v.Intention = result.IntentionUnknown
	}
	v.Passed = v.Passed && consented && !v.Unreadable
	return v
}

func intention(a *parsed) result.Intention {
	var out result.Intention
	if q := a.IntentionQuestionResult; q != nil {
		out.Answers, out.AnswerCodes = q.AsrResult, texts(q.ResultCode)
	}
	if r := a.IntentionVerifyData; r != nil && !r.AsrResult.IsEmpty() {
		out.Answers = append(out.Answers, r.AsrResult)
	}
	return out
}
