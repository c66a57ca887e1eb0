package feed_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/feed"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

var now = time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)

// read returns what a list holds, a line each: number and token, or number and reason.
func read(t *testing.T, text string) []string {
	t.Helper()
	var got []string
	err := feed.ReadList(strings.NewReader(text), "list", result.Enhanced, now, func(l feed.Line) error {
		var wrong *event.MalformedError
		switch {
		case l.Err == nil:
			got = append(got, strings.TrimRight(fmt.Sprintf("%d %s %s", l.Number, l.Event.Token, l.Event.RuleID), " "))
		case errors.As(l.Err, &wrong):
			got = append(got, fmt.Sprintf("%d: %s", l.Number, wrong.Problem))
		default:
			t.Errorf("line %d: an error of another type: %v", l.Number, l.Err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func inUTF16(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		b.Write([]byte{byte(unit), byte(unit >> 8)})
	}
	return b.String()
}

func TestReadList(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"tokens", "T-1\n\n# a comment\n  T-2  \r\nT-3", []string{"1 T-1", "4 T-2", "5 T-3"}},
		{"nothing", "", nil},
		{"a byte order mark", "\ufeffT-1\nT-2\n", []string{"1 T-1", "2 T-2"}},
		{"UTF-16", inUTF16("T-1\r\nT-2\r\n"), []string{"1 T-1", "2 T-2"}},
		{"base64 and UUID", "aGVsbG8/d29ybGQ+==\nCE661F1A-0F1E-45BF-BE13-34C05CEA7681", []string{"1 aGVsbG8/d29ybGQ+==", "2 CE661F1A-0F1E-45BF-BE13-34C05CEA7681"}},
		{"JSON", `{"BizToken":"T-1","RuleId":7}` + "\n" + `{"token":"T-2"}`, []string{"1 T-1 7", "2 T-2"}},

		{"CSV", "token,rule_id,completed_at\nT-1,7,2026-11-29 08:30:00\nT-2,,\n", []string{"2 T-1 7", "3 T-2"}},
		{"CSV of another order and spelling", "\"Rule ID\";\"BizToken\";name\n7;T-1;x\n", []string{"2 T-1 7"}},
		{"CSV with tabs", "BizToken\tRuleId\nT-1\t7\n", []string{"2 T-1 7"}},
		{"CSV of one column", "\ufeffbiz_token\nT-1\n", []string{"2 T-1"}},
		{"CSV with quotes", "token,extra\n\"T-1\",\"a, b\"\n", []string{"2 T-1"}},
		{"CSV with wrong rows", "token,rule_id\nT-1\n,7\n\"T-2,7\nT-3,7", []string{
			"2: 1 cells, the header has 2", "3: token is missing", "4: not a row of CSV: its quotes do not fit together", "5 T-3 7"}},
		{"CSV with a wrong time", "token,issued_at\nT-1,2036-01-01\nT-2,2036-01-01 00:00:00\n", []string{
			"2: issued_at cannot be read", "3: issued_at is 2035-12-31T16:00:00Z, which is in the future"}},

		{"no header", "T-1,7\nT-2\n", []string{"1: several values: a CSV needs a first line that names its columns, such as token,rule_id", "2 T-2"}},
		{"a header that is not the first line", "T-1\ntoken\n", []string{"1 T-1", "2: the name of a field, not a token"}},
		{"a list in JSON", "[\n\"T-1\",\n{\"token\":\"T-2\"}\n]\n", []string{
			"1: a piece of JSON: give one event a line, {\"token\": …}", "2: a piece of JSON: give one event a line, {\"token\": …}",
			"3 T-2", "4: a piece of JSON: give one event a line, {\"token\": …}"}},
		{"an object over several lines", "{\n  \"token\": \"T-1\"\n}\n", []string{
			"1: a piece of JSON: give one event a line, {\"token\": …}", "2: a piece of JSON: give one event a line, {\"token\": …}",
			"3: a piece of JSON: give one event a line, {\"token\": …}"}},
		{"a URL", "https://example.com/?token=T-1", []string{"1: a URL, not a token"}},
		{"a sentence", "hello world", []string{"1: token must be printable ASCII without spaces"}},
		{"Chinese", "令牌", []string{"1: token must be printable ASCII without spaces"}},
		{"signs", "<T-1>", []string{"1: a token has letters, digits and any of + / = _ - . : ~ only"}},
		{"a misspelt key", `{"token":"T-1","ruelid":"7"}`, []string{`1: an event has no key "ruelid", only token, rule_id, completed_at, issued_at and extra`}},
		{"a value of no use", `{"token":"T-1","rule_id":{}}`, []string{"1: rule_id cannot be read"}},
		{"the future", `{"token":"T-1","issued_at":"2036-01-01T00:00:00Z"}`, []string{"1: issued_at is 2036-01-01T00:00:00Z, which is in the future"}},
		{"the past", `{"token":"T-1","completed_at":1577836800}`, []string{"1: completed_at is 2020-01-01T00:00:00Z: Tencent has deleted the result, 72 hours after the token was made"}},
		{"completed before it was made", `{"token":"T-1","issued_at":"2026-11-29T08:00:00Z","completed_at":"2026-11-29T00:00:00Z"}`, []string{"1: completed_at is before issued_at"}},
		{"not whole", `{"token":"T-1"`, []string{"1: body cannot be read"}},
		{"a line of the list command", `{"product":"enhanced","token":"T-1","token_hash":"x","passed":true}`, []string{"1 T-1"}},
		{"CloudEvents", `{"specversion":"1.0","type":"x","data":{"token":"T-1"}}`, []string{"1 T-1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(t, tt.text); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestReadListStops(t *testing.T) {
	stop := errors.New("enough")
	if err := feed.ReadList(strings.NewReader("T-1\nT-2\n"), "list", result.EID, now, func(feed.Line) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	long := "T-1\n" + strings.Repeat("a", event.MaxBody+1)
	err := feed.ReadList(strings.NewReader(long), "list", result.EID, now, func(feed.Line) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "list:2: the line is longer than") {
		t.Errorf("got %v", err)
	}
}

// Whatever a list holds, what comes out of it can be published.
func FuzzReadList(f *testing.F) {
	for _, seed := range []string{"T-1\n", "token,rule_id\nT-1,7", "\xff\xfeT\x00", `{"token":"T-1"}`, "token;\"\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_ = feed.ReadList(strings.NewReader(text), "list", result.Enhanced, now, func(l feed.Line) error {
			if l.Err == nil && event.CheckToken(l.Event.Token) != nil {
				t.Errorf("line %d: took the token %q", l.Number, l.Event.Token)
			}
			return nil
		})
	})
}

func ExampleReadList() {
	text := "BizToken,RuleId\n2AC1-EXAMPLE,1\nhttps://example.com,1\n"
	err := feed.ReadList(strings.NewReader(text), "list", result.Enhanced, time.Now(), func(l feed.Line) error {
		fmt.Println(l.Number, l.Event.Token, l.Event.RuleID, l.Err)
		return nil
	})
	fmt.Println(err)
	// Output:
	// 2 2AC1-EXAMPLE 1 <nil>
	// 3   malformed event: a URL, not a token
	// <nil>
}
