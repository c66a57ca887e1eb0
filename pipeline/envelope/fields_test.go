package envelope_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
)

// guide holds the samples of the vendor's guide.
type guide struct {
	Vectors []struct {
		Alg   envelope.Algorithm
		Key   string `json:"key_utf8"`
		IV    string
		Cases []struct{ Path, CT, Tag, PT string }
	}
}

func readGuide(t testing.TB) guide {
	t.Helper()
	var g guide
	if err := json.Unmarshal(read(t, "guide.json"), &g); err != nil || len(g.Vectors) != 2 {
		t.Fatal(len(g.Vectors), err)
	}
	return g
}

// TestGuide opens the samples of the guide, and makes them.
func TestGuide(t *testing.T) {
	for _, v := range readGuide(t).Vectors {
		iv, err := base64.StdEncoding.DecodeString(v.IV)
		if err != nil {
			t.Fatal(err)
		}
		session := envelope.NewFixedSession(v.Alg, []byte(v.Key), iv)
		sealer, err := envelopetest.NewSealer(v.Alg, []byte(v.Key), iv)
		if err != nil {
			t.Fatal(err)
		}
		e := envelope.Encryption{Algorithm: v.Alg, Iv: v.IV}
		sealed, plain := map[string]string{}, map[string]string{}
		for _, c := range v.Cases {
			sealed[c.Path], plain[c.Path] = c.CT, c.PT
			e.EncryptList = append(e.EncryptList, c.Path)
			if c.Tag != "" {
				e.TagList = append(e.TagList, c.Tag)
			}
			if ct, tag := sealer.Text(c.PT); ct != c.CT || tag != c.Tag {
				t.Errorf("%s %s: made %s, tag %s", v.Alg, c.Path, ct, tag)
			}
		}
		doc, err := json.Marshal(sealed)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := session.OpenFields(doc, e)
		if err != nil {
			t.Fatalf("%s: %v", v.Alg, err)
		}
		var got map[string]string
		if err := json.Unmarshal(opened, &got); err != nil || !maps.Equal(got, plain) {
			t.Errorf("%s: opened wrongly: %v", v.Alg, err)
		}
	}
}

// answerPaths are paths as seen in answers (FACTS §1.4).
var answerPaths = []string{
	"Response.Text.IdCard", "Response.Text.Name", "Response.Text.OcrIdCard",
	"Response.Text.LivenessDetail[0].Idcard", "Response.Text.LivenessDetail[0].Name", "Response.Text.LivenessDetail[1].Name",
}

const answerDoc = `{ "Response" :{"RequestId":"<r&\u003e>" ,
	"Text": {"ErrCode":0,"IdCard" : "000000190001010000","Name":"测试甲","OcrIdCard":"","Sim":"99.00","Big":12345678901234567890.10,"Huge":1e999,
	"LivenessDetail":[ {"Idcard":"000000190001010000","Name":"测试甲"}, {"Idcard":null,"Name":"\"\\<乙> 𠮷\u2028"} ], "Later":[[[]],{"IdCard":"x"}]},
	"IsVerifyIntention":false}}`

// values returns what the paths point to.
func values(t testing.TB, doc []byte, paths []string) []string {
	t.Helper()
	var out []string
	for _, path := range paths {
		var at any
		if err := json.Unmarshal(bytes.ReplaceAll(doc, []byte("1e999"), []byte("1")), &at); err != nil {
			t.Fatal(err)
		}
		for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
			switch node := at.(type) {
			case map[string]any:
				at = node[step]
			case []any:
				at = node[int(step[0]-'0')]
			}
		}
		s, ok := at.(string)
		if !ok {
			t.Fatalf("%s: %T", path, at)
		}
		out = append(out, s)
	}
	return out
}

// sealDoc encrypts the strings of answerDoc in place, keeping all else.
func sealDoc(t testing.TB, sealer *envelopetest.Sealer, paths []string) ([]byte, envelope.Encryption) {
	t.Helper()
	doc, e, err := sealer.Fields([]byte(answerDoc), paths...)
	if err != nil {
		t.Fatal(err)
	}
	return doc, e
}

