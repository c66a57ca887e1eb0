package main

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is the part of Prometheus's API that is asked, with the same answer to every
// query.
type fake struct {
	*httptest.Server
	answer string // of a query; %s is where the samples go

	mu      sync.Mutex
	queries []string // path and expression
}

const (
	someData = `{"status":"success","data":{"result":[
		{"metric":{"account":"main","sink":"hook","code":"1"},%s},{"metric":{"account":"branch","sink":"records","code":"2"},%[1]s}]}}`
	noData  = `{"status":"success","data":{"result":[]}}`
	refused = `{"status":"error","error":"invented trouble"}`
)

func newFake(t *testing.T, answer string) *fake {
	t.Helper()
	f := &fake{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/api/v1/targets" {
		_, _ = io.WriteString(w, `{"status":"success","data":{"activeTargets":[{"scrapeInterval":"15s"},{"scrapeInterval":"5s"}]}}`)
		return
	}
	f.mu.Lock()
	f.queries = append(f.queries, r.URL.Path+" "+r.FormValue("query"))
	f.mu.Unlock()
	samples := `"value":[1700003600,"1"]`
	if r.URL.Path == "/api/v1/query_range" {
		samples = `"values":[[1700000000,"0"],[1700000015,"2"],[1700000030,"2.5"],[1700001800,"NaN"],[1700003600,"1"]]`
	}
	answer := f.answer
	if strings.Contains(answer, "%") {
		answer = fmt.Sprintf(answer, samples)
	}
	_, _ = io.WriteString(w, answer)
}

// draw runs the command over an hour and returns the picture.
func (f *fake) draw(t *testing.T, dashboard string, more ...string) (image.Image, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "picture.png")
	args := append([]string{"--prometheus", f.URL + "/", "--dashboard", dashboard, "--out", out, "--from", "1700000000", "--to", "2023-11-14T23:13:20Z"}, more...)
	if err := run(context.Background(), args, io.Discard); err != nil {
		if _, missing := os.Stat(out); missing == nil {
			t.Error("a picture was written in spite of the error")
		}
		return nil, err
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	picture, err := png.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	return picture, nil
}

const delivered = "../faceid-ingest.json"

func loadReal(t *testing.T) *dashboard {
	t.Helper()
	d, err := load(delivered)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// area is where a panel lies in the picture, in pixels.
func area(p panel) image.Rectangle {
	pixels := func(points int) int { return points * 96 / 72 }
	g := p.GridPos
	return image.Rect(pixels(gap+g.X*column), pixels(headline+g.Y*line), pixels((g.X+g.W)*column), pixels(headline+(g.Y+g.H)*line-gap))
}

// differing counts the pixels of an area in which two pictures differ.
func differing(a, b image.Image, r image.Rectangle) (n int) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if a.At(x, y) != b.At(x, y) {
				n++
			}
		}
	}
	return n
}

// The picture has the dashboard's size, something in each panel, and more where there
// is data. All queries were asked, with nothing of Grafana's left in them.
func TestDraw(t *testing.T) {
	d, server := loadReal(t), newFake(t, someData)
	full, err := server.draw(t, delivered)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := newFake(t, noData).draw(t, delivered)
	if err != nil {
		t.Fatal(err)
	}
	last := d.Panels[len(d.Panels)-1].GridPos
	want := image.Pt((columns*column+gap)*96/72, (headline+(last.Y+last.H)*line+gap)*96/72)
	if size := full.Bounds().Size(); size != want || empty.Bounds().Size() != want {
		t.Errorf("size %v, want %v", size, want)
	}
	blank := image.NewUniform(surface)
	var asked []string
	for _, p := range d.Panels {
		if n := differing(empty, blank, area(p).Inset(4)); n < 100 {
			t.Errorf("%s: %d pixels are drawn without data", p.Title, n)
		}
		if n := differing(full, empty, area(p)); p.Type != "row" && n < 50 {
			t.Errorf("%s: its data makes %d pixels", p.Title, n)
		}
		for _, target := range p.Targets {
			path := "/api/v1/query_range "
			if target.Instant {
				path = "/api/v1/query "
			}
			asked = append(asked, path+expression(target.Expr, 1, time.Minute))
		}
	}
	for _, one := range asked {
		if !slices.Contains(server.queries, one) || strings.Contains(one, "$") {
			t.Errorf("not asked: %s", one)
		}
	}
	if len(asked) < 50 || len(server.queries) != len(asked)+1 { // and the annotation
		t.Errorf("%d queries of the panels, %d asked", len(asked), len(server.queries))
	}
}

