package extract_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small are limits low enough for documents that fit on a screen.
func small() extract.Config {
	cfg := extract.DefaultConfig()
	cfg.Fields = []string{"Video", "Frames[]", "Deep[].Video"}
	cfg.KeepText, cfg.UnknownLimit = 8, 20
	return cfg
}

func newBatch(t testing.TB) *spool.Batch {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), MemoryLimit: 1 << 20, Quota: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

func content(t testing.TB, m extract.Medium) []byte {
	t.Helper()
	r, err := m.Item.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// medium returns the one medium of a field.
func medium(t testing.TB, d *extract.Document, field string) extract.Medium {
	t.Helper()
	for _, m := range d.Media {
		if m.Field == field {
			return m
		}
	}
	t.Fatalf("no medium %s in %s", field, d.JSON)
	return extract.Medium{}
}

func TestMediaFields(t *testing.T) {
	want := "any carnal pleasure?" // its base64 has both characters of the URL-safe alphabet
	std := base64.StdEncoding.EncodeToString([]byte(want + "\xfb\xff\xfe"))
	want += "\xfb\xff\xfe"
	tests := []struct{ name, value string }{
		{"plain", std},
		{"escaped slashes", strings.ReplaceAll(std, "/", `\/`)},
		{"slashes as u002f", strings.ReplaceAll(std, "/", `\u002f`)},
		{"every character escaped", func() string {
			var b strings.Builder
			for _, c := range std {
				fmt.Fprintf(&b, `\u%04X`, c)
			}
			return b.String()
		}()},
		{"URL-safe", strings.NewReplacer("+", "-", "/", "_").Replace(std)},
		{"no padding", strings.TrimRight(std, "=")},
		{"lines", std[:5] + `\r\n` + std[5:9] + `\n ` + std[9:]},
		{"data URI", "data:image/jpeg;base64," + std},
		{"data URI with a parameter, escaped", `DATA:video\/mp4;codecs=avc1;base64,` + std},
		{"spaces around", `  ` + std + `\t`},
	}
	for _, tt := range tests {
		for split, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "data with the end": iotest.DataErrReader,
		} {
			t.Run(tt.name+"/"+split, func(t *testing.T) {
				body := `{ "Response" : { "Video" : "` + tt.value + `" , "After" : 1.50e+3 } }`
				d, err := extract.Extract(t.Context(), wrap(strings.NewReader(body)), newBatch(t), small())
				if err != nil {
					t.Fatal(err)
				}
				m := medium(t, d, "Video")
				if got := string(content(t, m)); got != want || !m.Known {
					t.Errorf("got %q, known %v", got, m.Known)
				}
				if !strings.Contains(string(d.JSON), `"After":1.50e+3`) {
					t.Errorf("the rest became %s", d.JSON)
				}
			})
		}
	}
}

func TestShapes(t *testing.T) {
	long := strings.Repeat("QUJD", 10)
	tests := []struct {
		name, body string
		fields     []string
	}{
		{"with the outer object", `{"Response":{"Video":"` + long + `"}}`, []string{"Video"}},
		{"without it", `{"Video":"` + long + `"}`, []string{"Video"}},
		{"an array", `{"Frames":["` + long + `","short",null,"` + long + `"]}`, []string{"Frames[0]", "Frames[3]"}},
		{"objects in an array", `{"Deep":[{"Video":null},{"Video":"` + long + `"}]}`, []string{"Deep[1].Video"}},
		{"null, empty and short", `{"Video":null,"Frames":["","a/b.jpg"]}`, nil},
		{"an unknown large string", `{"Text":{"New":"` + long + `"}}`, []string{"Text.New"}},
		{"a key that looks like a path", `{"Deep[].Video":"` + long + `"}`, []string{"Deep___Video"}},
		{"a long key", `{"` + strings.Repeat("k", 5000) + `":"` + long + `"}`, []string{strings.Repeat("k", 64)}},
		{"a repeated key", `{"Video":"` + long + `","Video":"` + long + `"}`, []string{"Video", "Video"}},
		{"at the top", `"` + long + `"`, []string{""}},
		{"nothing", ` {} `, nil},
		{"a number", ` -0.5E-7`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := extract.Extract(t.Context(), strings.NewReader(tt.body), newBatch(t), small())
			if err != nil {
				t.Fatal(err)
			}
			if !json.Valid(d.JSON) {
				t.Errorf("made %s", d.JSON)
			}
			got := map[string]int{}
			for _, m := range d.Media {
				got[m.Field]++
			}
			want := map[string]int{}
			for _, f := range tt.fields {
				want[f]++
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("media %v, want %v", got, want)
			}
		})
	}
}

