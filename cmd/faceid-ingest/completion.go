package main

import "fmt"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: ${enum}."`
}

// Help is shown below the usage.
func (*completionCmd) Help() string {
	return "Prints what the shell has to run to complete commands and flags, for its start-up file:\n\n" +
		"  faceid-ingest completion bash >>~/.bashrc"
}

// completions have the shell ask the program itself, see kongcompletion.Register.
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
