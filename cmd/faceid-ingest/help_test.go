package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// testParser returns the parser of the command line.
func testParser(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := newParser(&cli{}, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// eachCommand visits the program and every command that is shown.
func eachCommand(node *kong.Node, visit func(*kong.Node)) {
	visit(node)
	for _, child := range node.Children {
		if !child.Hidden {
			eachCommand(child, visit)
		}
	}
}

// words splits an example as a shell would, up to where another program begins.
func words(t *testing.T, line string) []string {
	t.Helper()
	var list []string
	for rest := strings.TrimSpace(line); rest != "" && !strings.ContainsAny(rest[:1], "|><"); {
		var word string
		if inner, quoted := strings.CutPrefix(rest, `"`); quoted {
			var closed bool
			if word, rest, closed = strings.Cut(inner, `"`); !closed {
				t.Fatalf("%s: a quote is not closed", line)
			}
		} else {
			word, rest, _ = strings.Cut(rest, " ")
		}
		list, rest = append(list, word), strings.TrimSpace(rest)
	}
	return list
}

// Every command has an example in its help, and every example can be typed.
func TestExamples(t *testing.T) {
	t.Parallel()
	model := testParser(t).Model
	known := map[string]bool{}
	eachCommand(model.Node, func(node *kong.Node) {
		path := commandPath(node)
		known[path] = true
		if len(examples[path]) == 0 {
			t.Errorf("%q has no example", path)
		}
		help, _ := command(t, exitDone, "", append(strings.Fields(path), "--help")...)
		again, _ := command(t, exitDone, "", append([]string{"help"}, strings.Fields(path)...)...)
		if help != again {
			t.Errorf("help %s is not what --help shows", path)
		}
		for _, one := range examples[path] {
			if !strings.Contains(help, "    faceid-ingest "+one.line+"\n") {
				t.Errorf("the help of %q lacks %q", path, one.line)
			}
			parsed, err := testParser(t).Parse(words(t, one.line))
			switch {
			case err != nil:
				t.Errorf("%q: %v", one.line, err)
			case path != "" && !strings.HasPrefix(commandPath(parsed.Selected())+" ", path+" "):
				t.Errorf("%q: its example %q is one of %q", path, one.line, commandPath(parsed.Selected()))
			}
		}
	})
	for path := range examples {
		if !known[path] {
			t.Errorf("examples of %q, which is no command", path)
		}
	}
}

// Flags that mean the same have one name and one form in every command, and a shell can
// complete what it can know.
func TestFlagsAreAlike(t *testing.T) {
	t.Parallel()
	eachCommand(testParser(t).Model.Node, func(node *kong.Node) {
		values := slices.Clone(node.Positional)
		for _, flag := range node.Flags {
			values = append(values, flag.Value)
			switch {
			case flag.Name == "limit" && flag.Short != 'n':
				t.Errorf("%s: --limit without -n", node.FullPath())
			case flag.Short == 'n' && flag.Name != "limit":
				t.Errorf("%s: -n is --%s", node.FullPath(), flag.Name)
			case (flag.Name == "from" || flag.Name == "to") && flag.Tag.Type != "path" && flag.Target.Type() != reflect.TypeFor[when]():
				t.Errorf("%s: --%s takes other times than elsewhere", node.FullPath(), flag.Name)
			}
			for _, old := range []string{"newer-than", "older-than", "since", "until"} {
				if flag.Name == old {
					t.Errorf("%s: --%s is --from or --to elsewhere", node.FullPath(), old)
				}
			}
		}
		for _, value := range values {
			if value.Target.Type() == reflect.TypeFor[time.Duration]() {
				t.Errorf("%s: %s knows no days", node.FullPath(), value.Summary())
			}
			predictor := value.Tag.Get("predictor")
			wanted := map[string]string{"account": "account", "sink": "sink"}[value.Name]
			if wanted != "" && predictor != wanted || value.Tag.Type == "path" && predictor != "file" && predictor != "folder" {
				t.Errorf("%s: %s is completed by %q", node.FullPath(), value.Summary(), predictor)
			}
		}
	})
}

// What cannot be carried out as it was typed has exit code 2, and says what to type.
func TestUsageErrors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	empty := s.path("empty")
	s.write("empty", "")
	two := strings.Replace(read(t, s.config), "accounts:\n", "accounts:\n  - {name: second, secret_id: a, secret_key: b}\n", 1)
	s.write("two.yaml", two)
	for _, test := range []struct{ args, want string }{
		{"publish", "nothing to publish: name tokens"},
		{"publish ''", "token 1: token is missing"},
		{"publish '   '", "token 1: token is missing"},
		{"publish good ''", "token 2: token is missing; nothing was published"},
		{"publish 'a b'", "without spaces"},
		{"publish {}", "token 1: token is missing"},
		{"publish --account mian T", `no account "mian"`},
		{"publish --product liveness T", "--product must be one of"},
		{"publish --file /nowhere/tokens", "/nowhere/tokens"},
		{"erase", "nothing to erase"},
		{"erase '' --yes", "token"},
		{"erase 'a b' --yes", "without spaces"},
		{"erase --yes --file /nowhere/tokens", "/nowhere/tokens"},
		{"erase --yes --file " + empty, "nothing to erase"},
		{"list --day x", "--day: must be a day"},
		{"list --from soon", "--from: must be a day"},
		{"list --to 2026-13-01", "--to: must be a day"},
		{"list --day 2026-01-01 --from 2026-01-01", "--day does not go with"},
		{"list --from 2026-02-01 --to 2026-01-01", "--from must be before --to"},
		{"list --limit=-1", "--limit must be"},
		{"list --find nose", `no field "nose"`},
		{"list --find location", "has no blind index"},
		{"list --sink media", "no configured sink keeps records"},
		{"list --sink nothing", "no configured sink keeps records"},
		{"verify --sample 0", "--sample must be above 0%"},
		{"verify --sample many", "--sample must be above 0%"},
		{"verify --sink nothing", `"nothing" is not the name of a sink`},
		{"verify --resume", "leave --resume out"},
		{"keys reseal --sink nothing", `"nothing" is not the name of a sink`},
		{"dead list --from 1y", "--from: must be a day"},
		{"dead list --limit=-1", "--limit must be"},
		{"dead retry", "which letters?"},
		{"dead retry 1 --all", "not both"},
		{"dead retry --all --rate 0", "--rate must be more than 0"},
		{"dead drop --all --from 2026-02-01 --to 2026-01-01", "--from must be before --to"},
		{"dead show one", "<seq>"},
		{"status --every 1ms", "--every must be 100ms or more"},
		{"status --every soon", "--every: must be a time span"},
		{"demo --results 0", "--results must be 1 or more"},
		{"demo --dir " + s.folder, "is not empty"},
		{"codes 99999999999999999999", "too large"},
		{"config check --token T", "--token is for --online"},
		{"config check --static --online", "can't be used together"},
		{"codes -802", "A number below zero goes behind two dashes"},
		{"help nosuch", `no command "nosuch"`},
		{"rnu", `did you mean "run"?`},
		{"--config " + s.path("two.yaml") + " publish T", "name one with --account: second, main"},
		{"--config /nowhere/config.yaml list", "/nowhere/config.yaml"},
	} {
		args := []string{"--config", s.config}
		args = append(args, words(t, strings.ReplaceAll(test.args, "'", `"`))...)
		if stdout, stderr := command(t, exitUsage, "value", args...); !strings.Contains(stderr, test.want) || stdout != "" {
			t.Errorf("%s: no %q in\n%s%s", test.args, test.want, stdout, stderr)
		}
	}
}

// A command that only lacks what it shall do shows its help, on standard error.
func TestBareCommand(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{"": "Run the daemon", "dead": "dead retry", "keys": "keys rotate", "config": "config check"} {
		stdout, stderr := command(t, exitUsage, "", strings.Fields(line)...)
		if stdout != "" || !strings.Contains(stderr, want) || !strings.Contains(stderr, "For example: ") {
			t.Errorf("%q: %s%s", line, stdout, stderr)
		}
	}
	for _, line := range []string{"--version", "version"} {
		if stdout, _ := command(t, exitDone, "", line); !strings.HasPrefix(stdout, "faceid-ingest ") {
			t.Errorf("%s: %s", line, stdout)
		}
	}
}

// A command that was told to stop has exit code 130 and says so in plain words, whatever
// the call it was in makes of that.
func TestInterruption(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt signal received"))
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{context.Canceled, "faceid-ingest: interrupted\n"},
		{context.Cause(ctx), "faceid-ingest: interrupted\n"},
		{errors.Join(errPartial, context.Canceled), "faceid-ingest: interrupted\n"},
		{errors.New("disk is full"), "faceid-ingest: interrupted; and disk is full\n"},
	} {
		var said bytes.Buffer
		want := exitInterrupted
		if test.err == nil {
			want = exitDone
		}
		if code := exitCode(ctx, test.err, &said); code != want || said.String() != test.want {
			t.Errorf("%v: exit code %d, %q", test.err, code, said.String())
		}
	}
}

