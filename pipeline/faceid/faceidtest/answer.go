package faceidtest

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const (
	// maxRequest is the API's limit on a request's body (FACTS §4).
	maxRequest = 10 << 20
	// resultLife is how long a result is kept (FACTS §4).
	resultLife = 72 * time.Hour
)

// parameters are those of both actions (FACTS §1.1, §2.1).
type parameters struct {
	BizToken, EidToken string
	RuleID             string `json:"RuleId"`
	InfoType           string
	BestFramesCount    int
	IsReturnAllVideo   bool
	CropIDCard         bool `json:"IsCutIdCardImage"`
	Avatar             bool `json:"IsNeedIdCardAvatar"`
	Encryption         *envelope.Encryption
	IsEncryptResponse  bool

	// sealer encrypts the answer; nil if it goes in clear.
	sealer *envelopetest.Sealer
	// desKey and userInfo are the person of an eid check.
	desKey, userInfo string
}

// newRequestID makes an id of the form that the API's have.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails

	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	now := s.clock()
	s.mu.Lock()
	s.requests++
	s.perSecond[now.Unix()]++
	s.mu.Unlock()
	requestID := newRequestID()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		refuse(w, requestID, "RequestSizeLimitExceeded")
		return
	}
	if code := s.verify(r, body); code != "" {
		refuse(w, requestID, code)
		return
	}
	if s.serveKMS(w, r.Header.Get("X-TC-Action"), body, requestID) {
		return
	}
	check, p, code := s.find(r, body, now)
	s.count(p)
	if f := s.next(p); f != nil && f.serve(w, r, requestID) {
		return
	}
	if code != "" {
		refuse(w, requestID, code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(s.shorten(w, p), 64<<10)
	if p.sealer != nil && p.IsEncryptResponse {
		writeSealed(out, check, p, requestID)
	} else {
		_, _ = out.WriteString(`{"Response":`)
		writeAnswer(out, check, p, requestID)
		_, _ = out.WriteString("}")
	}
	_ = out.Flush()
}

func (p parameters) token() string { return p.BizToken + p.EidToken }

func (s *Server) count(p parameters) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[p.token()]++
}

