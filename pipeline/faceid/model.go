package faceid

import (
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
	ReqTime        instant
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
