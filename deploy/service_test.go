package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The script runs a command as the unit runs the daemon: the same binary, configuration,
// user, folder and secrets.
func TestCommandsAsService(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	seen := filepath.Join(folder, "seen")
	// It stands for systemd-run, which needs a systemd that runs.
	fake := "#!/bin/sh\nprintf '%s\\n' \"$@\" > " + seen + "\n"
	err := os.WriteFile(filepath.Join(folder, "systemd-run"), []byte(fake), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("faceid-ingest-as-service")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), script, "show", "a token", "--json")
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := strings.Split(strings.TrimSpace(read(t, seen)), "\n")

	unit := read(t, "faceid-ingest.service")
	end := slices.Index(args, "--")
	if end < 0 {
		t.Fatalf("%q", args)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(.*) run$`).FindStringSubmatch(unit)
	want := append(strings.Fields(start[1]), "show", "a token", "--json")
	if command := args[end+1:]; !slices.Equal(command, want) {
		t.Errorf("it runs %q, want %q", command, want)
	}

	var properties []string
	for _, arg := range args[:end] {
		if property, ok := strings.CutPrefix(arg, "--property="); ok {
			properties = append(properties, property)
			if !strings.Contains(unit, "\n"+property+"\n") {
				t.Errorf("the unit has no %s", property)
			}
		}
	}
	for _, needed := range regexp.MustCompile(`(?m)^(User|DynamicUser|StateDirectory|StateDirectoryMode|UMask|LoadCredential)=.*$`).FindAllString(unit, -1) {
		if !slices.Contains(properties, needed) {
			t.Errorf("the script has no %s", needed)
		}
	}

	// systemd knows all of them.
	text := "[Service]\nType=exec\nExecStart=/bin/true\n" + strings.Join(properties, "\n") + "\n"
	file := filepath.Join(folder, "command.service")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("command.service")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
