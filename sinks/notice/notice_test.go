package notice_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// allFields are those that may be sent.
func allFields() notice.Fields {
	var fields notice.Fields
	for _, f := range privacy.Fields() {
		if f != privacy.Raw {
			fields = append(fields, f)
		}
	}
	return fields
}

// policy returns one whose fields all have the given rule, or their default if
// it is "".
func policy(t testing.TB, rule privacy.Rule) *privacy.Policy {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		if rule != "" && (f != privacy.Raw || rule == privacy.Plain) {
			cfg.Fields[f] = rule
		}
	}
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	p, err := privacy.NewPolicy(cfg, keys)
	must(t, err)
	return p
}

func message(t testing.TB, p *privacy.Policy, r *result.Result, fields notice.Fields) (notice.Message, notice.Event, notice.Result) {
	t.Helper()
	m, err := notice.OfResult(p, r, fields)
	must(t, err)
	var e notice.Event
	must(t, json.Unmarshal(m.Body, &e))
	var data notice.Result
	decoder := json.NewDecoder(bytes.NewReader(e.Data))
	decoder.DisallowUnknownFields()
	must(t, decoder.Decode(&data))
	return m, e, data
}

func TestMessageIsACloudEvent(t *testing.T) {
	r := sinktest.Archived(sinktest.Result(0))
	m, e, data := message(t, policy(t, ""), r, nil)
	want := notice.Event{
		SpecVersion: "1.0", ID: r.TokenHash(), Source: "/faceid-ingest/enhanced", Type: notice.TypeStored,
		Subject: r.TokenHash(), Time: r.FetchedAt, DataContentType: "application/json",
	}
	e.Data = nil
	if got, want := asJSON(t, e), asJSON(t, want); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if m.ID != r.TokenHash() || m.TokenHash != r.TokenHash() {
		t.Errorf("ids %q, %q", m.ID, m.TokenHash)
	}
	if data.Token != r.Token || data.TokenHash != r.TokenHash() || data.Product != r.Product ||
		data.Account != r.Account || data.RuleID != r.RuleID || data.RequestID != r.RequestID || !data.FetchedAt.Equal(r.FetchedAt) {
		t.Errorf("got %+v", data)
	}
	if v := data.Verdict; !v.Passed || v.Similarity != "98.76" || v.Intention != result.IntentionQuestion || *v.IntentionCode != 0 ||
		*v.Liveness != 0 || *v.Compare != 0 || v.Message != "成功" {
		t.Errorf("got %+v", v)
	}
	if len(data.Assets) != len(r.Assets) || data.Personal != nil {
		t.Fatalf("%d assets, personal %v", len(data.Assets), data.Personal)
	}
	for i, a := range data.Assets {
		if a.Field != r.Assets[i].Field || a.Kind != r.Assets[i].Kind || a.ContentType != r.Assets[i].ContentType ||
			len(a.Stored) != 1 || a.Stored[0] != r.Assets[i].Stored[0] {
			t.Errorf("asset %d: %+v", i, a)
		}
	}
}

func TestMessageHoldsNoPersonalValueUnlessAsked(t *testing.T) {
	for seed := range 2 {
		r := sinktest.Archived(sinktest.Result(seed))
		none, _, _ := message(t, policy(t, privacy.Plain), r, nil)
		sealed, _, _ := message(t, policy(t, ""), r, allFields())
		masked, _, data := message(t, policy(t, privacy.Mask), r, notice.Fields{privacy.Name})
		for _, secret := range sinktest.Secrets(seed) {
			for name, body := range map[string][]byte{"no fields": none.Body, "sealed fields": sealed.Body, "a masked field": masked.Body} {
				if bytes.Contains(body, []byte(secret)) {
					t.Errorf("with %s, the message holds a personal value", name)
				}
			}
		}
		if len(data.Personal) != 1 || data.Personal[privacy.Name][0].Value == "" {
			t.Errorf("asked for the name, got %v", data.Personal)
		}
	}
}

// Every field of the privacy policy but raw can be asked for, and each value is
// in its own place.
func TestFields(t *testing.T) {
	if err := allFields().Validate(); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for seed := range 2 {
		_, _, data := message(t, policy(t, privacy.Plain), sinktest.Archived(sinktest.Result(seed)), allFields())
		for _, list := range data.Personal {
			for _, s := range list {
				got[s.Value] = true
			}
		}
		if len(data.Personal[privacy.AttemptName]) != 3 || data.Personal[privacy.Answer][1] != (privacy.Stored{}) {
			t.Errorf("positions are lost: %v", data.Personal)
		}
		for _, secret := range sinktest.Secrets(seed) {
			isRaw, isEID := strings.Contains(secret, "raw"), strings.Contains(secret, "eid_")
			if want := !isRaw && (seed == 1 || !isEID); got[secret] != want {
				t.Errorf("a value is there: %v, want %v", got[secret], want)
			}
		}
	}
}

