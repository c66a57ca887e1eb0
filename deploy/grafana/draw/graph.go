package main

import (
	"image/color"
	"math"
	"slices"
	"time"

	"gonum.org/v1/plot/vg/draw"
)

// timeAxis draws the times below a box, with lines in it, and returns the place of a time.
func timeAxis(s *sheet, b box, w window) func(float64) float64 {
	from, to := float64(w.from.UnixMilli())/1000, float64(w.to.UnixMilli())/1000
	x := func(t float64) float64 { return b.x + b.w*min(max((t-from)/(to-from), 0), 1) }
	step, layout := timeStep(w.to.Sub(w.from), int(b.w/70))
	label := style{color: weak, size: 9.5, align: draw.XCenter}
	for t := w.from.Truncate(step).Add(step); t.Before(w.to); t = t.Add(step) {
		at := x(float64(t.Unix()))
		s.line(grid, 0.75, false, spot{at, b.y}, spot{at, b.y + b.h})
		if at-b.x > 12 && b.x+b.w-at > 12 {
			s.text(label, spot{at, b.y + b.h + 9}, t.Format(layout))
		}
	}
	return x
}

// timeStep returns the distance of at most n marks in a range, and how they are written.
func timeStep(length time.Duration, n int) (time.Duration, string) {
	steps := []time.Duration{
		5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
		time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	}
	for _, step := range steps {
		if length/step > time.Duration(max(n, 1)) {
			continue
		}
		switch {
		case step < time.Minute:
			return step, "15:04:05"
		case step < 12*time.Hour:
			return step, "15:04"
		}
		return step, "02.01. 15h"
	}
	return (length / time.Duration(max(n, 1))).Truncate(24*time.Hour) + 24*time.Hour, "02.01."
}

// scale is the value axis of a graph.
type scale struct {
	min, max float64
	log      bool
	marks    []float64
}

// part is how far up a value is, from 0 to 1.
func (a scale) part(v float64) float64 {
	if a.log {
		return (math.Log10(max(v, a.min)) - math.Log10(a.min)) / (math.Log10(a.max) - math.Log10(a.min))
	}
	return (v - a.min) / (a.max - a.min)
}

// newScale makes an axis for values from low to high with about n marks, as the field
// wants it.
func newScale(f field, low, high float64, n int) scale {
	if f.Custom.ScaleDistribution.Type == "log" {
		a := scale{min: math.Pow(10, math.Floor(math.Log10(low))), max: math.Pow(10, math.Ceil(math.Log10(high))), log: true}
		if a.max <= a.min {
			a.max = a.min * 10
		}
		for v := a.min; v <= a.max*1.01; v *= 10 {
			a.marks = append(a.marks, v)
		}
		return a
	}
	for _, bound := range []*float64{f.Min, f.Max, f.Custom.AxisSoftMin, f.Custom.AxisSoftMax} {
		if bound != nil {
			low, high = min(low, *bound), max(high, *bound)
		}
	}
	if high <= low {
		high = low + 1
	}
	step := niceStep((high-low)/float64(n), high, f)
	const little = 0.01 // of a step beyond a mark needs no other mark
	a := scale{min: math.Floor(low/step+little) * step, max: math.Ceil(high/step-little) * step}
	for i := 0.0; a.min+i*step <= a.max+step/2; i++ {
		a.marks = append(a.marks, a.min+i*step)
	}
	return a
}

// niceStep rounds a distance of marks up to one that makes them round in the field's unit,
// in which the highest of them will be written.
func niceStep(rough, high float64, f field) float64 {
	if f.Unit == "s" {
		for _, nice := range []float64{15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400, 172800} {
			if high >= 60 && rough <= nice {
				return nice
			}
		}
	}
	base := 1.0
	if f.Unit == "bytes" {
		base = math.Pow(1024, max(math.Floor(math.Log(max(high, 1))/math.Log(1024)), 0))
	}
	power := math.Pow(10, math.Floor(math.Log10(rough/base))) * base
	step := power * 10
	for _, nice := range []float64{1, 2, 5} {
		if power*nice >= rough*0.999 {
			step = power * nice
			break
		}
	}
	if f.Decimals != nil && *f.Decimals == 0 && f.Unit == "short" {
		step = max(step, 1)
	}
	return step
}

// curve is a series as it is drawn: from a lower line, which is another series when they
// are stacked.
type curve struct {
	series
	field
	color color.NRGBA
	below map[float64]float64
}

