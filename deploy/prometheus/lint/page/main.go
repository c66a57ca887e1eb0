// Command page reads a page of metrics with Prometheus's own parser.
//
// Standard input is the page, the argument its content type. Standard output is what is
// on it, in JSON. A page that does not parse ends it with code 1.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// page is what is on one.
type page struct {
	// Types are those of the families, by name; in OpenMetrics that of a counter has no
	// "_total".
	Types map[string]string `json:"types"`
	// Exemplars are their trace ids, by the name of the sample they are of.
	Exemplars map[string][]string `json:"exemplars"`
	Series    int                 `json:"series"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("give the content type")
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	found, err := read(text, args[0])
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(found)
}

func read(text []byte, contentType string) (page, error) {
	parser, err := textparse.New(text, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		return page{}, err
	}
	p := page{Types: map[string]string{}, Exemplars: map[string][]string{}}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return page{}, err
		}
		switch entry {
		case textparse.EntryType:
			name, kind := parser.Type()
			p.Types[string(name)] = string(kind)
		case textparse.EntrySeries, textparse.EntryHistogram:
			p.Series++
			p.addExemplars(parser)
		}
	}
}

func (p page) addExemplars(parser textparse.Parser) {
	var of labels.Labels
	parser.Labels(&of)
	var e exemplar.Exemplar
	for parser.Exemplar(&e) {
		name := of.Get(model.MetricNameLabel)
		p.Exemplars[name] = append(p.Exemplars[name], e.Labels.Get("trace_id"))
		e = exemplar.Exemplar{}
	}
}
