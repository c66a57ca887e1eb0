// Gen writes the tables of metrics into the READMEs, between two comments.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
)

// The comments around a table.
const (
	begin = "<!-- metrics: made by go generate ./pipeline/telemetry -->\n"
	end   = "<!-- metrics: end -->\n"
)

func main() {
	for name, chinese := range map[string]bool{"README.md": false, "README.zh-CN.md": true} {
		if err := write(filepath.Join("..", "..", name), chinese); err != nil {
			fmt.Fprintln(os.Stderr, "gen:", err)
			os.Exit(1)
		}
	}
}

func write(file string, chinese bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var table bytes.Buffer
	if err := telemetry.WriteTable(&table, chinese); err != nil {
		return err
	}
	before, rest, found := bytes.Cut(text, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		return fmt.Errorf("%s: no place for the table of metrics", file)
	}
	text = bytes.Join([][]byte{before, []byte(begin), []byte("\n"), table.Bytes(), []byte("\n"), []byte(end), after}, nil)
	return os.WriteFile(file, text, 0o644) //nolint:gosec // sources are for everybody
}
