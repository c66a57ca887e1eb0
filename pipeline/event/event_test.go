package event_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func TestDecode(t *testing.T) {
	completed := time.Date(2026, 11, 24, 8, 30, 0, 0, time.UTC)
	tests := []struct {
		name    string
		product result.Product
		body    string
		want    event.Event
	}{
		{"plain", result.Enhanced, `{"token":"T-1","rule_id":"1"}`, event.Event{Token: "T-1", RuleID: "1"}},
		{"only a token", result.EID, ` {"token":"T-1"} `, event.Event{Token: "T-1"}},
		{"Tencent's spelling of enhanced", result.Enhanced, `{"BizToken":"T-1","RuleId":"7"}`, event.Event{Token: "T-1", RuleID: "7"}},
		{"Tencent's spelling of eid", result.EID, `{"EidToken":"T-1"}`, event.Event{Token: "T-1"}},
		{"both spellings agree", result.EID, `{"EidToken":"T-1","token":"T-1"}`, event.Event{Token: "T-1"}},
		{"times in another zone", result.EID, `{"token":"T-1","completed_at":"2026-11-24T16:30:00+08:00"}`, event.Event{Token: "T-1", CompletedAt: completed}},
		{"extra", result.EID, `{"token":"T-1","extra":{"order":7}}`, event.Event{Token: "T-1", Extra: json.RawMessage(`{"order":7}`)}},
		{"extra null", result.EID, `{"token":"T-1","extra":null,"rule_id":null}`, event.Event{Token: "T-1"}},
		{"unknown keys", result.EID, `{"token":"T-1","new":[1,2]}`, event.Event{Token: "T-1"}},
		{"CloudEvents", result.EID, `{"specversion":"1.0","type":"x","source":"y","id":"z","data":{"token":"T-1"}}`, event.Event{Token: "T-1"}},
		{"CloudEvents base64", result.EID, `{"specversion":"1.0","data_base64":"eyJ0b2tlbiI6IlQtMSJ9"}`, event.Event{Token: "T-1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := event.Decode(tt.product, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestDecodeMalformed(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"empty", ``, "not a JSON object"},
		{"not JSON", `hello`, "not a JSON object"},
		{"an array", `["T-1"]`, "not a JSON object"},
		{"cut off", `{"token":"T-1"`, "incomplete or invalid JSON"},
		{"syntax", `{"token" "T-1"}`, "invalid JSON at byte 10"},
		{"two objects", `{"token":"T-1"}{"token":"T-2"}`, "something follows the JSON object"},
		{"no token", `{"rule_id":"1"}`, "token is missing"},
		{"empty token", `{"token":""}`, "token is missing"},
		{"number as token", `{"token":12345}`, `"token" must not be a number`},
		{"line break in token", `{"token":"a\r\nNats-Msg-Id: b"}`, "printable ASCII"},
		{"long token", `{"token":"` + strings.Repeat("a", 257) + `"}`, "more than 256"},
		{"two tokens", `{"token":"T-1","BizToken":"T-2"}`, "two different values for token"},
		{"two rules", `{"token":"T-1","rule_id":"1","RuleId":"2"}`, "two different values for rule_id"},
		{"wrong product", `{"EidToken":"T-1"}`, "an EidToken on a subject of product"},
		{"bad rule", `{"token":"T-1","rule_id":"\u0000"}`, "rule_id must be"},
		{"bad time", `{"token":"T-1","completed_at":"yesterday"}`, "RFC 3339"},
		{"extra is a string", `{"token":"T-1","extra":"x"}`, "extra must be an object"},
		{"CloudEvents 0.3", `{"specversion":"0.3","data":{"token":"T-1"}}`, "specversion"},
		{"CloudEvents without data", `{"specversion":"1.0"}`, "without data"},
		{"CloudEvents bad base64", `{"specversion":"1.0","data_base64":"***"}`, "not base64"},
		{"too large", `{"token":"T-1","extra":{"x":"` + strings.Repeat("a", event.MaxBody) + `"}}`, "the limit is"},
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

func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instant := rapid.Custom(func(t *rapid.T) time.Time {
			return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "seconds"), 0).UTC()
		})
		want := event.Event{
			Token:       rapid.StringMatching(`[!-~]{1,256}`).Draw(t, "token"),
			RuleID:      rapid.StringMatching(`[0-9]{0,64}`).Draw(t, "rule"),
			CompletedAt: instant.Draw(t, "completed"),
			IssuedAt:    instant.Draw(t, "issued"),
		}
		body, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.Decode(result.Enhanced, body)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestDeadline(t *testing.T) {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	completed := issued.Add(time.Hour)
	seen := issued.Add(3 * time.Hour)
	tests := []struct {
		name string
		e    event.Event
		want time.Time
	}{
		{"by the token's making", event.Event{IssuedAt: issued, CompletedAt: completed}, issued.Add(72 * time.Hour)},
		{"by completion", event.Event{CompletedAt: completed}, completed.Add(70 * time.Hour)},
		{"by publishing", event.Event{}, seen.Add(70 * time.Hour)},
		{"a token of the future", event.Event{IssuedAt: seen.Add(500 * time.Hour)}, seen.Add(72 * time.Hour)},
		{"a completion of the future", event.Event{CompletedAt: seen.Add(8 * time.Hour)}, seen.Add(72 * time.Hour)},
	}
	for _, tt := range tests {
		if got := tt.e.Deadline(seen); !got.Equal(tt.want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestSubjects(t *testing.T) {
	for _, lane := range event.Lanes() {
		for _, product := range result.Products() {
			subject := event.Subject(lane, "main", product)
			gotLane, account, gotProduct, err := event.ParseSubject(subject)
			if err != nil || gotLane != lane || account != "main" || gotProduct != product {
				t.Errorf("ParseSubject(%q) = %q, %q, %q, %v", subject, gotLane, account, gotProduct, err)
			}
		}
	}
	for _, subject := range []string{"", "faceid", "faceid.completed.main", "faceid.completed.main.nfc", "faceid.completed.Main.eid", "faceid.completed.a.b.eid", "faceid.dead.main.eid"} {
		if _, _, _, err := event.ParseSubject(subject); err == nil {
			t.Errorf("ParseSubject(%q) took it", subject)
		}
	}
	if got := event.Subject(event.Live, "main", result.EID); got != "faceid.completed.main.eid" {
		t.Errorf("the subject of the contract changed: %s", got)
	}
	if got := event.ConsumerName("main", event.Backfill); got != "ingest-main-backfill" {
		t.Errorf("the consumer name of the contract changed: %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"token":"T-1","rule_id":"1","completed_at":"2026-11-24T08:30:00Z","extra":{"a":[1]}}`,
		`{"specversion":"1.0","data":{"BizToken":"T"}}`, `{"specversion":"1.0","data_base64":"e30="}`,
		`{"token":"\ud800"}`, `{"data":[[[[`, "\xff\xfe",
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
		if err != nil || back.Token != e.Token || back.RuleID != e.RuleID {
			t.Fatalf("a decoded event does not survive encoding: %v", err)
		}
	})
}

func ExampleDecode() {
	body := []byte(`{"specversion":"1.0","type":"com.example.faceid","source":"/h5","id":"1","data":{"BizToken":"2AC1-EXAMPLE","RuleId":"1"}}`)
	e, err := event.Decode(result.Enhanced, body)
	fmt.Println(e.Token, e.RuleID, err)
	// Output: 2AC1-EXAMPLE 1 <nil>
}
