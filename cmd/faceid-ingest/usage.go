package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// Exit codes, the same for every command.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitPartial     = 3
	exitInterrupted = 130
)

// errPartial says that a command did some of its work; it has already said what
// is missing.
var errPartial = errors.New("partly done")

// errInterrupted says that a command was told to stop before it was done. Commands
// wrap it with what to do next.
var errInterrupted = errors.New("interrupted")

// usageError says that a command line cannot be carried out as it stands. Nothing
// has been done.
type usageError struct{ problem error }

func (e *usageError) Error() string { return e.problem.Error() }

func (e *usageError) Unwrap() error { return e.problem }

// usagef returns a usageError that says what is wrong and what to give instead.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// saidError is an error that was told already, of which only the exit code is left.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

// noSink says that no sink can do what is wanted, or not the one that --sink names, and
// which there are.
func noSink[S interface{ Name() string }](name, what string, all []S) error {
	names := make([]string, len(all))
	for i, sink := range all {
		names[i] = sink.Name()
	}
	there := strings.Join(names, ", ")
	if name == "" {
		return usagef("the configuration has no sink %s, only %s", what, there)
	}
	return usagef("--sink: %q is not the name of a sink %s; there are %s", name, what, there)
}

// belowZero matches what a number below zero is taken for.
var belowZero = regexp.MustCompile(`unknown flag -[0-9]`)

// exitCode prints err, unless it has been told already, and returns its code.
func exitCode(ctx context.Context, err error, stderr io.Writer) int {
	var said *saidError
	if errors.As(err, &said) {
		stderr = io.Discard
	}

	var (
		invalid *config.Error
		usage   *usageError
		foreign *ownerError
		keyring *keyringError
		lasting *unusableError
	)
	switch {
	case err == nil:
		return exitDone
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(stderr, "faceid-ingest:", interruption(ctx, err))
		return exitInterrupted
	case errors.Is(err, errPartial):
		return exitPartial
	case errors.As(err, &invalid):
		_, _ = fmt.Fprintln(stderr, err)
		return exitUsage
	case errors.As(err, &usage), errors.As(err, &foreign), errors.As(err, &keyring):
		_, _ = fmt.Fprintln(stderr, "faceid-ingest:", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintln(stderr, "faceid-ingest:", err)
		if hint := foreignHint(err); hint != "" {
			_, _ = fmt.Fprintln(stderr, "faceid-ingest:", hint)
		}
		if errors.As(err, &lasting) {
			return exitUsage
		}
		return exitFailed
	}
}

// interruption returns what a command says that was told to stop and ended with err:
// what a canceled context makes of each call on the way is of no use to anybody.
func interruption(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errInterrupted):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.Cause(ctx)), errors.Is(err, errPartial):
		return errInterrupted
	default:
		return fmt.Errorf("%w; and %w", errInterrupted, err)
	}
}

// usageCode says what is wrong with a command line that cannot be read, and where its
// help is. A command that only lacks the name of what it shall do is answered with its
// help.
func usageCode(parser *kong.Kong, err error, stderr io.Writer) int {
	var wrong *kong.ParseError
	if !errors.As(err, &wrong) || wrong.Context == nil {
		_, _ = fmt.Fprintln(stderr, "faceid-ingest:", err)
		return exitUsage
	}

	node := wrong.Context.Selected()
	if node == nil {
		node = parser.Model.Node
	}
	if wrong.Context.Error == nil && len(node.Children) > 0 {
		parser.Stdout = stderr
		if wrong.Context.PrintUsage(false) == nil {
			return exitUsage
		}
	}

	_, _ = fmt.Fprintln(stderr, "faceid-ingest:", err)
	if belowZero.MatchString(err.Error()) {
		_, _ = fmt.Fprintln(stderr, "A number below zero goes behind two dashes, such as \"faceid-ingest codes -- -802\".")
	}
	_, _ = fmt.Fprintf(stderr, "Run \"%s --help\" for its flags and an example.\n", strings.TrimSpace("faceid-ingest "+commandPath(node)))
	return exitUsage
}

// commandPath returns the words that name a command, such as "dead list", without
// those of the program; empty for the program itself.
func commandPath(node *kong.Node) string {
	var words []string
	for ; node != nil && node.Parent != nil; node = node.Parent {
		words = append([]string{node.Name}, words...)
	}
	return strings.Join(words, " ")
}

// helpCmd shows what "COMMAND --help" shows.
type helpCmd struct {
	Command []string `arg:"" optional:"" name:"command" predictor:"command" help:"The command, such as dead list; left out, all commands are listed."`
}

func (c *helpCmd) Run(parsed *kong.Context) error {
	_, err := parsed.Parse(append(c.Command, "--help"))
	var wrong *kong.ParseError
	// Only the words before --help can be wrong: after help is shown, that of a
	// command lacks its arguments.
	if errors.As(err, &wrong) && wrong.Context != nil && wrong.Context.Error != nil {
		return usagef("there is no command %q: \"faceid-ingest help\" lists all", strings.Join(c.Command, " "))
	}
	return nil
}
