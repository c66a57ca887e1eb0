package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestManualPage(t *testing.T) {
	date = "2026-11-29T16:30:00+08:00"
	t.Cleanup(func() { date = "" })
	page, _ := command(t, exitDone, "", "man")

	lint := exec.Command("mandoc", "-Tlint", "-Wwarning")
	lint.Stdin = strings.NewReader(page)
	if said, err := lint.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("mandoc: %v\n%s", err, said)
	}

	render := exec.Command("mandoc", "-Tutf8", "-Owidth=200")
	render.Stdin = strings.NewReader(page)
	output, err := render.Output()
	if err != nil {
		t.Fatal(err)
	}
	shown := overstrike.ReplaceAllString(string(output), "")
	for _, want := range []string{
		"FACEID-INGEST(1)", "2026-11-29", "such as 5% or 0.05", "-c, --config=FILE", "dead retry [<seq> ...] [flags]",
		"Tencent keeps the result of", "\nEXIT STATUS\n", "\nENVIRONMENT\n", "\nFILES\n", "\nEXAMPLES\n", "faceid-ingest codes -- -802",
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(shown, "MISSING") || strings.Contains(shown, "%!") {
		t.Error("a percent sign of a help text was taken for a verb")
	}
}

// overstrike is how a terminal without colours shows bold and underlined letters.
var overstrike = regexp.MustCompile(".\b")

// completion returns what the program tells a shell that asks how a line may go on.
func completion(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), "COMP_LINE="+line)
	output, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

// A shell asks what may follow.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{"faceid-ingest de": "dead demo", "faceid-ingest config s": "schema"} {
		output := completion(t, line)
		for _, word := range strings.Fields(want) {
			if !strings.Contains(output, word) {
				t.Errorf("%q is completed by %q", line, output)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, _ := command(t, exitDone, "", "completion", shell); !strings.Contains(code, "faceid-ingest") {
			t.Errorf("%s: %q", shell, code)
		}
	}
}