func TestSealedFieldsOpenInTheirPlaces(t *testing.T) {
	p := policy(t, "")
	r := sinktest.Archived(sinktest.Result(1))
	_, _, data := message(t, p, r, allFields())
	for field, list := range data.Personal {
		for i, s := range list {
			if s.Value == "" {
				continue
			}
			ref := privacy.Ref{Product: data.Product, Token: data.Token, Field: field, Position: i}
			if _, err := p.Open(ref, s.Value); err != nil {
				t.Errorf("%s at %d: %v", field, i, err)
			}
		}
	}
}

func TestRepeatedMessageIsTheSame(t *testing.T) {
	seal := regexp.MustCompile(`seal:v1:[^"]+`)
	p := policy(t, "")
	r := sinktest.Archived(sinktest.Result(0))
	first, _, _ := message(t, p, r, allFields())
	for range 20 { // the order of map keys would show
		again, _, _ := message(t, p, r, allFields())
		if again.ID != first.ID || !bytes.Equal(seal.ReplaceAll(again.Body, nil), seal.ReplaceAll(first.Body, nil)) {
			t.Fatal("the message differs")
		}
	}
	other := *r
	other.FetchedAt = r.FetchedAt.Add(time.Hour)
	if later, _, _ := message(t, p, &other, nil); later.ID != first.ID {
		t.Error("another answer about the token has another id")
	}
	if m, _, _ := message(t, p, sinktest.Result(1), nil); m.ID == first.ID {
		t.Error("two tokens have one id")
	}
}

func TestFieldsValidate(t *testing.T) {
	for _, tt := range []struct {
		field privacy.Field
		want  string
	}{
		{privacy.Raw, "raw is never sent"},
		{"idcard", "known are: name, id_card, mobile"},
		{"", "unknown field"},
	} {
		var invalid *sinks.InvalidFieldError
		err := notice.Fields{privacy.Name, tt.field}.Validate()
		if !errors.As(err, &invalid) || invalid.Field != "fields" || !strings.Contains(invalid.Problem, tt.want) {
			t.Errorf("%q: %v", tt.field, err)
		}
	}
	if err := (notice.Fields)(nil).Validate(); err != nil {
		t.Error(err)
	}
}

// An answer of the API cannot make a message that is too large to be sent.
func TestLongTextsAreCut(t *testing.T) {
	r := sinktest.Result(0)
	long := strings.Repeat("很", 100_000)
	r.Verdict.Message, r.Verdict.LivenessTags, r.Verdict.Intention = long, []string{"01", long}, result.IntentionMode("x"+long)
	r.Assets[0].Field, r.Assets[0].Kind, r.RequestID = long, result.Kind(long), long
	r = sinktest.Archived(r)
	m, _, data := message(t, policy(t, ""), r, nil)
	if len(m.Body) > 100_000 {
		t.Errorf("the message has %d bytes", len(m.Body))
	}
	for _, text := range []string{
		data.Verdict.Message, data.Verdict.LivenessTags[1], string(data.Verdict.Intention), data.Assets[0].Field,
		data.Assets[0].Stored[0].Field, data.RequestID, string(data.Assets[0].Kind),
	} {
		if len(text) < 4090 || len(text) > 4096 || !utf8.ValidString(text) || !strings.HasSuffix(text, "很…") {
			t.Errorf("cut to %d bytes: …%q", len(text), text[len(text)-5:])
		}
	}
	if r.Verdict.Message != long || r.Verdict.LivenessTags[1] != long || r.Assets[0].Stored[0].Field != long {
		t.Error("the result was changed")
	}
}

func TestErasure(t *testing.T) {
	key := sinks.KeyOf(result.EID, "TOKEN-1")
	m, err := notice.OfErasure(key)
	must(t, err)
	again, err := notice.OfErasure(key)
	must(t, err)
	if m.ID != key.Hash+"-erased" || m.TokenHash != key.Hash || !bytes.Equal(m.Body, again.Body) {
		t.Errorf("got %q", m.ID)
	}
	want := `{"specversion":"1.0","id":"` + key.Hash + `-erased","source":"/faceid-ingest/eid",` +
		`"type":"faceid-ingest.result.erased","subject":"` + key.Hash + `","datacontenttype":"application/json",` +
		`"data":{"product":"eid","token_hash":"` + key.Hash + `"}}`
	if string(m.Body) != want {
		t.Errorf("got %s, want %s", m.Body, want)
	}
}

func TestUnreadableKeyringIsTransient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyring.json")
	keys, err := privacy.CreateKeyring(path)
	must(t, err)
	p, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	remove(t, path)
	_, err = notice.OfResult(p, sinktest.Result(0), nil)
	if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || !strings.Contains(err.Error(), path) {
		t.Errorf("%s: %v", class, err)
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
