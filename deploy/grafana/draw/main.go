// Command draw makes a picture of a Grafana dashboard without Grafana: it asks a
// Prometheus the queries of all panels and draws what it answers where the dashboard has
// it.
//
//	go run . --prometheus http://127.0.0.1:9090 --dashboard ../faceid-ingest.json --out ../dashboard.png
//
// It knows the kinds of panel, units and settings that the dashboard of this repository
// uses, and refuses others. Every variable of the dashboard matches everything. It is a
// module of its own so that the program does not carry a drawing library.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

// moment is a flag: a time in RFC 3339 or Unix seconds.
type moment struct{ time.Time }

func (m *moment) Set(text string) error {
	if unix, err := strconv.ParseFloat(text, 64); err == nil {
		m.Time = time.UnixMilli(int64(unix * 1000))
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	m.Time = t
	return err
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("draw", flag.ContinueOnError)
	flags.SetOutput(stderr)
	from, to := moment{time.Now().Add(-6 * time.Hour)}, moment{time.Now()}
	prometheus := flags.String("prometheus", "http://127.0.0.1:9090", "URL of the Prometheus to ask")
	file := flags.String("dashboard", "../faceid-ingest.json", "the dashboard")
	flags.Var(&from, "from", "begin of the picture, RFC 3339 or Unix time (six hours ago)")
	flags.Var(&to, "to", "end of it; tiles show what was then (now)")
	haste := flags.Int("haste", 1, "divide windows and offsets in queries by this, for a rehearsal in which time goes faster")
	out := flags.String("out", "dashboard.png", "the picture, a PNG")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !from.Before(to.Time) || *haste < 1 {
		return fmt.Errorf("nothing to draw from %s to %s with haste %d", from, to, *haste)
	}
	d, err := load(*file)
	if err != nil {
		return err
	}
	a := &artist{server: &server{url: strings.TrimSuffix(*prometheus, "/")}, haste: *haste, window: window{from: from.UTC(), to: to.UTC()}}
	a.server.client.Timeout = time.Minute
	picture, err := a.draw(ctx, d)
	if err != nil {
		return err
	}
	return save(*out, picture)
}

func save(file string, picture *sheet) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return errors.Join(picture.writeTo(f), f.Close())
}
