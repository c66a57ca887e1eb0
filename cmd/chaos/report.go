//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// report is what a run found. Its JSON holds the figures.
type report struct {
	site  *site
	audit *auditor
	scan  scanned
	level level

	Seed      int64          `json:"seed"`
	Cluster   bool           `json:"cluster"`
	Tokens    int            `json:"tokens"`
	Enhanced  int            `json:"enhanced"`
	Media     int            `json:"media"`
	Bytes     int64          `json:"media_bytes"`
	Published int64          `json:"events_published"`
	Retries   int64          `json:"publish_retries"`
	Dropped   int64          `json:"events_dropped_as_duplicates"`
	Kills     int64          `json:"kills"`
	Starts    int            `json:"worker_starts"`
	Failures  int            `json:"worker_exits_with_an_error"`
	Faults    map[string]int `json:"faults"`
	Cuts      int            `json:"connections_cut"`

	Events       uint64  `json:"events"`
	Deliveries   uint64  `json:"deliveries"`
	Redeliveries uint64  `json:"redeliveries"`
	Calls        int     `json:"api_calls"`
	CallsPer     float64 `json:"api_calls_per_token"`
	MostCalls    int     `json:"most_api_calls_for_a_token"`
	WebhookIDs   int     `json:"webhook_ids"`
	Repeats      int     `json:"webhook_repetitions"`
	NATSMessages int     `json:"nats_messages"`
	Forged       int     `json:"forged_events"`
	Dead         uint64  `json:"dead_letters"`
	UploadsLeft  int     `json:"uploads_left_incomplete"`

	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Wrong     int `json:"wrong"`
	Plaintext int `json:"plaintext"`

	Scanned  int64 `json:"scanned_bytes"`
	Files    int   `json:"scanned_files"`
	Planted  int   `json:"planted"`
	Controls int   `json:"planted_found"`

	// Drained is false where something was left when the limit had passed.
	Drained bool    `json:"drained"`
	Storm   float64 `json:"storm_seconds"`
	Drain   float64 `json:"drain_seconds"`
	Stop    float64 `json:"stop_seconds"`
	Audit   float64 `json:"audit_seconds"`
	Search  float64 `json:"search_seconds"`
}

// complete fills in the figures.
func (r *report) complete() {
	s, a := r.site, r.audit
	r.Seed, r.Cluster, r.Tokens = s.Seed, s.Cluster, len(s.tokens)
	for _, t := range s.tokens {
		if t.Product == result.Enhanced {
			r.Enhanced++
		}
		for _, m := range t.media() {
			r.Media++
			r.Bytes += m.Size
		}
		n := s.standIns.api.Calls(t.Token)
		r.Calls += n
		r.MostCalls = max(r.MostCalls, n)
	}
	r.CallsPer = float64(r.Calls) / float64(r.Tokens)
	p := s.publisher
	r.Published, r.Retries, r.Dropped = p.published.Load(), p.retries.Load(), p.dropped.Load()
	r.Kills, r.Cuts = s.kills.Load(), s.cuts()
	for _, w := range s.workers {
		starts, failures := w.counts()
		r.Starts += starts
		r.Failures += failures
	}
	r.Events, r.Deliveries, r.Dead = r.level.events, r.level.deliveries, r.level.dead
	r.Redeliveries = r.Deliveries - min(r.Events, r.Deliveries)
	r.WebhookIDs, r.Repeats, r.NATSMessages = a.figures.webhookIDs, a.figures.webhookRepeats, a.figures.natsMessages
	r.Forged, r.UploadsLeft = len(s.forgeries), a.figures.uploadsLeft
	r.Lost, r.Doubled, r.Wrong, r.Plaintext = len(a.lost), len(a.doubled), len(a.wrong), len(r.scan.readable)
	r.Scanned, r.Files, r.Planted, r.Controls = r.scan.bytes, r.scan.files, r.scan.planted, r.scan.controls
}

