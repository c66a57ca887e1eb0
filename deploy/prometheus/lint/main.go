// Command lint tells which metrics PromQL expressions read, by Prometheus's own parser:
// rules and dashboards are held against the metrics the program has with it.
//
// Standard input is a JSON list of expressions. Standard output is a JSON list with as
// many entries: of each expression, its selectors. An expression that does not parse
// ends it with code 1. It is a module of its own so that the program does not carry
// Prometheus among its modules.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// selector is what one selector of an expression reads: a metric, and the labels it
// names, in the selector itself only.
type selector struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var expressions []string
	if err := json.NewDecoder(in).Decode(&expressions); err != nil {
		return fmt.Errorf("read expressions: %w", err)
	}
	all := make([][]selector, len(expressions))
	for i, text := range expressions {
		found, err := selectors(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		all[i] = found
	}
	return json.NewEncoder(out).Encode(all)
}

// selectors returns those of one expression, in their order.
func selectors(text string) ([]selector, error) {
	expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return nil, err
	}
	found := []selector{}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if vector, ok := node.(*parser.VectorSelector); ok {
			found = append(found, read(vector))
		}
		return nil
	})
	return found, nil
}

func read(vector *parser.VectorSelector) selector {
	s := selector{Labels: []string{}}
	for _, m := range vector.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			s.Metric = m.Value
		} else {
			s.Labels = append(s.Labels, m.Name)
		}
	}
	return s
}