func TestHaste(t *testing.T) {
	server := newFake(t, noData)
	if _, err := server.draw(t, delivered, "--haste", "1440"); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(server.queries, "\n")
	if strings.Contains(text, "[1h]") || !strings.Contains(text, "[2500ms] offset 60000ms") || !strings.Contains(text, "[60000ms]") {
		t.Errorf("queries: %s", text)
	}
}

func TestRefused(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "dashboard.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const one = `{"panels":[{"title":"One","type":%q,"fieldConfig":{"defaults":{"unit":%q},"overrides":[{"matcher":{"id":%q,"options":%q},"properties":[{"id":"unit","value":%s}]}]},"targets":[{"expr":"x"}]}]}`
	good := write(fmt.Sprintf(one, "stat", "s", "byName", "x", `"s"`))
	for _, test := range []struct {
		dashboard, answer, err string
		more                   []string
	}{
		{good, refused, "invented trouble", nil},
		{good, `<html>`, "read Prometheus's answer, 200 OK", nil},
		{good, `{"status":"success","data":{"result":[{"value":[1,"many"]}]}}`, "a sample", nil},
		{good, `{"status":"success","data":{"result":[{"value":[1,2]}]}}`, "a sample", nil},
		{good, noData, "nothing to draw", []string{"--from", "1800000000"}},
		{good, noData, "nothing to draw", []string{"--haste", "0"}},
		{good, noData, `invalid value "soon"`, []string{"--to", "soon"}},
		{good + "x", noData, "no such file", nil},
		{write(`{`), noData, "read the dashboard", nil},
		{write(`{}`), noData, "has no panels", nil},
		{write(fmt.Sprintf(one, "table", "s", "byName", "x", `"s"`)), noData, `the type "table" is not drawn`, nil},
		{write(fmt.Sprintf(one, "stat", "furlong", "byName", "x", `"s"`)), noData, `the unit "furlong" is not drawn`, nil},
		{write(strings.Replace(fmt.Sprintf(one, "stat", "s", "byName", "x", `"s"`), `"unit":"s"`, `"unit":"s","color":{"mode":"fixed","fixedColor":"mauve"}`, 1)), noData, `the color "mauve" is not drawn`, nil},
		{write(fmt.Sprintf(one, "stat", "s", "byMood", "x", `"s"`)), someData, `overrides "byMood" are not drawn`, nil},
		{write(fmt.Sprintf(one, "stat", "s", "byRegexp", "/(/", `"s"`)), someData, "an override", nil},
		{write(fmt.Sprintf(one, "stat", "s", "byRegexp", "/a*/", `1`)), noData, "property unit", nil},
		{write(fmt.Sprintf(one, "stat", "s", "byRegexp", "/a*/", `"furlong"`)), noData, `the unit "furlong" is not drawn`, nil},
	} {
		if _, err := newFake(t, test.answer).draw(t, test.dashboard, test.more...); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("error %v, want %q", err, test.err)
		}
	}
}