func TestOpenFields(t *testing.T) {
	want := values(t, []byte(answerDoc), answerPaths)
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		doc, e := sealDoc(t, sealer, answerPaths)
		sealed := values(t, doc, answerPaths)
		opened, err := session.OpenFields(doc, e)
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if got := values(t, opened, answerPaths); !slices.Equal(got, want) || slices.Equal(got, sealed) {
			t.Errorf("%s: opened wrongly", algorithm)
		}
		// Every other byte is as it was.
		pairs := []string{}
		for i, s := range sealed {
			var quoted bytes.Buffer
			encoder := json.NewEncoder(&quoted)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(want[i]); err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, `"`+s+`"`, strings.TrimSuffix(quoted.String(), "\n"))
		}
		if wantDoc := strings.NewReplacer(pairs...).Replace(string(doc)); string(opened) != wantDoc {
			t.Errorf("%s:\n%s\n%s", algorithm, opened, wantDoc)
		}
	}
}

// TestOpenFieldsInEitherShape has the outer object in the document, in the paths, in
// both or in none.
func TestOpenFieldsInEitherShape(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		ct, tag := sealer.Text("测试甲")
		for _, doc := range []string{`{"Response":{"Text":{"Name":"` + ct + `"}}}`, `{"Text":{"Name":"` + ct + `"}}`} {
			for _, path := range []string{"Response.Text.Name", "Text.Name"} {
				e := session.Request(path)
				if tag != "" {
					e.TagList = []string{tag}
				}
				opened, err := session.OpenFields([]byte(doc), e)
				if want := strings.Replace(doc, ct, "测试甲", 1); err != nil || string(opened) != want {
					t.Errorf("%s in %s: %s, %v", path, doc, opened, err)
				}
			}
		}
	}
}

// TestOpenFieldsTakesWhatIsThere has fields that the list names and that hold
// nothing.
func TestOpenFieldsTakesWhatIsThere(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		ct, tag := sealer.Text("测试甲")
		doc := `{"Response":{"Text":{"IdCard":null,"OcrName":"","Name":"` + ct + `"}}}`
		e := session.Request("Response.Text.IdCard", "Response.Text.OcrName", "Response.Text.Name")
		if tag != "" {
			e.TagList = []string{"", "", tag}
		}
		opened, err := session.OpenFields([]byte(doc), e)
		if want := strings.Replace(doc, ct, "测试甲", 1); err != nil || string(opened) != want {
			t.Errorf("%s: %s, %v", algorithm, opened, err)
		}
		// An answer with an empty list is as it is.
		e = session.Request()
		if opened, err := session.OpenFields([]byte(doc), e); err != nil || string(opened) != doc {
			t.Errorf("%s: %s, %v", algorithm, opened, err)
		}
		// The answer's own IV counts, and the session's where it has none.
		for _, iv := range []string{"", session.Request().Iv} {
			d, e := sealDoc(t, sealer, answerPaths)
			e.Iv, e.Algorithm = iv, ""
			if _, err := session.OpenFields(d, e); err != nil {
				t.Errorf("%s, IV %q: %v", algorithm, iv, err)
			}
		}
	}
}

// TestRawIV has the IV of AES as the 16 characters that KMS's documentation speaks
// of.
func TestRawIV(t *testing.T) {
	key, iv := bytes.Repeat([]byte{7}, 32), "abcdefghijkl+/=="
	sealer, err := envelopetest.NewSealer(envelope.AES256CBC, key, []byte(iv))
	if err != nil {
		t.Fatal(err)
	}
	dataKey, err := envelope.NewDataKey(key, "blob")
	if err != nil {
		t.Fatal(err)
	}
	doc, e := sealDoc(t, sealer, answerPaths)
	for _, form := range []string{iv, base64.StdEncoding.EncodeToString([]byte(iv))} {
		e.Iv = form
		opened, err := envelope.NewDataKeySession(dataKey).OpenFields(doc, e)
		if err != nil || !slices.Equal(values(t, opened, answerPaths), values(t, []byte(answerDoc), answerPaths)) {
			t.Errorf("%s: %v", form, err)
		}
	}
}

type wrongFields struct {
	name  string
	doc   string
	wrong func(e *envelope.Encryption)
	want  error
	words string
}

