package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads a file and checks it. The error joins one *Error per problem.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		return nil, &Error{File: path, Problem: fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		var wrapped *os.PathError
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, &Error{File: path, Problem: "cannot be read: " + err.Error()}
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads the content of a file; name is for errors. getenv looks up
// environment variables as os.LookupEnv does.
func Parse(name string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	if len(data) > maxFile {
		return nil, &Error{File: name, Problem: fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	d := &decoder{file: name, getenv: getenv, places: map[string]place{"": {1, 1}}}
	c := Default()
	if root := d.parse(data); root != nil {
		d.value(root, reflect.ValueOf(c).Elem(), "")
	}
	if len(d.problems) > 0 {
		return nil, join(d.problems)
	}
	c.check(func(path, format string, args ...any) { d.wrong(d.find(path), path, format, args...) })
	if len(d.problems) > 0 {
		return nil, join(d.problems)
	}
	return c, nil
}

// parse returns the tree of the file's one document, or nil if there is none.
func (d *decoder) parse(data []byte) (root ast.Node) {
	// The parser has no limit of its own, and has paniced on hostile input.
	defer func() {
		if recover() != nil {
			d.wrong(place{}, "", "is not valid YAML")
			root = nil
		}
	}()
	// Some editors put a mark there that says it is UTF-8.
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		at, problem := place{}, "is not valid YAML"
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				at = place{t.Position.Line, t.Position.Column}
			}
			at, problem = syntaxProblem(data, at, syntax.GetMessage())
		}
		d.wrong(at, "", "%s", problem)
		return nil
	}
	if len(file.Docs) > 1 {
		d.wrong(placeOf(file.Docs[1]), "", "must be one YAML document")
		return nil
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil
	}
	if _, empty := file.Docs[0].Body.(*ast.CommentGroupNode); empty {
		return nil
	}
	return file.Docs[0].Body
}

// quoted matches what a parser's message may repeat of the file.
var quoted = regexp.MustCompile("\"[^\"]*\"|'[^']*'|`[^`]*`")

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return quoted.ReplaceAllString(s, "…")
}

// variable matches "$${", which stands for "${", and "${NAME}" and
// "${NAME:default}".
var variable = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:[^}]*)?\}|\$\{`)

// expand puts environment variables into a value. problem says what is wrong.
func expand(text string, getenv func(string) (string, bool)) (expanded, problem string) {
	expanded = variable.ReplaceAllStringFunc(text, func(match string) string {
		parts := variable.FindStringSubmatch(match)
		switch match {
		case "$${":
			return "${"
		case "${":
			problem = "\"${\" must be followed by NAME} or NAME:default}; write $${ for the characters themselves"
			return ""
		}
		if value, ok := getenv(parts[1]); ok {
			return value
		}
		if parts[2] != "" {
			return parts[2][1:]
		}
		problem = fmt.Sprintf("the environment variable %s is not set, and there is no default (${%s:default})", parts[1], parts[1])
		return ""
	})
	return expanded, problem
}
