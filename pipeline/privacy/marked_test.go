package privacy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// marker fills a result by reflection, so that a field which somebody adds to
// package result is filled too. Every value is unlike every other.
type marker struct {
	n int
	// personal and shown are the marked values by their path in the result.
	personal, shown map[string]string
	// bools is how many truths there are.
	bools int
}

func markedResult(t *testing.T) (*result.Result, *marker) {
	t.Helper()
	m := &marker{personal: map[string]string{}, shown: map[string]string{}}
	r := &result.Result{}
	m.fill(t, "Result", reflect.ValueOf(r).Elem())
	// An asset is inline or in COS, never both.
	r.Assets[0].COS = nil
	r.Assets[1].Digest = result.Digest{}
	for path := range m.shown {
		if strings.HasPrefix(path, "Result.Assets[0].COS") || strings.HasPrefix(path, "Result.Assets[1].Digest") {
			delete(m.shown, path)
		}
	}
	return r, m
}

func (m *marker) fill(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	m.n++
	switch value := v.Addr().Interface().(type) {
	case *result.Sensitive:
		m.personal[path] = fmt.Sprintf("标记·0000001900%08d", m.n)
		*value = result.NewSensitive(m.personal[path])
		return
	case *time.Time:
		*value = time.Date(2001, 2, 3, 4, 5, 6, m.n*1000, time.UTC)
		m.shown[path] = value.Format(time.RFC3339Nano)
		return
	case *result.Content:
		return // the bytes themselves are the archive sinks' business
	case *[32]byte:
		value[31] = byte(m.n)
		m.shown[path] = fmt.Sprintf("%x", value[:])
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			m.fill(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			m.fill(t, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		m.fill(t, path, v.Elem())
	case reflect.String:
		v.SetString(fmt.Sprintf("shown-%05d", m.n))
		m.shown[path] = v.String()
	case reflect.Int64:
		v.SetInt(int64(7_000_000 + m.n))
		m.shown[path] = strconv.FormatInt(v.Int(), 10)
	case reflect.Uint64:
		v.SetUint(uint64(7_000_000 + m.n))
		m.shown[path] = strconv.FormatUint(v.Uint(), 10)
	case reflect.Bool:
		v.SetBool(true)
		m.bools++
	default:
		t.Fatalf("this test does not know how to fill %s of type %s", path, v.Type())
	}
}

// place is where a personal value is in the result and in the record.
type place struct {
	path     string
	field    privacy.Field
	position int
	in       func(*privacy.Record) privacy.Stored
}

var places = []place{
	{"Result.Person.Name", privacy.Name, 0, func(r *privacy.Record) privacy.Stored { return r.Person.Name }},
	{"Result.Person.IDCard", privacy.IDCard, 0, func(r *privacy.Record) privacy.Stored { return r.Person.IDCard }},
	{"Result.Person.Mobile", privacy.Mobile, 0, func(r *privacy.Record) privacy.Stored { return r.Person.Mobile }},
	{"Result.Person.Location", privacy.Location, 0, func(r *privacy.Record) privacy.Stored { return r.Person.Location }},
	{"Result.Person.Extra", privacy.Extra, 0, func(r *privacy.Record) privacy.Stored { return r.Person.Extra }},
	{"Result.Document.Name", privacy.OCRName, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Name }},
	{"Result.Document.IDCard", privacy.OCRIDCard, 0, func(r *privacy.Record) privacy.Stored { return r.Document.IDCard }},
	{"Result.Document.Gender", privacy.OCRGender, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Gender }},
	{"Result.Document.Nation", privacy.OCRNation, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Nation }},
	{"Result.Document.Birth", privacy.OCRBirth, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Birth }},
	{"Result.Document.Address", privacy.OCRAddress, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Address }},
	{"Result.Document.Authority", privacy.OCRAuthority, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Authority }},
	{"Result.Document.Valid", privacy.OCRValidDate, 0, func(r *privacy.Record) privacy.Stored { return r.Document.Valid }},
	{"Result.Document.PassNo", privacy.PassNo, 0, func(r *privacy.Record) privacy.Stored { return r.Document.PassNo }},
	{"Result.Document.VisaNum", privacy.VisaNum, 0, func(r *privacy.Record) privacy.Stored { return r.Document.VisaNum }},
	{"Result.EID.Code", privacy.EIDCode, 0, func(r *privacy.Record) privacy.Stored { return r.EID.Code }},
	{"Result.EID.Sign", privacy.EIDSign, 0, func(r *privacy.Record) privacy.Stored { return r.EID.Sign }},
	{"Result.Intention.Answers[0]", privacy.Answer, 0, func(r *privacy.Record) privacy.Stored { return r.Intention.Answers[0] }},
	{"Result.Intention.Answers[1]", privacy.Answer, 1, func(r *privacy.Record) privacy.Stored { return r.Intention.Answers[1] }},
	{"Result.Attempts[0].Name", privacy.AttemptName, 0, func(r *privacy.Record) privacy.Stored { return r.Attempts[0].Name }},
	{"Result.Attempts[1].Name", privacy.AttemptName, 1, func(r *privacy.Record) privacy.Stored { return r.Attempts[1].Name }},
	{"Result.Attempts[0].IDCard", privacy.AttemptIDCard, 0, func(r *privacy.Record) privacy.Stored { return r.Attempts[0].IDCard }},
	{"Result.Attempts[1].IDCard", privacy.AttemptIDCard, 1, func(r *privacy.Record) privacy.Stored { return r.Attempts[1].IDCard }},
	{"Result.Raw", privacy.Raw, 0, func(r *privacy.Record) privacy.Stored { return r.Raw }},
}

