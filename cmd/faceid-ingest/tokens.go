package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// tokenList is how a command is told which tokens to work on.
type tokenList struct {
	Tokens []string `arg:"" optional:"" name:"token" help:"BizTokens or EidTokens."`
	File   string   `short:"f" type:"path" predictor:"file" placeholder:"FILE" help:"Read tokens from a file, one per line, or - for standard input. A line of \"list --json\" will do."`
}

// namedToken is a token, and its product where the list says it.
type namedToken struct {
	Token   string         `json:"token"`
	Product result.Product `json:"product"`
}

// keys returns the keys that the token may have. product is what the command line
// says; it may be empty.
func (t namedToken) keys(product string) []sinks.Key {
	if product == "" && t.Product.Valid() {
		product = string(t.Product)
	}
	return keys(product, t.Token)
}

// read returns the tokens of the arguments and the file. There may be none.
func (l *tokenList) read(a *app) ([]namedToken, error) {
	var tokens []namedToken
	add := func(where string, line []byte) error {
		token := namedToken{Token: string(line)}
		if line[0] == '{' {
			token = namedToken{}
			if err := json.Unmarshal(line, &token); err != nil {
				return usagef("%s: is not a line of \"list --json\"", where)
			}
		}
		if err := event.CheckToken(token.Token); err != nil {
			return usagef("%s: %w", where, err)
		}

		tokens = append(tokens, token)
		return nil
	}

	for i, token := range l.Tokens {
		if token == "" {
			return nil, usagef("argument %d: token is missing", i+1)
		}
		if err := add(fmt.Sprintf("argument %d", i+1), []byte(token)); err != nil {
			return nil, err
		}
	}
	return tokens, l.eachInFile(a, add)
}

func (l *tokenList) eachInFile(a *app, do func(where string, line []byte) error) (err error) {
	switch l.File {
	case "":
		return nil
	case "-":
		return eachLine(a.stdin, "standard input", do)
	}

	file, err := os.Open(l.File)
	if err != nil {
		return usagef("read tokens: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()

	return eachLine(file, l.File, do)
}

// eachLine visits the lines of a list that are neither blank nor comments. The list is
// UTF-8, or UTF-16 with a byte order mark.
func eachLine(input io.Reader, name string, do func(where string, line []byte) error) error {
	scanner := bufio.NewScanner(transform.NewReader(input, unicode.BOMOverride(transform.Nop)))
	scanner.Buffer(make([]byte, 0, 4096), event.MaxBody)
	number := 0
	for scanner.Scan() {
		number++
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := do(fmt.Sprintf("%s:%d", name, number), []byte(line)); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, number+1, err)
	}
	return nil
}
