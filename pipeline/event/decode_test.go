package event_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func utf16With(bigEndian bool, text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		if bigEndian {
			b.Write([]byte{byte(unit >> 8), byte(unit)})
		} else {
			b.Write([]byte{byte(unit), byte(unit >> 8)})
		}
	}
	return b.String()
}

// A token that is there is never lost for a field that does not matter.
func TestDecodeIsLiberal(t *testing.T) {
	quoted := func(s string) string { text, _ := json.Marshal(s); return string(text) }
	plain := `{"token":"T-1","rule_id":"1"}`
	completed := time.Date(2026, 11, 29, 0, 30, 0, 0, time.UTC)
	token := event.Event{Token: "T-1"}
	whole := event.Event{Token: "T-1", RuleID: "1"}
	extra := func(raw string) event.Event { return event.Event{Token: "T-1", Extra: json.RawMessage(raw)} }
	lost := func(e event.Event, fields ...event.Field) event.Event { e.Unread = fields; return e }

	tests := []struct {
		name, body string
		want       event.Event
	}{
		{"Tencent's own Extra", `{"EidToken":"T-1","RuleId":"1","Extra":"order-1"}`, event.Event{Token: "T-1", RuleID: "1", Extra: json.RawMessage(`"order-1"`)}},
		{"extra as a list", `{"token":"T-1","extra":[1,"x"]}`, extra(`[1,"x"]`)},
		{"extra as a number", `{"token":"T-1","extra":1.50}`, extra(`1.50`)},
		{"extra as a bool", `{"token":"T-1","extra":false}`, extra(`false`)},
		{"extra empty", `{"token":"T-1","extra":""}`, extra(`""`)},
		{"extra twice", `{"token":"T-1","extra":{"a":1},"Extra":{"b":2}}`, lost(extra(`{"a":1}`), event.FieldExtra)},
		{"extra too large", `{"token":"T-1","extra":{"x":"` + strings.Repeat("a", event.MaxBody) + `"}}`, lost(token, event.FieldExtra)},

		{"rule as a number", `{"token":"T-1","RuleId":1}`, whole},
		{"rule as a number with a fraction", `{"token":"T-1","RuleId":1.0}`, whole},
		{"rule with an exponent", `{"token":"T-1","rule_id":1e2}`, event.Event{Token: "T-1", RuleID: "100"}},
		{"rule in a list", `{"token":"T-1","rule_id":["1"]}`, whole},
		{"rule with white space", `{"token":"T-1","rule_id":" 1\n"}`, whole},
		{"rule null", `{"token":"T-1","rule_id":null}`, token},
		{"rule empty", `{"token":"T-1","rule_id":""}`, token},
		{"rule as an object", `{"token":"T-1","rule_id":{"id":1}}`, lost(token, event.FieldRule)},
		{"rule as a bool", `{"token":"T-1","rule_id":true}`, lost(token, event.FieldRule)},
		{"rule of control characters", `{"token":"T-1","rule_id":"1\u00002"}`, lost(token, event.FieldRule)},
		{"rule in Chinese", `{"token":"T-1","rule_id":"规则"}`, lost(token, event.FieldRule)},
		{"rule too long", `{"token":"T-1","rule_id":"` + strings.Repeat("1", 65) + `"}`, lost(token, event.FieldRule)},
		{"two rules", `{"token":"T-1","rule_id":"1","RuleId":"2"}`, lost(whole, event.FieldRule)},
		{"the same rule twice", `{"token":"T-1","rule_id":"1","RuleId":1}`, whole},

		{"token with white space", `{"token":" \t\r\nT-1\n "}`, token},
		{"token with a no-break space and marks", `{"token":"\ufeff\u00a0T-1\u200b\u0000"}`, token},
		{"token as a number", `{"token":12345678901234567890}`, event.Event{Token: "12345678901234567890"}},
		{"token in a list", `{"token":["T-1"]}`, token},
		{"same token twice", `{"token":"T-1","BizToken":" T-1","biz_token":"T-1"}`, lost(token, event.FieldProduct)},
		{"token and null", `{"token":"T-1","BizToken":null,"EidToken":""}`, token},
		{"token and an object", `{"BizToken":{"x":1},"token":"T-1"}`, lost(token, event.FieldToken)},
		{"token and rubbish", `{"faceid_token":"T 1","token":"T-1"}`, lost(token, event.FieldToken)},
		{"the other product's name", `{"BizToken":"T-1"}`, lost(token, event.FieldProduct)},

		{"camel case", `{"eidToken":"T-1","ruleId":"1"}`, whole},
		{"snake case", `{"eid_token":"T-1","rule_id":"1"}`, whole},
		{"capitals", `{"EID_TOKEN":"T-1","RULEID":"1"}`, whole},
		{"pascal case", `{"EidToken":"T-1","RuleId":"1","CompletedAt":"2026-11-29T00:30:00Z"}`, event.Event{Token: "T-1", RuleID: "1", CompletedAt: completed}},
		{"with a hyphen", `{"eid-token":"T-1","rule-id":"1"}`, whole},
		{"finish_time", `{"token":"T-1","finish_time":1795912200}`, event.Event{Token: "T-1", CompletedAt: completed}},
		{"createTime", `{"token":"T-1","createTime":"2026-11-29T08:30:00+08:00"}`, event.Event{Token: "T-1", IssuedAt: completed}},

		{"a byte order mark", "\xef\xbb\xbf" + plain, whole},
		{"UTF-16, little-endian", utf16With(false, plain), whole},
		{"UTF-16, big-endian", utf16With(true, plain), whole},
		{"white space around", "\r\n\t " + plain + "\n\n", whole},
		{"something behind", plain + "\x00garbage", lost(whole, event.FieldBody)},
		{"the same event again", plain + "\n" + plain, whole},
		{"in a list", "[" + plain + "]", whole},
		{"in a string", quoted(plain), whole},
		{"cut off", `{"token":"T-1","extra":{"a`, lost(token, event.FieldBody)},
		{"cut off after a comma", `{"token":"T-1",`, lost(token, event.FieldBody)},
		{"a fault behind", `{"token":"T-1","extra":{a:1}}`, lost(token, event.FieldBody)},
		{"not UTF-8", `{"token":"T-1","name":"` + "\xb2\xe2\xca\xd4" + `"}`, token},

		{"CloudEvents 1.0", `{"specversion":"1.0","type":"x","source":"y","id":"z","data":` + plain + `}`, whole},
		{"CloudEvents of another version", `{"specversion":"0.3","data":` + plain + `}`, whole},
		{"CloudEvents version as a number", `{"specversion":1.0,"data":` + plain + `}`, whole},
		{"CloudEvents, data as a string", `{"specversion":"1.0","data":` + quoted(plain) + `}`, whole},
		{"CloudEvents, data as a string of base64", `{"specversion":"1.0","data":"` + base64.StdEncoding.EncodeToString([]byte(plain)) + `"}`, whole},
		{"CloudEvents, data as a string with a mark", `{"specversion":"1.0","data":` + quoted("\ufeff"+plain) + `}`, whole},
		{"CloudEvents in base64", `{"specversion":"1.0","data_base64":"` + base64.StdEncoding.EncodeToString([]byte(plain)) + `"}`, whole},
		{"CloudEvents in base64 without padding", `{"specversion":"1.0","data_base64":"` + base64.RawURLEncoding.EncodeToString([]byte(plain)) + `"}`, whole},
		{"CloudEvents with a token and without data", `{"specversion":"1.0","token":"T-1","data_base64":"***"}`, lost(token, event.FieldData)},
		{"an envelope of one's own", `{"type":"done","data":` + plain + `}`, whole},
		{"the answer of the API", `{"Response":{"EidToken":"T-1","Url":"https://example.com","RequestId":"r"}}`, token},
		{"an envelope in an envelope", `{"detail":{"payload":` + plain + `}}`, whole},
		{"a token beside other data", `{"token":"T-1","data":{"token":"of a session"}}`, token},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := event.Decode(result.EID, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if have, want := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", tt.want); have != want {
				t.Errorf("got %s, want %s", have, want)
			}
		})
	}
}