// Every Sensitive of package result must have a Field and a place in Record; if
// this fails, somebody added one without the other.
func TestEverySensitiveHasAPlace(t *testing.T) {
	_, m := markedResult(t)
	fields := map[privacy.Field]bool{}
	for _, p := range places {
		if _, ok := m.personal[p.path]; !ok {
			t.Errorf("%s is not a Sensitive of result.Result", p.path)
		}
		delete(m.personal, p.path)
		fields[p.field] = true
	}
	for path := range m.personal {
		t.Errorf("%s has no policy field", path)
	}
	for _, f := range privacy.Fields() {
		if !fields[f] {
			t.Errorf("field %s is used for nothing", f)
		}
	}
}

func TestDefaultPolicyShowsNothingPersonal(t *testing.T) {
	r, m := markedResult(t)
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	rec := protect(t, policy, r)
	text, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	for path, value := range m.personal {
		if strings.Contains(string(text), value) {
			t.Errorf("the record shows %s", path)
		}
	}
	for path, value := range m.shown {
		if !strings.Contains(string(text), value) {
			t.Errorf("the record lacks %s", path)
		}
	}
	if n := strings.Count(string(text), ":true"); n != m.bools {
		t.Errorf("the record says true %d times, want %d", n, m.bools)
	}
	for _, p := range places {
		ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: p.field, Position: p.position}
		opened, err := policy.Open(ref, p.in(rec).Value)
		if err != nil {
			t.Errorf("%s: %v", p.path, err)
		} else if opened.Reveal() != m.personal[p.path] {
			t.Errorf("%s: opened to another value", p.path)
		}
	}
}

// A record is read back by show and verify: it must survive its own JSON.
func TestRecordSurvivesJSON(t *testing.T) {
	r, _ := markedResult(t)
	rec := protect(t, newPolicy(t, privacy.DefaultConfig(), newKeyring(t)), r)
	text, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	var back privacy.Record
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*rec, back) {
		t.Error("the record read back differs")
	}
}

func TestEveryRuleForEveryField(t *testing.T) {
	r, m := markedResult(t)
	keys := newKeyring(t)
	for _, rule := range privacy.Rules() {
		policy := newPolicy(t, everywhere(rule), keys)
		rec := protect(t, policy, r)
		for _, p := range places {
			t.Run(string(rule)+"/"+p.path, func(t *testing.T) {
				value := m.personal[p.path]
				stored := p.in(rec)
				rule := policy.Rule(p.field)
				switch rule {
				case privacy.Plain:
					if stored.Value != value {
						t.Errorf("value %q", stored.Value)
					}
				case privacy.Mask, privacy.MaskHash:
					if stored.Value == value || !strings.Contains(stored.Value, "*") {
						t.Errorf("value %q", stored.Value)
					}
				case privacy.Seal, privacy.SealHash:
					if !privacy.IsSealed(stored.Value) {
						t.Errorf("value %q", stored.Value)
					}
				case privacy.Hash, privacy.Drop:
					if stored.Value != "" {
						t.Errorf("value %q", stored.Value)
					}
				}
				want := ""
				if strings.Contains(string(rule), "hash") {
					want = policy.Index(p.field, result.NewSensitive(value))
					if want == "" {
						t.Error("no index")
					}
				}
				if stored.Index != want {
					t.Errorf("index %q, want %q", stored.Index, want)
				}
			})
		}
	}
}