func TestOpenFieldsRefuses(t *testing.T) {
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		doc, good := sealDoc(t, sealer, answerPaths)
		good.EncryptList = append([]string{}, answerPaths...)
		sealed := values(t, doc, answerPaths)
		name := sealed[1]
		replaced := func(with string) string { return strings.ReplaceAll(string(doc), name, with) }
		list := func(paths ...string) func(*envelope.Encryption) {
			return func(e *envelope.Encryption) {
				e.EncryptList = paths
				if algorithm == envelope.SM4GCM {
					e.TagList = e.TagList[:len(paths)]
				}
			}
		}
		notText, notTextTag := sealer.Text("\xb2\xe2")
		cases := []wrongFields{
			{"missing path", "", list("Response.Text.IdCard", "Response.Text.Missing"), envelope.ErrMalformed, "no Response.Text.Missing"},
			{"missing element", "", list("Response.Text.LivenessDetail[7].Name"), envelope.ErrMalformed, "no Response.Text.LivenessDetail[7].Name"},
			{"a number", "", list("Response.Text.ErrCode"), envelope.ErrMalformed, "Response.Text.ErrCode is not a string"},
			{"an object", "", list("Response.Text"), envelope.ErrMalformed, "not a string"},
			{"an array", "", list("Response.Text.LivenessDetail"), envelope.ErrMalformed, "not a string"},
			{"the same path twice", "", list("Response.Text.Name", "Text.Name"), envelope.ErrMalformed, "twice"},
			{"the same key twice", replaced(name + `","Name":"` + name), nil, envelope.ErrMalformed, "twice"},
			{"no path", "", list("测试甲"), envelope.ErrMalformed, "EncryptList[0] is not a path"},
			{"an empty path", "", list(""), envelope.ErrMalformed, "not a path"},
			{"a long path", "", list(strings.Repeat("a", 257)), envelope.ErrMalformed, "not a path"},
			{"a path with a dot too many", "", list("Response..Text"), envelope.ErrMalformed, "not a path"},
			{"a huge index", "", list("Response.Text.LivenessDetail[99999]"), envelope.ErrMalformed, "not a path"},
			{"not base64", replaced("测试"), nil, envelope.ErrMalformed, "Response.Text.Name: not in the documented form: the value is not base64"},
			{"not JSON", string(doc[:len(doc)-1]), nil, envelope.ErrMalformed, "not JSON"},
			{"no document", "-", nil, envelope.ErrMalformed, "not JSON"},
			{"IV not base64", "", func(e *envelope.Encryption) { e.Iv = "测试" }, envelope.ErrMalformed, "IV"},
			{"short IV", "", func(e *envelope.Encryption) { e.Iv = "AAAA" }, envelope.ErrMalformed, "IV has 3 bytes"},
			{"another IV", "", func(e *envelope.Encryption) { e.Iv = flip(t, e.Iv, 3) }, envelope.ErrKeyMismatch, "Response.Text.IdCard"},
			{"another algorithm", "", func(e *envelope.Encryption) { e.Algorithm = "AES-256-GCM" }, envelope.ErrMalformed, "which was asked for"},
		}
		if algorithm == envelope.SM4GCM {
			cases = append(cases,
				wrongFields{"a tag too few", "", func(e *envelope.Encryption) { e.TagList = e.TagList[1:] }, envelope.ErrMalformed, "5 tags for 6 fields"},
				wrongFields{"tags swapped", "", func(e *envelope.Encryption) { e.TagList[0], e.TagList[1] = e.TagList[1], e.TagList[0] }, envelope.ErrKeyMismatch, "Response.Text.IdCard"},
				wrongFields{"last tag wrong", "", func(e *envelope.Encryption) { e.TagList[5] = flip(t, e.TagList[5], 15) }, envelope.ErrKeyMismatch, "[1].Name: does not open with this key: the tag is wrong"},
				wrongFields{"tag not base64", "", func(e *envelope.Encryption) { e.TagList[1] = "测试" }, envelope.ErrMalformed, "tag is not base64"},
				wrongFields{"short tag", "", func(e *envelope.Encryption) { e.TagList[1] = "AAAA" }, envelope.ErrMalformed, "tag has 3 bytes"},
				wrongFields{"no tag", "", func(e *envelope.Encryption) { e.TagList[1] = "" }, envelope.ErrMalformed, "tag has 0 bytes"},
				wrongFields{"flipped", replaced(flip(t, name, 0)), nil, envelope.ErrKeyMismatch, "Response.Text.Name"},
				wrongFields{"authentic but no text", replaced(notText), func(e *envelope.Encryption) { e.TagList[1], e.TagList[4] = notTextTag, notTextTag }, envelope.ErrMalformed, "not text"},
			)
		} else {
			cases = append(cases,
				wrongFields{"half a block", replaced("AAAA"), nil, envelope.ErrMalformed, "3 bytes are not whole blocks"},
				wrongFields{"wrong padding", replaced(base64.StdEncoding.EncodeToString(make([]byte, 16))), nil, envelope.ErrKeyMismatch, "Response.Text.Name: does not open with this key: the padding is wrong"},
				wrongFields{"no text", replaced(notText), nil, envelope.ErrKeyMismatch, "not text"},
			)
		}
		for _, c := range cases {
			refuses(t, session, good, string(doc), c)
		}
	}
}

