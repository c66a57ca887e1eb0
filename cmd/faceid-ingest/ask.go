package main

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/term"
)

// readValue reads a value that nobody shall see: on a terminal it asks for a line of it,
// without echo; else it reads standard input to its end. It is bounded by maxValue.
func (a *app) readValue(ctx context.Context, prompt string) (string, error) {
	tty, ok := a.stdin.(interface{ Fd() uintptr })
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		text, err := io.ReadAll(io.LimitReader(a.stdin, maxValue))
		return string(text), err
	}

	before, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return "", err
	}
	_, _ = fmt.Fprint(a.stderr, prompt)
	defer func() { _, _ = fmt.Fprintln(a.stderr) }()

	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	// After an interruption it waits for its line until the process ends: a read from a
	// terminal cannot be called off.
	go func() {
		text, err := term.ReadPassword(int(tty.Fd()))
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return string(l.text), l.err
	case <-ctx.Done():
		_ = term.Restore(int(tty.Fd()), before) // the shell shows again what is typed
		return "", ctx.Err()
	}
}