// verdict is an error if anything is not as promised.
func (r *report) verdict() error {
	switch {
	case r.Controls != r.Planted:
		return fmt.Errorf("the search found %d of %d planted texts: it proves nothing", r.Controls, r.Planted)
	case r.Lost+r.Doubled+r.Wrong+r.Plaintext > 0:
		return errors.New("the promise is broken")
	case !r.Drained:
		return fmt.Errorf("not drained within %s", r.site.Limit)
	}
	return nil
}

func (r *report) print(out io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	for _, list := range []struct {
		what  string
		lines []string
	}{{"lost", r.audit.lost}, {"doubled", r.audit.doubled}, {"wrong", r.audit.wrong}, {"readable", r.readable()}} {
		printSome(out, list.what, list.lines)
	}
	servers := "one NATS server"
	if r.Cluster {
		servers = "three NATS servers"
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"run", fmt.Sprintf("seed %d, %d workers, %s", r.Seed, len(r.site.workers), servers)},
		{"tokens", fmt.Sprintf("%d (%d enhanced, %d eid), %d media of %s", r.Tokens, r.Enhanced, r.Tokens-r.Enhanced, r.Media, mebibytes(r.Bytes))},
		{"events", fmt.Sprintf("%d published, %d of them dropped as duplicates; %d tries not acknowledged", r.Published, r.Dropped, r.Retries)},
		{"workers", fmt.Sprintf("%d killed; %d starts, %d exits with an error", r.Kills, r.Starts, r.Failures)},
		{"faults", r.faultText()},
		{"connections cut", strconv.Itoa(r.Cuts)},
		{"deliveries", fmt.Sprintf("%d of %d events: %d redeliveries", r.Deliveries, r.Events, r.Redeliveries)},
		{"API calls", fmt.Sprintf("%d, %.2f per token, at most %d", r.Calls, r.CallsPer, r.MostCalls)},
		{"webhooks", fmt.Sprintf("%d ids, %d repetitions of one", r.WebhookIDs, r.Repeats)},
		{"NATS messages", strconv.Itoa(r.NATSMessages)},
		{"dead letters", fmt.Sprintf("%d of %d forged events", r.Dead, r.Forged)},
		{"uploads left", fmt.Sprintf("%d, for the bucket's lifecycle rule", r.UploadsLeft)},
		{"verify", r.audit.figures.verified},
		{"searched", fmt.Sprintf("%d files and objects, %s; %d of %d planted texts found", r.Files, mebibytes(r.Scanned), r.Controls, r.Planted)},
		{"took", fmt.Sprintf("%.0fs with faults, %.0fs to drain, %.0fs to stop, %.0fs to compare, %.0fs to search", r.Storm, r.Drain, r.Stop, r.Audit, r.Search)},
		{"lost", strconv.Itoa(r.Lost)},
		{"doubled", strconv.Itoa(r.Doubled)},
		{"wrong", strconv.Itoa(r.Wrong)},
		{"plaintext", strconv.Itoa(r.Plaintext)},
	} {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", row[0], row[1]) // Flush tells of errors
	}
	return table.Flush()
}

func (r *report) readable() []string {
	lines := make([]string, len(r.scan.readable))
	for i, one := range r.scan.readable {
		lines[i] = one.place + " holds " + one.what
	}
	return lines
}

// printSome prints the first of many lines.
func printSome(out io.Writer, what string, lines []string) {
	const most = 20
	for _, line := range lines[:min(most, len(lines))] {
		_, _ = fmt.Fprintf(out, "%s: %s\n", what, line)
	}
	if len(lines) > most {
		_, _ = fmt.Fprintf(out, "%s: and %d more\n", what, len(lines)-most)
	}
}

func (r *report) faultText() string {
	total := 0
	parts := make([]string, 0, len(r.Faults))
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		total += r.Faults[name]
		parts = append(parts, fmt.Sprintf("%s %d", name, r.Faults[name]))
	}
	return fmt.Sprintf("%d of %d kinds: %s", total, len(parts), strings.Join(parts, ", "))
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
