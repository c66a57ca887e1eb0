package main

import (
	"image/color"
	"io"
	"math"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The size of a cell of the grid, and the room around a panel.
const (
	cellWidth  = vg.Length(46)
	cellHeight = vg.Length(22)
	gap        = vg.Length(3)
	dpi        = 96
)

var (
	background = color.RGBA{R: 0x11, G: 0x12, B: 0x17, A: 0xff}
	tile       = color.RGBA{R: 0x1d, G: 0x1f, B: 0x25, A: 0xff}
	ink        = color.RGBA{R: 0xd0, G: 0xd2, B: 0xd8, A: 0xff}
	faint      = color.RGBA{R: 0x38, G: 0x3b, B: 0x44, A: 0xff}
	// named are Grafana's names of colours.
	named = map[string]color.RGBA{
		"green": {R: 0x3d, G: 0x8b, B: 0x4f, A: 0xff}, "yellow": {R: 0xb8, G: 0x93, B: 0x1d, A: 0xff}, "orange": {R: 0xc8, G: 0x6a, B: 0x1e, A: 0xff},
		"red": {R: 0xb8, G: 0x35, B: 0x3c, A: 0xff}, "blue": {R: 0x3a, G: 0x66, B: 0xa8, A: 0xff},
	}
	palette = []color.RGBA{
		{R: 0x73, G: 0xbf, B: 0x69, A: 0xff}, {R: 0xf2, G: 0xcc, B: 0x0c, A: 0xff}, {R: 0x57, G: 0x94, B: 0xf2, A: 0xff}, {R: 0xff, G: 0x98, B: 0x30, A: 0xff},
		{R: 0xf2, G: 0x49, B: 0x5c, A: 0xff}, {R: 0xb8, G: 0x77, B: 0xd9, A: 0xff}, {R: 0x5a, G: 0xc8, B: 0xc8, A: 0xff}, {R: 0xc9, G: 0xa2, B: 0x7a, A: 0xff},
		{R: 0x9a, G: 0xd0, B: 0x3a, A: 0xff}, {R: 0xe0, G: 0x8a, B: 0xb8, A: 0xff}, {R: 0x8a, G: 0x9a, B: 0xb8, A: 0xff}, {R: 0xff, G: 0xe0, B: 0x9a, A: 0xff},
	}
)

// paint draws all panels as one PNG.
func paint(panels []panel, out io.Writer) error {
	bottom := 0
	for _, p := range panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	width, height := 24*cellWidth, vg.Length(bottom)*cellHeight
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi), vgimg.UseBackgroundColor(background))
	page := draw.New(img)
	for _, p := range panels {
		g := p.GridPos
		left, top := vg.Length(g.X)*cellWidth, height-vg.Length(g.Y)*cellHeight
		area := draw.Canvas{Canvas: page.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: left + gap, Y: top - vg.Length(g.H)*cellHeight + gap},
			Max: vg.Point{X: left + vg.Length(g.W)*cellWidth - gap, Y: top - gap},
		}}
		switch p.Type {
		case "row":
			write(area, p.Title, area.Min.X+4, area.Center().Y, 12, ink)
		case "stat", "gauge":
			paintStat(area, p)
		default:
			paintLines(area, p)
		}
	}
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(out)
	return err
}

func write(c draw.Canvas, words string, x, y vg.Length, size font.Length, ink color.Color) {
	style := text.Style{Color: ink, Font: font.From(plot.DefaultFont, size), YAlign: draw.YCenter, Handler: plot.DefaultTextHandler}
	c.FillText(style, vg.Point{X: x, Y: y}, words)
}

func fill(c draw.Canvas, paint color.Color) {
	c.SetColor(paint)
	c.Fill(c.Rectangle.Path())
}