// curves gives the series their looks, and stacks those that are to be stacked.
func curves(p panel, all []series) ([]curve, error) {
	var list []curve
	sums := map[float64]float64{}
	for i, one := range all {
		f, err := p.fieldOf(one.name)
		if err != nil {
			return nil, err
		}
		c := curve{one, f, palette[i%len(palette)], nil}
		if f.Color.Mode == "fixed" {
			c.color = colorOf(f.Color.FixedColor)
		}
		if f.Custom.Stacking.Mode == "normal" {
			c.below = map[float64]float64{}
			c.points = nil
			for _, pt := range one.points {
				c.below[pt.t] = sums[pt.t]
				sums[pt.t] += pt.v
				c.points = append(c.points, point{pt.t, sums[pt.t]})
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// extent is the range of all values; only positive ones count on a logarithmic axis.
func extent(list []curve, log bool) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range list {
		for _, p := range c.points {
			if !log || p.v > 0 {
				low, high = min(low, p.v), max(high, p.v)
			}
		}
	}
	if math.IsInf(low, 0) {
		return 0, 1
	}
	return low, high
}

// paintGraph draws lines over time, with a legend below them.
func paintGraph(s *sheet, p panel, b box, d data) error {
	list, err := curves(p, d.series)
	if err != nil {
		return err
	}
	b = b.shrink(0, 4, 8, paintLegend(s, b, list)+18)
	f := p.FieldConfig.Defaults
	low, high := extent(list, f.Custom.ScaleDistribution.Type == "log")
	if len(list) == 0 {
		f.Custom.ScaleDistribution.Type = "linear"
	}
	axis := newScale(f, low, high, max(int(b.h/28), 2))
	b = paintScale(s, b, axis, f)
	x := timeAxis(s, b, d.window)
	y := func(v float64) float64 { return b.y + b.h*(1-min(max(axis.part(v), 0), 1)) }
	for _, mark := range d.marks {
		s.rect(faded(named["red"], 0.09), box{x(mark.from), b.y, max(x(mark.to)-x(mark.from), 1), b.h})
	}
	for _, c := range list {
		paintCurve(s, c, axis, x, y, d.window.step.Seconds())
	}
	paintThresholds(s, b, f, axis, y)
	if len(list) == 0 {
		s.text(style{color: weak, size: 12, align: draw.XCenter}, spot{b.x + b.w/2, b.y + b.h/2}, "no data")
	}
	return nil
}

// paintScale draws the value axis and returns what is left for the lines.
func paintScale(s *sheet, b box, axis scale, f field) box {
	label := style{color: weak, size: 9.5, align: draw.XRight}
	texts, width := make([]string, len(axis.marks)), 0.0
	for i, mark := range axis.marks {
		texts[i] = units[f.Unit](mark, -1)
		width = max(width, label.width(texts[i]))
	}
	b = b.shrink(width+14, 4, 0, 0)
	for i, mark := range axis.marks {
		at := b.y + b.h*(1-axis.part(mark))
		s.line(grid, 0.75, false, spot{b.x, at}, spot{b.x + b.w, at})
		s.text(label, spot{b.x - 6, at}, texts[i])
	}
	return b
}

// paintThresholds draws those that the panel wants to be seen.
func paintThresholds(s *sheet, b box, f field, axis scale, y func(float64) float64) {
	if f.Custom.ThresholdsStyle.Mode != "dashed" {
		return
	}
	for i, step := range f.Thresholds.Steps {
		if step.Value == nil || axis.part(*step.Value) < 0 || axis.part(*step.Value) > 1 {
			continue
		}
		// A line has the color of the worse side, which is below it where less is worse.
		c := colorOf(step.Color)
		if f.Thresholds.Steps[0].Color != "green" {
			c = colorOf(f.Thresholds.Steps[i-1].Color)
		}
		s.line(c, 1, true, spot{b.x, y(*step.Value)}, spot{b.x + b.w, y(*step.Value)})
	}
}

// paintCurve draws one series, in pieces where it has gaps.
func paintCurve(s *sheet, c curve, axis scale, x, y func(float64) float64, step float64) {
	for from := 0; from < len(c.points); {
		to := from + 1
		for to < len(c.points) && c.points[to].t-c.points[to-1].t < step*1.5 {
			to++
		}
		piece := c.points[from:to]
		from = to
		outline := make([]spot, 0, 2*len(piece)) // the line, and back below it
		for _, p := range piece {
			outline = append(outline, spot{x(p.t), y(p.v)})
		}
		upper := outline[:len(piece)]
		for _, p := range slices.Backward(piece) {
			below := max(axis.min, 0)
			if v, ok := c.below[p.t]; ok {
				below = v
			}
			outline = append(outline, spot{x(p.t), y(below)})
		}
		if len(piece) == 1 {
			s.rect(c.color, box{upper[0].x - 1.5, upper[0].y - 1.5, 3, 3})
			continue
		}
		s.polygon(faded(c.color, c.Custom.FillOpacity/100), outline)
		s.line(c.color, c.Custom.LineWidth*0.75, c.Custom.LineStyle.Fill == "dash", upper...)
	}
}

// paintLegend writes the names of the lines at the bottom of a box and returns the height
// that takes. It has three lines at most.
func paintLegend(s *sheet, b box, list []curve) (height float64) {
	label := style{color: strong, size: 9.5}
	const line = 14
	var rows [][]curve
	used := b.w
	for _, c := range list {
		need := min(label.width(c.name), b.w-30) + 24
		if used+need > b.w-10 {
			rows, used = append(rows, nil), 0
		}
		used += need
		rows[len(rows)-1] = append(rows[len(rows)-1], c)
	}
	rows = rows[:min(len(rows), 3)]
	for i, row := range rows {
		at := spot{b.x + 8, b.y + b.h - line*float64(len(rows)-i) + line/2 - 2}
		for _, c := range row {
			s.line(c.color, 2.5, c.Custom.LineStyle.Fill == "dash", at, spot{at.x + 12, at.y})
			text := label.fit(c.name, b.w-30)
			s.text(label, spot{at.x + 16, at.y}, text)
			at.x += label.width(text) + 24
		}
	}
	return line * float64(len(rows))
}
