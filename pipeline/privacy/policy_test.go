package privacy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func TestNewPolicyNeedsAKeyring(t *testing.T) {
	if _, err := privacy.NewPolicy(privacy.DefaultConfig(), nil); err == nil {
		t.Error("took the default policy without a keyring")
	}
	policy := newPolicy(t, everywhere(privacy.Plain), nil)
	rec := protect(t, policy, someone())
	if rec.Person.Name != (privacy.Stored{Value: "测试人"}) {
		t.Errorf("name is %+v", rec.Person.Name)
	}
	if got := policy.Index(privacy.Name, result.NewSensitive("测试人")); got != "" {
		t.Errorf("index without a keyring: %q", got)
	}
	_, err := policy.Open(privacy.Ref{Field: privacy.Name}, "seal:v1:00000000:AQ"+strings.Repeat("A", 118))
	wantUnknownKey(t, err, "00000000")
}

func TestNewPolicyRefusesAnInvalidConfig(t *testing.T) {
	if _, err := privacy.NewPolicy(privacy.Config{}, newKeyring(t)); err == nil {
		t.Error("took a configuration without a cipher")
	}
}

// What is not listed keeps its default: leaving a field out never stores more.
func TestUnlistedFieldKeepsItsDefault(t *testing.T) {
	cfg := privacy.Config{Cipher: privacy.AES256GCM, Fields: map[privacy.Field]privacy.Rule{privacy.Name: privacy.Mask}}
	rec := protect(t, newPolicy(t, cfg, newKeyring(t)), someone())
	if rec.Person.Name.Value != "测*" {
		t.Errorf("name %q", rec.Person.Name.Value)
	}
	if !privacy.IsSealed(rec.Person.IDCard.Value) || rec.Person.IDCard.Index == "" {
		t.Errorf("id card %+v, want it sealed and indexed", rec.Person.IDCard)
	}
}

func TestProtectOfAnEmptyResult(t *testing.T) {
	rec := protect(t, newPolicy(t, privacy.DefaultConfig(), newKeyring(t)), &result.Result{Product: result.EID, Token: "T-1"})
	text, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{"seal:", "h1:", "attempts", "assets", "raw", "eid\":{", "name"} {
		if strings.Contains(string(text), absent) {
			t.Errorf("%s holds %q", text, absent)
		}
	}
}

func TestProtectKeepsPlaces(t *testing.T) {
	cfg := defaults(map[privacy.Field]privacy.Rule{privacy.Answer: privacy.Drop})
	rec := protect(t, newPolicy(t, cfg, newKeyring(t)), someone())
	if len(rec.Intention.Answers) != 2 || len(rec.Attempts) != 2 {
		t.Errorf("%d answers, %d attempts; want 2 and 2", len(rec.Intention.Answers), len(rec.Attempts))
	}
	if got := rec.FetchedAt.Format("2006-01-02T15:04:05Z07:00"); got != "2026-11-24T08:30:00Z" {
		t.Errorf("fetched at %s", got)
	}
}

func TestProtectDiffersOnlyInSealedValues(t *testing.T) {
	keys := newKeyring(t)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	a, b := protect(t, policy, someone()), protect(t, policy, someone())
	if a.Person.Name.Value == b.Person.Name.Value {
		t.Error("two seals of one value are equal")
	}
	if a.Person.Name.Index != b.Person.Name.Index || a.Person.Name.Index != a.Attempts[1].Name.Index {
		t.Error("the indexes of one name differ")
	}
	policy = newPolicy(t, everywhere(privacy.MaskHash), keys)
	a, b = protect(t, policy, someone()), protect(t, policy, someone())
	a.Raw, b.Raw = privacy.Stored{}, privacy.Stored{}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Error("two records without seals differ")
	}
}

func TestPlainIsValidUTF8(t *testing.T) {
	r := someone()
	r.Person.Name = result.NewSensitive("测\xff")
	rec := protect(t, newPolicy(t, everywhere(privacy.Plain), nil), r)
	if rec.Person.Name.Value != "测\uFFFD" {
		t.Errorf("value %q", rec.Person.Name.Value)
	}
}

