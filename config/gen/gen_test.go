package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// The example loads and shows the defaults.
func TestExample(t *testing.T) {
	c, err := config.Parse("example.yaml", config.Example(), func(name string) (string, bool) { return "value of " + name, true })
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Accounts = c.Accounts
	account := config.DefaultAccount()
	account.Name, account.SecretID, account.SecretKey = c.Accounts[0].Name, c.Accounts[0].SecretID, c.Accounts[0].SecretKey
	if !reflect.DeepEqual(c.Accounts[0], account) {
		t.Errorf("the account does not show the defaults:\n%+v", c.Accounts[0])
	}
	// Paths of sinks have no default without a file.
	if len(c.Sinks) != 2 || c.Sinks[0].Name != "media" || c.Sinks[1].Name != "records" {
		t.Errorf("sinks: %+v", c.Sinks)
	}
	want.Sinks = c.Sinks
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example does not show the defaults:\n%+v\n%+v", c, want)
	}
	// What stands there as a comment loads as well.
	if _, err := config.Parse("example.yaml", uncomment(config.Example()), func(name string) (string, bool) { return "value of " + name, true }); err != nil {
		t.Errorf("the examples of sinks: %v", err)
	}
}

// uncomment takes the comment signs off the examples of sinks.
func uncomment(text []byte) []byte {
	var out strings.Builder
	inExample := false
	for line := range strings.Lines(string(text)) {
		switch {
		case line == "  # Example.\n":
			inExample = true
		case !strings.HasPrefix(line, "  #"):
			inExample = false
		case inExample:
			line = "  " + strings.TrimPrefix(line, "  # ")
		}
		out.WriteString(line)
	}
	return []byte(out.String())
}

// The files are what the structs say now.
func TestGenerated(t *testing.T) {
	files, err := generate(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not what the structs say, run: go generate ./config (%v)", name, err)
		}
	}
	// Every key is explained, and every kind of sink is there.
	if n := strings.Count(string(files["schema.json"]), `"description": ""`); n > 0 {
		t.Errorf("%d keys have no comment", n)
	}
	for _, typ := range slices.Sorted(slices.Values(sinks.Types())) {
		if !strings.Contains(string(files["example.yaml"]), "type: "+typ) || !strings.Contains(string(files["schema.json"]), `"const": "`+typ+`"`) {
			t.Errorf("sink %s is missing", typ)
		}
	}
}

// An editor with the schema takes what the program takes, and not what it refuses.
func TestSchema(t *testing.T) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(text []byte) error {
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		plain, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		value, err = jsonschema.UnmarshalJSON(bytes.NewReader(plain))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(value)
	}
	for name, text := range map[string][]byte{"example": config.Example(), "example with all sinks": uncomment(config.Example())} {
		if err := check(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{
		"wroker: {}", "worker: {slots: many}", "worker: {ack_wait: 60}", "spool: {quota: 4G}", "accounts: [{rate_limit: x}]",
		"sinks: [{name: a, type: dir, bucket: b}]", "sinks: [{name: a, type: nothing}]", "sinks: [{type: dir, path: p}]",
	} {
		if check([]byte(text)) == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
	if err := check([]byte("worker: {slots: \"${SLOTS:32}\", ack_wait: \"${WAIT}\"}")); err != nil {
		t.Errorf("variables: %v", err)
	}
}
