package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/faceid-ingest/faceid-ingest/pipeline/crash"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// processLog is the logger of what concerns the whole process.
var processLog atomic.Pointer[slog.Logger]

// speakBy has l tell of what libraries print and of signals that end the process.
func speakBy(l *slog.Logger) {
	processLog.Store(l)
	telemetry.TakeOver(l)
}

// keepQuiet keeps what is in memory there, before anything else is done: no library
// prints it, and neither the kernel nor Go's runtime dumps it.
func keepQuiet(stderr io.Writer) {
	speakBy(slog.New(slog.NewTextHandler(stderr, nil)))
	if err := forbidDumps(); err != nil {
		processLog.Load().Warn("the kernel may write this process's memory to a core dump", "error", err)
	}
	dumping := make(chan os.Signal, 1)
	signal.Notify(dumping, dumpingSignals...)
	go func() {
		number := <-dumping
		tellGoroutines(number)
		os.Exit(exitFailed)
	}()
}

// dumpingSignals are those for which Go's runtime prints registers and arguments.
// What the program itself does wrong is a panic for all that.
var dumpingSignals = []os.Signal{
	syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGILL, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS,
}

// tellGoroutines says where the process was when a signal ended it.
func tellGoroutines(number os.Signal) {
	log := processLog.Load()
	log.Error("ended by a signal; these are the places where it was", "signal", number.String())
	for _, stack := range crash.Goroutines() {
		log.Error("goroutines", "stack", stack)
	}
}

// guarded runs a command, whose panic tells its place only.
func guarded(stderr io.Writer, do func() error) error {
	err := crash.Guard(do)
	if p, panicked := crash.Of(err); panicked {
		_, _ = fmt.Fprintf(stderr, "faceid-ingest: this is a fault of the program; please report these places:\n%s\n", p.Stack)
		return &saidError{err}
	}
	return err
}
