package main

import (
	"context"
	"fmt"
	"time"

	"gonum.org/v1/plot/vg/draw"
)

// Sizes in points: a column and a line of Grafana's grid, the space between panels, and
// what is above the first one.
const (
	columns  = 24
	column   = 50
	line     = 29
	gap      = 6
	headline = 54
)

// span is a part of the time that is marked in graphs.
type span struct{ from, to float64 }

// data is what Prometheus answered for one panel.
type data struct {
	window window
	series []series
	marks  []span
}

// painters draw a panel's data into a box, by the panel's type.
var painters map[string]func(*sheet, panel, box, data) error

func init() { // they call what looks into the table
	painters = map[string]func(*sheet, panel, box, data) error{
		"stat": paintStat, "gauge": paintGauge, "timeseries": paintGraph, "state-timeline": paintTimeline,
	}
}

// artist draws a dashboard of what a Prometheus knows of a window.
type artist struct {
	server *server
	window window
	haste  int
	rate   time.Duration // what Grafana calls $__rate_interval
}

// steps is how many points a line has at most.
const steps = 360

// draw asks all queries and returns the picture.
func (a *artist) draw(ctx context.Context, d *dashboard) (*sheet, error) {
	scrape, err := a.server.scrapeInterval(ctx)
	if err != nil {
		return nil, err
	}
	a.window.step = max((a.window.to.Sub(a.window.from) / steps).Round(time.Second), scrape)
	a.rate = max(a.window.step+scrape, 4*scrape)
	marks, err := a.marks(ctx, d)
	if err != nil {
		return nil, err
	}
	bottom := 0
	for _, p := range d.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	s := newSheet(columns*column+gap, float64(headline+bottom*line+gap))
	a.headline(s, d)
	for _, p := range d.Panels {
		if err := a.panel(ctx, s, p, marks); err != nil {
			return nil, fmt.Errorf("panel %q: %w", p.Title, err)
		}
	}
	return s, nil
}

func (a *artist) headline(s *sheet, d *dashboard) {
	const layout = "2006-01-02 15:04:05"
	right := float64(columns * column)
	s.text(style{color: strong, size: 20, bold: true}, spot{12, 20}, d.Title)
	s.text(style{color: weak, size: 11}, spot{12, 41}, d.Description)
	when := style{color: weak, size: 11, align: draw.XRight}
	s.text(when, spot{right, 20}, a.window.from.Format(layout)+" to "+a.window.to.Format(layout)+" UTC")
	if a.haste > 1 {
		s.text(when, spot{right, 41}, fmt.Sprintf("a rehearsal: an hour in a query is %s here", time.Hour/time.Duration(a.haste)))
	}
}

func (a *artist) panel(ctx context.Context, s *sheet, p panel, marks []span) error {
	g := p.GridPos
	b := box{gap + float64(g.X*column), headline + float64(g.Y*line), float64(g.W*column) - gap, float64(g.H*line) - gap}
	if p.Type == "row" {
		s.text(style{color: strong, size: 14, bold: true}, spot{b.x + 6, b.y + b.h/2}, p.Title)
		return nil
	}
	s.rect(border, b)
	s.rect(surface, b.shrink(0.75, 0.75, 0.75, 0.75))
	title := style{color: strong, size: 11.5, bold: true}
	s.text(title, spot{b.x + 9, b.y + 13}, title.fit(p.Title, b.w-14))
	d := data{window: a.window, marks: marks}
	for _, t := range p.Targets {
		some, err := a.server.query(ctx, a.window, expression(t.Expr, a.haste, a.rate), t.LegendFormat, t.Instant)
		if err != nil {
			return err
		}
		d.series = append(d.series, some...)
	}
	return painters[p.Type](s, p, b.shrink(3, 25, 3, 3), d)
}

// marks returns when the dashboard's annotations say that something was.
func (a *artist) marks(ctx context.Context, d *dashboard) ([]span, error) {
	at := map[float64]bool{}
	for _, annotation := range d.Annotations.List {
		if annotation.Expr == "" {
			continue
		}
		all, err := a.server.query(ctx, a.window, expression(annotation.Expr, a.haste, a.rate), "", false)
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			for _, p := range one.points {
				at[p.t] = true
			}
		}
	}
	var all []span
	step := a.window.step.Seconds()
	begin := float64(a.window.from.UnixMilli()) / 1000
	for i := range int(a.window.to.Sub(a.window.from)/a.window.step) + 1 {
		t := begin + float64(i)*step
		switch last := len(all) - 1; {
		case !at[t]:
		case last >= 0 && t-all[last].to < step/2:
			all[last].to = t + step
		default:
			all = append(all, span{t, t + step})
		}
	}
	return all, nil
}
