package main

import (
	"fmt"
	"image/color"
	"image/png"
	"io"
	"strconv"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// sheet is what is drawn on, in points from the top left corner.
type sheet struct {
	image  *vgimg.Canvas
	canvas draw.Canvas
	height float64
}

// box is a part of a sheet.
type box struct{ x, y, w, h float64 }

func (b box) shrink(left, top, right, bottom float64) box {
	return box{b.x + left, b.y + top, b.w - left - right, b.h - top - bottom}
}

// spot is a place on a sheet.
type spot struct{ x, y float64 }

func newSheet(width, height float64) *sheet {
	size := vgimg.UseWH(vg.Points(width), vg.Points(height))
	image := vgimg.NewWith(size, vgimg.UseDPI(vgimg.DefaultDPI), vgimg.UseBackgroundColor(background))
	return &sheet{image, draw.New(image), height}
}

func (s *sheet) writeTo(w io.Writer) error {
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(w, s.image.Image()); err != nil {
		return fmt.Errorf("write the picture: %w", err)
	}
	return nil
}

func (s *sheet) point(p spot) vg.Point {
	return vg.Point{X: vg.Points(p.x), Y: vg.Points(s.height - p.y)}
}

func (s *sheet) polygon(c color.Color, corners []spot) {
	points := make([]vg.Point, len(corners))
	for i, p := range corners {
		points[i] = s.point(p)
	}
	s.canvas.FillPolygon(c, points)
}

func (s *sheet) rect(c color.Color, b box) {
	s.polygon(c, []spot{{b.x, b.y}, {b.x + b.w, b.y}, {b.x + b.w, b.y + b.h}, {b.x, b.y + b.h}})
}

func (s *sheet) line(c color.Color, width float64, dashed bool, spots ...spot) {
	points := make([]vg.Point, len(spots))
	for i, p := range spots {
		points[i] = s.point(p)
	}
	style := draw.LineStyle{Color: c, Width: vg.Points(width)}
	if dashed {
		style.Dashes = []vg.Length{vg.Points(5), vg.Points(4)}
	}
	s.canvas.StrokeLines(style, points)
}

// arc strokes a part of a circle; angles in radians, from the right, counterclockwise.
func (s *sheet) arc(c color.Color, width float64, middle spot, radius, start, sweep float64) {
	s.canvas.SetColor(c)
	s.canvas.SetLineWidth(vg.Points(width))
	s.canvas.SetLineDash(nil, 0)
	var path vg.Path
	path.Arc(s.point(middle), vg.Points(radius), start, sweep)
	s.canvas.Stroke(path)
}

// style is how a text looks.
type style struct {
	color color.Color
	size  float64
	bold  bool
	align text.XAlignment
}

func (st style) font() text.Style {
	f := font.From(plot.DefaultFont, vg.Points(st.size))
	f.Variant = "Sans"
	if st.bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: st.color, Font: f, XAlign: st.align, YAlign: draw.YCenter, Handler: plot.DefaultTextHandler}
}

// width is the length of a text.
func (st style) width(t string) float64 { return st.font().Width(t).Points() }

// text writes; p is the middle of the text's height, and where it is aligned to.
func (s *sheet) text(st style, p spot, t string) { s.canvas.FillText(st.font(), s.point(p), t) }

// fit shortens a text to a length.
func (st style) fit(t string, length float64) string {
	if st.width(t) <= length {
		return t
	}
	runes := []rune(t)
	for len(runes) > 0 && st.width(string(runes)+"…") > length {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// The colors of a dark dashboard.
var (
	background = hex("#111217")
	surface    = hex("#181b1f")
	border     = hex("#2a2d33")
	grid       = hex("#26292e")
	strong     = hex("#d5d6e0")
	weak       = hex("#9a9ba8")
)

// named are Grafana's colors; palette is the order in which lines get them.
var (
	named = map[string]color.NRGBA{
		"green": hex("#73bf69"), "yellow": hex("#fade2a"), "orange": hex("#ff9830"), "red": hex("#f2495c"),
		"blue": hex("#5794f2"), "light-blue": hex("#8ab8ff"), "purple": hex("#b877d9"), "text": hex("#b4b6c2"), "transparent": {},
	}
	palette = []color.NRGBA{
		hex("#73bf69"), hex("#f2cc0c"), hex("#8ab8ff"), hex("#ff780a"), hex("#f2495c"), hex("#5794f2"), hex("#b877d9"),
		hex("#9c8bd6"), hex("#37872d"), hex("#fade2a"), hex("#447ebc"), hex("#c15c17"), hex("#e0b400"), hex("#0a9396"),
	}
)

// hex reads a constant color, #rrggbb.
func hex(t string) color.NRGBA {
	n, err := strconv.ParseUint(strings.TrimPrefix(t, "#"), 16, 32)
	if err != nil {
		panic(err)
	}
	return color.NRGBA{R: uint8(n >> 16), G: uint8(n >> 8), B: uint8(n), A: 255}
}

// colorOf is a color of a dashboard, of which load has seen that there is such a one.
func colorOf(name string) color.NRGBA { return named[name] }

// faded is a color of which only a part covers what is below it.
func faded(c color.NRGBA, part float64) color.NRGBA {
	c.A = uint8(float64(c.A) * part)
	return c
}
