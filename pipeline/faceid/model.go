package faceid

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// answer is the "Response" object of both actions (FACTS §1.2, §2.2). Nearly
// every field may be null. Media fields are not here: they are found by path.
type answer struct {
	Text                    *detectText
	IDCardData              *cardWarnings `json:"IdCardData"`
	EidInfo                 *eidInfo
	IntentionVerifyData     *readAloud
	IntentionQuestionResult *questions
	IntentionActionResult   *nod
	IsVerifyIntention       flag
	IntentionVerifyType     text
	IsCustomizeStorage      flag
	BucketName              text
}

// cardWarnings is what of DetectInfoIdCardData is not media.
type cardWarnings struct{ WarnInfos, BackWarnInfos []number }

// detectText is DetectInfoText.
type detectText struct {
	ErrCode   number
	ErrMsg    text
	IDCard    result.Sensitive `json:"IdCard"`
	Name      result.Sensitive
	UseIDType number

	OcrNation, OcrAddress, OcrBirth, OcrAuthority, OcrValidDate result.Sensitive
	OcrName, OcrGender                                          result.Sensitive
	OcrIDCard                                                   result.Sensitive `json:"OcrIdCard"`

	IDInfoFrom              text `json:"IdInfoFrom"`
	LiveStatus              number
	LiveMsg                 text
	Comparestatus           number
	Comparemsg              text
	Sim                     text
	Location, Extra, Mobile result.Sensitive
	LivenessDetail          []attempt
	LivenessInfoTag         []text
	CompareLibType          text
	LivenessMode            number
	PassNo, VisaNum         result.Sensitive
}

// attempt is DetectDetail, which spells some fields in its own way.
type attempt struct {
	ReqTime        number
	Seq            text
	Idcard, Name   result.Sensitive
	Sim            text
	IsNeedCharge   flag
	Errcode        number
	Errmsg         text
	Livestatus     number
	Livemsg        text
	Comparestatus  number
	Comparemsg     text
	CompareLibType text
	LivenessMode   number
}

type eidInfo struct {
	EidCode, EidSign result.Sensitive
	// Ciphertext, see FACTS §2.4.
	DesKey, UserInfo text
}

// readAloud is IntentionVerifyData.
type readAloud struct {
	AsrResult    result.Sensitive
	ErrorCode    number
	ErrorMessage text
}

// questions is IntentionQuestionResult.
type questions struct {
	FinalResultDetailCode number
	FinalResultMessage    text
	FinalResultCode       text
	AsrResult             []result.Sensitive
	ResultCode            []text
}

// nod is IntentionActionResult.
type nod struct {
	FinalResultDetailCode number
	FinalResultMessage    text
}

// number is an integer that may be null or absent, and that a sender may write
// as a string.
type number struct{ value *int64 }

func (n *number) UnmarshalJSON(b []byte) error {
	n.value = nil
	b = bytes.Trim(b, `"`)
	if len(b) == 0 || string(b) == "null" {
		return nil
	}
	v, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return errors.New("not an integer")
	}
	n.value = &v
	return nil
}

// flag is a truth that may be null, and that a sender may write as a string or as 0
// or 1.
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	switch strings.ToLower(string(bytes.Trim(b, `"`))) {
	case "true", "1":
		*f = true
	case "false", "0", "null", "":
		*f = false
	default:
		return errors.New("not a truth")
	}
	return nil
}

// or returns the number, or other where there is none.
func (n number) or(other int64) int64 {
	if n.value == nil {
		return other
	}
	return *n.value
}

// text is a string that may be null, and that a sender may write as a number.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = ""
	switch {
	case string(b) == "null":
		return nil
	case b[0] == '"':
		return json.Unmarshal(b, (*string)(t))
	case b[0] == '{' || b[0] == '[':
		return errors.New("not a string")
	default:
		*t = text(b)
		return nil
	}
}

func texts(list []text) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = string(t)
	}
	return out
}