// paintStat writes the last values, on the colour of the first one's threshold.
func paintStat(c draw.Canvas, p panel) {
	paint, values := named["green"], [][2]string{}
	for i, l := range p.lines {
		last := l.points[len(l.points)-1].value
		if i == 0 || len(p.lines) > 1 && p.Type == "stat" {
			if of := colourOf(p, last); i == 0 || of != named["green"] {
				paint = of
			}
		}
		name := l.name
		if len(p.lines) == 1 {
			name = ""
		}
		values = append(values, [2]string{format(last, p.FieldConfig.Defaults.Unit), name})
	}
	if len(values) == 0 {
		values = append(values, [2]string{p.FieldConfig.Defaults.NoValue, ""})
	}
	fill(c, paint)
	write(c, p.Title, c.Min.X+6, c.Max.Y-9, 8, color.White)
	rows := len(values)
	if c.Max.Y-c.Min.Y < 100 { // side by side where it is low
		step := (c.Max.X - c.Min.X - 12) / vg.Length(rows)
		for i, v := range values {
			x := c.Min.X + 8 + vg.Length(i)*step
			write(c, v[0], x, c.Center().Y-4, 18, color.White)
			write(c, v[1], x, c.Min.Y+10, 8, color.White)
		}
		return
	}
	step := (c.Max.Y - c.Min.Y - 20) / vg.Length(rows)
	for i, v := range values {
		y := c.Max.Y - 18 - vg.Length(i)*step - step/2
		write(c, v[0], c.Min.X+8, y+4, 18, color.White)
		write(c, v[1], c.Min.X+8, y-14, 8, color.White)
	}
}

func colourOf(p panel, value float64) color.RGBA {
	paint := named["green"]
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			paint = named[step.Color]
		}
	}
	return paint
}

// paintLines draws the lines of a panel over time, with their names below.
func paintLines(c draw.Canvas, p panel) {
	fill(c, tile)
	write(c, p.Title, c.Min.X+6, c.Max.Y-9, 9, ink)
	names := c
	names.Max.Y = c.Min.Y + paintNames(c, p.lines)
	body := draw.Crop(c, 6, -8, names.Max.Y-c.Min.Y+2, -20)
	chart := newPlot(p)
	lines := p.lines
	if p.FieldConfig.Defaults.Custom.Stacking.Mode == "normal" {
		lines = stacked(lines)
	}
	for i := range lines {
		// The highest of a stack first, the lower ones over it.
		n := len(lines) - 1 - i
		add(chart, p, lines[n], palette[n%len(palette)])
	}
	if len(lines) == 0 {
		write(c, "no data", c.Center().X-14, c.Center().Y, 9, faint)
		return
	}
	bound(chart, p, lines)
	chart.Draw(body)
}

// bound sets the range of the values' axis.
func bound(chart *plot.Plot, p panel, lines []line) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, at := range l.points {
			if value := at.value; !math.IsInf(value, 0) && (!isLog(p) || value > 0) {
				low, high = min(low, value), max(high, value)
			}
		}
	}
	if math.IsInf(low, 0) {
		low, high = 1, 10
	}
	if least := p.FieldConfig.Defaults.Min; least != nil && !isLog(p) {
		low = min(low, *least)
	}
	if most := p.FieldConfig.Defaults.Max; most != nil {
		high = max(high, *most)
	}
	if isLog(p) {
		// Whole powers of ten, so that there are some.
		low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	}
	if high <= low {
		high = 10*low + 1
	}
	chart.Y.Min, chart.Y.Max = low, high
}

func newPlot(p panel) *plot.Plot {
	chart := plot.New()
	chart.BackgroundColor = tile
	defaults := p.FieldConfig.Defaults
	for _, axis := range []*plot.Axis{&chart.X, &chart.Y} {
		axis.Color, axis.Tick.Color, axis.Tick.Label.Color = faint, faint, ink
		axis.Tick.Label.Font.Size = 7
		axis.Tick.Length = 2
	}
	chart.X.Tick.Marker = plot.TimeTicks{Format: "15:04:05", Ticker: every(4), Time: func(t float64) time.Time { return time.Unix(int64(t), 0).UTC() }}
	chart.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick {
		ticks := every(4).Ticks(low, high)
		if isLog(p) {
			ticks = plot.LogTicks{Prec: -1}.Ticks(low, high)
		}
		for i := range ticks {
			if ticks[i].Label != "" {
				ticks[i].Label = format(ticks[i].Value, defaults.Unit)
			}
		}
		return ticks
	})
	if isLog(p) {
		chart.Y.Scale = plot.LogScale{}
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = faint, faint
	chart.Add(grid)
	return chart
}