// Times are read in the forms that people and programs write.
func TestDecodeTimes(t *testing.T) {
	at := time.Date(2026, 11, 29, 0, 30, 0, 0, time.UTC)
	milli := at.Add(123 * time.Millisecond)
	tests := []struct {
		value string
		want  time.Time
	}{
		{`"2026-11-29T00:30:00Z"`, at}, {`"2026-11-29T08:30:00+08:00"`, at}, {`"2026-11-29T08:30:00.123+08:00"`, milli},
		{`"2026-11-29T08:30:00+0800"`, at}, {`"2026-11-29T08:30:00+08"`, at}, {`"2026-11-29t00:30:00z"`, at},
		{`"2026-11-29 08:30:00"`, at}, {`"2026-11-29T08:30:00"`, at}, {`"2026-11-29 08:30"`, at},
		{`"2026-11-29 08:30:00.123"`, milli}, {`"2026-11-29 08:30:00+08:00"`, at}, {`"2026-11-29 08:30:00 +0800"`, at},
		{`"2026-11-29 00:30:00 UTC"`, at}, {`"2026-11-29 00:30:00Z"`, at}, {`"2026-11-29 00:30:00 +0000 UTC"`, at},
		{`"2026-11-29 08:30:00 +0800 CST"`, at}, {`"2026/11/29 08:30:00"`, at}, {`"2026.11.29 08:30:00"`, at},
		{`"2026年11月29日 08:30:00"`, at}, {`"20261129083000"`, at}, {`20261129083000`, at}, {`"20261129T003000Z"`, at},
		{`"Sun, 29 Nov 2026 00:30:00 GMT"`, at}, {`"Sun, 29 Nov 2026 08:30:00 +0800"`, at},
		{`1795912200`, at}, {`1795912200123`, milli}, {`1795912200123000`, milli}, {`1795912200123000000`, milli},
		{`1795912200.123`, milli}, {`1.7959122e9`, at}, {`"1795912200"`, at}, {`" 1795912200123 "`, milli},
		{`[1795912200]`, at},
		// No time at all.
		{`""`, time.Time{}}, {`" "`, time.Time{}}, {`null`, time.Time{}}, {`0`, time.Time{}}, {`"0"`, time.Time{}},
		{`"0001-01-01T00:00:00Z"`, time.Time{}}, {`"1970-01-01T00:00:00Z"`, time.Time{}},
	}
	for _, tt := range tests {
		for _, name := range []string{"completed_at", "issued_at"} {
			e, err := event.Decode(result.EID, []byte(`{"token":"T-1","`+name+`":`+tt.value+`}`))
			if got := cmpTime(name, e); err != nil || !got.Equal(tt.want) || len(e.Unread) > 0 {
				t.Errorf("%s %s: got %s, unread %v, %v; want %s", name, tt.value, got, e.Unread, err, tt.want)
			}
		}
	}

	for _, value := range []string{`"yesterday"`, `true`, `{}`, `[]`, `[1,2]`, `-1`, `"2026-13-40"`, `1`, `1e300`, `"NaN"`, `"Inf"`, `"2126-01-01T00:00:00Z"`, `"1999-01-01T00:00:00Z"`} {
		e, err := event.Decode(result.EID, []byte(`{"completed_at":`+value+`,"token":"T-1"}`))
		if err != nil || e.Token != "T-1" || !e.CompletedAt.IsZero() || !slices.Equal(e.Unread, []event.Field{event.FieldCompleted}) {
			t.Errorf("%s: got %+v, %v", value, e, err)
		}
	}
}

