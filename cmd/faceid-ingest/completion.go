package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"
	"github.com/posener/complete"

	"github.com/faceid-ingest/faceid-ingest/config"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: ${enum}."`
}

// completions have the shell ask the program itself, see completeLine.
var completions = map[string]string{
	"bash": "complete -C faceid-ingest faceid-ingest\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -C faceid-ingest faceid-ingest\n",
	"fish": `function __complete_faceid_ingest
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct); and set COMP_LINE "$COMP_LINE "
    faceid-ingest
end
complete -f -c faceid-ingest -a "(__complete_faceid_ingest)"
`,
}

func (c *completionCmd) Run(a *app) error {
	_, err := fmt.Fprint(a.stdout, completions[c.Shell])
	return err
}

// completeLine answers a shell that asks how a command line may go on, if that is why
// the program was started; it then calls the parser's exit.
func completeLine(parser *kong.Kong) {
	kongcompletion.Register(parser,
		kongcompletion.WithPredictor("file", complete.PredictFiles("*")),
		kongcompletion.WithPredictor("folder", complete.PredictDirs("*")),
		kongcompletion.WithPredictor("command", complete.PredictFunc(func(complete.Args) []string {
			return commandWords(parser.Model.Node)
		})),
		kongcompletion.WithPredictor("account", complete.PredictFunc(func(complete.Args) []string {
			return accountNames(typedConfig())
		})),
		kongcompletion.WithPredictor("sink", complete.PredictFunc(func(complete.Args) []string {
			return sinkNames(typedConfig())
		})),
	)
}

// commandWords returns the words that begin a command.
func commandWords(node *kong.Node) []string {
	var words []string
	for _, child := range node.Children {
		if !child.Hidden {
			words = append(words, child.Name)
		}
	}
	return words
}

// typedConfig returns the configuration that the command line names which is being
// typed; the default if it cannot be read, for nobody could be told why.
func typedConfig() *config.Config {
	file := os.Getenv("FACEID_INGEST_CONFIG")
	words := strings.Fields(os.Getenv("COMP_LINE"))
	for i, word := range words {
		name, value, joined := strings.Cut(word, "=")
		switch {
		case name != "-c" && name != "--config":
		case joined:
			file = value
		case i+1 < len(words):
			file = words[i+1]
		}
	}

	data, err := os.ReadFile(file) //nolint:gosec // its user types the name
	if err != nil {
		return config.Default()
	}
	// Names are wanted, not secrets: variables that only the daemon has may stay away.
	getenv := func(name string) (string, bool) {
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		return "unknown", true
	}
	cfg, err := config.Parse(file, data, getenv)
	if err != nil {
		return config.Default()
	}
	return cfg
}

// sinkNames lists the sinks of cfg.
func sinkNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Sinks))
	for i, sink := range cfg.Sinks {
		names[i] = sink.Name
	}
	return names
}
