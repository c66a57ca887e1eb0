//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

// terminal returns a pseudo terminal, and what its user saw so far. What is written
// into typed, the user types.
func terminal(t *testing.T) (tty, typed *os.File, seen *log) {
	t.Helper()
	typed, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(typed.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(typed.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(typed.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	seen = &log{}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(seen, typed) }) // until the terminal is closed
	t.Cleanup(func() {
		_ = tty.Close()
		reading.Wait()
		_ = typed.Close()
	})
	return tty, typed, seen
}

// On a terminal, dropping asks, and retrying shows how far it is.
func TestDeadOnTerminal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	conn, err := (&app{configFile: s.config}).connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(conn) // all commands join this server
	if err := event.EnsureStreams(t.Context(), conn.JS, 1); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		letter := event.DeadLetter{Account: "main", Reason: event.Crashed, Subject: "faceid.completed.main.eid", StreamSequence: uint64(i), Body: []byte(`{"token":"T"}`)}
		if err := event.NewPublisher(conn.JS).Bury(t.Context(), letter); err != nil {
			t.Fatal(err)
		}
	}
	tty, typed, seen := terminal(t)
	on := func(want int, args ...string) {
		t.Helper()
		if code := run(t.Context(), append([]string{"--config", s.config, "dead"}, args...), tty, io.Discard, tty); code != want {
			t.Fatalf("%v: exit code %d\n%s", args, code, seen)
		}
	}
	answer := func(text string) {
		t.Helper()
		if _, err := typed.WriteString(text + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	answer("yes")
	on(exitFailed, "drop", "1")
	until(t, "the question is seen", func() bool {
		return strings.Contains(seen.String(), `This drops 1 dead letter for good. Type "drop" to go on: `) && strings.Contains(seen.String(), "nothing was dropped")
	})
	answer("drop")
	on(exitDone, "drop", "1")
	if n := len(s.letters()); n != 2 {
		t.Errorf("%d letters are left", n)
	}
	on(exitDone, "retry", "--all", "--rate", "1000")
	until(t, "the bar is seen", func() bool { return strings.Contains(seen.String(), "2/2  [=") })
}