func TestUnknownStringsAreKeptExactly(t *testing.T) {
	want := strings.Repeat("x", 20) + "\"\\/\b\f\n\r\t姓名\U0001F600\uFFFD;\uFFFDa"
	body := `{"Note":"` + strings.Repeat("x", 20) + `\"\\\/\b\f\n\r\t姓\u540d\ud83d\ude00\ud83d;\ude00a"}`
	d, err := extract.Extract(t.Context(), iotest.OneByteReader(strings.NewReader(body)), newBatch(t), small())
	if err != nil {
		t.Fatal(err)
	}
	m := medium(t, d, "Note")
	if got := string(content(t, m)); got != want || m.Known {
		t.Errorf("got  %q\nwant %q, known %v", got, want, m.Known)
	}
}

func TestHandlesCannotBeForged(t *testing.T) {
	body := `{"Video":"` + strings.Repeat("QUJD", 10) + `"}`
	one, err := extract.Extract(t.Context(), strings.NewReader(body), newBatch(t), small())
	if err != nil {
		t.Fatal(err)
	}
	two, err := extract.Extract(t.Context(), strings.NewReader(body), newBatch(t), small())
	if err != nil {
		t.Fatal(err)
	}
	for handle := range one.Media {
		if _, same := two.Media[handle]; same {
			t.Error("two calls use the same handle")
		}
	}
}