func cmpTime(name string, e event.Event) time.Time {
	if name == "issued_at" {
		return e.IssuedAt
	}
	return e.CompletedAt
}

// Only what has no token, or two, is malformed.
func TestDecodeMalformed(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"empty", ``, "not a JSON object"},
		{"a mark alone", "\xef\xbb\xbf", "not a JSON object"},
		{"not JSON", `hello`, "not a JSON object"},
		{"a list of strings", `["T-1"]`, "not a JSON object"},
		{"a number", `1`, "not a JSON object"},
		{"syntax before the token", `{token:"T-1"}`, "the JSON is not whole"},
		{"cut off within the token", `{"token":"T-1`, "the JSON is not whole"},
		{"no token", `{"rule_id":"1"}`, "token is missing"},
		{"empty token", `{"token":" "}`, "token is missing"},
		{"null", `{"token":null}`, "token is missing"},
		{"a bool", `{"token":true}`, "must be a string"},
		{"an object", `{"token":{"value":"T-1"}}`, "must be a string"},
		{"line break in token", `{"token":"a\r\nNats-Msg-Id: b"}`, "printable ASCII"},
		{"long token", `{"token":"` + strings.Repeat("a", 257) + `"}`, "more than 256"},
		{"two tokens", `{"token":"T-1","BizToken":"T-2"}`, "two different values for token"},
		{"two tokens of one name", `{"token":"T-1","token":"T-2"}`, "two different values for token"},
		{"two objects", `{"token":"T-1"}{"token":"T-2"}`, "two different values for token"},
		{"two in a list", `[{"token":"T-1"},{"token":"T-2"}]`, "two different values for token"},
		{"two in CloudEvents", `{"specversion":"1.0","token":"T-1","data":{"token":"T-2"}}`, "two different values for token"},
		{"CloudEvents without data", `{"specversion":"1.0"}`, "token is missing"},
		{"CloudEvents bad base64", `{"specversion":"1.0","data_base64":"***"}`, "token is missing"},
		{"too large", `{"token":"T-1","extra":"` + strings.Repeat("a", 8<<20) + `"}`, "the limit is"},
		{"envelopes without end", strings.Repeat(`{"data":`, 9) + `{"token":"T-1"}` + strings.Repeat(`}`, 9), "token is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := event.Decode(result.Enhanced, []byte(tt.body))
			var wrong *event.MalformedError
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a MalformedError with %q", err, tt.want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"token":"T-1","rule_id":"1","completed_at":"2026-11-24T08:30:00Z","extra":{"a":[1]}}`,
		`{"specversion":"1.0","data":{"BizToken":"T"}}`, `{"specversion":"1.0","data_base64":"e30="}`,
		`{"token":"\ud800"}`, `{"data":[[[[`, "\xff\xfe", `{"completed_at":1e400,"token":["T"]}`,
	} {
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, enhanced bool) {
		product := result.EID
		if enhanced {
			product = result.Enhanced
		}
		e, err := event.Decode(product, body)
		if err != nil {
			var wrong *event.MalformedError
			if !errors.As(err, &wrong) {
				t.Fatalf("error of another type: %T", err)
			}
			return
		}
		if event.CheckToken(e.Token) != nil {
			t.Fatalf("took the token %q", e.Token)
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := event.Decode(product, again)
		if err != nil || back.Token != e.Token || back.RuleID != e.RuleID || !back.CompletedAt.Equal(e.CompletedAt) || !back.IssuedAt.Equal(e.IssuedAt) {
			t.Fatalf("a decoded event does not survive encoding: %v", err)
		}
	})
}

// A body of valid JSON with a token is never malformed, whatever stands beside it.
func FuzzTokenIsNeverLost(f *testing.F) {
	for _, seed := range []string{`"order-1"`, `{"a":1}`, `[1]`, `1e9`, `null`, `true`, `"2026-11-29"`, `{"token":1}`} {
		f.Add(uint8(0), seed)
	}
	names := []string{"RuleId", "rule_id", "completed_at", "issued_at", "Extra", "data", "specversion", "anything", "Response"}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		if !json.Valid([]byte(value)) {
			return
		}
		name := names[int(which)%len(names)]
		for _, body := range []string{
			`{"` + name + `":` + value + `,"token":"T-1"}`,
			`{"token":"T-1","` + name + `":` + value + `}`,
		} {
			e, err := event.Decode(result.Enhanced, []byte(body))
			if err != nil || e.Token != "T-1" {
				t.Fatalf("%s: %+v, %v", body, e, err)
			}
		}
	})
}