func TestMask(t *testing.T) {
	tests := []struct {
		field       privacy.Field
		value, want string
	}{
		{privacy.Name, "", ""},
		{privacy.Name, "测", "***"},
		{privacy.Name, "测试", "测*"},
		{privacy.Name, "测试人", "测*"},
		{privacy.Name, "欧阳测试", "欧*"},
		{privacy.Name, "阿测试·买测试提", "阿*"},
		{privacy.Name, "阿测试．买测试提", "阿*"},
		{privacy.Name, "𠀀测", "𠀀*"},
		{privacy.Name, "Test Person", "T*"},
		{privacy.Name, "   ", "***"},
		{privacy.OCRName, "测试", "测*"},
		{privacy.AttemptName, "测试", "测*"},

		{privacy.IDCard, "000000190001010000", "0***************00"},
		{privacy.IDCard, "00000019000101000x", "0***************0X"},
		{privacy.IDCard, "０００００019000101000Ｘ", "0***************0X"},
		{privacy.IDCard, "000000900101000", "0***************00"}, // 15 digits look like 18
		{privacy.PassNo, "H00000000", "H***************00"},
		{privacy.PassNo, "H000000", "***"},
		{privacy.VisaNum, "01", "***"},
		{privacy.OCRIDCard, "0", "***"},

		{privacy.Mobile, "10000000001", "100****0001"},
		{privacy.Mobile, "+86 100-0000-0001", "100****0001"},
		{privacy.Mobile, "1000000", "***"},
		{privacy.Mobile, "100000000001", "***"},
		{privacy.Mobile, "unknown", "***"},

		{privacy.OCRAddress, "测试省测试市测试区无名路0号", "测试省***"},
		{privacy.OCRAddress, "无名路0号", "***"},
		{privacy.OCRGender, "女", "***"},
		{privacy.OCRNation, "汉", "***"},
		{privacy.OCRBirth, "1900/1/1", "***"},
		{privacy.OCRValidDate, "1900.01.01-长期", "***"},
		{privacy.Location, "0.0000,0.0000", "***"},
		{privacy.Answer, "我同意", "***"},
	}
	policy := newPolicy(t, everywhere(privacy.Mask), newKeyring(t))
	for _, tt := range tests {
		t.Run(string(tt.field)+"/"+tt.value, func(t *testing.T) {
			rec := protect(t, policy, only(tt.field, tt.value))
			if got := storedOf(rec, tt.field); got.Value != tt.want || got.Index != "" {
				t.Errorf("stored %+v, want %q", got, tt.want)
			}
		})
	}
}

// only is a result with one personal value.
func only(f privacy.Field, value string) *result.Result {
	v := result.NewSensitive(value)
	r := &result.Result{
		Product: result.Enhanced, Token: "T-0001",
		Intention: result.Intention{Answers: make([]result.Sensitive, 2)},
		Attempts:  make([]result.Attempt, 2),
	}
	target := map[privacy.Field]*result.Sensitive{
		privacy.Name: &r.Person.Name, privacy.IDCard: &r.Person.IDCard, privacy.Mobile: &r.Person.Mobile,
		privacy.Location: &r.Person.Location,
		privacy.OCRName:  &r.Document.Name, privacy.OCRIDCard: &r.Document.IDCard,
		privacy.OCRGender: &r.Document.Gender, privacy.OCRNation: &r.Document.Nation,
		privacy.OCRBirth: &r.Document.Birth, privacy.OCRAddress: &r.Document.Address,
		privacy.OCRValidDate: &r.Document.Valid,
		privacy.PassNo:       &r.Document.PassNo, privacy.VisaNum: &r.Document.VisaNum,
		privacy.Answer: &r.Intention.Answers[0], privacy.AttemptName: &r.Attempts[0].Name,
	}[f]
	*target = v
	return r
}

func storedOf(rec *privacy.Record, f privacy.Field) privacy.Stored {
	for _, p := range places {
		if p.field == f && p.position == 0 {
			return p.in(rec)
		}
	}
	panic("no place for field " + f)
}

