package faceid

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Step is the part of a check that a result code belongs to. The same number
// means different things in different steps (FACTS §3.2).
type Step string

const (
	// StepCheck is the whole check and its liveness and compare parts:
	// Text.ErrCode, LiveStatus, Comparestatus and those of attempts.
	StepCheck Step = "check"
	// StepIntention is the intention step by questions or nod:
	// FinalResultDetailCode.
	StepIntention Step = "intention"
	// StepReadAloud is the intention step by reading aloud:
	// IntentionVerifyData.ErrorCode.
	StepReadAloud Step = "read_aloud"
)

// ResultCode is one outcome of a step. All but 0 are no pass; all but 17 of
// StepCheck are final, and persisted.
type ResultCode struct {
	Step             Step
	Code             int64
	English, Chinese string
}

// ResultCodes returns every documented code (FACTS §3.2), in the order of steps
// and numbers. A code that is not among them is kept in results as it is.
func ResultCodes() []ResultCode { return slices.Clone(resultCodes) }

var resultCodes = slices.Concat(
	step(StepCheck, checkCodes),
	step(StepIntention, intentionCodes),
	step(StepReadAloud, readAloudCodes),
)

type wording struct{ english, chinese string }

// UnreadableLabel is the VerdictLabel of an outcome that cannot be read.
const UnreadableLabel = "unreadable"

// VerdictLabel returns the code of a verdict for counting: "0" if the person passed,
// else the documented code of the step that says why not, with the step in front
// unless it is the check itself; "other" for what is not documented.
func VerdictLabel(v result.Verdict) string {
	at, code := StepCheck, v.Code
	if v.Code == 0 && v.IntentionCode != nil {
		at, code = StepIntention, *v.IntentionCode
		if v.Intention == result.IntentionReadAloud {
			at = StepReadAloud
		}
	}
	switch {
	case v.Unreadable:
		return UnreadableLabel
	case v.Passed:
		return "0"
	case code == 0 || !slices.ContainsFunc(resultCodes, func(c ResultCode) bool { return c.Step == at && c.Code == code }):
		return "other"
	}
	return ResultCode{Step: at, Code: code}.Label()
}

// Label returns the code for counting: with its step in front, unless it is of the
// check itself.
func (c ResultCode) Label() string {
	code := strconv.FormatInt(c.Code, 10)
	if c.Step == StepCheck {
		return code
	}
	return string(c.Step) + ":" + code
}

// step makes rows of a table of one step, in the order of its numbers: 0 first,
// then by distance from it.
func step(s Step, table map[int64]wording) []ResultCode {
	rows := make([]ResultCode, 0, len(table))
	for _, code := range slices.SortedFunc(maps.Keys(table), func(a, b int64) int { return int(max(a, -a) - max(b, -b)) }) {
		rows = append(rows, ResultCode{s, code, table[code].english, table[code].chinese})
	}
	return rows
}

