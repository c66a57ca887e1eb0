package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the demo says to try works, wherever its folder is.
func TestDemoCanBeLookedInto(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "the demo's folder")
	stdout, _ := command(t, exitDone, "", "demo", "--results", "2", "--dir", folder)
	tried := 0
	for line := range strings.Lines(stdout) {
		_, shown, ok := strings.Cut(line, "faceid-ingest -c ")
		if !ok {
			continue
		}
		file := "'" + strings.ReplaceAll(filepath.Join(folder, "config.yaml"), "'", `'\''`) + "'"
		rest, quoted := strings.CutPrefix(strings.TrimSpace(shown), file+" ")
		if !quoted {
			t.Fatalf("a shell would not find the file in %q", line)
		}
		tried++
		output, _ := command(t, exitDone, "", append([]string{"-c", filepath.Join(folder, "config.yaml")}, strings.Fields(rest)...)...)
		if !strings.Contains(output, "DEMO-") {
			t.Errorf("%s: %s", rest, output)
		}
	}
	if tried != 2 {
		t.Errorf("%d commands are shown:\n%s", tried, stdout)
	}
	if info, err := os.Stat(filepath.Join(folder, "config.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
