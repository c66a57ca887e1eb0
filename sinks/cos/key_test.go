package cos_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	r := sinktest.Result(0)
	r.FetchedAt = time.Date(2026, 3, 1, 23, 30, 0, 0, time.FixedZone("west", -3600)) // the 2nd, in UTC
	for template, want := range map[string]string{
		cos.Defaults().Key: "2026-03-02/enhanced/" + r.TokenHash() + "/BestFrame.BestFrames-1.png",
		"{year}/{month}/{day}/{account}/{token_hash}-x/a_{field}=": "2026/03/02/main/" + r.TokenHash() + "-x/a_BestFrame.BestFrames-1=",
		"{token_hash}/{field}{ext}":                                r.TokenHash() + "/BestFrame.BestFrames-1png",
	} {
		place, err := cos.PlaceOf(template, r)
		must(t, err)
		if got := cos.KeyIn(place, "BestFrame.BestFrames[1]", "image/png"); got != want {
			t.Errorf("%s: %s, want %s", template, got, want)
		}
	}
	hostile := *r
	hostile.Account = "../../{token_hash}"
	place, err := cos.PlaceOf("{account}/{token_hash}/{field}.{ext}", &hostile)
	must(t, err)
	if key := cos.KeyIn(place, "../a", "nonsense"); strings.Contains(key, "..") || !strings.HasSuffix(key, ".bin") {
		t.Errorf("%s", key)
	}
	plain, err := cos.PlaceOf("{token_hash}/{field}", r)
	must(t, err)
	if key := cos.KeyIn(plain, "manifest.json", ""); key == cos.ManifestIn(plain) {
		t.Error("an asset has the manifest's key")
	}
}

func TestTemplatesThatAreNone(t *testing.T) {
	t.Parallel()
	for template, problem := range map[string]string{
		"":                                                 "{token_hash}",
		"{field}.{ext}":                                    "{token_hash}",
		"{date}/{token_hash}-{field}":                      "{token_hash}",
		"{token_hash}/{date}.{ext}":                        "{field} behind the last slash",
		"{field}/{token_hash}/{field}":                     "behind the last slash only",
		"{token}/{token_hash}/{field}":                     "unknown placeholder {token}",
		"{token_hash}/{field}.{EXT}":                       "unknown placeholder {EXT}",
		"{token_hash}/{field":                              "letters, digits",
		"{token_hash}/{field} x":                           "letters, digits",
		"{token_hash}/ä{field}":                            "letters, digits",
		"/{token_hash}/{field}":                            "empty folder",
		"a//{token_hash}/{field}":                          "empty folder",
		".index/{token_hash}/{field}":                      "begins with a dot",
		"../{token_hash}/{field}":                          "begins with a dot",
		"{token_hash}/.{field}":                            "begins with a dot",
		strings.Repeat("x", 700) + "/{token_hash}/{field}": "850",
		strings.Repeat("{account}", 20) + "/{token_hash}/{field}": "850",
	} {
		if _, err := cos.PlaceOf(template, sinktest.Result(0)); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%.40q: %v, want %q", template, err, problem)
		}
	}
}

// templates are ways in which names could run into each other.
var templates = []string{
	"{date}/{product}/{token_hash}/{field}.{ext}", "{token_hash}/{field}", "{token_hash}/{field}{ext}",
	"{token_hash}/{ext}{field}", "{account}/{token_hash}/{field}.json", "{token_hash}/man{field}", "{token_hash}/{field}{field}",
}

var types = []string{"image/jpeg", "image/webp", "audio/mp4", "video/mp4", "", "a\r\nb"}

