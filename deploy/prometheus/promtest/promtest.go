// Package promtest is what tests of rules and dashboards share: expressions go in, and
// what they read comes out, to be held against the series that a scrape of the program can
// have.
package promtest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// Selector is what one selector of an expression reads.
type Selector struct {
	Metric string
	// Labels are those that it names itself, not those of a grouping around it.
	Labels []string
}

// Selectors has Prometheus's own parser read expressions, and returns the selectors of
// each. lint is the folder of deploy/prometheus/lint as the test sees it. An expression
// that does not parse fails the test.
func Selectors(t *testing.T, lint string, expressions []string) (all [][]Selector) {
	t.Helper()
	input, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	parse := exec.CommandContext(t.Context(), "go", "run", ".")
	parse.Dir = lint
	parse.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	parse.Stdin, parse.Stderr = bytes.NewReader(input), &stderr
	output, err := parse.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	if err := json.Unmarshal(output, &all); err != nil || len(all) != len(expressions) {
		t.Fatalf("%d answers for %d expressions, %v", len(all), len(expressions), err)
	}
	return all
}

// TargetLabels are Prometheus's own, on every series of a scrape.
func TargetLabels() []string { return []string{"job", "namespace", "instance"} }

// Series returns the series of the program, with their labels beside those of targets.
// A histogram's name is there as it is, and that of its classic buckets.
func Series() map[string][]string {
	known := map[string][]string{}
	for _, d := range telemetry.Catalog() {
		known[d.Name] = append([]string{}, d.Labels...)
		if d.Type == "histogram" {
			known[d.Name+"_bucket"] = append([]string{"le"}, d.Labels...)
		}
	}
	return known
}
