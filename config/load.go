package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads a file and checks it. The error joins one *Error per problem.
func Load(path string) (*Config, error) {
	c, err := LoadParts(path)
	if err != nil {
		return nil, err
	}
	return whole(c)
}

// LoadParts is Load for whoever uses some parts of a file only: values that need an
// environment variable which is not set are left to Config.Need.
func LoadParts(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		return nil, &Error{File: path, Problem: fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	data, err := setting.ReadFile(path)
	if err != nil {
		var wrapped *os.PathError
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		problem := "cannot be read: " + err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			problem += ": give another path, or begin one with \"faceid-ingest config example\""
		}
		return nil, &Error{File: path, Problem: problem}
	}
	return parse(path, data, os.LookupEnv)
}

// whole returns c if nothing of it is missing.
func whole(c *Config) (*Config, error) {
	if err := c.Need(); err != nil {
		return nil, err
	}
	return c, nil
}

// Parse reads the content of a file; name is for errors. getenv looks up
// environment variables as os.LookupEnv does.
func Parse(name string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	c, err := parse(name, data, getenv)
	if err != nil {
		return nil, err
	}
	return whole(c)
}

// parse leaves what variables would give that are not set to Config.Need.
func parse(name string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	if len(data) > maxFile {
		return nil, &Error{File: name, Problem: fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	d := &decoder{file: name, getenv: getenv, places: map[string]place{"": {1, 1}}}
	c := defaults()
	if root := d.parse(data); root != nil {
		d.value(root, reflect.ValueOf(c).Elem(), "")
	}
	if len(d.problems) > 0 {
		return nil, join(append(d.problems, d.unset...))
	}
	c.resolve()
	c.unset = d.unset
	c.check(func(path, format string, args ...any) {
		// What is wrong with a part may come of what is missing in it.
		if c.Need(partOf(path)) == nil {
			d.wrong(d.find(path), path, format, args...)
		}
	})
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

// optional are the parts of a file that not every command uses, each of the elements of
// a list by itself.
var optional = regexp.MustCompile(`^(nats|privacy\.kms|tracing|http|accounts\[\d+\]|sinks\[\d+\])($|[.[])`)

// partOf returns the part that a path is in; the path itself if it is in none.
func partOf(path string) string {
	if found := optional.FindStringSubmatch(path); found != nil {
		return found[1]
	}
	return path
}

// within reports whether a path is of a part.
func within(path, part string) bool {
	return path == part || strings.HasPrefix(path, part+".") || strings.HasPrefix(path, part+"[")
}

// deferred reports whether a value may be missing until its part is used. What others
// look at, too, may not: the names of accounts and sinks, rules, and whether the keyring
// is wrapped.
func deferred(path string) bool {
	key := path[strings.LastIndexAny(path, ".]")+1:]
	return partOf(path) != path && !contains([]string{"name", "type", "rule_id", "key_id"}, key)
}

// variable matches "$${", which stands for "${", and "${NAME}" and
// "${NAME:default}".
var variable = regexp.MustCompile(`\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:[^}]*)?\}|\$\{`)

// expand puts environment variables into a value. problem says what is wrong, and unset
// whether it is only that a variable is not set.
func expand(text string, getenv func(string) (string, bool)) (expanded, problem string, unset bool) {
	expanded = variable.ReplaceAllStringFunc(text, func(match string) string {
		parts := variable.FindStringSubmatch(match)
		switch match {
		case "$${":
			return "${"
		case "${":
			unset, problem = false, "\"${\" must be followed by NAME} or NAME:default}; write $${ for the characters themselves"
			return ""
		}
		if value, ok := getenv(parts[1]); ok {
			return value
		}
		if parts[2] != "" {
			return parts[2][1:]
		}
		if problem == "" {
			unset = true
		}
		problem = fmt.Sprintf("the environment variable %s is not set, and there is no default (${%s:default})", parts[1], parts[1])
		return ""
	})
	return expanded, problem, unset
}
