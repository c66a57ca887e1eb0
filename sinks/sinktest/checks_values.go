package sinktest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// largeAsset: an asset of 8 MiB arrives whole.
func largeAsset(t testing.TB, f Factory) {
	t.Helper()
	withAssets(t, f, inline("VideoData.LivenessVideo", result.Video, "video/mp4", media(0, 0, 8<<20)))
}

// emptyAsset: an asset of no bytes is an asset.
func emptyAsset(t testing.TB, f Factory) {
	t.Helper()
	withAssets(t, f,
		inline("IdCardData.Avatar", result.Image, "application/octet-stream", nil),
		inline("BestFrame.BestFrame", result.Image, "image/png", media(0, 1, 10)))
}

// noAssets: a result without assets is stored, with an empty manifest.
func noAssets(t testing.TB, f Factory) {
	t.Helper()
	withAssets(t, f)
}

// onlyCOSAssets: nothing passes through this process.
func onlyCOSAssets(t testing.TB, f Factory) {
	t.Helper()
	withAssets(t, f, cosAsset(0))
}

func withAssets(t testing.TB, f Factory, assets ...result.Asset) {
	t.Helper()
	g := newRig(t, f)
	r := Result(0)
	r.Assets = assets
	r = Archived(r)
	h := g.open(t, nil)
	once := g.holds(t, h, r, h.must(t, r))
	same(t, "after a second call", g.holds(t, h, r, h.must(t, r)), once)
}

// wrongContent: bytes that cannot be read, or are not those that the digest
// describes, are never archived as if they were.
func wrongContent(t testing.TB, f Factory) {
	t.Helper()
	for name, broken := range map[string]result.Content{
		"content that does not open":           brokenContent{err: errors.New("released")},
		"content that ends in an error":        brokenContent{content: media(0, 1, 500), err: errors.New("unreadable")},
		"content that is shorter than it says": content(media(0, 1, 500)),
		"content of other bytes":               content(media(9, 9, 1200)),
		"content that is longer than it says":  content(media(0, 1, 1300)),
	} {
		g := newRig(t, f)
		h := g.open(t, nil)
		if !h.isArchiver() {
			return
		}
		r := small(0)
		good := r.Assets[0].Content
		r.Assets[0].Content = broken
		_, err := h.deliver(t.Context(), r)
		mayFail(t, err)
		if err == nil {
			t.Fatalf("%s was archived", name)
		}
		if g.stored(t, r).Manifest != nil {
			t.Fatalf("%s: there is a manifest", name)
		}
		r.Assets[0].Content = good
		same(t, "after "+name, g.holds(t, h, r, h.must(t, r)), alone(t, f, r))
	}
}

// brokenContent gives some bytes and then an error; without bytes it does not
// open.
type brokenContent struct {
	content
	err error
}

func (c brokenContent) Open() (io.ReadSeekCloser, error) {
	if c.content == nil {
		return nil, c.err
	}
	r, err := c.content.Open()
	return brokenReader{r, c.err}, err
}

type brokenReader struct {
	io.ReadSeekCloser
	err error
}

func (r brokenReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p)
	if err == io.EOF { //nolint:errorlint // readers return it as it is
		err = r.err
	}
	return n, err
}

// hostile are values that nobody meant well with.
var hostile = map[string]string{
	"quotes":          `'"` + "`" + `\`,
	"SQL":             `'); DROP TABLE results; --`,
	"template":        `{{.}} ${HOME} %s %n $(id) {field}`,
	"markup":          `<script>alert(1)</script>&amp;`,
	"newlines":        "a\r\nNats-Msg-Id: b\r\n\r\nc",
	"control":         "\x01\x02\x1b[31m\x7f",
	"NUL":             "a\x00b",
	"emoji":           "👨‍👩‍👧‍👦🧑🏽‍🚀",
	"four bytes":      "𠮷𪚥",
	"right to left":   "\u202Efdp.exe",
	"traversal":       "../../../../etc/passwd",
	"traversal back":  `..\..\windows\system32`,
	"absolute":        "/etc/passwd",
	"drive":           `C:\con`,
	"URL":             "https://example.invalid/?a=b#c",
	"dot":             ".",
	"dots":            "..",
	"space":           " ",
	"reserved":        "manifest.json",
	"device":          "NUL",
	"subject tokens":  "a.*.>",
	"long":            strings.Repeat("很长", 11_000), // 66,000 bytes: TEXT of MySQL holds fewer
	"long plain":      strings.Repeat("x", 300),
	"JSON":            `{"a":[1,2,{"b":"c"}]}`,
	"number":          "1e999",
	"looks sealed":    "seal:v1:00000000:AAAA",
	"stored redacted": "[redacted]",
}

// hostileValues: hostile text in every place that can hold text is stored as it
// is, and opens no way out of its place.
func hostileValues(t testing.TB, f Factory) {
	t.Helper()
	for _, policy := range []*privacy.Policy{plainPolicy(t), defaultPolicy(t)} {
		g := newRigWith(t, f, policy)
		h := g.open(t, nil)
		neighbour := Archived(Result(1))
		before := g.holds(t, h, neighbour, h.must(t, neighbour))
		for name, value := range hostile {
			r := Archived(everywhere(value))
			receipts, err := h.deliver(t.Context(), r)
			if err != nil {
				t.Fatalf("a result full of %q: %v", name, err)
			}
			once := g.holds(t, h, r, receipts)
			same(t, "after a second call with "+name, g.holds(t, h, r, h.must(t, r)), once)
		}
		lookalikes := Archived(lookalikes())
		g.holds(t, h, lookalikes, h.must(t, lookalikes))
		same(t, "after hostile results", g.holds(t, h, neighbour, h.must(t, neighbour)), before)
	}
}