func TestErrors(t *testing.T) {
	// secret must be in no error.
	const secret = "SECRETSECRETSECRETSECRET"
	syntax := func(offset int64) func(error) bool {
		return func(err error) bool {
			var wrong *extract.SyntaxError
			return errors.As(err, &wrong) && wrong.Offset == offset
		}
	}
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	tests := []struct {
		name, body string
		want       func(error) bool
	}{
		{"empty", ``, is(io.ErrUnexpectedEOF)},
		{"cut off in a medium", `{"Video":"` + secret, is(io.ErrUnexpectedEOF)},
		{"cut off in an escape", `{"Video":"` + secret + `\u00`, is(io.ErrUnexpectedEOF)},
		{"cut off in a key", `{"` + secret, is(io.ErrUnexpectedEOF)},
		{"cut off in a literal", `{"a":tru`, is(io.ErrUnexpectedEOF)},
		{"cut off after a comma", `[1,`, is(io.ErrUnexpectedEOF)},
		{"control character in a medium", "{\"Video\":\"" + secret + "\n\"}", syntax(34)},
		{"control character in a string", "[\"a\x01\"]", syntax(3)},
		{"unknown escape", `["a\x"]`, syntax(4)},
		{"half an escape", `["\u12g4"]`, syntax(6)},
		{"two documents", `{} {}`, syntax(3)},
		{"trailing comma", `[1,]`, syntax(3)},
		{"no comma", `[1 2]`, syntax(3)},
		{"no colon", `{"a" 1}`, syntax(5)},
		{"no key", `{1:2}`, syntax(1)},
		{"single quotes", `{'a':1}`, syntax(1)},
		{"leading zero", `[01]`, syntax(1)},
		{"not a number", `[NaN]`, syntax(1)},
		{"a page", `<html>` + secret, syntax(0)},
		{"too deep", strings.Repeat("[", 65) + strings.Repeat("]", 65), is(extract.ErrTooDeep)},
		{"too deep in objects", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), is(extract.ErrTooDeep)},
	}
	for _, tt := range tests {
		for split, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			t.Run(tt.name+"/"+split, func(t *testing.T) {
				_, err := extract.Extract(t.Context(), wrap(strings.NewReader(tt.body)), newBatch(t), small())
				if err == nil || !tt.want(err) {
					t.Fatalf("got %T %v", err, err)
				}
				if strings.Contains(err.Error(), "SECRET") {
					t.Errorf("the error holds content: %v", err)
				}
			})
		}
	}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name   string
		change func(*extract.Config)
		body   string
	}{
		{"body", func(c *extract.Config) { c.MaxBody = 100 }, `{"Video":"` + strings.Repeat("QUJD", 100) + `"}`},
		{"small JSON", func(c *extract.Config) { c.MaxJSON = 100 }, `[` + strings.Repeat("1,", 100) + `1]`},
		{"a key", func(c *extract.Config) { c.MaxJSON = 100 }, `{"` + strings.Repeat("k", 101) + `":1}`},
		{"number of media", func(c *extract.Config) { c.MaxMedia = 1 }, `{"Frames":["` + strings.Repeat("QUJD", 10) + `","` + strings.Repeat("QUJD", 10) + `"]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := small()
			tt.change(&cfg)
			if _, err := extract.Extract(t.Context(), strings.NewReader(tt.body), newBatch(t), cfg); !errors.Is(err, extract.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadErrorsAndCancellation(t *testing.T) {
	broken := errors.New("connection reset")
	body := io.MultiReader(strings.NewReader(`{"Video":"QUJDQUJDQUJD`), iotest.ErrReader(broken))
	if _, err := extract.Extract(t.Context(), body, newBatch(t), small()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := extract.Extract(ctx, strings.NewReader(`{}`), newBatch(t), small()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// media returns size random bytes as a JSON document with one video, as a
// stream that is never in memory.
func media(size int) io.Reader {
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), int64(size))
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, `{"Response":{"Text":{"Name":"x"},"Video":"`)
		encoder := base64.NewEncoder(base64.StdEncoding, w)
		_, _ = io.CopyBuffer(encoder, source, make([]byte, 32<<10))
		_ = encoder.Close()
		_, _ = io.WriteString(w, `"}}`)
		_ = w.Close()
	}()
	return r
}

// A large medium costs no memory to speak of: what is allocated in all, freed or
// not, is a fraction of its size.
func TestConstantMemory(t *testing.T) {
	const size = 64 << 20
	b := newBatch(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d, err := extract.Extract(t.Context(), media(size), b, small())
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if got := medium(t, d, "Video").Item.Digest().Size; got != size {
		t.Errorf("%d bytes", got)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 8<<20 {
		t.Errorf("allocated %d bytes for a medium of %d", allocated, size)
	}
}

// oracle decodes a document with encoding/json, and replaces the strings that
// Extract is to take out with what they should hold.
func oracle(t *testing.T, d *extract.Document) any {
	t.Helper()
	v := decode(t, d.JSON)
	var walk func(v any) any
	walk = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				v[k] = walk(v[k])
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		case string:
			if m, ok := d.Media[v]; ok {
				if m.Known {
					return content(t, m)
				}
				return string([]rune(string(content(t, m))))
			}
		}
		return v
	}
	return walk(v)
}

func decode(t *testing.T, doc []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, doc)
	}
	return v
}

// same compares what Extract made with what encoding/json makes: where Extract
// decoded base64, the original must decode to the same bytes.
func same(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for k := range want {
			if !same(got[k], want[k]) {
				return false
			}
		}
		return true
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for i := range want {
			if !same(got[i], want[i]) {
				return false
			}
		}
		return true
	case string:
		decoded, ok := got.([]byte)
		if !ok {
			return got == want
		}
		return bytes.Equal(decoded, lenient(want))
	}
	return got == want
}

