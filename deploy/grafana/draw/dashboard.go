package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// dashboard is the part of Grafana's model that is drawn.
type dashboard struct {
	Title, Description string
	Panels             []panel
	Annotations        struct{ List []annotation }
	Templating         struct{ List []struct{ Name string } }
}

// annotation marks times in all graphs: those at which its expression has a value.
type annotation struct{ Expr string }

type panel struct {
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Targets     []target
	FieldConfig struct {
		Defaults  field
		Overrides []struct {
			Matcher    struct{ ID, Options string }
			Properties []struct {
				ID    string
				Value json.RawMessage
			}
		}
	}
	Options struct{ ColorMode, TextMode, Orientation string }
}

type target struct {
	Expr, LegendFormat string
	Instant            bool
}

// field says how the values of one series look.
type field struct {
	Unit, NoValue string
	Decimals      *int
	Min, Max      *float64
	Color         struct{ Mode, FixedColor string }
	Thresholds    thresholds
	Mappings      []struct {
		Options map[string]struct{ Text, Color string }
	}
	Custom custom
}

type custom struct {
	LineWidth         float64
	FillOpacity       float64
	LineStyle         struct{ Fill string }
	Stacking          struct{ Mode string }
	ScaleDistribution struct{ Type string }
	ThresholdsStyle   struct{ Mode string }
	AxisSoftMin       *float64
	AxisSoftMax       *float64
}

type thresholds struct {
	Steps []struct {
		Color string
		Value *float64
	}
}

// at returns the color of a value: that of the last step it has reached.
func (t thresholds) at(v float64) string {
	name := "text"
	for _, step := range t.Steps {
		if step.Value == nil || v >= *step.Value {
			name = step.Color
		}
	}
	return name
}

// load reads a dashboard and refuses one that would be drawn wrong.
func load(file string) (*dashboard, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the dashboard: %w", err)
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read the dashboard %s: %w", file, err)
	}
	if len(d.Panels) == 0 {
		return nil, fmt.Errorf("%s has no panels", file)
	}
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		if painters[p.Type] == nil {
			return nil, fmt.Errorf("panel %q: the type %q is not drawn", p.Title, p.Type)
		}
		if _, err := p.fieldOf(""); err != nil {
			return nil, err
		}
	}
	return &d, nil
}

// fieldOf returns how the series of a name looks: the panel's defaults, and the overrides
// that match the name.
func (p panel) fieldOf(name string) (field, error) {
	f := p.FieldConfig.Defaults
	for _, o := range p.FieldConfig.Overrides {
		switch o.Matcher.ID {
		case "byName":
			if o.Matcher.Options != name {
				continue
			}
		case "byRegexp":
			match, err := regexp.Compile(strings.Trim(o.Matcher.Options, "/"))
			if err != nil {
				return f, fmt.Errorf("panel %q: an override: %w", p.Title, err)
			}
			if !match.MatchString(name) {
				continue
			}
		default:
			return f, fmt.Errorf("panel %q: overrides %q are not drawn", p.Title, o.Matcher.ID)
		}
		for _, property := range o.Properties {
			if err := f.set(property.ID, property.Value); err != nil {
				return f, fmt.Errorf("panel %q: %w", p.Title, err)
			}
		}
	}
	if err := f.check(); err != nil {
		return f, fmt.Errorf("panel %q: %w", p.Title, err)
	}
	return f, nil
}

// check refuses a unit or a color that nothing is known of.
func (f field) check() error {
	if units[f.Unit] == nil {
		return fmt.Errorf("the unit %q is not drawn", f.Unit)
	}
	colors := []string{"text"}
	if f.Color.Mode == "fixed" {
		colors = append(colors, f.Color.FixedColor)
	}
	for _, step := range f.Thresholds.Steps {
		colors = append(colors, step.Color)
	}
	for _, m := range f.Mappings {
		for _, state := range m.Options {
			colors = append(colors, state.Color)
		}
	}
	for _, c := range colors {
		if _, ok := named[c]; !ok {
			return fmt.Errorf("the color %q is not drawn", c)
		}
	}
	return nil
}

// set sets one property, whose path has dots, as if it stood in the field's JSON.
func (f *field) set(path string, value json.RawMessage) error {
	text := []byte(value)
	parts := strings.Split(path, ".")
	for i := len(parts) - 1; i >= 0; i-- {
		text = fmt.Appendf(nil, "{%q: %s}", parts[i], text)
	}
	if parts[0] == "thresholds" {
		f.Thresholds = thresholds{} // replaced as a whole
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(f); err != nil {
		return fmt.Errorf("property %s: %w", path, err)
	}
	return nil
}

var (
	durations = regexp.MustCompile(`(offset |\[)([0-9]+)([smhdw])\b`)
	variables = regexp.MustCompile(`\$\{?\w+\}?`)
	lengths   = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
)

// expression returns what to ask Prometheus: durations divided by haste, the rate
// interval filled in, and every variable matching everything.
func expression(text string, haste int, rate time.Duration) string {
	if haste > 1 {
		text = durations.ReplaceAllStringFunc(text, func(found string) string {
			parts := durations.FindStringSubmatch(found)
			n, _ := strconv.Atoi(parts[2]) // digits; a number out of range comes back at its limit
			return parts[1] + promDuration(time.Duration(n)*lengths[parts[3]]/time.Duration(haste))
		})
	}
	text = strings.ReplaceAll(text, "$__rate_interval", promDuration(rate))
	return variables.ReplaceAllString(text, ".*")
}

// promDuration writes a duration as Prometheus reads it, to the millisecond.
func promDuration(d time.Duration) string {
	return fmt.Sprintf("%dms", max(d.Milliseconds(), 1))
}