func isLog(p panel) bool { return p.FieldConfig.Defaults.Custom.ScaleDistribution.Type == "log" }

// every returns a ticker of about n ticks at round values.
func every(n int) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		if high <= low {
			return []plot.Tick{{Value: low, Label: "."}}
		}
		size := math.Pow(10, math.Floor(math.Log10((high-low)/float64(n))))
		for _, factor := range []float64{1, 2, 5, 10} {
			if (high-low)/(size*factor) <= float64(n) {
				size *= factor
				break
			}
		}
		var ticks []plot.Tick
		for v := math.Ceil(low/size) * size; v <= high; v += size {
			ticks = append(ticks, plot.Tick{Value: v, Label: "."})
		}
		return ticks
	})
}

// add draws one line, in pieces where it has gaps.
func add(chart *plot.Plot, p panel, l line, paint color.RGBA) {
	for _, piece := range pieces(l.points) {
		var xys plotter.XYs
		for _, at := range piece {
			if value := at.value; !isLog(p) || value > 0 {
				xys = append(xys, plotter.XY{X: at.at, Y: value})
			}
		}
		if len(xys) == 0 {
			continue
		}
		if len(xys) == 1 {
			xys = append(xys, plotter.XY{X: xys[0].X + 1, Y: xys[0].Y})
		}
		drawn, err := plotter.NewLine(xys)
		if err != nil {
			continue // not a number: nothing to see
		}
		drawn.Color, drawn.Width = paint, 1.2
		if p.FieldConfig.Defaults.Custom.Stacking.Mode == "normal" {
			drawn.FillColor = color.NRGBA{R: paint.R / 2, G: paint.G / 2, B: paint.B / 2, A: 0xff}
		}
		chart.Add(drawn)
	}
}

// pieces cuts points where some are missing.
func pieces(points []point) (all [][]point) {
	step := math.Inf(1)
	for i := 1; i < len(points); i++ {
		step = min(step, points[i].at-points[i-1].at)
	}
	from := 0
	for i := 1; i <= len(points); i++ {
		if i == len(points) || points[i].at-points[i-1].at > 1.5*step {
			all = append(all, points[from:i])
			from = i
		}
	}
	return all
}

// stacked puts each line on the ones before it.
func stacked(lines []line) []line {
	sums := map[float64]float64{}
	var all []line
	for _, l := range lines {
		up := line{name: l.name}
		for _, p := range l.points {
			sums[p.at] += p.value
			up.points = append(up.points, point{p.at, sums[p.at]})
		}
		all = append(all, up)
	}
	return all
}

// paintNames writes the names of lines in rows at the bottom, and returns the height.
func paintNames(c draw.Canvas, lines []line) vg.Length {
	const size, rowHeight = 7, vg.Length(10)
	type place struct {
		x    vg.Length
		row  int
		name string
	}
	var places []place
	x, row := c.Min.X+8, 0
	measure := font.DefaultCache.Lookup(plot.DefaultFont, size)
	for _, l := range lines {
		need := measure.Width(l.name) + 18
		if x+need > c.Max.X && x > c.Min.X+8 {
			x, row = c.Min.X+8, row+1
		}
		places = append(places, place{x, row, l.name})
		x += need
	}
	const rows = 3
	shown := min(row, rows-1)
	for i, p := range places {
		if p.row > shown {
			break
		}
		y := c.Min.Y + 7 + vg.Length(shown-p.row)*rowHeight
		mark := draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{Min: vg.Point{X: p.x, Y: y - 1}, Max: vg.Point{X: p.x + 7, Y: y + 1}}}
		fill(mark, palette[i%len(palette)])
		write(c, p.name, p.x+10, y, size, ink)
	}
	return vg.Length(shown+1)*rowHeight + 4
}
