package main

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// newBar shows on a terminal how far a command is: add counts towards total, and name
// stands before the bar. Elsewhere, or if it shall be quiet, nothing is shown.
func newBar(w io.Writer, quiet bool, total int64, name string) (add func(n int64), done func()) {
	if _, isFile := w.(*os.File); quiet || !isFile || !isTerminal(w) {
		return func(int64) {}, func() {}
	}

	progress := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	bar := progress.AddBar(total,
		mpb.PrependDecorators(decor.Name(name+" ")),
		mpb.AppendDecorators(decor.Percentage(), decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 8})))
	return bar.IncrInt64, func() { bar.Abort(false); progress.Wait() }
}