func TestExpression(t *testing.T) {
	for _, test := range []struct {
		in    string
		haste int
		want  string
	}{
		{`rate(x{a=~"$a",b="1h"}[$__rate_interval])`, 1, `rate(x{a=~".*",b="1h"}[60000ms])`},
		{`increase(x[1h] offset 1d) * 60`, 1, `increase(x[1h] offset 1d) * 60`},
		{`increase(x[1h] offset 1d) * 60`, 60, `increase(x[60000ms] offset 1440000ms) * 60`},
		{`x{a="${b}"}[1s]`, 5000, `x{a=".*"}[1ms]`},
	} {
		if got := expression(test.in, test.haste, time.Minute); got != test.want {
			t.Errorf("%s: %s, want %s", test.in, got, test.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for _, test := range []struct {
		unit     string
		v        float64
		decimals int
		want     string
	}{
		{"s", 0, -1, "0 s"}, {"s", 0.000012, -1, "12 µs"}, {"s", 0.25, -1, "250 ms"}, {"s", 90, -1, "1.5 min"},
		{"s", 7200, -1, "2 hours"}, {"s", 250000, -1, "2.89 days"}, {"s", -30, -1, "-30 s"}, {"s", 86400, -1, "1 day"},
		{"bytes", 1536, -1, "1.5 KiB"}, {"bytes", 512, -1, "512 B"}, {"bytes", 5 << 40, -1, "5 TiB"},
		{"Bps", 2.5e6, -1, "2.5 MB/s"}, {"short", 1234, 0, "1.23 K"}, {"short", 3, 0, "3"}, {"short", 0.6, 0, "1"},
		{"percentunit", 0.9137, 1, "91.4 %"}, {"ops", 0.5, -1, "0.5/s"}, {"none", 0.0123, -1, "0.0123"}, {"none", 1e9, -1, "1000000000"},
	} {
		if got := units[test.unit](test.v, test.decimals); got != test.want {
			t.Errorf("%s of %g: %q, want %q", test.unit, test.v, got, test.want)
		}
	}
}

func TestScale(t *testing.T) {
	zero, whole := 0.0, 0
	var log field
	log.Unit, log.Custom.ScaleDistribution.Type = "s", "log"
	for _, test := range []struct {
		name      string
		f         field
		low, high float64
		first     string
		last      string
		marks     int
	}{
		{"from zero", field{Unit: "ops", Min: &zero}, 3, 42, "0/s", "50/s", 6},
		{"bytes", field{Unit: "bytes", Min: &zero}, 0, 2 << 30, "0 B", "2 GiB", 5},
		{"days", field{Unit: "s"}, 0, 259200, "0 s", "3 days", 4},
		{"minutes", field{Unit: "s"}, 0, 80, "0 s", "1.5 min", 4},
		{"negative", field{Unit: "s"}, -20, 15, "-20 s", "20 s", 5},
		{"one value", field{Unit: "short", Decimals: &whole}, 1, 1, "1", "2", 2},
		{"logarithmic", log, 0.004, 7, "1 ms", "10 s", 5},
	} {
		a := newScale(test.f, test.low, test.high, 5)
		write := func(v float64) string { return units[test.f.Unit](v, -1) }
		if first, last := write(a.marks[0]), write(a.marks[len(a.marks)-1]); first != test.first || last != test.last || len(a.marks) != test.marks {
			t.Errorf("%s: %d marks from %s to %s: %v", test.name, len(a.marks), first, last, a.marks)
		}
		if a.part(a.min) != 0 || a.part(a.max) != 1 {
			t.Errorf("%s: %g to %g", test.name, a.part(a.min), a.part(a.max))
		}
	}
}

// An override changes the series it names, and no other.
func TestOverrides(t *testing.T) {
	var p panel
	if err := json.Unmarshal([]byte(`{"fieldConfig":{"defaults":{"unit":"s","thresholds":{"steps":[{"color":"green"},{"color":"red","value":1}]},"custom":{"lineWidth":2}},
		"overrides":[{"matcher":{"id":"byName","options":"a"},"properties":[{"id":"color","value":{"mode":"fixed","fixedColor":"blue"}},
			{"id":"custom.lineStyle","value":{"fill":"dash"}},{"id":"thresholds","value":{"steps":[{"color":"red"},{"color":"blue","value":5}]}}]},
			{"matcher":{"id":"byRegexp","options":"/^b/"},"properties":[{"id":"custom.lineWidth","value":7}]}]}}`), &p); err != nil {
		t.Fatal(err)
	}
	looks := func(name string) field {
		f, err := p.fieldOf(name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if a := looks("a"); a.Color.FixedColor != "blue" || a.Custom.LineStyle.Fill != "dash" || a.Custom.LineWidth != 2 || a.Thresholds.at(4) != "red" || a.Thresholds.at(5) != "blue" {
		t.Errorf("a: %+v", a)
	}
	if b := looks("bc"); b.Custom.LineWidth != 7 || b.Color.FixedColor != "" {
		t.Errorf("bc: %+v", b)
	}
	if c := looks("c"); c.Custom.LineWidth != 2 || c.Thresholds.at(0) != "green" || c.Thresholds.at(1) != "red" {
		t.Errorf("c: %+v", c)
	}
}
