package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// panel is one of a dashboard, as far as it is drawn.
type panel struct {
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ Expr, LegendFormat string }
	FieldConfig struct {
		Defaults struct {
			Unit, NoValue string
			Min, Max      *float64
			Thresholds    struct {
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct {
				Stacking          struct{ Mode string }
				ScaleDistribution struct{ Type string }
			}
		}
	}

	// lines are what its queries gave.
	lines []line
}

// line is one series; gaps are where it has no point.
type line struct {
	name   string
	points []point
}

type point struct{ at, value float64 }

func readDashboard(file string) ([]panel, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(d.Panels) == 0 {
		return nil, fmt.Errorf("%s: no panels", file)
	}
	return d.Panels, nil
}

// source is a Prometheus and what is asked of it.
type source struct {
	url      string
	from, to float64
	haste    int
}

// steps is how many points a line has at most.
const steps = 240

// fill asks a panel's queries.
func (s *source) fill(p *panel) error {
	for _, target := range p.Targets {
		lines, err := s.ask(s.expression(target.Expr), target.LegendFormat)
		if err != nil {
			return err
		}
		p.lines = append(p.lines, lines...)
	}
	return nil
}

var durations = regexp.MustCompile(`(offset |\[|:)([0-9]+)([smhdw])\b`)

// expression replaces variables by all they can be, and durations by shorter ones.
func (s *source) expression(text string) string {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	text = durations.ReplaceAllStringFunc(text, func(found string) string {
		parts := durations.FindStringSubmatch(found)
		n, err := strconv.Atoi(parts[2])
		if err != nil {
			return found
		}
		return fmt.Sprintf("%s%dms", parts[1], (time.Duration(n) * units[parts[3]] / time.Duration(max(1, s.haste))).Milliseconds())
	})
	interval := max(5, 4*(s.to-s.from)/steps)
	return strings.NewReplacer("$__rate_interval", fmt.Sprintf("%ds", int(interval)), "$job", ".*", "$account", ".*").Replace(text)
}

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// ask runs one query over the range.
func (s *source) ask(expression, legend string) ([]line, error) {
	query := url.Values{
		"query": {expression}, "start": {strconv.FormatFloat(s.from, 'f', 3, 64)}, "end": {strconv.FormatFloat(s.to, 'f', 3, 64)},
		"step": {strconv.FormatFloat(max(1, (s.to-s.from)/steps), 'f', 3, 64)},
	}
	response, err := http.Get(s.url + "/api/v1/query_range?" + query.Encode())
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		return nil, fmt.Errorf("prometheus answers %s to %s: %s", response.Status, expression, answer.Error)
	}
	var lines []line
	for _, r := range answer.Data.Result {
		l := line{name: placeholder.ReplaceAllStringFunc(legend, func(found string) string {
			return r.Metric[placeholder.FindStringSubmatch(found)[1]]
		})}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if value, err := strconv.ParseFloat(text, 64); err == nil && value == value {
				l.points = append(l.points, point{at, value})
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	sort.Slice(lines, func(i, j int) bool { return lines[i].name < lines[j].name })
	return lines, nil
}
