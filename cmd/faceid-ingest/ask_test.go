//go:build linux

package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a terminal, a person's number is asked for and not shown.
func TestFindOnTerminal(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	tty, typed, seen := terminal(t)
	const number = "000000190001010011"

	var stdout log
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"--config", s.config, "list", "--find", "id_card", "--json"}, tty, &stdout, tty)
	}()
	until(t, "it asks, and shows nothing", func() bool {
		mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO == 0 && strings.Contains(seen.String(), "id_card to look for (not shown): ")
	})
	if _, err := typed.WriteString(number + "\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != exitDone || strings.Count(stdout.String(), "\n") != 1 || !strings.Contains(stdout.String(), checks[0].Token) {
		t.Errorf("exit code %d\n%s", got, stdout.String())
	}
	if strings.Contains(seen.String(), number) {
		t.Errorf("the terminal shows the number: %q", seen.String())
	}
}
