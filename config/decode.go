package config

import (
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// decoder fills structs from the syntax tree of a file. Unlike a YAML library's
// own decoder it finds all problems at once, remembers where each key stands for
// the checks that come later, and never quotes a value.
type decoder struct {
	file     string
	getenv   func(string) (string, bool)
	problems []*Error
	// unset are those of values that need a variable which is not set, and may wait.
	unset []*Error
	// places maps paths to where their keys stand.
	places map[string]place
}

type place struct{ line, column int }

func placeOf(n ast.Node) place {
	at := n.GetToken().Position
	return place{at.Line, at.Column}
}

func (d *decoder) wrong(at place, path, format string, args ...any) {
	d.problems = append(d.problems, d.problem(at, path, fmt.Sprintf(format, args...)))
}

func (d *decoder) problem(at place, path, problem string) *Error {
	return &Error{File: d.file, Line: at.line, Column: at.column, Path: path, Problem: problem}
}

// find returns where path stands, or else what it is in.
func (d *decoder) find(path string) place {
	for {
		if at, ok := d.places[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			return d.places[""]
		}
		path = path[:cut]
	}
}

// under returns the path of a key inside path.
func under(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value decodes n into v, which holds its default.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.wrong(placeOf(n), path, "anchors, aliases and tags are not supported")
		return
	case *ast.NullNode:
		return
	}
	if list, ok := v.Addr().Interface().(*[]Sink); ok {
		d.sinks(n, list, path)
		return
	}
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := d.scalar(n, path, "a value"); ok {
			if err := text.UnmarshalText([]byte(s)); err != nil {
				d.wrong(placeOf(n), path, "%s", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path, nil)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.String:
		if s, ok := d.scalar(n, path, "a text"); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if s, ok := d.scalar(n, path, "true or false"); ok {
			b, err := strconv.ParseBool(s)
			if err != nil {
				d.wrong(placeOf(n), path, "must be true or false")
			}
			v.SetBool(b)
		}
	case reflect.Int, reflect.Int64:
		if s, ok := d.scalar(n, path, "a whole number"); ok {
			i, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				d.wrong(placeOf(n), path, "must be a whole number")
			}
			v.SetInt(i)
		}
	case reflect.Float64:
		if s, ok := d.scalar(n, path, "a number"); ok {
			f, err := strconv.ParseFloat(s, 64)
			if err != nil || math.IsNaN(f) {
				d.wrong(placeOf(n), path, "must be a number")
			}
			v.SetFloat(f)
		}
	default:
		d.wrong(placeOf(n), path, "cannot be set in a file")
	}
}

// scalar returns the text of a value, with the environment put in.
func (d *decoder) scalar(n ast.Node, path, want string) (string, bool) {
	var text string
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.LiteralNode:
		text = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.GetToken().Value
	default:
		d.wrong(placeOf(n), path, "must be %s, not a %s", want, shape(n))
		return "", false
	}
	expanded, problem, unset := expand(text, d.getenv)
	if unset && deferred(path) {
		d.unset = append(d.unset, d.problem(placeOf(n), path, problem))
		return "", false
	}
	if problem != "" {
		d.wrong(placeOf(n), path, "%s", problem)
		return "", false
	}
	return expanded, true
}

func shape(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "mapping"
	case *ast.SequenceNode:
		return "list"
	default:
		return "value of this kind"
	}
}

// members returns the keys and values of a mapping.
func (d *decoder) members(n ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	default:
		d.wrong(placeOf(n), path, `must be a mapping: lines of "key: value", with a space behind the colon, indented below it`)
		return nil, false
	}
}

// fields returns the settable fields of a struct by their keys, with those of
// structs that are inline.
func fields(v reflect.Value) (map[string]reflect.Value, []string) {
	byKey := map[string]reflect.Value{}
	var keys []string
	for i := range v.NumField() {
		key, how, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if how == "inline" {
			more, names := fields(v.Field(i))
			maps.Copy(byKey, more)
			keys = append(keys, names...)
		}
		if key == "" || key == "-" {
			continue
		}
		byKey[key] = v.Field(i)
		keys = append(keys, key)
	}
	return byKey, keys
}

