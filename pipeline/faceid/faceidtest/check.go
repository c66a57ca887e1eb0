package faceidtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Check is one identity check as the server knows it.
type Check struct {
	Product result.Product
	Token   string
	// RuleID is what a query of an enhanced check must name.
	RuleID string
	// Made is when the token was made: 72 hours later the result is gone.
	Made time.Time
	// TooLarge checks are only answered one part at a time.
	TooLarge bool
	// Unfinished checks answer like one that somebody is still in.
	Unfinished bool
	Person     Person
	// Code and Message are the outcome of the face step; 0 is a pass.
	Code    int64
	Message string
	// FailedAttempts are tries of the liveness step before the last one.
	FailedAttempts int
	// Intention is "" for off, "0" questions, "1" nod, "2" read aloud.
	Intention string
	// IntentionCode is the outcome of the intention step; 0 is a pass.
	IntentionCode int64
	Media         []Medium
	// Bucket is where media with a COS form lie; with it, IsCustomizeStorage is
	// true.
	Bucket, Region string
}

// Person is who was checked. Invent one; never use a real one.
type Person struct{ Name, IDCard, Address, Mobile string }

// Form is how a medium is in the answer.
type Form string

// The forms of media: base64 in the variants that senders use, and the forms of
// a path in COS that there is evidence for (FACTS §6.1).
const (
	Base64       Form = "base64"
	EscapedSlash Form = "base64, slashes escaped"
	URLSafe      Form = "base64, URL-safe, no padding"
	Lines        Form = "base64, in lines"
	DataURI      Form = "base64, data URI"
	COSKey       Form = "cos key"
	COSSlashKey  Form = "cos key with a leading slash"
	COSHost      Form = "cos host and key"
	COSURL       Form = "cos URL"
)

// InCOS reports whether the form is a path.
func (f Form) InCOS() bool { return f == COSKey || f == COSSlashKey || f == COSHost || f == COSURL }

// Medium is one picture, video or sound. Its bytes follow from Seed and Size.
type Medium struct {
	// Field is the path in the Response object, such as "BestFrame.BestFrames[0]".
	Field string
	Kind  result.Kind
	Size  int64
	Seed  uint64
	Form  Form
}

// Key is the object key of a medium whose form is a path in COS.
func (m Medium) Key() string {
	return fmt.Sprintf("faceid/2026/11/24/%016x/%s.%s", m.Seed, m.Field, map[result.Kind]string{result.Image: "jpg", result.Video: "mp4", result.Audio: "wav"}[m.Kind])
}

// magic begins a medium of each kind, so that it is recognised as one.
var magic = map[result.Kind]string{
	result.Image: "\xff\xd8\xff\xe0\x00\x10JFIF\x00",
	result.Video: "\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00",
	result.Audio: "RIFF\x00\x00\x00\x00WAVEfmt ",
}

// Reader returns the bytes of the medium, made while they are read.
func (m Medium) Reader() io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], m.Seed)
	head := magic[m.Kind]
	return io.LimitReader(io.MultiReader(&stringReader{head}, rand.NewChaCha8(seed)), m.Size)
}

type stringReader struct{ rest string }

func (r *stringReader) Read(p []byte) (int, error) {
	if r.rest == "" {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// NewCheck returns a finished, plausible check that follows from number alone:
// the product, the forms of its media, the outcome and the intention mode go
// through all that there is as number counts up. Media are some KiB, videos up
// to videoSize bytes. The person is invented.
func NewCheck(number int, videoSize int64) Check {
	random := rand.New(rand.NewPCG(uint64(number), 0xface1d))
	c := Check{
		Product: result.Enhanced, RuleID: "1",
		Token: fmt.Sprintf("DEMO-%08X-%06d", random.Uint32(), number),
		Made:  time.Now().Add(-time.Duration(random.IntN(60)+1) * time.Minute),
		Person: Person{
			Name:    fmt.Sprintf("测试甲%d", number),
			IDCard:  fmt.Sprintf("00000019000101%04d", number%10000),
			Address: fmt.Sprintf("虚构省测试市样例路%d号", number),
			Mobile:  fmt.Sprintf("0000000%04d", number%10000),
		},
		Message: "成功", FailedAttempts: random.IntN(3),
		Intention: []string{"", "0", "1", "2"}[number/2%4],
		Bucket:    "faceid-1250000000", Region: "ap-guangzhou",
	}
	if number%2 == 1 {
		c.Product, c.RuleID = result.EID, ""
	}
	if number%7 == 6 {
		c.Code, c.Message, c.Intention = 2016, "比对相似度未达到通过标准", ""
	}
	forms := [][]Form{
		{Base64}, {COSKey}, {Base64, COSKey}, {EscapedSlash, URLSafe}, {COSSlashKey, COSHost, COSURL}, {Lines, DataURI},
	}[number%6]
	add := func(field string, kind result.Kind, size int64) {
		form := forms[len(c.Media)%len(forms)]
		if form.InCOS() && len(field) > 20 && field[:20] == "IntentionVerifyData." {
			form = Base64 // never in COS, FACTS §1.3
		}
		c.Media = append(c.Media, Medium{Field: field, Kind: kind, Size: size, Seed: random.Uint64(), Form: form})
	}
	picture := func() int64 { return 20_000 + random.Int64N(60_000) }
	video := func() int64 { return videoSize/2 + random.Int64N(videoSize/2+1) }
	add("IdCardData.OcrFront", result.Image, picture())
	add("IdCardData.OcrBack", result.Image, picture())
	add("BestFrame.BestFrame", result.Image, picture())
	if c.Product == result.Enhanced {
		add("VideoData.LivenessVideo", result.Video, video())
	}
	switch c.Intention {
	case "0":
		add("IntentionQuestionResult.Video", result.Video, video())
		add("IntentionQuestionResult.ScreenShot[0]", result.Image, picture())
		add("IntentionQuestionResult.Audios[0]", result.Audio, picture())
	case "1":
		add("IntentionActionResult.Details[0].Video", result.Video, video())
		add("IntentionActionResult.Details[0].ScreenShot[0]", result.Image, picture())
	case "2":
		add("IntentionVerifyData.IntentionVerifyVideo", result.Video, video())
		add("IntentionVerifyData.IntentionVerifyBestFrame", result.Image, picture())
	}
	return c
}
