// Command gen writes what is made from the configuration's structs: example.yaml,
// which "config example" prints, and schema.json, which "config schema" prints. Both
// take their words from the comments of the structs' fields. Run it by "go generate
// ./config" after a change of them; a test tells if that was forgotten.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	// The kinds of sink there are.
	_ "github.com/faceid-ingest/faceid-ingest/sinks/cos"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/dir"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// write writes the files into the folder of package config.
func write(folder string) error {
	files, err := generate(filepath.Join(folder, ".."))
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil { //nolint:gosec // sources are for everybody
			return err
		}
	}
	return nil
}

// generate returns the files' names and texts; root is the module's folder.
func generate(root string) (map[string][]byte, error) {
	d := &docs{root: root, known: map[string]map[string]string{}}
	schema, err := d.schema()
	if err != nil {
		return nil, err
	}
	example, err := d.example()
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"schema.json": schema, "example.yaml": example}, nil
}