func refuses(t *testing.T, session *envelope.Session, e envelope.Encryption, doc string, c wrongFields) {
	t.Helper()
	e.EncryptList, e.TagList = slices.Clone(e.EncryptList), slices.Clone(e.TagList)
	if c.wrong != nil {
		c.wrong(&e)
	}
	if c.doc != "" {
		doc = c.doc
	}
	opened, err := session.OpenFields([]byte(doc), e)
	switch {
	case !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words):
		t.Errorf("%s, %s: %v, want %v: %s", e.Algorithm, c.name, err, c.want, c.words)
	case opened != nil:
		t.Errorf("%s, %s: something is returned", e.Algorithm, c.name)
	case strings.Contains(err.Error(), "测试") || strings.Contains(err.Error(), "19000101"):
		t.Errorf("%s, %s: the error has data: %v", e.Algorithm, c.name, err)
	}
}

// TestAnyTextComesBack encrypts any texts at any depth.
func TestAnyTextComesBack(t *testing.T) {
	pairs := map[envelope.Algorithm]struct {
		*envelope.Session
		*envelopetest.Sealer
	}{}
	for _, algorithm := range algorithms {
		session, sealer := newPair(t, algorithm)
		pairs[algorithm] = struct {
			*envelope.Session
			*envelopetest.Sealer
		}{session, sealer}
	}
	rapid.Check(t, func(t *rapid.T) {
		algorithm := rapid.SampledFrom(algorithms).Draw(t, "algorithm")
		texts := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "texts")
		depth := rapid.IntRange(0, 3).Draw(t, "depth")
		var list []string
		var tree any = texts
		path := ""
		for i := range depth {
			key := fmt.Sprintf("k%d", i)
			tree = map[string]any{key: []any{1, tree}, "other": texts}
			path = "." + key + "[1]" + path
		}
		doc, err := json.Marshal(map[string]any{"Response": map[string]any{"r": tree, "more": 1.5}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range texts {
			list = append(list, fmt.Sprintf("Response.r%s[%d]", path, i))
		}
		p := pairs[algorithm]
		sealed, e, err := p.Fields(doc, list...)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := p.OpenFields(sealed, e)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if json.Unmarshal(doc, &want) != nil || json.Unmarshal(opened, &got) != nil || fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("%s\n%s", doc, opened)
		}
	})
}

func ExampleSession_OpenFields() {
	keys, err := envelopetest.GenerateKeys(envelope.SM4GCM) // the service's
	if err != nil {
		panic(err)
	}
	public, err := envelope.ParsePublicKey(envelope.SM4GCM, []byte(keys.Console()))
	if err != nil {
		panic(err)
	}
	session, err := envelope.NewSession(public)
	if err != nil {
		panic(err)
	}
	defer session.Wipe()

	// The service opens what session.Request() says and encrypts its answer.
	service, err := keys.Open(session.Request())
	if err != nil {
		panic(err)
	}
	answer, encryption, err := service.Fields([]byte(`{"Response":{"Text":{"Name":"测试甲","Sim":"99.00"}}}`), "Response.Text.Name")
	if err != nil {
		panic(err)
	}

	opened, err := session.OpenFields(answer, encryption)
	fmt.Println(string(opened), err)
	// Output: {"Response":{"Text":{"Name":"测试甲","Sim":"99.00"}}} <nil>
}
