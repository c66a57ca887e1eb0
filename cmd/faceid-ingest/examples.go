package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// example is one command line, as its user would type it.
type example struct {
	// what it does, without a full stop.
	what string
	// line is what follows the program's name.
	line string
}

// examples are shown in the help of every command, by the words that name it; those
// of the program itself by "".
var examples = map[string][]example{
	"": {
		{"See it work on this machine, with nothing configured", "demo"},
		{"Begin a configuration, and look at what is wrong with it", "config example >config.yaml"},
		{"Run the daemon", "-c config.yaml run"},
	},
	"run":     {{"Run the daemon with a configuration", "-c /etc/faceid-ingest/config.yaml run"}},
	"demo":    {{"Ingest 200 results and keep what comes of them in a folder", "demo --results 200 --dir ./demo"}},
	"publish": {{"Publish one token of a rule", "publish --rule-id 1 TOKEN"}, {"Publish those of a file, behind those that finish now", "publish --account main --lane backfill -f tokens.txt"}},
	"status":  {{"Look again every 5 seconds", "status --watch --every 5s"}},

	"where": {{"Say where a token is, and why it is not stored yet", "where TOKEN"}},

	"dead":       {{"List what was given up since yesterday", "dead list --from 1d"}},
	"dead list":  {{"List what the API refused since yesterday", "dead list --reason rejected --from 1d"}},
	"dead show":  {{"Show letter 17 with its event", "dead show 17"}},
	"dead retry": {{"Look which letters would be retried, then retry them", "dead retry --account main --reason refused --dry-run"}, {"Retry two letters", "dead retry 17 18"}},
	"dead drop":  {{"Drop what is older than 90 days", "dead drop --to 90d"}},

	"list":   {{"The latest 20 failed checks since a time", `list --verdict failed --from "2026-11-29 08:30" -n 20`}, {"All results of a person, whose number is asked for", "list --find id_card"}},
	"show":   {{"Show a result as it is stored", "show TOKEN"}, {"Open what is sealed, which the audit log will say", `show TOKEN --reveal --reason "ticket 4711"`}},
	"export": {{"Export two results, opened, for who asked for them", `export TOKEN TOKEN --reason "ticket 4711" --to ./export`}, {"All of a person, encrypted for their recipient", `export --find id_card --reason "ticket 4711" --recipients-file recipients.txt`}},
	"verify": {{"Read every twentieth token of all sinks again", "verify --sample 5%"}, {"Go on where a run was stopped", "verify --resume"}},
	"erase":  {{"Look what would be erased", "erase TOKEN --dry-run"}, {"Erase it", `erase TOKEN --reason "request of 2026-11-29"`}},

	"keys":        {{"See which keys there are", "keys list"}},
	"keys new":    {{"Make a keyring before the first start", "-c config.yaml keys new"}},
	"keys list":   {{"See which keys there are", "keys list"}},
	"keys status": {{"See what each key seals, and where the keyring is noted", "keys status"}},
	"keys adopt":  {{"Go on with this keyring although another one is noted and lost", "keys adopt --yes"}},
	"keys rotate": {{"Seal new values under a new key", "keys rotate"}},
	"keys reseal": {{"Count what would be resealed", "keys reseal --dry-run"}, {"Seal what one sink holds under the active key", "keys reseal --sink records"}},
	"keys remove": {{"Remove a key under which nothing is sealed any more", "keys remove 1f2e3d4c"}},

	"config":         {{"Check the file, and open what it names as the daemon would", "-c config.yaml config check"}},
	"config check":   {{"Try the accounts' credentials as well", "-c config.yaml config check --online"}},
	"config example": {{"Begin a configuration", "config example >config.yaml"}},
	"config schema":  {{"Have editors check config.yaml, which names the schema in its head", "config schema >schema.json"}},

	"codes":      {{"Explain a result code", "codes 2016"}, {"Explain a negative one", "codes -- -802"}, {"Explain an error of the API", "codes AuthFailure.SignatureExpire"}},
	"man":        {{"Read the manual page", "man | man -l -"}},
	"version":    {{"Print what this binary was built from", "version --json"}},
	"help":       {{"Show the help of a command", "help dead retry"}},
	"completion": {{"Complete commands in every new shell", "completion bash >>~/.bashrc"}},
}

// exampleLead begins the paragraph of an example in a command's help.
const exampleLead = "For example: "

// addExamples puts the examples into the help of a command and of those below it.
func addExamples(node *kong.Node) {
	shown := examples[commandPath(node)]
	parts := make([]string, 0, 1+len(shown))
	parts = append(parts, node.Detail)
	for _, one := range shown {
		parts = append(parts, fmt.Sprintf(exampleLead+"%s.\n\n    faceid-ingest %s", lowerFirst(one.what), one.line))
	}
	node.Detail = strings.TrimSpace(strings.Join(parts, "\n\n"))

	for _, child := range node.Children {
		addExamples(child)
	}
}

// lowerFirst returns a sentence as it goes on after a colon.
func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
