package main

import (
	"math"

	"gonum.org/v1/plot/vg/draw"
)

// value is one number of a tile.
type value struct {
	name, text string
	color      string
}

// values are the last ones of a panel's series, or what the panel says of nothing.
func values(p panel, all []series) ([]value, error) {
	var list []value
	for _, one := range all {
		f, err := p.fieldOf(one.name)
		if err != nil {
			return nil, err
		}
		decimals := -1
		if f.Decimals != nil {
			decimals = *f.Decimals
		}
		list = append(list, value{one.name, units[f.Unit](one.last(), decimals), f.Thresholds.at(one.last())})
	}
	if len(list) == 0 {
		list = []value{{"", p.FieldConfig.Defaults.NoValue, "text"}}
	}
	return list, nil
}

// paintStat draws one field per value: beside each other, or below each other as rows, which
// Grafana calls horizontal.
func paintStat(s *sheet, p panel, b box, d data) error {
	list, err := values(p, d.series)
	if err != nil {
		return err
	}
	n := float64(len(list))
	for i, v := range list {
		part := box{b.x, b.y + float64(i)*b.h/n, b.w, b.h / n}
		if p.Options.Orientation != "horizontal" {
			part = box{b.x + float64(i)*b.w/n, b.y, b.w / n, b.h}
		}
		paintValue(s, p, part.shrink(2, 2, 2, 2), v)
	}
	return nil
}

func paintValue(s *sheet, p panel, b box, v value) {
	number := style{color: colorOf(v.color), bold: true, align: draw.XCenter}
	label := style{color: weak, size: 10.5, align: draw.XCenter}
	if p.Options.ColorMode == "background" {
		fill := faded(colorOf(v.color), 0.8)
		if v.color == "text" {
			fill = border
		}
		s.rect(fill, b)
		number.color, label.color = hex("#ffffff"), hex("#ffffff")
	}
	middle := spot{b.x + b.w/2, b.y + b.h/2}
	named := p.Options.TextMode == "value_and_name" && v.name != ""
	if named && p.Options.Orientation == "horizontal" {
		number.size, number.align, label.align = 18, draw.XRight, draw.XLeft
		s.text(number, spot{b.x + b.w - 10, middle.y}, v.text)
		s.text(label, spot{b.x + 8, middle.y}, label.fit(v.name, b.w-number.width(v.text)-30))
		return
	}
	room := b.h
	if named {
		room -= 14
		s.text(label, spot{middle.x, b.y + 9}, label.fit(v.name, b.w-6))
		middle.y += 6
	}
	number.size = min(26, room*0.6)
	number.size *= min(1, (b.w-10)/number.width(v.text))
	s.text(number, middle, v.text)
}

// paintGauge draws a half circle that is filled as far as the value goes.
func paintGauge(s *sheet, p panel, b box, d data) error {
	list, err := values(p, d.series)
	if err != nil {
		return err
	}
	f := p.FieldConfig.Defaults
	part := 0.0
	if len(d.series) > 0 && f.Min != nil && f.Max != nil {
		part = min(max((d.series[0].last()-*f.Min)/(*f.Max-*f.Min), 0), 1)
	}
	radius := min(b.w/2-14, b.h-22)
	middle := spot{b.x + b.w/2, b.y + b.h - 12}
	s.arc(border, 12, middle, radius, 0, math.Pi)
	if part > 0 {
		s.arc(colorOf(list[0].color), 12, middle, radius, math.Pi*(1-part), math.Pi*part)
	}
	number := style{color: colorOf(list[0].color), size: 18, bold: true, align: draw.XCenter}
	s.text(number, spot{middle.x, middle.y - 7}, list[0].text)
	return nil
}
