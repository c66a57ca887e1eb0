package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what is read of one answer of Prometheus.
const maxAnswer = 64 << 20

// server is a Prometheus.
type server struct {
	url    string
	client http.Client
}

// point is a value at a Unix time.
type point struct{ t, v float64 }

// series are the values of one line, by time, under the name its legend shows. NaN is
// left out.
type series struct {
	name   string
	points []point
}

func (s series) last() float64 { return s.points[len(s.points)-1].v }

// ask fills data with what the API answers.
func (s *server) ask(ctx context.Context, path string, parameters url.Values, data any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(parameters.Encode()))
	if path == "/api/v1/targets" { // takes no POST
		request, err = http.NewRequestWithContext(ctx, http.MethodGet, s.url+path+"?"+parameters.Encode(), nil)
	}
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Prometheus: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("read Prometheus's answer, %s: %w", response.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus refuses: %s", answer.Error)
	}
	return nil
}

// scrapeInterval is the longest of the targets of now.
func (s *server) scrapeInterval(ctx context.Context) (time.Duration, error) {
	var data struct {
		ActiveTargets []struct{ ScrapeInterval string }
	}
	if err := s.ask(ctx, "/api/v1/targets", url.Values{"state": {"active"}}, &data); err != nil {
		return 0, err
	}
	longest := time.Second
	for _, target := range data.ActiveTargets {
		d, err := time.ParseDuration(target.ScrapeInterval)
		if err != nil {
			return 0, fmt.Errorf("a target's scrape interval: %w", err)
		}
		longest = max(longest, d)
	}
	return longest, nil
}

// sample is a pair of a time and a number in a string, as the API writes it.
type sample [2]json.RawMessage

func (s sample) point() (p point, err error) {
	var text string
	if err = json.Unmarshal(s[0], &p.t); err == nil {
		if err = json.Unmarshal(s[1], &text); err == nil {
			p.v, err = strconv.ParseFloat(text, 64)
		}
	}
	return p, err
}

type result struct {
	Metric map[string]string
	Value  *sample
	Values []sample
}

// window is what is asked for: a range of time in steps.
type window struct {
	from, to time.Time
	step     time.Duration
}

// query returns the series of an expression, sorted by their labels: at the end of the
// window if instant, else over all of it.
func (s *server) query(ctx context.Context, w window, expr, legend string, instant bool) ([]series, error) {
	path, parameters := "/api/v1/query_range", url.Values{
		"query": {expr}, "start": {stamp(w.from)}, "end": {stamp(w.to)}, "step": {strconv.FormatFloat(w.step.Seconds(), 'f', 3, 64)},
	}
	if instant {
		path, parameters = "/api/v1/query", url.Values{"query": {expr}, "time": {stamp(w.to)}}
	}
	var data struct{ Result []result }
	if err := s.ask(ctx, path, parameters, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expr, err)
	}
	slices.SortFunc(data.Result, func(a, b result) int { return strings.Compare(labelText(a.Metric), labelText(b.Metric)) })
	var all []series
	for _, r := range data.Result {
		if r.Value != nil {
			r.Values = append(r.Values, *r.Value)
		}
		one := series{name: name(legend, r.Metric)}
		for _, v := range r.Values {
			p, err := v.point()
			if err != nil {
				return nil, fmt.Errorf("%s: a sample: %w", expr, err)
			}
			if !math.IsNaN(p.v) && !math.IsInf(p.v, 0) {
				one.points = append(one.points, p)
			}
		}
		if len(one.points) > 0 {
			all = append(all, one)
		}
	}
	return all, nil
}

func labelText(labels map[string]string) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		text.WriteString(name + "\x00" + labels[name] + "\x00")
	}
	return text.String()
}

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

// name fills labels into a legend.
func name(legend string, labels map[string]string) string {
	return strings.TrimSpace(legendLabel.ReplaceAllStringFunc(legend, func(found string) string {
		return labels[strings.Trim(found, "{}")]
	}))
}

// stamp is a time as the API takes it.
func stamp(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
