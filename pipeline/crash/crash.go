// Package crash says where a panic came from, and nothing of what it says: the value of
// one may quote a result, and Go's own traces have arguments and registers.
package crash

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
)

// Panic is an error in place of a panic.
type Panic struct {
	// Stack are the functions that were called, one a line, the innermost first.
	Stack string
}

// Error says where it was.
func (p *Panic) Error() string {
	place, _, _ := strings.Cut(p.Stack, "\n")
	return "panicked at " + place
}

// Guard calls do and returns its error, or a *Panic if it panics.
func Guard(do func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = &Panic{Stack: stack()}
		}
	}()
	return do()
}

// Of returns the panic in err, if there is one.
func Of(err error) (*Panic, bool) {
	var p *Panic
	return p, errors.As(err, &p)
}

// deepest bounds the functions of a stack.
const deepest = 64

// stack is called while a panic is recovered. What comes before it on the stack, the
// recovery and the runtime's own functions, is left out.
func stack() string {
	counters := make([]uintptr, deepest)
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters)])
	var lines []string
	for {
		frame, more := frames.Next()
		if len(lines) > 0 || !strings.HasPrefix(frame.Function, "runtime.") {
			lines = append(lines, fmt.Sprintf("%s (%s:%d)", frame.Function, frame.File, frame.Line))
		}
		if !more {
			return strings.Join(lines, "\n")
		}
	}
}

// Goroutines returns where all goroutines are: one text for those that are at the same
// place, without arguments.
func Goroutines() []string {
	var text bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(text.String()), "\n\n")
}
