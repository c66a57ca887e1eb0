package pipeline_test

import (
	"strings"
	"testing"
)

// What publishers send beside the token costs no token: it is ingested, and what cannot
// be read is said once, by the field's name.
func TestOddEventsAreIngested(t *testing.T) {
	b := newBench(t)
	bodies := map[string]string{
		"EXTRA":  `{"BizToken":"EXTRA","RuleId":"1","Extra":"order-1"}`,
		"NUMBER": `{"token":"NUMBER","RuleId":1,"completed_at":1795912200}`,
		"MARK":   "\ufeff" + `{"biz_token":" MARK ","rule_id":"1"}`,
		"DATA":   `{"specversion":"1.0","data":"{\"token\":\"DATA\",\"rule_id\":\"1\"}"}`,
		"UNREAD": `{"token":"UNREAD","rule_id":"1","completed_at":"UNSAID","issued_at":{"x":1}}`,
	}
	for _, body := range bodies {
		b.raw("faceid.completed.main.enhanced", body)
	}
	b.start()
	for token := range bodies {
		b.until(token+" is ingested", func() bool { return b.record.has(token) })
	}
	b.idle()

	if letters := b.dead(); len(letters) > 0 {
		t.Errorf("dead letters: %+v", letters)
	}
	log := b.log.String()
	if n := strings.Count(log, "fields of an event cannot be read"); n != 1 || !strings.Contains(log, "completed_at") || strings.Contains(log, "UNSAID") {
		t.Errorf("%d lines about fields:\n%s", n, log)
	}
	for _, field := range []string{"completed_at", "issued_at"} {
		if n, _ := value(b.scrape(), "unread_fields_total", `field="`+field+`",source="event"`); n != 1 {
			t.Errorf("%s is counted %v times", field, n)
		}
	}
}
