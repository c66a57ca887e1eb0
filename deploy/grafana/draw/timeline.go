package main

import (
	"image/color"
	"strconv"

	"gonum.org/v1/plot/vg/draw"
)

// state returns the text and color of a value, by the panel's mappings.
func (f field) state(v float64) (name string, c color.NRGBA) {
	for _, m := range f.Mappings {
		if o, ok := m.Options[strconv.FormatFloat(v, 'f', -1, 64)]; ok {
			return o.Text, colorOf(o.Color)
		}
	}
	return units[f.Unit](v, -1), colorOf(f.Thresholds.at(v))
}

// paintTimeline draws a bar per series, in the color of its state.
func paintTimeline(s *sheet, p panel, b box, d data) error {
	if len(d.series) == 0 {
		s.text(style{color: weak, size: 12, align: draw.XCenter}, spot{b.x + b.w/2, b.y + b.h/2}, p.FieldConfig.Defaults.NoValue)
		return nil
	}
	label := style{color: weak, size: 10, align: draw.XRight}
	left := 0.0
	for _, one := range d.series {
		left = max(left, min(label.width(one.name), b.w*0.42))
	}
	b = b.shrink(left+14, 2, 8, 20)
	x := timeAxis(s, b, d.window)
	height := min(b.h/float64(len(d.series)), 30)
	for i, one := range d.series {
		row := box{b.x, b.y + float64(i)*height, b.w, height}.shrink(0, height*0.1, 0, height*0.1)
		s.text(label, spot{b.x - 6, row.y + row.h/2}, label.fit(one.name, left))
		f, err := p.fieldOf(one.name)
		if err != nil {
			return err
		}
		paintStates(s, f, row, x, one, d.window.step.Seconds())
	}
	return nil
}

// paintStates draws one bar; values that follow each other and are the same are one piece.
func paintStates(s *sheet, f field, row box, x func(float64) float64, one series, step float64) {
	for i := 0; i < len(one.points); {
		first, end := one.points[i], one.points[i].t+step
		for i++; i < len(one.points) && one.points[i].v == first.v && one.points[i].t-end < step/2; i++ {
			end = one.points[i].t + step
		}
		name, c := f.state(first.v)
		from, to := x(first.t), min(x(end), row.x+row.w)
		s.rect(faded(c, 0.75), box{from, row.y, max(to-from, 1), row.h})
		text := style{color: background, size: min(10, row.h*0.7), bold: true, align: draw.XLeft}
		if text.width(name)+8 < to-from {
			s.text(text, spot{from + 4, row.y + row.h/2}, name)
		}
	}
}