// lenient decodes base64 with the standard library after the cleaning that this
// package promises.
func lenient(text string) []byte {
	if i := strings.Index(text, ";base64,"); i >= 0 && strings.HasPrefix(strings.ToLower(text), "data:") {
		text = text[i+len(";base64,"):]
	}
	text = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", "-", "+", "_", "/").Replace(text)
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil
	}
	return b
}

// A damaged medium is named, and costs nothing else.
func TestDamagedMedia(t *testing.T) {
	const secret = "SECRETSECRETSECRETSECRET"
	for _, tt := range []struct{ name, body, field string }{
		{"another character", `{"Video":"` + secret + `*"}`, "Video"},
		{"another character, escaped", `{"Video":"` + secret + `\u4e00"}`, "Video"},
		{"a character too many", `{"Frames":["` + secret + `A"]}`, "Frames[0]"},
		{"padding in the middle", `{"Video":"` + secret + `QQ==QQ=="}`, "Video"},
		{"padding too early", `{"Video":"` + secret + `Q==="}`, "Video"},
		{"padding too long", `{"Video":"` + secret + `QUI=="}`, "Video"},
		{"two in one document", `{"Video":"` + secret + `*","a":"` + secret + `*"}`, "Video"},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			whole := `{"Frames":["` + secret + `"],"Inner":` + tt.body + `,"After":1}`
			whole = strings.Replace(whole, `"Inner":{`, `"Other":2,`, 1)
			whole = strings.Replace(whole, `},"After"`, `,"After"`, 1)
			if strings.HasPrefix(tt.field, "Frames") {
				whole = tt.body
			}
			d, err := extract.Extract(t.Context(), &chunks{body: []byte(whole), size: size}, newBatch(t), small())
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			if len(d.Damaged) != 1 || d.Damaged[0].Field != tt.field || strings.Contains(d.Damaged[0].Error(), "SECRET") {
				t.Errorf("%s: damaged %v", tt.name, d.Damaged)
			}
			if !json.Valid(d.JSON) || !strings.Contains(string(d.JSON), "null") || strings.Contains(string(d.JSON), "SECRET") && !strings.Contains(tt.name, "two") {
				t.Errorf("%s: made %s", tt.name, d.JSON)
			}
			if whole != tt.body && (len(content(t, medium(t, d, "Frames[0]"))) != 18 || !strings.HasSuffix(string(d.JSON), `"After":1}`)) {
				t.Errorf("%s: the rest became %s", tt.name, d.JSON)
			}
		}
	}
}

func FuzzExtract(f *testing.F) {
	for _, seed := range []string{
		`{"Response":{"Video":"QUJDQUJDQUJDQUJD","Frames":["a\/b","QUJD\nQUJDQUJD"],"Deep":[{"Video":null}]}}`,
		`{"a":"\ud83d\ude00\ud83d padding padding padding","b":[1e5,-0,true,false,null,{}]}`,
		`{"Video":"data:image/png;base64,QUJDQUJDQUJD","Video":""}`,
		"[\"\xff\xfe invalid UTF-8 in a long unknown string\"]", `[[[["`, `{"Video":"QQ==`, ` 1 `, `"\u0000"`,
	} {
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, body []byte, chunk int) {
		cfg := small()
		src := io.Reader(bytes.NewReader(body))
		if chunk > 0 && chunk < 100 {
			src = &chunks{body: body, size: chunk}
		}
		d, err := extract.Extract(t.Context(), src, newBatch(t), cfg)
		valid := json.Valid(body)
		if err != nil {
			if valid && !errors.Is(err, extract.ErrTooDeep) && !errors.Is(err, extract.ErrTooLarge) {
				t.Fatalf("refused %q: %v", body, err)
			}
			return
		}
		if !valid {
			t.Fatalf("took %q", body)
		}
		if len(d.Damaged) > 0 {
			return // of which nothing is kept
		}
		if got, want := oracle(t, d), decode(t, body); !same(got, want) {
			t.Fatalf("made %v of %v", got, want)
		}
	})
}

