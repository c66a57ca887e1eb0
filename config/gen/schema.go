package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// object is a JSON object.
type object map[string]any

// variable is what a value looks like that comes from the environment; "$${" is not
// one.
const variable = `\$\{[A-Za-z_][A-Za-z0-9_]*(:[^}]*)?\}`

// schema returns the JSON schema of the configuration file, for editors.
func (d *docs) schema() ([]byte, error) {
	cfg := config.Default()
	top, err := d.structure(reflect.ValueOf(cfg).Elem(), nil)
	if err != nil {
		return nil, err
	}
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = "https://" + module + "/config/schema.json"
	top["title"] = "Configuration of faceid-ingest"
	text, err := json.MarshalIndent(top, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// structure returns the schema of a struct; more are further keys.
func (d *docs) structure(v reflect.Value, more object) (object, error) {
	fields, err := d.fields(v)
	if err != nil {
		return nil, err
	}
	properties := object{}
	for _, f := range fields {
		one, err := d.limited(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.key, err)
		}
		one["description"] = f.doc
		properties[f.key] = one
	}
	for key, one := range more {
		properties[key] = one
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}, nil
}

// limited returns the schema of a key, with the limits that validation has.
func (d *docs) limited(f field) (object, error) {
	if f.limits.Enum != nil {
		one := anyOrVariable(object{"enum": f.limits.Enum})
		one["default"] = f.value.String()
		return one, nil
	}
	switch known := f.value.Addr().Interface().(type) {
	case *config.Duration:
		return scalar(durationPattern(f.limits), text(known)), nil
	case *config.Size:
		return scalar(sizePattern(f.limits), text(known)), nil
	}

	one, err := d.value(f.value)
	if err != nil {
		return nil, err
	}
	for keyword, bound := range map[string]string{"minimum": f.limits.Min, "maximum": f.limits.Max} {
		if bound == "" {
			continue
		}
		alternatives, ok := one["anyOf"].([]object)
		if !ok {
			return nil, fmt.Errorf("%s: a %s has no bounds", f.key, f.value.Type())
		}
		alternatives[0][keyword] = json.Number(bound)
	}
	return one, nil
}

// anyOrVariable returns the schema of a value that may come from the environment.
func anyOrVariable(one object) object {
	return object{"anyOf": []object{one, {"type": "string", "pattern": variable}}}
}

// value returns the schema of a value, with its default.
func (d *docs) value(v reflect.Value) (object, error) {
	switch v.Addr().Interface().(type) {
	case *[]config.Sink:
		return d.sinks()
	case *privacy.Field:
		sent := slices.DeleteFunc(privacy.Fields(), func(f privacy.Field) bool { return f == privacy.Raw })
		return anyOrVariable(object{"enum": sent}), nil
	case *privacy.Rule:
		return anyOrVariable(object{"enum": privacy.RuleNames()}), nil
	case encoding.TextUnmarshaler:
		return object{"type": []string{"string", "integer"}}, nil
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(v, nil)
	case reflect.Slice:
		one := reflect.New(v.Type().Elem()).Elem()
		if one.Type() == reflect.TypeFor[config.Account]() {
			one.Set(reflect.ValueOf(config.DefaultAccount()))
		}
		items, err := d.value(one)
		return object{"type": "array", "items": items}, err
	case reflect.Map:
		values, err := d.value(reflect.New(v.Type().Elem()).Elem())
		one := object{"type": "object", "additionalProperties": values}
		if v.Type().Key() == reflect.TypeFor[privacy.Field]() {
			one["propertyNames"] = object{"enum": privacy.Fields()}
		}
		return one, err
	case reflect.Bool:
		return withDefault(anyOrVariable(object{"type": "boolean"}), v.Bool()), nil
	case reflect.Int, reflect.Int64:
		return withDefault(anyOrVariable(object{"type": "integer"}), v.Int()), nil
	case reflect.Float64:
		return withDefault(anyOrVariable(object{"type": "number"}), v.Float()), nil
	case reflect.String:
		// YAML takes an unquoted 1 for a number, and so may the editor. It would offer true
		// and false as well, which are no text anybody wants.
		return object{"type": []string{"string", "integer"}, "default": v.String()}, nil
	}
	return nil, fmt.Errorf("no schema for a %s", v.Type())
}

func withDefault(one object, value any) object {
	one["default"] = value
	return one
}

func scalar(pattern, value string) object {
	return object{"type": "string", "anyOf": []object{{"pattern": pattern}, {"pattern": variable}}, "default": value}
}

func text(v any) string {
	m, ok := v.(encoding.TextMarshaler)
	if !ok {
		return ""
	}
	b, err := m.MarshalText()
	if err != nil {
		return ""
	}
	return string(b)
}

// sinks returns the schema of the list of sinks: each kind has keys of its own.
func (d *docs) sinks() (object, error) {
	var kinds []object
	for _, typ := range slices.Sorted(slices.Values(sinks.Types())) {
		cfg, _ := sinks.NewConfig(typ)
		one, err := d.structure(reflect.ValueOf(cfg).Elem(), object{
			"name": object{"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$", "description": "Used in metrics and receipts."},
			"type": object{"const": typ},
		})
		if err != nil {
			return nil, err
		}
		one["required"] = []string{"name", "type"}
		kinds = append(kinds, one)
	}
	return object{"type": "array", "items": object{"oneOf": kinds}}, nil
}