func refuse(w http.ResponseWriter, requestID, code string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"Response":{"Error":{"Code":%q,"Message":"refused by the stand-in"},"RequestId":%q}}`, code, requestID)
}

// find returns the check that a request names, or the API's error code.
func (s *Server) find(r *http.Request, body []byte, now time.Time) (Check, parameters, string) {
	var p parameters
	if r.Method != http.MethodPost {
		return Check{}, p, "InvalidRequest"
	}
	if r.Header.Get("X-TC-Version") != "2018-03-01" {
		return Check{}, p, "NoSuchVersion"
	}
	known := map[string]bool{"InfoType": true, "BestFramesCount": true, "IsCutIdCardImage": true, "IsNeedIdCardAvatar": true}
	product := result.Enhanced
	illegal := "InvalidParameter"
	switch r.Header.Get("X-TC-Action") {
	case "GetDetectInfoEnhanced":
		for _, name := range []string{"BizToken", "RuleId", "IsEncrypt", "Encryption", "IsEncryptResponse", "IsReturnAllVideo"} {
			known[name] = true
		}
	case "GetEidResult":
		product, illegal = result.EID, "InvalidParameterValue.BizTokenIllegal"
		known["EidToken"] = true
	default:
		return Check{}, p, "InvalidAction"
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(body, &raw) != nil || json.Unmarshal(body, &p) != nil {
		return Check{}, p, "InvalidParameter"
	}
	for name := range raw {
		if !known[name] {
			return Check{}, p, "UnknownParameter"
		}
	}
	if code := s.seal(&p); code != "" {
		return Check{}, p, code
	}
	if p.token() == "" || product == result.Enhanced && p.RuleID == "" {
		return Check{}, p, "MissingParameter"
	}
	s.mu.Lock()
	check, there := s.checks[key{product, p.token()}]
	s.mu.Unlock()
	switch {
	case !there:
		return Check{}, p, illegal
	case check.RuleID != p.RuleID:
		return Check{}, p, "InvalidParameterValue.RuleIdNotExist"
	case now.Sub(check.Made) > resultLife:
		return Check{}, p, "InvalidParameterValue.BizTokenExpired"
	case check.TooLarge && (len(p.InfoType) != 1 || p.InfoType == "0"):
		return Check{}, p, "ResponseSizeLimitExceeded"
	}
	if check.Product == result.EID && !check.Unfinished && check.Code == 0 {
		p.desKey, p.userInfo = s.sealPerson(check.Person)
	}
	return check, p, ""
}

// wants reports whether a part was asked for.
func (p parameters) wants(part string) bool {
	return p.InfoType == "" || strings.ContainsAny(p.InfoType, "0"+part)
}

// writeAnswer streams the Response object. Fields are in the order of the documentation's
// examples; what is not there is null, "" or [].
func writeAnswer(w *bufio.Writer, c Check, p parameters, requestID string) {
	o := &object{w: w, check: c, p: p}
	o.open("{")
	o.text()
	if p.wants("2") {
		o.group("IdCardData", "OcrFront", "OcrBack", "ProcessedFrontImage", "ProcessedBackImage", "Avatar")
		o.raw(`,"WarnInfos":[-9107],"BackWarnInfos":[]}`)
	} else {
		o.field("IdCardData", nil)
	}
	if p.wants("3") {
		o.group("BestFrame", "BestFrame", "BestFrames[]")
		o.raw("}")
	} else {
		o.field("BestFrame", nil)
	}
	if c.Product == result.Enhanced {
		o.videos()
	} else {
		o.field("EidInfo", map[string]any{"EidCode": "EXAMPLE-CODE", "EidSign": "EXAMPLE-SIGN", "DesKey": p.desKey, "UserInfo": p.userInfo})
	}
	o.intention()
	o.field("IsVerifyIntention", c.Intention != "")
	o.field("IntentionVerifyType", c.Intention)
	inCOS := slices.ContainsFunc(c.Media, func(m Medium) bool { return m.Form.InCOS() })
	o.field("IsCustomizeStorage", inCOS)
	bucket := ""
	if inCOS {
		bucket = c.Bucket
	}
	o.field("BucketName", bucket)
	if c.Product == result.Enhanced {
		o.field("Encryption", o.encryption())
		o.field("EncryptedBody", "")
	}
	o.field("RequestId", requestID)
	o.raw("}")
}

// object writes the members of one JSON object after the other.
type object struct {
	w     *bufio.Writer
	check Check
	p     parameters
	comma bool
	// list and tags tell which fields are encrypted.
	list, tags []string
}

func (o *object) raw(s string) { _, _ = o.w.WriteString(s) }

// open begins an object.
func (o *object) open(s string) {
	o.raw(s)
	o.comma = false
}

// name writes a member's name.
func (o *object) name(name string) {
	if o.comma {
		o.raw(",")
	}
	o.comma = true
	o.raw(`"` + name + `":`)
}

func (o *object) field(name string, value any) {
	o.name(name)
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // only values of this package get here
	}
	_, _ = o.w.Write(body)
}

// text writes the Text part.
func (o *object) text() {
	c := o.check
	if !o.p.wants("1") {
		o.field("Text", nil)
		return
	}
	o.name("Text")
	o.open("{")
	defer func() { o.raw("}") }()
	person := c.Person
	if c.Product == result.EID {
		person = Person{} // comes in EidInfo, FACTS §2.2
	}
	if c.Unfinished {
		o.field("ErrCode", nil)
		o.field("ErrMsg", nil)
		o.field("LivenessDetail", []any{})
		return
	}
	live := map[bool]any{true: 0, false: c.Code}[c.Code == 0 || c.Code >= 2000]
	var compare any
	if c.Code == 0 || c.Code >= 2000 {
		compare = c.Code
	}
	for _, f := range []struct {
		name  string
		value any
	}{
		{"ErrCode", c.Code}, {"ErrMsg", c.Message}, {"IdCard", o.sealed("Text.IdCard", person.IDCard)}, {"UseIDType", 0}, {"Name", o.sealed("Text.Name", person.Name)},
		{"OcrNation", "汉"}, {"OcrAddress", person.Address}, {"OcrBirth", "1900/1/1"}, {"OcrAuthority", ""},
		{"OcrValidDate", "1900.01.01-1920.01.01"}, {"OcrName", o.sealed("Text.OcrName", person.Name)}, {"OcrIdCard", o.sealed("Text.OcrIdCard", person.IDCard)}, {"OcrGender", "男"},
		{"IdInfoFrom", "OCR"}, {"LiveStatus", live}, {"LiveMsg", "成功"}, {"Comparestatus", compare}, {"Comparemsg", c.Message},
		{"Sim", "95.51"}, {"Location", nil}, {"Extra", "order-" + c.Token}, {"LivenessDetail", o.attempts(person)},
		{"LivenessInfoTag", []string{"01"}}, {"Mobile", person.Mobile}, {"CompareLibType", "权威库"}, {"LivenessMode", 4},
		{"NFCRequestIds", []string{}}, {"NFCBillingCounts", 0}, {"PassNo", nil}, {"VisaNum", nil}, {"LivenessActionSequence", "1,2"},
	} {
		o.field(f.name, f.value)
	}
}

// attempts are the failed tries of the liveness step and the last one.
func (o *object) attempts(person Person) []map[string]any {
	out := make([]map[string]any, 0, o.check.FailedAttempts+1)
	for i := range o.check.FailedAttempts + 1 {
		last := i == o.check.FailedAttempts
		code := int64(1003)
		if last {
			code = o.check.Code
		}
		out = append(out, map[string]any{
			"ReqTime": strconv.FormatInt(o.check.Made.UnixMilli()+int64(i)*1000, 10), "Seq": fmt.Sprintf("%s-%d", o.check.Token, i),
			"Idcard": o.sealed(fmt.Sprintf("Text.LivenessDetail[%d].Idcard", i), person.IDCard),
			"Name":   o.sealed(fmt.Sprintf("Text.LivenessDetail[%d].Name", i), person.Name), "Sim": nil, "IsNeedCharge": last, "Errcode": code, "Errmsg": o.check.Message,
			"Livestatus": 0, "Livemsg": "成功", "Comparestatus": nil, "Comparemsg": nil, "CompareLibType": "权威库", "LivenessMode": 4,
		})
	}
	return out
}

// group opens an object of media fields; it stays open.
func (o *object) group(name string, fields ...string) {
	o.name(name)
	o.open("{")
	for _, f := range fields {
		o.media(name, f)
	}
	o.comma = true
}

// media writes one media field, or the array of them where it ends with [].
func (o *object) media(group, field string) {
	name, isArray := strings.CutSuffix(field, "[]")
	o.name(name)
	path := group + "." + name
	if !isArray {
		if m, ok := o.find(path); ok {
			o.medium(m)
		} else {
			o.raw(`""`)
		}
		return
	}
	o.raw("[")
	for i := 0; ; i++ {
		m, ok := o.find(fmt.Sprintf("%s[%d]", path, i))
		if !ok || path == "BestFrame.BestFrames" && i >= o.p.BestFramesCount {
			break
		}
		if i > 0 {
			o.raw(",")
		}
		o.medium(m)
	}
	o.raw("]")
}

// find returns the medium of a field, if it is there and was asked for.
func (o *object) find(path string) (Medium, bool) {
	switch {
	case strings.HasPrefix(path, "IdCardData.Processed") && !o.p.CropIDCard,
		path == "IdCardData.Avatar" && !o.p.Avatar:
		return Medium{}, false
	}
	for _, m := range o.check.Media {
		if m.Field == path {
			return m, true
		}
	}
	return Medium{}, false
}

// videos writes VideoData.
func (o *object) videos() {
	if !o.p.wants("4") {
		o.field("VideoData", nil)
		return
	}
	o.group("VideoData", "LivenessVideo")
	o.name("LivenessVideos")
	o.raw("[")
	for i := 0; o.p.IsReturnAllVideo; i++ {
		m, ok := o.find(fmt.Sprintf("VideoData.LivenessVideos[%d].Video", i))
		if !ok {
			break
		}
		if i > 0 {
			o.raw(",")
		}
		o.raw(fmt.Sprintf(`{"Seq":"%s-%d","Video":`, o.check.Token, i))
		o.medium(m)
		o.raw("}")
	}
	o.raw("]}")
	o.comma = true
}

// intention writes the results of the three modes; only one is there, and only
// if the face step passed.
func (o *object) intention() {
	mode := o.check.Intention
	if o.check.Code != 0 {
		mode = ""
	}
	code := o.check.IntentionCode
	outcome := map[bool]string{true: "成功", false: "意愿核身未通过"}[code == 0]
	if mode == "2" && o.p.wants("5") {
		o.group("IntentionVerifyData", "IntentionVerifyVideo", "IntentionVerifyBestFrame", "IntentionVerifyAudio")
		o.field("AsrResult", "我同意办理该业务")
		o.field("ErrorCode", code)
		o.field("ErrorMessage", outcome)
		o.raw("}")
	} else {
		o.field("IntentionVerifyData", nil)
	}
	if mode == "0" && o.p.wants("6") {
		o.group("IntentionQuestionResult", "Video", "ScreenShot[]", "Audios[]")
		o.field("FinalResultDetailCode", code)
		o.field("FinalResultMessage", outcome)
		o.field("ResultCode", []string{"0"})
		o.field("AsrResult", []string{"同意"})
		o.field("FinalResultCode", map[bool]string{true: "0", false: "-1"}[code == 0])
		o.raw("}")
	} else {
		o.field("IntentionQuestionResult", nil)
	}
	if mode == "1" && o.p.wants("6") {
		o.name("IntentionActionResult")
		o.open("{")
		o.field("FinalResultDetailCode", code)
		o.field("FinalResultMessage", outcome)
		o.name("Details")
		o.open("[{")
		o.media("IntentionActionResult.Details[0]", "Video")
		o.media("IntentionActionResult.Details[0]", "ScreenShot[]")
		o.raw("}]}")
		o.comma = true
	} else {
		o.field("IntentionActionResult", nil)
	}
}

// medium writes the string of one medium in its form.
func (o *object) medium(m Medium) {
	host := o.check.Bucket + ".cos." + o.check.Region + ".myqcloud.com/"
	switch m.Form {
	case COSKey:
		o.raw(`"` + m.Key() + `"`)
	case COSSlashKey:
		o.raw(`"/` + m.Key() + `"`)
	case COSHost:
		o.raw(`"` + host + m.Key() + `"`)
	case COSURL:
		// Encoders write brackets in a URL's path as they like.
		o.raw(`"https://` + host + strings.NewReplacer("[", "%5B", "]", "%5D").Replace(m.Key()) + `"`)
	default:
		o.base64(m)
	}
}

func (o *object) base64(m Medium) {
	encoding, sink := base64.StdEncoding, io.Writer(o.w)
	o.raw(`"`)
	switch m.Form {
	case EscapedSlash:
		sink = &rewriter{w: o.w, slash: `\/`}
	case Lines:
		sink = &rewriter{w: o.w, slash: "/", line: 76}
	case URLSafe:
		encoding = base64.RawURLEncoding
	case DataURI:
		o.raw("data:application/octet-stream;base64,")
	}
	encoder := base64.NewEncoder(encoding, sink)
	_, _ = io.CopyBuffer(struct{ io.Writer }{encoder}, m.Reader(), make([]byte, 48<<10))
	_ = encoder.Close()
	o.raw(`"`)
}

// rewriter changes base64 on its way into a JSON string.
type rewriter struct {
	w     *bufio.Writer
	slash string
	// line is the length of lines, 0 for none.
	line, column int
}

func (r *rewriter) Write(p []byte) (int, error) {
	for _, c := range p {
		if r.line > 0 && r.column == r.line {
			_, _ = r.w.WriteString(`\r\n`)
			r.column = 0
		}
		r.column++
		if c == '/' {
			_, _ = r.w.WriteString(r.slash)
			continue
		}
		_ = r.w.WriteByte(c)
	}
	return len(p), nil
}