// chunks is a reader that gives size bytes at a time.
type chunks struct {
	body []byte
	size int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.body) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.size)], c.body)
	c.body = c.body[n:]
	return n, nil
}

func FuzzBase64(f *testing.F) {
	f.Add([]byte("QUJDQUJDQUJD"), 3)
	f.Add([]byte("QUJD\nQUJD+/-_QQ=="), 5)
	f.Add([]byte(strings.Repeat("QUJD", 30)+" \n"+strings.Repeat("_-8=", 1)), 7)
	f.Fuzz(func(t *testing.T, text []byte, chunk int) {
		quoted, err := json.Marshal(string(text))
		if err != nil {
			t.Fatal(err)
		}
		cfg := small()
		cfg.KeepText = 0
		body := append(append([]byte(`{"Video":`), quoted...), '}')
		d, err := extract.Extract(t.Context(), &chunks{body: body, size: max(1, chunk%5000)}, newBatch(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		small, smallErr := extract.DecodeBase64(string([]rune(string(text))))
		if (len(d.Damaged) == 0) != (smallErr == nil) {
			t.Fatalf("the stream says %v, the short form %v", d.Damaged, smallErr)
		}
		if len(d.Media) == 0 {
			return
		}
		if got := content(t, medium(t, d, "Video")); !bytes.Equal(got, small) || !bytes.Equal(got, lenient(string(text))) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// Blocks of the decoder and windows of the scanner end anywhere in a medium.
func TestBlockEdges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := make([]byte, rapid.IntRange(20, 200<<10).Draw(rt, "size"))
		_, _ = rand.NewChaCha8([32]byte{2}).Read(want)
		text := base64.StdEncoding.EncodeToString(want)
		switch rapid.IntRange(0, 3).Draw(rt, "form") {
		case 1:
			text = strings.ReplaceAll(text, "/", `\/`)
		case 2:
			text = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(text), "=")
		case 3:
			width := rapid.IntRange(4, 100).Draw(rt, "line")
			var lines strings.Builder
			for i := 0; i < len(text); i += width {
				lines.WriteString(text[i:min(i+width, len(text))] + `\r\n`)
			}
			text = lines.String()
		}
		src := &chunks{body: []byte(`{"Video":"` + text + `"}`), size: rapid.IntRange(1, 100<<10).Draw(rt, "read")}
		d, err := extract.Extract(context.Background(), src, newBatch(t), small())
		if err != nil {
			rt.Fatal(err)
		}
		if !bytes.Equal(content(t, medium(t, d, "Video")), want) {
			rt.Fatal("other bytes")
		}
	})
}

func ExampleExtract() {
	dir, cleanup := tempDir()
	defer cleanup()
	s, err := spool.Open(spool.Config{Dir: dir, Quota: 1 << 20})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	batch, err := s.Begin(context.Background())
	if err != nil {
		panic(err)
	}
	defer batch.Close()

	cfg := extract.DefaultConfig()
	cfg.Fields = []string{"BestFrame.BestFrames[]"}
	cfg.KeepText = 4
	body := strings.NewReader(`{"Response":{"BestFrame":{"BestFrames":["/9j/4AAQSkZJRg=="]}}}`)
	d, err := extract.Extract(context.Background(), body, batch, cfg)
	if err != nil {
		panic(err)
	}
	for _, m := range d.Media {
		fmt.Println(m.Field, m.Item.ContentType(), m.Item.Digest().Size)
	}
	// Output: BestFrame.BestFrames[0] image/jpeg 10
}
