package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestManualPage(t *testing.T) {
	t.Parallel()
	page, _ := command(t, exitDone, "", "man")
	for _, want := range []string{".TH FACEID-INGEST 1", "status", "schema", "config=FILE"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A shell asks what may follow.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{"faceid-ingest de": "dead demo", "faceid-ingest config s": "schema"} {
		cmd := exec.Command(binary)
		cmd.Env = append(os.Environ(), "COMP_LINE="+line)
		output, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(want) {
			if !bytes.Contains(output, []byte(word)) {
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
