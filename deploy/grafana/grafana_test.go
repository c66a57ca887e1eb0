// Package grafana_test holds the dashboard of this folder against the metrics the
// program has. That each of its queries shows something is seen by TestIncident of
// cmd/faceid-ingest.
package grafana_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/deploy/prometheus/promtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// dashboard is the part of Grafana's model that is looked at here.
type dashboard struct {
	Title, UID    string
	SchemaVersion int
	Panels        []panel
	Annotations   struct {
		List []struct {
			Name, Expr string
			Datasource datasource
		}
	}
	Templating struct {
		List []struct {
			Name, Type, Definition string
			Query                  json.RawMessage
			Datasource             datasource
		}
	}
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               datasource
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Instant, Range            bool
		Datasource                datasource
	}
	FieldConfig struct {
		Defaults struct {
			Unit, NoValue string
			Thresholds    struct{ Steps []struct{ Value *float64 } }
		}
		Overrides []struct{ Matcher struct{ ID, Options string } }
	}
}

func load(t *testing.T) (dashboard, string) {
	t.Helper()
	text, err := os.ReadFile("faceid-ingest.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("no panels found")
	}
	return d, string(text)
}

// Grafana's grid is as wide, and its schema was this at the oldest version that is
// supported, 11; newer ones raise it when they load the file.
const (
	columns = 24
	schema  = 39
)

// No panel lies on another, and rows hold the panels up to the next row.
func TestLayout(t *testing.T) {
	d, _ := load(t)
	if d.UID != "faceid-ingest" || d.SchemaVersion != schema {
		t.Errorf("uid %q, schema %d", d.UID, d.SchemaVersion)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	var rows []string
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID <= 0 {
			t.Errorf("%s: its id %d is another's, too, or none", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		}
		g := p.GridPos
		if g.W <= 0 || g.H <= 0 || g.X < 0 || g.X+g.W > columns {
			t.Errorf("%s: position %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if want := []string{"Is anything at risk?", "Does it flow?", "Who passed?", "What does it cost?"}; !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}

// Panels have what a reader needs, also before there is any data.
func TestPanels(t *testing.T) {
	d, _ := load(t)
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		defaults := p.FieldConfig.Defaults
		if p.Title == "" || !strings.HasSuffix(p.Description, ".") || defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, lacks title, description, unit or query", p.ID, p.Title)
		}
		// A tile tells of now. The last value of a range would stay after its series is gone:
		// a deadline that is met, a daemon that is dead.
		tile := p.Type == "stat" || p.Type == "gauge"
		if tile && (len(defaults.Thresholds.Steps) == 0 || defaults.NoValue == "") {
			t.Errorf("%s lacks thresholds or what it shows of nothing", p.Title)
		}
		if steps := defaults.Thresholds.Steps; len(steps) > 0 && steps[0].Value != nil {
			t.Errorf("%s: its first threshold has a value", p.Title)
		}
		var refs, legends []string
		for _, target := range p.Targets {
			if target.Instant != tile || target.Range == tile {
				t.Errorf("%s: instant is %t, range is %t", p.Title, target.Instant, target.Range)
			}
			if slices.Contains(refs, target.RefID) || target.LegendFormat == "" {
				t.Errorf("%s: query %q, legend %q", p.Title, target.RefID, target.LegendFormat)
			}
			refs, legends = append(refs, target.RefID), append(legends, target.LegendFormat)
		}
		for _, o := range p.FieldConfig.Overrides {
			fixed := !slices.ContainsFunc(legends, func(l string) bool { return strings.Contains(l, "{{") })
			if o.Matcher.ID == "byName" && fixed && !slices.Contains(legends, o.Matcher.Options) {
				t.Errorf("%s: an override of %q, which no query is called", p.Title, o.Matcher.Options)
			}
		}
	}
}

var variable = regexp.MustCompile(`\$\{?(\w+)\}?`)

// No data source is hard coded, and each variable that is used is there.
func TestVariables(t *testing.T) {
	d, text := load(t)
	known := []string{"__rate_interval", "__all"}
	own := func(what string, source datasource) {
		if source != (datasource{Type: "prometheus", UID: "${datasource}"}) {
			t.Errorf("%s: data source %+v", what, source)
		}
	}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
		if v.Type == "query" {
			own("variable "+v.Name, v.Datasource)
		}
	}
	for _, used := range variable.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(known, used[1]) {
			t.Errorf("variable %s is not defined", used[1])
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			own("annotation "+a.Name, a.Datasource)
		}
	}
	for _, p := range d.Panels {
		if p.Type != "row" {
			own(p.Title, p.Datasource)
		}
		for _, target := range p.Targets {
			own(p.Title, target.Datasource)
		}
	}
}

// query is one expression of the dashboard, and the labels its legend shows.
type query struct {
	place, expr string
	legend      []string
}

var (
	legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)
	labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
)

