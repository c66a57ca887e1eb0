// Command draw draws a Grafana dashboard from what a Prometheus has, without Grafana:
// each panel's queries over a time range, in the dashboard's grid, as one PNG. It knows
// the panels that faceid-ingest.json uses: row, stat, gauge and timeseries. It is a module
// of its own so that the program does not carry a plotting library.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the command line.
type options struct {
	prometheus, dashboard, out string
	from, to                   float64
	// haste divides the durations in queries, for a range in which time went faster.
	haste int
}

func main() {
	var o options
	flag.StringVar(&o.prometheus, "prometheus", "http://127.0.0.1:9090", "URL of Prometheus")
	flag.StringVar(&o.dashboard, "dashboard", "../faceid-ingest.json", "file of the dashboard")
	flag.StringVar(&o.out, "out", "dashboard.png", "file of the picture")
	flag.Float64Var(&o.from, "from", float64(time.Now().Add(-6*time.Hour).Unix()), "begin, as Unix time")
	flag.Float64Var(&o.to, "to", float64(time.Now().Unix()), "end, as Unix time")
	flag.IntVar(&o.haste, "haste", 1, "divide the durations in queries by this")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	panels, err := readDashboard(o.dashboard)
	if err != nil {
		return err
	}
	source := &source{url: o.prometheus, from: o.from, to: o.to, haste: o.haste}
	for i := range panels {
		if err := source.fill(&panels[i]); err != nil {
			return fmt.Errorf("panel %q: %w", panels[i].Title, err)
		}
	}
	file, err := os.Create(o.out)
	if err != nil {
		return err
	}
	if err := paint(panels, file); err != nil {
		_ = file.Close()
		return err
	}
	return file.Close()
}