// Completion knows files, and the accounts and sinks of the configuration that is named.
func TestCompletesNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for line, want := range map[string]string{
		"faceid-ingest -c " + s.folder + "/conf":                 filepath.Join(s.folder, "config.yaml"),
		"faceid-ingest -c " + s.config + " list --account ":      "main",
		"faceid-ingest -c " + s.config + " verify --sink ":       "records",
		"faceid-ingest --config=" + s.config + " verify --sink ": "media",
		"faceid-ingest help dea":                                 "dead",
		"faceid-ingest list --verdict ":                          "failed",
		"faceid-ingest publish -f " + s.folder + "/conf":         filepath.Join(s.folder, "config.yaml"),
	} {
		if got := strings.Fields(completion(t, line)); !slices.Contains(got, want) {
			t.Errorf("%q is completed by %q", line, got)
		}
	}
}

// The first Ctrl-C ends a command that waits for an answer, and nothing is done.
func TestInterruptedWhileAsking(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	cmd := exec.Command(binary, "--config", s.config, "erase", "TOKEN")
	said := &log{}
	cmd.Stderr = said
	answer, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Close() }() // nobody answers
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	until(t, "it asks", func() bool {
		return len(ended) > 0 || strings.Contains(said.String(), `Type "erase" to go on`)
	})
	_ = cmd.Process.Signal(os.Interrupt) // one that has ended has said why
	<-ended
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(said.String(), "faceid-ingest: interrupted\n") {
		t.Errorf("exit code %d\n%s", code, said)
	}
}