// queries are all expressions: of panels, annotations and variables, with Grafana's
// variables replaced.
func queries(t *testing.T) []query {
	t.Helper()
	d, _ := load(t)
	var all []query
	add := func(place, expr string, legend ...string) {
		expr = strings.ReplaceAll(expr, "$__rate_interval", "5m")
		all = append(all, query{place, variable.ReplaceAllString(expr, ".*"), legend})
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			var legend []string
			for _, found := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				legend = append(legend, found[1])
			}
			add(p.Title, target.Expr, legend...)
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			add(a.Name, a.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := labelValues.FindStringSubmatch(v.Definition)
		if parts == nil {
			t.Fatalf("variable %s: %s", v.Name, v.Definition)
		}
		add(v.Name, parts[1], parts[2])
	}
	return all
}

// metrics are the series that may be read, with their labels: those of the program,
// Prometheus's alerts, and what is shown of the process.
func metrics() map[string][]string {
	known := promtest.Series()
	for _, of := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes"} {
		known[of] = nil
	}
	known["ALERTS"] = []string{"alertname", "alertstate", "severity", "account", "sink"}
	for name, labels := range known {
		known[name] = append(labels, promtest.TargetLabels()...)
	}
	return known
}

// grouping is a list of labels outside a selector: of an aggregation or a match.
var grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^()]*)\)`)

// Every query reads only metrics and labels that there are, and hears the variables.
func TestQueries(t *testing.T) {
	known, all := metrics(), queries(t)
	var expressions []string
	for _, q := range all {
		expressions = append(expressions, q.expr)
	}
	for i, selectors := range promtest.Selectors(t, "../prometheus/lint", expressions) {
		q := all[i]
		has := []string{}
		for _, s := range selectors {
			labels, ok := known[s.Metric]
			if !ok {
				t.Errorf("%s: no such metric: %q", q.place, s.Metric)
			}
			has = append(has, labels...)
			for _, label := range s.Labels {
				if !slices.Contains(labels, label) {
					t.Errorf("%s: %s has no label %s", q.place, s.Metric, label)
				}
			}
			if s.Metric != "faceid_ingest_build_info" && !slices.Contains(s.Labels, "job") {
				t.Errorf("%s: %s does not hear the variable job", q.place, s.Metric)
			}
			if strings.HasPrefix(s.Metric, "faceid_") && slices.Contains(labels, "account") && !slices.Contains(s.Labels, "account") && q.place != "account" {
				t.Errorf("%s: %s does not hear the variable account", q.place, s.Metric)
			}
		}
		named := slices.Clone(q.legend)
		for _, group := range grouping.FindAllStringSubmatch(q.expr, -1) {
			named = append(named, strings.Split(group[1], ", ")...)
		}
		for _, label := range named {
			if !slices.Contains(has, label) {
				t.Errorf("%s: no metric in it has the label %q: %s", q.place, label, q.expr)
			}
		}
	}
}

// Each metric has its place on the dashboard.
func TestEachMetricIsShown(t *testing.T) {
	d, _ := load(t)
	var text strings.Builder
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			text.WriteString(target.Expr + "\n")
		}
	}
	for _, m := range telemetry.Catalog() {
		if !regexp.MustCompile(`\b` + m.Name + `(_bucket)?\b`).MatchString(text.String()) {
			t.Errorf("no panel shows %s", m.Name)
		}
	}
}

// The oldest Prometheus that is supported takes every query: Debian's promtool reads
// them as rules.
func TestDebiansPrometheus(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for i, q := range queries(t) {
		rules = append(rules, rule{fmt.Sprintf("query:%d", i), q.expr})
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml") // JSON is YAML
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("promtool", "check", "rules", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v (promtool is in Debian's package prometheus; make tools installs it)\n%s", err, output)
	}
	if want := fmt.Sprintf("%d rules found", len(rules)); !strings.Contains(string(output), want) {
		t.Errorf("promtool: %s; want %s", output, want)
	}
}
