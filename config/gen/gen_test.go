package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
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

// compile returns what checks a file by the schema.
func compile(t *testing.T) func(text []byte) error {
	t.Helper()
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
	return func(text []byte) error {
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
}

// An editor with the schema takes what the program takes, and not what it refuses.
func TestSchema(t *testing.T) {
	check := compile(t)
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

// Every enumerated and bounded setting is taken and refused alike by the schema and the
// program: at its bounds, beyond them, and for every value there is.
func TestLimits(t *testing.T) {
	schema := compile(t)
	const head = "accounts: [{name: main, secret_id: a, secret_key: b, %s}]\n"
	media, db := "{name: media, type: cos, bucket: media-1250000000, region: ap-guangzhou, secret_id: a, secret_key: b, seal: false, ", "{name: records, type: postgres, url: 'postgres://u@127.0.0.1/d', "
	sink := func(text string) string { return "sinks: [" + text + "]" }
	account := func(text string) string { return fmt.Sprintf(head, text) }
	for _, test := range []struct {
		setting      func(value string) string
		takes, wrong []string
	}{
		{func(v string) string { return "worker: {slots: " + v + "}" }, []string{"1", "4096"}, []string{"0", "4097", "-1", "many", "1.5"}},
		{func(v string) string { return "worker: {ack_wait: " + v + "}" }, []string{"1s", "1000ms", "2d", "1m30s", "1d12h"}, []string{"999ms", "0s", "5", "-5s", "1w"}},
		{func(v string) string { return "worker: {max_response: " + v + "}" }, []string{"1MiB", "1024KiB", "2MB", "1048576B"}, []string{"1MB", "1023KiB", "1048575B", "1", "-1MiB"}},
		{func(v string) string { return "worker: {shutdown_grace: " + v + "}" }, []string{"0s", "1d"}, []string{"-1s"}},
		{func(v string) string { return "spool: {quota: " + v + "}" }, []string{"1B", "4TiB"}, []string{"0B", "0MiB", "4G"}},
		{func(v string) string { return "parking: {quota: " + v + "}" }, []string{"1B"}, []string{"0B"}},
		{func(v string) string { return "nats: {url: 'nats://a', replicas: " + v + "}" }, []string{"1", "5"}, []string{"0", "6"}},
		{func(v string) string { return "tracing: {sample: " + v + "}" }, []string{"0", "1", "0.5"}, []string{"-0.1", "1.1"}},
		{func(v string) string { return "log: {level: " + v + "}" }, []string{"debug", "info", "warn", "error", "\"${LEVEL:info}\""}, []string{"loud", "true", "INFO", "\"\""}},
		{func(v string) string { return "log: {format: " + v + "}" }, []string{"auto", "json", "text"}, []string{"xml"}},
		{func(v string) string { return "privacy: {cipher: " + v + "}" }, []string{"AES-256-GCM", "SM4-GCM"}, []string{"AES-128-GCM", "true"}},
		{func(v string) string { return "privacy: {fields: {name: " + v + "}}" }, []string{"plain", "mask", "hash", "seal", "drop", "seal+hash", "hash+seal", "mask+hash"}, []string{"hide", "seal+drop"}},
		{func(v string) string { return "privacy: {fields: {" + v + ": seal}}" }, []string{"name", "id_card"}, []string{"nose"}},
		{func(v string) string { return account("rate_limit: " + v) }, []string{"1", "10000"}, []string{"0", "10001"}},
		{func(v string) string { return account("request: {best_frames: " + v + "}") }, []string{"0", "10"}, []string{"-1", "11"}},
		{func(v string) string { return account("encryption: {mode: none, algorithm: " + v + "}") }, []string{"AES-256-CBC", "SM4-GCM"}, []string{"true", "AES", "SM4-CBC"}},
		{func(v string) string { return account("encryption: {public_key_file: k, mode: " + v + "}") }, []string{"fields", "body"}, []string{"all"}},
		{func(v string) string { return account("encryption: {data_key_life: " + v + "}") }, []string{"0s", "24h", "1d", "86400s", "23h59m"}, []string{"25h", "2d", "86401s", "1441m", "-1s"}},
		{func(v string) string { return sink(media + "mode: " + v + "}") }, []string{"copy", "reference", "pull"}, []string{"move", "\"\""}},
		{func(v string) string { return sink(media + "credentials: " + v + "}") }, []string{"static", "sts", "\"\""}, []string{"role"}},
		{func(v string) string { return sink(media + "storage_class: " + v + "}") }, []string{"STANDARD", "DEEP_ARCHIVE", "\"\""}, []string{"GLACIER"}},
		{func(v string) string { return sink(media + "sse: " + v + "}") }, []string{"none", "cos", "kms"}, []string{"aes"}},
		{func(v string) string { return sink(media + "retention: {mode: compliance, days: " + v + "}}") }, []string{"1", "36500"}, []string{"-1", "36501"}},
		{func(v string) string { return sink(media + "retention: {days: 1, mode: " + v + "}}") }, []string{"compliance"}, []string{"governance"}},
		{func(v string) string { return sink(media + "single_put_limit: " + v + "}") }, []string{"0B", "5GiB", "5120MiB"}, []string{"6GiB", "5121MiB", "5368709121B"}},
		{func(v string) string { return sink(media + "part_size: " + v + "}") }, []string{"1MiB", "5GiB"}, []string{"1023KiB", "6GiB", "1TiB"}},
		{func(v string) string { return sink(media + "part_workers: " + v + "}") }, []string{"1", "64"}, []string{"0", "65"}},
		{func(v string) string { return sink(db + "max_connections: " + v + "}") }, []string{"2", "1000"}, []string{"1", "1001"}},
		{func(v string) string { return sink(db + "tls: {ca: f, mode: " + v + "}}") }, []string{"verify-full", "verify-ca", "\"\""}, []string{"require"}},
		{func(v string) string {
			return sink(strings.Replace(db, "postgres, url: 'postgres://u@127.0.0.1/d'", "mysql, dsn: 'u@tcp(127.0.0.1:3306)/d'", 1) + "max_connections: " + v + "}")
		}, []string{"2", "1000"}, []string{"1", "1001"}},
		{func(v string) string {
			return sink("{name: k, type: kafka, brokers: ['a:1'], topic: t, tls: {enabled: true}, sasl: {user: u, password: pppppppp, mechanism: " + v + "}}")
		}, []string{"plain", "scram-sha-256", "scram-sha-512"}, []string{"gssapi"}},
		{func(v string) string {
			return sink("{name: w, type: webhook, url: 'https://a.example/x', secret: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=, timeout: " + v + "}")
		}, []string{"1ms", "5m", "300s"}, []string{"0s", "301s", "6m", "1h"}},
	} {
		try := func(value string, want bool) {
			t.Helper()
			text := []byte(test.setting(value))
			if !strings.HasPrefix(string(text), "sinks:") {
				text = append(text, "\nsinks: [{name: media, type: dir, path: ./media}]\n"...)
			}
			_, loaded := config.Parse("c.yaml", text, func(string) (string, bool) { return "", false })
			if checked := schema(text); (loaded == nil) != want || (checked == nil) != want {
				t.Errorf("%s: want it taken: %v\nthe program says %v\nthe schema says %v", text, want, loaded, checked)
			}
		}
		for _, value := range test.takes {
			try(value, true)
		}
		for _, value := range test.wrong {
			try(value, false)
		}
	}
}

// No limit is only in the program: each that a struct's tags name is in TestLimits' schema.
func TestEveryNumberHasItsBounds(t *testing.T) {
	var example map[string]any
	if err := json.Unmarshal(config.Schema(), &example); err != nil {
		t.Fatal(err)
	}
	bounded := map[string]bool{}
	var walk func(key string, node any)
	walk = func(key string, node any) {
		switch node := node.(type) {
		case map[string]any:
			if node["minimum"] != nil || node["enum"] != nil {
				bounded[key] = true
			}
			for name, inner := range node {
				if slices.Contains([]string{"anyOf", "items", "oneOf", "properties", "additionalProperties"}, name) {
					name = key
				}
				walk(name, inner)
			}
		case []any:
			for _, inner := range node {
				walk(key, inner)
			}
		}
	}
	walk("", example)
	for _, key := range []string{"slots", "replicas", "rate_limit", "best_frames", "sample", "level", "format", "cipher", "algorithm", "mode", "sse", "credentials", "storage_class", "days", "part_workers", "max_connections", "mechanism"} {
		if !bounded[key] {
			t.Errorf("%s has no limits in the schema", key)
		}
	}
}

// The example speaks of keys, not of what the program calls them.
func TestExampleSpeaksOfKeys(t *testing.T) {
	for i, line := range strings.Split(string(config.Example()), "\n") {
		_, comment, ok := strings.Cut(line, "#")
		if !ok {
			continue
		}
		if word := goWord.FindString(comment); word != "" {
			t.Errorf("line %d: %q in %s", i+1, word, line)
		}
	}
}

// goWord is a name of Go's, or of a field that is a key: what a reader of the example
// cannot know.
var goWord = regexp.MustCompile(`\b[a-z]+\.[A-Z]\w*|\bConfig\b|\b[a-z]+[A-Z]\w*File\b|\b(in|under) (TLS|CA)\b|\b(SecretID|SecretKey|URLFile|PasswordFile|DSNFile|CredsFile)\b`)
