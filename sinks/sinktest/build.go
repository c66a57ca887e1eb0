package sinktest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Result returns an invented result with every field set: four inline assets,
// one in COS, several attempts and warnings. Equal seeds give equal results,
// different seeds different tokens, persons and bytes. Even seeds are of the
// product enhanced, odd ones of eid.
func Result(seed int) *result.Result {
	s := secretsOf(seed)
	r := &result.Result{
		Product:   result.Products()[seed&1],
		Account:   "main",
		Token:     fmt.Sprintf("TOKEN-%08d-ABCD", seed),
		RequestID: fmt.Sprintf("00000000-0000-4000-8000-%012d", seed),
		FetchedAt: time.Date(2026, 3, 1+seed%28, 4, 5, 6, 789_000_000, time.UTC),
		Verdict: result.Verdict{
			Passed: true, Message: "成功", Liveness: ptr(0), LivenessMessage: "成功",
			Compare: ptr(0), CompareMessage: "成功", Similarity: "98.76",
			CompareLibrary: "权威库", LivenessMode: 4, LivenessTags: []string{"01", "14"},
			Intention: result.IntentionQuestion, IntentionCode: ptr(0), IntentionMessage: "通过",
		},
		Person: result.Person{
			Name: s.secret("name"), IDCard: s.secret("id_card"), Mobile: s.secret("mobile"),
			Location: s.secret("location"), Extra: s.secret("extra"), IDType: 1,
		},
		Document: result.Document{
			Name: s.secret("ocr_name"), IDCard: s.secret("ocr_id_card"), Gender: s.secret("ocr_gender"),
			Nation: s.secret("ocr_nation"), Birth: s.secret("ocr_birth"), Address: s.secret("ocr_address"),
			Authority: s.secret("ocr_authority"), Valid: s.secret("ocr_valid_date"),
			PassNo: s.secret("pass_no"), VisaNum: s.secret("visa_num"), Source: "OCR",
		},
		Intention: result.Intention{
			Answers:     []result.Sensitive{s.secret("answer_0"), {}, s.secret("answer_2")},
			AnswerCodes: []string{"0", "-1", "0"},
		},
		Attempts: []result.Attempt{
			attempt(s, 0, ptr(-4006)), attempt(s, 1, nil), attempt(s, 2, ptr(0)),
		},
		Warnings: []result.Warning{{Side: "front", Code: -9102}, {Side: "back", Code: -9107}},
		Raw:      result.NewSensitive(`{"Note":"` + s.value("raw") + `"}`),
	}
	if r.Product == result.Enhanced {
		r.RuleID = "1"
	} else {
		r.EID = result.EIDInfo{Code: s.secret("eid_code"), Sign: s.secret("eid_sign"), IDType: "01"}
	}
	r.Assets = []result.Asset{
		inline("IdCardData.OcrFront", result.Image, "image/jpeg", media(seed, 0, 900)),
		inline("BestFrame.BestFrame", result.Image, "image/png", media(seed, 1, 1200)),
		inline("BestFrame.BestFrames[0]", result.Image, "image/png", media(seed, 2, 300)),
		cosAsset(seed),
		inline("IntentionQuestionResult.Audios[10]", result.Audio, "audio/wav", media(seed, 3, 2500)),
	}
	return r
}

// Archived returns a copy of r whose assets carry receipts, as record and notify
// sinks see them after an archive sink named "elsewhere".
func Archived(r *result.Result) *result.Result {
	c := *r
	c.Assets = make([]result.Asset, len(r.Assets))
	for i, a := range r.Assets {
		receipt := result.Receipt{
			Sink: "elsewhere", Field: a.Field,
			Location: fmt.Sprintf("cos://archive-1250000000/%s/%d", r.TokenHash(), i), Size: -1,
		}
		if a.Content != nil {
			receipt.Size, receipt.SHA256, receipt.CRC64 = a.Digest.Size, a.Digest.SHA256Hex(), a.Digest.CRC64String()
		}
		a.Stored = []result.Receipt{receipt}
		c.Assets[i] = a
	}
	return &c
}

