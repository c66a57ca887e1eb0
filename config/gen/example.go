package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const head = `# Configuration of faceid-ingest. Every key is shown with its default, unless
# marked "example". ${VAR} and ${VAR:default} stand for environment variables,
# $${ for the characters themselves. Files of secrets, whose keys end in _file, are
# read again for each use, so that a file which is replaced is used at once.
#
# Editors check and complete the file with the schema that "faceid-ingest config
# schema" prints:
# yaml-language-server: $schema=./schema.json
`

// examples are the values shown for keys that have no default but need one.
//
//nolint:gosec // invented values, none of which opens anything
var examples = map[string]map[string]string{
	"account": {"name": "main", "secret_id": "${TENCENTCLOUD_SECRET_ID}", "secret_key": "${TENCENTCLOUD_SECRET_KEY}"},
	"cos":     {"bucket": "evidence-1250000000", "region": "ap-guangzhou", "secret_id_file": "/run/secrets/cos-id", "secret_key_file": "/run/secrets/cos-key"},
	"dir":     {"path": "./data/media"},
	"sqlite":  {"path": "./data/faceid.db"},
	"postgres": {
		"url": `"postgres://faceid@db.example:5432/faceid"`, "password_file": "/run/secrets/db-password",
	},
	"mysql":   {"dsn": `"faceid@tcp(db.example:3306)/faceid"`, "password_file": "/run/secrets/db-password"},
	"nats":    {"create_stream": "FACEID_RESULTS"},
	"kafka":   {"brokers": `["kafka.example:9093"]`, "topic": "faceid-results"},
	"webhook": {"url": `"https://kyc.example/faceid"`, "secret_file": "/run/secrets/hook"},
}

// page is a YAML text that is being written.
type page struct {
	bytes.Buffer
	// last is the latest comment: one about several keys stands above the first.
	last string
}

func (p *page) line(indent int, format string, args ...any) {
	_, _ = p.WriteString(strings.TrimRight(strings.Repeat("  ", indent)+fmt.Sprintf(format, args...), " ") + "\n")
}

// lineWidth is where comments break.
const lineWidth = 82

// comment writes a comment in lines.
func (p *page) comment(indent int, text string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && 2*indent+3+len(line)+len(word) > lineWidth {
			p.line(indent, "# %s", line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		p.line(indent, "# %s", line)
	}
}

// example returns a configuration with every key there is.
func (d *docs) example() ([]byte, error) {
	p := &page{}
	_, _ = p.WriteString(head)
	fields, err := d.fields(reflect.ValueOf(config.Default()).Elem())
	if err != nil {
		return nil, err
	}
	for _, f := range fields {
		_, _ = p.WriteString("\n")
		if err := d.write(p, 0, f, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return p.Bytes(), nil
}

// write writes a key with its comment and value, or the value of the same key in
// shown.
func (d *docs) write(p *page, indent int, f field, shown map[string]string) error {
	if f.doc != p.last {
		p.comment(indent, f.doc)
		p.last = f.doc
	}
	if value, ok := shown[f.key]; ok {
		p.line(indent, "%s: %s", f.key, value)
		return nil
	}
	switch v := f.value.Addr().Interface().(type) {
	case *[]config.Sink:
		p.line(indent, "%s:", f.key)
		return d.writeSinks(p, indent+1)
	case *[]config.Account:
		p.line(indent, "%s:", f.key)
		p.line(indent+1, "# Example.")
		account := config.DefaultAccount()
		return d.writeItem(p, indent+1, reflect.ValueOf(&account).Elem(), nil, examples["account"])
	case encoding.TextMarshaler:
		p.line(indent, "%s: %s", f.key, quote(text(v)))
		return nil
	}
	return d.writePlain(p, indent, f)
}

func (d *docs) writePlain(p *page, indent int, f field) error {
	v := f.value
	switch v.Kind() {
	case reflect.Struct:
		inner, err := d.fields(v)
		if err != nil {
			return err
		}
		p.line(indent, "%s:", f.key)
		for _, one := range inner {
			if err := d.write(p, indent+1, one, nil); err != nil {
				return err
			}
		}
	case reflect.Map:
		if v.Len() == 0 {
			p.line(indent, "%s: {}", f.key)
			return nil
		}
		p.line(indent, "%s:", f.key)
		var lines []string
		for _, key := range v.MapKeys() {
			lines = append(lines, fmt.Sprintf("%s: %s", key, quote(fmt.Sprint(v.MapIndex(key)))))
		}
		slices.Sort(lines)
		for _, line := range lines {
			p.line(indent+1, "%s", line)
		}
	case reflect.Slice:
		list, err := json.Marshal(v.Interface())
		if err != nil {
			return err
		}
		if v.Len() == 0 {
			list = []byte("[]")
		}
		p.line(indent, "%s: %s", f.key, list)
	case reflect.String:
		p.line(indent, "%s: %s", f.key, quote(v.String()))
	default:
		p.line(indent, "%s: %v", f.key, v)
	}
	return nil
}

// quote quotes what YAML would read as something else.
func quote(s string) string {
	plain := s != "" && !strings.ContainsAny(s, "{}[]:#&*!|>'\"%@`, ") || strings.HasPrefix(s, "http")
	digits := strings.Trim(s, "0123456789.") == ""
	if plain && !digits {
		return s
	}
	return fmt.Sprintf("%q", s)
}

// writeItem writes a struct as an item of a list, after the lines that come first.
func (d *docs) writeItem(p *page, indent int, v reflect.Value, first []string, shown map[string]string) error {
	fields, err := d.fields(v)
	if err != nil {
		return err
	}
	item := &page{}
	for _, line := range first {
		item.line(0, "%s", line)
	}
	for _, f := range fields {
		if err := d.write(item, 0, f, shown); err != nil {
			return fmt.Errorf("%s: %w", f.key, err)
		}
	}
	dash := "- "
	for line := range strings.Lines(item.String()) {
		line = strings.TrimRight(line, "\n")
		p.line(indent, "%s%s", dash, line)
		dash = "  "
	}
	return nil
}

// writeSinks writes the default sinks, and all others as comments.
func (d *docs) writeSinks(p *page, indent int) error {
	used := map[string]string{}
	for _, s := range config.Default().Sinks {
		used[s.Type] = s.Name
	}
	for _, typ := range []string{"dir", "cos", "sqlite", "postgres", "mysql", "nats", "kafka", "webhook"} {
		cfg, ok := sinks.NewConfig(typ)
		if !ok {
			return fmt.Errorf("there is no sink of type %s", typ)
		}
		name, isDefault := used[typ]
		lead := ""
		if !isDefault {
			name, lead = "my-"+typ, "# "
			p.line(indent, "# Example.")
		}
		item := &page{}
		if err := d.writeItem(item, 0, reflect.ValueOf(cfg).Elem(), []string{"name: " + name, "type: " + typ}, examples[typ]); err != nil {
			return err
		}
		for line := range strings.Lines(item.String()) {
			p.line(indent, "%s%s", lead, strings.TrimRight(line, "\n"))
		}
	}
	return nil
}