// structure decodes a mapping into a struct; the keys in taken belong to
// somebody else.
func (d *decoder) structure(n ast.Node, v reflect.Value, path string, taken []string) {
	members, ok := d.members(n, path)
	if !ok {
		return
	}
	byKey, keys := fields(v)
	for _, m := range members {
		key := m.Key.GetToken().Value
		if contains(taken, key) {
			continue
		}
		at := placeOf(m.Key)
		field, known := byKey[key]
		if !known {
			d.unknown(at, path, key, append(keys, taken...))
			continue
		}
		p := under(path, key)
		d.places[p] = at
		d.value(m.Value, field, p)
	}
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// unknown reports a key that is not one, and what was probably meant.
func (d *decoder) unknown(at place, path, key string, known []string) {
	sort.Strings(known)
	list := strings.Join(known, ", ")
	where := "at the top"
	if path != "" {
		where = "in " + path
	}
	if before, problem := lookalike(key); problem != "" {
		d.wrong(at, "", "key %q %s %s", short(before), where, problem)
		return
	}
	if meant := nearest(key, known); meant != "" {
		d.wrong(at, "", "unknown key %q %s, did you mean %q? Known are: %s", short(key), where, meant, list)
		return
	}
	d.wrong(at, "", "unknown key %q %s; known are: %s", short(key), where, list)
}

// short keeps a key that is no key out of the way.
func short(key string) string {
	const limit = 40
	if len(key) > limit {
		return strings.ToValidUTF8(key[:limit], "") + "…"
	}
	return key
}

func (d *decoder) list(n ast.Node, v reflect.Value, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(placeOf(n), path, "must be a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(sequence.Values))
	for i, item := range sequence.Values {
		one := reflect.New(v.Type().Elem()).Elem()
		if account, ok := one.Addr().Interface().(*Account); ok {
			*account = DefaultAccount()
		}
		p := fmt.Sprintf("%s[%d]", path, i)
		d.places[p] = placeOf(item)
		d.value(item, one, p)
		out = reflect.Append(out, one)
	}
	v.Set(out)
}

// mapping decodes a mapping whose keys are not fixed; the keys in the file are
// added to the default.
func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	members, ok := d.members(n, path)
	if !ok {
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, key := range v.MapKeys() {
		out.SetMapIndex(key, v.MapIndex(key))
	}
	for _, m := range members {
		p := under(path, m.Key.GetToken().Value)
		d.places[p] = placeOf(m.Key)
		one := reflect.New(v.Type().Elem()).Elem()
		d.value(m.Value, one, p)
		out.SetMapIndex(reflect.ValueOf(m.Key.GetToken().Value).Convert(v.Type().Key()), one)
	}
	v.Set(out)
}

// sinks decodes the list of sinks: name and type first, then what the type has.
func (d *decoder) sinks(n ast.Node, out *[]Sink, path string) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(placeOf(n), path, "must be a list")
		return
	}
	*out = []Sink{} // an empty list is no default
	for i, item := range sequence.Values {
		p := fmt.Sprintf("%s[%d]", path, i)
		d.places[p] = placeOf(item)
		if s, ok := d.sink(item, p); ok {
			*out = append(*out, s)
		}
	}
}

func (d *decoder) sink(n ast.Node, path string) (Sink, bool) {
	members, ok := d.members(n, path)
	if !ok {
		return Sink{}, false
	}
	var s Sink
	for _, m := range members {
		p := under(path, m.Key.GetToken().Value)
		switch m.Key.GetToken().Value {
		case "name":
			d.places[p] = placeOf(m.Key)
			s.Name, _ = d.scalar(m.Value, p, "a text")
		case "type":
			d.places[p] = placeOf(m.Key)
			s.Type, _ = d.scalar(m.Value, p, "a text")
		}
	}
	types := strings.Join(sinks.Types(), ", ")
	if s.Type == "" {
		d.wrong(placeOf(n), path, "type is missing; known are: %s", types)
		return s, false
	}
	if s.Config, ok = sinks.NewConfig(s.Type); !ok {
		hint := ";"
		if meant := nearest(s.Type, sinks.Types()); meant != "" {
			hint = fmt.Sprintf(", did you mean %q?", meant)
		}
		d.wrong(d.find(under(path, "type")), under(path, "type"), "unknown type of sink%s known are: %s", hint, types)
		return s, false
	}
	d.structure(n, reflect.ValueOf(s.Config).Elem(), path, []string{"name", "type"})
	return s, true
}
