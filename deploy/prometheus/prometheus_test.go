// Package prometheus_test holds the rules of this folder against the metrics the
// program has, their unit tests and what the READMEs say of them. It runs promtool.
package prometheus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/faceid-ingest/faceid-ingest/deploy/prometheus/promtest"
)

// rule is one of rules.yaml, of either kind.
type rule struct {
	Record, Alert, Expr, For string
	Labels, Annotations      map[string]string
}

// rules are all in rules.yaml, of either kind.
func rules(t *testing.T) []rule {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	read(t, "rules.yaml", &file)
	var all []rule
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("no rules found")
	}
	return all
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// unitTests are the files for promtool.
var unitTests = []string{"rules_test.yaml", "rules_week_test.yaml"}

func TestPromtool(t *testing.T) {
	folder := t.TempDir()
	example := strings.ReplaceAll(text(t, "prometheus.example.yml"), "/etc/prometheus/faceid-ingest", folder)
	for name, content := range map[string]string{
		"prometheus.yml": example, "rules.yaml": text(t, "rules.yaml"), "admin-token": "invented", "ca.crt": "",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"},
		append([]string{"test", "rules"}, unitTests...),
		{"check", "config", filepath.Join(folder, "prometheus.yml")},
	} {
		t.Run(args[0]+" "+args[1], func(t *testing.T) {
			output, err := exec.Command("promtool", args...).CombinedOutput()
			if err != nil {
				t.Errorf("%v (promtool is in Debian's package prometheus; make tools installs it)\n%s", err, output)
			}
		})
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var codeBlock = regexp.MustCompile("(?s)```.*?```")

// inText finds the PromQL in an annotation or a README: what is in backquotes and has a
// name of ours in it.
func inText(text string) []string {
	var found []string
	for i, part := range strings.Split(codeBlock.ReplaceAllString(text, ""), "`") {
		if i%2 == 1 && (strings.Contains(part, "faceid_ingest_") || strings.Contains(part, "faceid_ingest:")) {
			found = append(found, part)
		}
	}
	return found
}

// Every metric of every expression exists, be it in a rule, a unit test, an annotation
// or a README, and has the labels that are asked for.
func TestMetricsExist(t *testing.T) {
	known := promtest.Series()
	known["up"] = []string{}
	var places, expressions []string
	add := func(place, expression string) {
		places, expressions = append(places, place), append(expressions, expression)
	}
	for _, r := range rules(t) {
		if r.Record != "" {
			known[r.Record] = nil
		}
		add(r.Record+r.Alert, r.Expr)
		for _, found := range inText(r.Annotations["description"]) {
			add(r.Alert+", description", found)
		}
	}
	for _, file := range unitTests {
		for _, series := range series(t, file) {
			add(file, series)
		}
	}
	for _, file := range readmes {
		for _, found := range inText(text(t, file)) {
			add(file, found)
		}
	}
	for i, found := range promtest.Selectors(t, "lint", expressions) {
		for _, s := range found {
			labels, ok := known[s.Metric]
			if !ok {
				t.Errorf("%s: no such metric: %s", places[i], s.Metric)
			}
			for _, label := range s.Labels {
				if labels != nil && !slices.Contains(labels, label) && !slices.Contains(promtest.TargetLabels(), label) {
					t.Errorf("%s: %s has no label %s", places[i], s.Metric, label)
				}
			}
		}
	}
}

// unit is the part of a promtool file that is looked at here.
type unit struct {
	Tests []struct {
		Name           string
		InputSeries    []struct{ Series string } `yaml:"input_series"`
		PromqlExprTest []struct {
			Expr       string
			ExpSamples []struct{ Labels string } `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	}
}

// series are the input series of a file for promtool, each an expression, too.
func series(t *testing.T, file string) []string {
	t.Helper()
	var u unit
	read(t, file, &u)
	var all []string
	for _, test := range u.Tests {
		for _, s := range test.InputSeries {
			all = append(all, s.Series)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s: no series found", file)
	}
	return all
}

var (
	alertName = regexp.MustCompile(`^ALERTS\{alertname="(\w+)",alertstate="firing",severity="(\w+)"(.*)\}$`)
	usedLabel = regexp.MustCompile(`\$labels\.(\w+)`)
)

// Of each rule a unit test expects what it gives: of an alert, that it fires, and with
// all the labels its texts speak of; of a record, a value. And each test that has an
// alert fire has nothing firing at its end.
func TestEachRuleHasUnitTest(t *testing.T) {
	fired, recorded := expected(t)
	for _, r := range rules(t) {
		if r.Record != "" {
			if !recorded[r.Record] {
				t.Errorf("no unit test has a value of %s", r.Record)
			}
			continue
		}
		labels, ok := fired[r.Alert+" "+r.Labels["severity"]]
		if !ok {
			t.Errorf("no unit test fires %s", r.Alert)
		}
		texts := r.Annotations["summary"] + r.Annotations["description"]
		for _, used := range usedLabel.FindAllStringSubmatch(texts, -1) {
			if !strings.Contains(labels, used[1]+`="`) && !strings.Contains(texts, "with "+used[0]) {
				t.Errorf("%s speaks of a label it has not: %s", r.Alert, used[1])
			}
		}
	}
}

// expected returns what the unit tests expect: the labels of alerts that fire, by name
// and severity, and the names of recorded series.
func expected(t *testing.T) (fired map[string]string, recorded map[string]bool) {
	t.Helper()
	fired, recorded = map[string]string{}, map[string]bool{}
	for _, file := range unitTests {
		var u unit
		read(t, file, &u)
		for _, test := range u.Tests {
			quiet := true
			for _, try := range test.PromqlExprTest {
				if strings.HasPrefix(try.Expr, "ALERTS") {
					quiet = len(try.ExpSamples) == 0 && try.Expr == `ALERTS{alertstate="firing"}`
				}
				for _, sample := range try.ExpSamples {
					if found := alertName.FindStringSubmatch(sample.Labels); found != nil {
						fired[found[1]+" "+found[2]] = found[3]
					} else if name, _, ok := strings.Cut(sample.Labels, "{"); ok {
						recorded[name] = true
					}
				}
			}
			if !quiet {
				t.Errorf("%s, %s: alerts fire at its end", file, test.Name)
			}
		}
	}
	return fired, recorded
}

var readmes = []string{"README.md", "README.zh-CN.md"}

// Each alert has severity, texts and an entry in both READMEs that tells severity and
// delay as they are; each record has a row.
func TestREADMEs(t *testing.T) {
	const anchor = "https://github.com/faceid-ingest/faceid-ingest/blob/main/deploy/prometheus/README.md#"
	for _, file := range readmes {
		readme := text(t, file)
		alerts := 0
		for _, r := range rules(t) {
			if r.Record != "" {
				if !strings.Contains(readme, "\n| `"+r.Record+"` | ") {
					t.Errorf("%s: no row for %s", file, r.Record)
				}
				continue
			}
			alerts++
			if r.For == "" {
				r.For = "0s"
			}
			entry := regexp.MustCompile("(?m)^### " + r.Alert + "\n`" + r.Labels["severity"] + "`(，持续| after) " + r.For + "(。|\\.)")
			if !entry.MatchString(readme) {
				t.Errorf("%s: no entry for %s, %s after %s", file, r.Alert, r.Labels["severity"], r.For)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Annotations["runbook_url"] != anchor+strings.ToLower(r.Alert) {
				t.Errorf("%s: annotations %q", r.Alert, r.Annotations)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			}
		}
		if n := strings.Count(readme, "\n### "); n != alerts {
			t.Errorf("%s: %d entries for %d alerts", file, n, alerts)
		}
	}
}
