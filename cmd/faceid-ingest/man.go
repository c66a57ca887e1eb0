package main

import (
	_ "embed" // for the page
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kong"
)

type manCmd struct{}

//go:embed man.tmpl
var manText string

var manTemplate = template.Must(template.New("man").Funcs(template.FuncMap{"roff": roff}).Parse(manText))

// manPage is what the page is made of.
type manPage struct {
	// Date is that of the program in place of today's, so that a release can be built
	// again to the byte.
	Date, Version string
	Flags         []manFlag
	Commands      []manCommand
	Examples      []manExample
}

type manCommand struct {
	Usage, Help, Detail string
	Arguments           []manFlag
	Flags               []manFlag
}

// manFlag is a flag, or an argument. Value is empty where it takes none, Short where
// there is no short form.
type manFlag struct{ Short, Name, Value, Help string }

type manExample struct{ What, Line string }

// Run prints the manual page.
func (*manCmd) Run(a *app, parsed *kong.Context) error {
	build := thisBuild()
	date, _, _ := strings.Cut(build.Date, "T")
	page := manPage{Date: date, Version: build.Version, Flags: manFlags(parsed.Model.Flags)}
	page.add(parsed.Model.Node)
	return manTemplate.Execute(a.stdout, page)
}

// add puts a command and those below it onto the page.
func (p *manPage) add(node *kong.Node) {
	path := commandPath(node)
	if path != "" && len(node.Children) == 0 {
		command := manCommand{Usage: node.Summary(), Help: node.Help, Flags: manFlags(node.Flags)}
		// The examples have a section of their own.
		command.Detail, _, _ = strings.Cut(node.Detail, exampleLead)
		for _, arg := range node.Positional {
			command.Arguments = append(command.Arguments, manFlag{Name: arg.Summary(), Help: arg.Help})
		}
		p.Commands = append(p.Commands, command)
	}
	for _, one := range examples[path] {
		example := manExample{one.what, "faceid-ingest " + one.line}
		if !slices.Contains(p.Examples, example) {
			p.Examples = append(p.Examples, example)
		}
	}

	for _, child := range node.Children {
		if !child.Hidden {
			p.add(child)
		}
	}
}

func manFlags(flags []*kong.Flag) []manFlag {
	var list []manFlag
	for _, flag := range flags {
		if flag.Hidden {
			continue
		}
		one := manFlag{Name: flag.Name, Help: flag.Help}
		if flag.Short != 0 {
			one.Short = string(flag.Short)
		}
		if !flag.IsBool() {
			one.Value = flag.FormatPlaceHolder()
		}
		list = append(list, one)
	}
	return list
}

// roff returns text that a formatter of manual pages takes for nothing else.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, `"`, `\(dq`, "\n", " ").Replace(strings.TrimSpace(text))
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}