// Inline returns an asset whose bytes are b.
func Inline(field string, kind result.Kind, contentType string, b []byte) result.Asset {
	return inline(field, kind, contentType, b)
}

// Secrets returns every personal value of Result(seed). None of them may be
// found in what a sink stores, logs or says under the default privacy policy.
func Secrets(seed int) []string {
	s := secretsOf(seed)
	all := make([]string, 0, len(secretFields))
	for _, field := range secretFields {
		all = append(all, s.value(field))
	}
	return all
}

// secretFields are the personal values of a result; attempts have their own.
var secretFields = []string{
	"name", "id_card", "mobile", "location", "extra",
	"ocr_name", "ocr_id_card", "ocr_gender", "ocr_nation", "ocr_birth", "ocr_address",
	"ocr_authority", "ocr_valid_date", "pass_no", "visa_num",
	"answer_0", "answer_2", "eid_code", "eid_sign", "raw",
	"attempt_name_0", "attempt_name_1", "attempt_name_2",
	"attempt_id_card_0", "attempt_id_card_1", "attempt_id_card_2",
}

// person makes the values of one invented person, each of which can be told from
// every other text.
type person int

func secretsOf(seed int) person { return person(seed) }

func (p person) value(field string) string {
	if field == "id_card" || field == "ocr_id_card" {
		// A birthday in 1900, in a region with the code 000000.
		return fmt.Sprintf("00000019000101%04d", int(p)%10000)
	}
	return fmt.Sprintf("虚构·%s·%d号", field, int(p))
}

func (p person) secret(field string) result.Sensitive { return result.NewSensitive(p.value(field)) }

func attempt(p person, i int, code *int64) result.Attempt {
	return result.Attempt{
		Time: time.Date(2026, 3, 1, 1, 2, 3+i, 0, time.UTC), Seq: fmt.Sprintf("seq-%d", i),
		Name:    p.secret(fmt.Sprintf("attempt_name_%d", i)),
		IDCard:  p.secret(fmt.Sprintf("attempt_id_card_%d", i)),
		Charged: i == 2, Similarity: "12.30",
		Code: code, Message: "动作不符", LivenessCode: code, LivenessMessage: "动作不符",
		CompareCode: ptr(0), CompareMessage: "成功", CompareLibrary: "权威库", LivenessMode: 4,
	}
}

func cosAsset(seed int) result.Asset {
	return result.Asset{
		Field: "VideoData.LivenessVideo", Kind: result.Video, ContentType: "video/mp4",
		COS: &result.COSObject{
			Bucket: "faceid-1250000000", Region: "ap-guangzhou",
			Key: fmt.Sprintf("liveness/2026/%d.mp4", seed),
		},
	}
}

func inline(field string, kind result.Kind, contentType string, b []byte) result.Asset {
	return result.Asset{
		Field: field, Kind: kind, ContentType: contentType,
		Content: content(b), Digest: digestOf(b),
	}
}

// media returns the bytes of an invented medium; they are no picture.
func media(seed, n, size int) []byte {
	var key [32]byte
	copy(key[:], fmt.Sprintf("%d/%d", seed, n))
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

var ecma = crc64.MakeTable(crc64.ECMA)

func digestOf(b []byte) result.Digest {
	return result.Digest{Size: int64(len(b)), SHA256: sha256.Sum256(b), CRC64: crc64.Checksum(b, ecma)}
}

// content is a result.Content in memory.
type content []byte

func (c content) Open() (io.ReadSeekCloser, error) {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(c), io.NopCloser(nil)}, nil
}

func ptr(n int64) *int64 { return &n }

// mustJSON renders a value of this package's own making.
func mustJSON(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic("sinktest: " + err.Error())
	}
	return string(b)
}
