package event_test

import (
	"encoding/json"
	"fmt"
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
		{"Tencent's own Extra", result.Enhanced, `{"BizToken":"X","RuleId":"1","Extra":"order-1"}`, event.Event{Token: "X", RuleID: "1", Extra: json.RawMessage(`"order-1"`)}},
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

func TestEncodeDecode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		instant := rapid.Custom(func(t *rapid.T) time.Time {
			return time.Unix(rapid.Int64Range(1.5e9, 4e9).Draw(t, "seconds"), 0).UTC()
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

func ExampleDecode() {
	body := []byte(`{"specversion":"1.0","type":"com.example.faceid","source":"/h5","id":"1","data":{"BizToken":"2AC1-EXAMPLE","RuleId":"1"}}`)
	e, err := event.Decode(result.Enhanced, body)
	fmt.Println(e.Token, e.RuleID, err)
	// Output: 2AC1-EXAMPLE 1 <nil>
}