var checkCodes = map[int64]wording{
	0:    {"passed", "成功"},
	1:    {"the check was started with wrong parameters", "调用方式错误"},
	2:    {"the check was started with wrong parameters", "调用方式错误"},
	3:    {"the check was started with wrong parameters", "调用方式错误"},
	4:    {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	7:    {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	8:    {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	10:   {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	12:   {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	13:   {"the service was abnormal, the person should try again later", "服务异常，请稍后重试"},
	14:   {"this check was already finished", "本次核验已完成"},
	15:   {"the token had expired", "token 已过期"},
	16:   {"the number of tries of this token was used up", "重试次数已达上限"},
	17:   {"not finished yet: no result, ask again later", "流程未完成"},
	18:   {"too many calls at once", "调用频率超限"},
	19:   {"the token was out of its validity", "不在有效期内"},
	201:  {"a picture could not be fetched from WeChat", "从微信获取图片失败"},
	202:  {"a video could not be fetched from WeChat", "从微信获取视频失败"},
	203:  {"no permission for the interface", "接口无权限"},
	204:  {"the mini program or official account was not authorised", "小程序或公众号未授权"},
	301:  {"the scanned ID number is not the one that was passed in", "识别的身份证号与传入的不一致"},
	302:  {"the ID card has expired", "身份证已过期"},
	303:  {"the ID card could not be read", "身份证识别失败"},
	1001: {"the liveness engine timed out", "活体检测引擎超时"},
	1002: {"the recording is suspected not to be of a living person", "疑似非真人录制"},
	1003: {"face verification did not succeed", "人脸检测未通过"},
	1004: {"face verification failed", "人脸检测失败"},
	1005: {"face verification failed", "人脸检测失败"},
	1006: {"error of the identity library", "证件库异常"},
	1007: {"the liveness result was not pulled from WeChat, or risk control stepped in", "未拉取到微信活体结果，或命中风控"},
	1008: {"unstable network during the liveness step", "活体检测过程中网络不稳定"},
	1101: {"liveness by digits: voice, face, video or its format not usable", "数字活体：声音、人脸、视频或格式不可用"},
	1102: {"liveness by digits: voice, face, video or its format not usable", "数字活体：声音、人脸、视频或格式不可用"},
	1103: {"liveness by digits: voice, face, video or its format not usable", "数字活体：声音、人脸、视频或格式不可用"},
	1104: {"liveness by digits: voice, face, video or its format not usable", "数字活体：声音、人脸、视频或格式不可用"},
	1105: {"liveness by digits: voice, face, video or its format not usable", "数字活体：声音、人脸、视频或格式不可用"},
	1106: {"liveness by digits: volume, size or resolution too low, or lips unclear", "数字活体：音量过低、文件大小或像素不符合要求，或唇动不清晰"},
	1107: {"liveness by digits: volume, size or resolution too low, or lips unclear", "数字活体：音量过低、文件大小或像素不符合要求，或唇动不清晰"},
	1108: {"liveness by digits: volume, size or resolution too low, or lips unclear", "数字活体：音量过低、文件大小或像素不符合要求，或唇动不清晰"},
	1109: {"liveness by digits: volume, size or resolution too low, or lips unclear", "数字活体：音量过低、文件大小或像素不符合要求，或唇动不清晰"},
	1201: {"liveness by actions: bad light", "动作活体：光线不佳"},
	1202: {"liveness by actions: bad light", "动作活体：光线不佳"},
	1203: {"liveness by actions: face too near or too far", "动作活体：人脸过近或过远"},
	1204: {"liveness by actions: face too near or too far", "动作活体：人脸过近或过远"},
	1205: {"liveness by actions: face too near or too far", "动作活体：人脸过近或过远"},
	2001: {"the compare engine timed out", "比对引擎超时"},
	2002: {"the name has a wrong form", "姓名格式错误"},
	2003: {"the ID number has a wrong form", "身份证号格式错误"},
	2004: {"no photo could be taken from the video", "无法从视频中提取照片"},
	2005: {"the identity library has no such person", "证件库查无此人"},
	2006: {"name and ID number do not belong together (charged)", "姓名与身份证号不匹配（收费）"},
	2007: {"the identity library has no photo of the person", "证件库中无照片"},
	2008: {"the identity library has no photo of the person", "证件库中无照片"},
	2009: {"the resolution of the photo is too low", "照片分辨率过低"},
	2010: {"the face is not complete", "人脸不完整"},
	2011: {"not the same person: suspected not to be of a living person", "非同一人（疑似非真人）"},
	2012: {"several faces", "检测到多张人脸"},
	2013: {"the face is not complete", "人脸不完整"},
	2014: {"the resolution of the video is too low", "视频像素过低"},
	2015: {"not the same person: the comparison failed", "非同一人（比对失败）"},
	2016: {"not the same person: similarity below the threshold (charged)", "非同一人（相似度未达到阈值，收费）"},
	2017: {"the authority's source is being upgraded", "权威库升级中"},
	2018: {"too many tries today or in the last minutes; the person can try again after midnight", "尝试次数过多，请次日零点后重试"},
}

var intentionCodes = map[int64]wording{
	0:    {"passed", "成功"},
	-1:   {"wrong parameters", "参数错误"},
	-2:   {"error inside the service", "系统异常"},
	-101: {"the face left the frame", "请保持人脸在框内"},
	-102: {"several faces", "检测到多张人脸"},
	-103: {"no face was found", "人脸检测失败"},
	-104: {"the face was not complete", "人脸检测不完整"},
	-105: {"the eyes were covered", "请勿遮挡眼睛"},
	-106: {"the mouth was covered", "请勿遮挡嘴巴"},
	-107: {"the nose was covered", "请勿遮挡鼻子"},
	-201: {"similarity too low", "人脸比对相似度低"},
	-202: {"the comparison failed", "人脸比对失败"},
	-301: {"the intention was not confirmed", "意愿核验不通过"},
	-302: {"the mouth did not open (questions only)", "未检测到张嘴动作（仅问答模式）"},
	-800: {"the front end is not compatible", "前端不兼容"},
	-801: {"no permission for camera or microphone", "未获取到摄像头或麦克风权限"},
	-802: {"interrupted", "流程意外中断"},
	-803: {"closed by the person", "用户主动关闭"},
	-804: {"network trouble", "网络异常"},
	-998: {"the data were abnormal", "系统数据异常"},
	-999: {"unknown error", "系统未知错误"},
}

var readAloudCodes = func() map[int64]wording {
	table := map[int64]wording{
		0:    {"passed", "成功"},
		-1:   {"error inside the service", "系统异常"},
		-2:   {"wrong parameters", "参数错误"},
		3001: {"no usable face", "人脸检测未通过"},
		3002: {"no usable face", "人脸检测未通过"},
		3003: {"no usable face", "人脸检测未通过"},
		3011: {"the comparison of faces failed", "人脸比对未通过"},
		3012: {"the comparison of faces failed", "人脸比对未通过"},
		-800: {"the front end is not compatible", "前端不兼容"},
		-801: {"no permission for camera or microphone", "未获取到摄像头或麦克风权限"},
		-802: {"interrupted", "流程意外中断"},
		-803: {"closed by the person", "用户主动关闭"},
	}
	for code := int64(-17); code <= -3; code++ {
		table[code] = wording{"interrupted, or to be tried again", "流程中断，或需要重试"}
	}
	return table
}()

// APICode is an error code of the API and what follows from it.
type APICode struct {
	Code  string
	Class Class
	// Text says what is wrong and what to do.
	Text string
}

// APICodes returns every documented error code (FACTS §3.1), sorted.
func APICodes() []APICode {
	rows := make([]APICode, 0, len(apiCodes))
	for _, code := range slices.Sorted(maps.Keys(apiCodes)) {
		rows = append(rows, APICode{code, apiCodes[code].class, apiCodes[code].text})
	}
	return rows
}

// DescribeAPICode says what follows from a code, documented or not; of one that
// is not, its family decides.
func DescribeAPICode(code string) APICode {
	row := lookUp(strings.TrimSpace(code))
	return APICode{code, row.class, row.text}
}