// everywhere returns a result that holds s wherever it can hold text.
func everywhere(s string) *result.Result {
	r := Result(0)
	v := result.NewSensitive(s)
	// The token differs from the fields, so that it can be told where it is.
	r.Account, r.Token, r.RuleID, r.RequestID = s, s+" is a token", s, s
	r.Verdict = result.Verdict{
		Message: s, LivenessMessage: s, CompareMessage: s, Similarity: s, CompareLibrary: s,
		LivenessTags: []string{s, s}, Intention: result.IntentionMode(s), IntentionMessage: s,
	}
	r.Person = result.Person{Name: v, IDCard: v, Mobile: v, Location: v, Extra: v}
	r.Document = result.Document{
		Name: v, IDCard: v, Gender: v, Nation: v, Birth: v, Address: v, Authority: v, Valid: v,
		PassNo: v, VisaNum: v, Source: s,
	}
	r.Intention = result.Intention{Answers: []result.Sensitive{v}, AnswerCodes: []string{s}}
	r.EID = result.EIDInfo{Code: v, Sign: v, IDType: s}
	r.Attempts = []result.Attempt{{
		Seq: s, Name: v, IDCard: v, Similarity: s, Message: s, LivenessMessage: s,
		CompareMessage: s, CompareLibrary: s,
	}}
	r.Warnings = []result.Warning{{Side: s, Code: -1 << 63}}
	r.Raw = v
	r.Assets = []result.Asset{
		inline(s, result.Kind(s), s, media(0, 1, 10)),
		inline("../"+s, result.Unknown, "application/octet-stream", media(0, 2, 10)),
		inline(s+"[0]", result.Image, "image/png", media(0, 3, 10)),
		{Field: s + ".cos", Kind: result.Video, ContentType: s, COS: &result.COSObject{Bucket: s, Region: s, Key: s}},
	}
	return r
}

// lookalikes returns a result whose asset fields must not become one name.
func lookalikes() *result.Result {
	r := Result(0)
	r.Assets = nil
	for i, field := range []string{
		"a[1]", "a-1", "a_1", "a.1", "a/1", `a\1`, "a 1", "a1", "a:1", "a%5B1%5D", "manifest", "manifest.json",
		"a[01]", "a[1", "a1]", strings.Repeat("y", 300), strings.Repeat("y", 301),
	} {
		r.Assets = append(r.Assets, inline(field, result.Unknown, "application/octet-stream", media(3, i, 20+i)))
	}
	return r
}

// noPersonalData: under the default policy nothing that is stored or said in the
// clear holds a personal value. (Each rig searches the log, and every call's
// error is searched.)
func noPersonalData(t testing.TB, f Factory) {
	t.Helper()
	g := newRigWith(t, f, defaultPolicy(t))
	for seed := range 2 {
		h := g.open(t, nil)
		r := Archived(Result(seed))
		receipts := h.must(t, r)
		if err := h.close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		s := g.stored(t, r)
		places := map[string][]byte{
			"the receipts": []byte(mustJSON(receipts)), "the manifest": []byte(mustJSON(s.Manifest)),
			"the state": []byte(s.State), "the destination": s.Dump, "the record": []byte(mustJSON(s.Record)),
		}
		for location, object := range s.Objects {
			places["the name of object "+location] = []byte(location)
			places["the object "+location] = object
		}
		for _, m := range s.Messages {
			places["a message's id"], places["a message's body"] = []byte(m.ID), m.Body
		}
		for place, text := range places {
			for _, secret := range append(Secrets(seed), marks...) {
				if strings.Contains(string(text), secret) {
					t.Fatalf("%s holds a personal value", place)
				}
			}
		}
	}
}

// checkHealthy: Check of a healthy destination passes, leaves nothing behind,
// and ends with its context.
func checkHealthy(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	r := small(0)
	h.must(t, r)
	before := g.stored(t, r)
	for range 3 {
		if err := h.Check(t.Context()); err != nil {
			t.Fatalf("Check of a healthy destination: %v", err)
		}
	}
	same(t, "after Check", g.render(t, g.stored(t, r)), g.render(t, before))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if class, _ := sinks.ClassOf(h.Check(ctx)); class != sinks.ClassCanceled {
		t.Fatalf("the class of a cancelled Check is %q, want %q", class, sinks.ClassCanceled)
	}
}

// closes: a sink has the configured name and closes without complaint, and what
// it stored is there afterwards.
func closes(t testing.TB, f Factory) {
	t.Helper()
	g := newRig(t, f)
	h := g.open(t, nil)
	if h.Name() != sinkName {
		t.Fatalf("the name is %q, want %q", h.Name(), sinkName)
	}
	if !h.isArchiver() && !h.isRecorder() && !h.isNotifier() {
		t.Fatal("the sink neither archives nor records nor notifies")
	}
	r := small(0)
	receipts := h.must(t, r)
	if err := h.close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	g.holds(t, h, r, receipts)
	unused := g.open(t, nil)
	if err := unused.close(); err != nil {
		t.Fatalf("close an unused sink: %v", err)
	}
}