func TestIndexNormalises(t *testing.T) {
	tests := []struct {
		name string
		f, g privacy.Field
		a, b string
		same bool
	}{
		{"name on the document", privacy.Name, privacy.OCRName, "测试人", "测试人", true},
		{"name of an attempt", privacy.Name, privacy.AttemptName, "测试人", "测试人", true},
		{"number on the document", privacy.IDCard, privacy.OCRIDCard, "000000190001010000", "000000190001010000", true},
		{"number of an attempt", privacy.IDCard, privacy.AttemptIDCard, "000000190001010000", "000000190001010000", true},
		{"other groups", privacy.IDCard, privacy.PassNo, "000000190001010000", "000000190001010000", false},
		{"name is not number", privacy.Name, privacy.IDCard, "0000", "0000", false},
		{"other name", privacy.Name, privacy.Name, "测试人", "测试员", false},

		{"name spaced as on cards", privacy.Name, privacy.OCRName, "测试", "测 试", true},
		{"ideographic space", privacy.Name, privacy.Name, "测试", "　测　试　", true},
		{"zero width space", privacy.Name, privacy.Name, "测试", "测\u200b试", true},
		{"dots of names", privacy.Name, privacy.Name, "阿测试·买测试提", "阿测试•买测试提", true},
		{"full-width dot", privacy.Name, privacy.Name, "阿测试·买测试提", "阿测试．买测试提", true},
		{"katakana dot", privacy.Name, privacy.Name, "阿测试·买测试提", "阿测试・买测试提", true},
		{"dot is not nothing", privacy.Name, privacy.Name, "阿测试·买测试提", "阿测试买测试提", false},
		{"Latin case and spaces", privacy.Name, privacy.Name, "Test  Person", " TEST PERSON", true},
		{"Latin words stay apart", privacy.Name, privacy.Name, "Test Person", "TestPerson", false},

		{"small x", privacy.IDCard, privacy.IDCard, "00000019000101000X", "00000019000101000x", true},
		{"full-width number", privacy.IDCard, privacy.IDCard, "00000019000101000X", "０００００００００１１Ｘ", false},
		{"full-width same number", privacy.IDCard, privacy.IDCard, "00000019000101000X", "０000００19000101000Ｘ", true},
		{"grouped number", privacy.IDCard, privacy.IDCard, "000000190001010000", "000000 19000101-0000", true},

		{"country code", privacy.Mobile, privacy.Mobile, "10000000000", "+86 100 0000 0000", true},
		{"country code with zeros", privacy.Mobile, privacy.Mobile, "10000000000", "0086-10000000000", true},
		{"not a country code", privacy.Mobile, privacy.Mobile, "0000000000", "860000000000", false},

		{"white space of an address", privacy.OCRAddress, privacy.OCRAddress, "测试省 0号", " 测试省\t\n0号 ", true},
		{"address keeps its case", privacy.OCRAddress, privacy.OCRAddress, "A座", "a座", false},
	}
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := policy.Index(tt.f, result.NewSensitive(tt.a))
			b := policy.Index(tt.g, result.NewSensitive(tt.b))
			if a == "" || b == "" || len(a) > 40 {
				t.Fatalf("indexes %q and %q", a, b)
			}
			if (a == b) != tt.same {
				t.Errorf("same is %t, want %t", a == b, tt.same)
			}
		})
	}
}

func TestIndexOfNothing(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	for f, value := range map[privacy.Field]string{
		privacy.Name: "", privacy.OCRName: " 　", privacy.Mobile: "unknown", privacy.IDCard: "--", "nobody": "x",
	} {
		if got := policy.Index(f, result.NewSensitive(value)); got != "" {
			t.Errorf("index of %s %q is %q", f, value, got)
		}
	}
}

// Without the key an index says nothing: another keyring gives others, and a
// rotation of the sealing key keeps them.
func TestIndexDependsOnItsKey(t *testing.T) {
	keys := newKeyring(t)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	name := result.NewSensitive("测试人")
	before := policy.Index(privacy.Name, name)
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	if policy.Index(privacy.Name, name) != before {
		t.Error("a rotation changed the index")
	}
	other := newPolicy(t, privacy.DefaultConfig(), newKeyring(t)).Index(privacy.Name, name)
	if other[12:] == before[12:] {
		t.Error("two keyrings give one index")
	}
}

func BenchmarkProtect(b *testing.B) {
	for _, c := range privacy.Ciphers() {
		b.Run(string(c), func(b *testing.B) {
			cfg := privacy.DefaultConfig()
			cfg.Cipher = c
			policy := newPolicy(b, cfg, newKeyring(b))
			r := someone()
			r.Raw = result.NewSensitive(strings.Repeat("x", 4096))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := policy.Protect(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