// FuzzKeys: keys of different fields never meet, never leave the token's folder, and
// are keys that COS takes; the place can be written and read back.
func FuzzKeys(f *testing.F) {
	f.Add(0, "BestFrame.BestFrames[1]", "BestFrame.BestFrames-1", 0, 1, "main")
	f.Add(1, "manifest.json", "manifest", 4, 5, "..")
	f.Add(5, "ifest.json", "a[1", 5, 5, "{field}")
	f.Fuzz(func(t *testing.T, template int, one, two string, typeOne, typeTwo int, account string) {
		r := sinktest.Result(0)
		r.Account = account
		place, err := cos.PlaceOf(templates[uint(template)%uint(len(templates))], r)
		must(t, err)
		keys := map[string]string{
			one: cos.KeyIn(place, one, types[uint(typeOne)%uint(len(types))]),
			two: cos.KeyIn(place, two, types[uint(typeTwo)%uint(len(types))]),
		}
		if one != two && keys[one] == keys[two] {
			t.Errorf("%q and %q have the key %q", one, two, keys[one])
		}
		for field, key := range keys {
			name, inside := strings.CutPrefix(key, place.Folder)
			if !inside || name == "" || strings.Contains(name, "/") || key == cos.ManifestIn(place) || len(key) > 850 {
				t.Errorf("%q has the key %q outside of %q", field, key, place.Folder)
			}
			if strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`?&%{}\`, c) }) {
				t.Errorf("%q has the key %q", field, key)
			}
		}
		if !cos.Valid(place, r.TokenHash()) {
			t.Errorf("the place %+v cannot be read back", place)
		}
	})
}

func TestFieldsNeverMeet(t *testing.T) {
	t.Parallel()
	field := rapid.StringMatching(`[A-Za-z.]{0,3}(\[[0-9]{0,2}\]?|-[0-9])?[a-z./]{0,5}`)
	rapid.Check(t, func(t *rapid.T) {
		place, err := cos.PlaceOf(rapid.SampledFrom(templates).Draw(t, "template"), sinktest.Result(0))
		if err != nil {
			t.Fatal(err)
		}
		one, two := field.Draw(t, "one"), field.Draw(t, "two")
		a := cos.KeyIn(place, one, rapid.SampledFrom(types).Draw(t, "type one"))
		b := cos.KeyIn(place, two, rapid.SampledFrom(types).Draw(t, "type two"))
		if one != two && a == b {
			t.Errorf("%q and %q have the key %q", one, two, a)
		}
	})
}

// FuzzIndex: an index object that is read names a folder of its token or none.
func FuzzIndex(f *testing.F) {
	key := sinks.KeyOf(result.Enhanced, "TOKEN")
	for _, text := range []string{
		`{"version":1,"product":"enhanced","token_hash":"HASH","folder":"2026-03-01/enhanced/HASH/","name":"{field}.{ext}"}`,
		`{"version":1,"product":"enhanced","token_hash":"HASH","erased":true,"folder":"","name":""}`,
		`{"version":1,"product":"enhanced","token_hash":"HASH","folder":"../HASH/","name":"{field}"}`,
		`{"version":2}`, `[]`, ``, `{"version":1,"x":1}`,
	} {
		f.Add([]byte(strings.ReplaceAll(text, "HASH", key.Hash)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		place, erased, err := cos.ParseIndex(b, key)
		switch {
		case err != nil:
			return
		case place == cos.Place{}:
			if !erased {
				t.Error("a live token is nowhere")
			}
			return
		}
		asset := cos.KeyIn(place, "BestFrame.BestFrame", "image/jpeg")
		if !strings.Contains(place.Folder, key.Hash) || !strings.HasPrefix(asset, place.Folder) ||
			strings.HasPrefix(asset, ".") || strings.Contains(asset, "/.") || strings.HasPrefix(asset, "/") || strings.Contains(asset, "//") {
			t.Errorf("the place %+v", place)
		}
	})
}

// FuzzManifest: what a manifest that is read says is the archive's is in the token's
// folder, and it can be written again.
func FuzzManifest(f *testing.F) {
	r := sinktest.Result(0)
	key := sinks.KeyOf(r.Product, r.Token)
	place, err := cos.PlaceOf(cos.Defaults().Key, r)
	must(f, err)
	entry := func(e cos.Entry) []byte {
		b, err := json.Marshal(cos.Manifest{Version: 1, Product: r.Product, TokenHash: r.TokenHash(), Assets: []cos.Entry{e}})
		must(f, err)
		return b
	}
	f.Add(entry(cos.Entry{Field: "a", Location: "cos://archive-1250000000/" + place.Folder + "a.jpg", Size: 3}))
	f.Add(entry(cos.Entry{Field: "a", Location: "cos://faceid-1250000000/../x", Region: "ap-guangzhou"}))
	f.Add(entry(cos.Entry{Field: "a", Location: "cos://archive-1250000000/.index/x"}))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := cos.ParseManifest(b, archiveBucket, key, place)
		if err != nil {
			return
		}
		for _, e := range m.Assets {
			if e.Region == "" && !strings.HasPrefix(e.Location, "cos://"+archiveBucket+"/"+place.Folder) {
				t.Errorf("the archive's object %q", e.Location)
			}
		}
		again, err := json.Marshal(m)
		must(t, err)
		if _, err := cos.ParseManifest(again, archiveBucket, key, place); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
