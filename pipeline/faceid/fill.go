package faceid

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// filler fills the types of this package from decoded JSON, whatever types a sender used:
// a field that is not of its documented type is read as far as it can be and named, and
// costs no other.
//
// A path names a field from the Response object on, with no index for elements of lists:
// there are no more paths than the model has fields.
type filler struct {
	// odd are the paths of fields of another type than documented, each once.
	odd []string
	// lost are those of them of which nothing could be read.
	lost []string
}

// note names a field that is of another type, read or not.
func (f *filler) note(path string, read bool) {
	if !slices.Contains(f.odd, path) {
		f.odd = append(f.odd, path)
	}
	if !read && !slices.Contains(f.lost, path) {
		f.lost = append(f.lost, path)
	}
}

// fill sets to, which is a struct, a pointer to one, a leaf of this package, or a list of
// those. null leaves it as it is.
func (f *filler) fill(to reflect.Value, from any, path string) {
	if from == nil {
		return
	}

	switch leaf := to.Addr().Interface().(type) {
	case *number:
		f.number(leaf, from, path)
		return
	case *flag:
		f.flag(leaf, from, path)
		return
	case *instant:
		f.instant(leaf, from, path)
		return
	case *text:
		*leaf = text(f.text(from, path))
		return
	case *result.Sensitive:
		*leaf = result.NewSensitive(f.text(from, path))
		return
	}

	switch to.Kind() {
	case reflect.Pointer:
		if object, ok := f.object(from, path); ok {
			to.Set(reflect.New(to.Type().Elem()))
			f.members(to.Elem(), object, path)
		}
	case reflect.Slice:
		for _, item := range f.list(from, path) {
			element := reflect.New(to.Type().Elem()).Elem()
			f.fill(element, item, path)
			to.Set(reflect.Append(to, element))
		}
	default:
		if object, ok := f.object(from, path); ok {
			f.members(to, object, path)
		}
	}
}

// members fills the fields of a struct. Names are compared as encoding/json does: case
// makes no difference, but an exact name comes first, unless it has nothing.
func (f *filler) members(to reflect.Value, object map[string]any, path string) {
	keys := slices.Sorted(maps.Keys(object))
	for i := range to.NumField() {
		name := fieldName(to.Type().Field(i))
		value := object[name]
		for _, key := range keys {
			if value == nil && strings.EqualFold(key, name) {
				value = object[key]
			}
		}
		f.fill(to.Field(i), value, join(path, name))
	}
}

func fieldName(field reflect.StructField) string {
	if name := field.Tag.Get("json"); name != "" {
		return name
	}
	return field.Name
}

// object returns an object, also one that came as a string or in a list of one. Nothing
// ("", []) is none.
func (f *filler) object(from any, path string) (object map[string]any, ok bool) {
	switch from := from.(type) {
	case map[string]any:
		return from, true
	case string:
		if strings.TrimSpace(from) == "" {
			return nil, false
		}
		decoder := json.NewDecoder(strings.NewReader(from))
		decoder.UseNumber()
		ok = decoder.Decode(&object) == nil && object != nil
	case []any:
		if len(from) == 0 {
			return nil, false
		}
		if object, ok = from[0].(map[string]any); len(from) > 1 {
			object, ok = nil, false
		}
	}
	f.note(path, ok)
	return object, ok
}

// list returns the elements of a list. What came without one is a list of one, and a
// string one of what stands between its commas.
func (f *filler) list(from any, path string) []any {
	switch from := from.(type) {
	case []any:
		return from
	case string:
		var list []any
		for _, part := range strings.FieldsFunc(from, func(r rune) bool { return strings.ContainsRune(",;|，、", r) || unicode.IsSpace(r) }) {
			list = append(list, part)
		}
		if len(list) > 0 {
			f.note(path, true)
		}
		return list
	default:
		f.note(path, true)
		return []any{from}
	}
}

// text returns a string, or how a number or truth is written.
func (f *filler) text(from any, path string) string {
	switch from := from.(type) {
	case nil:
		return ""
	case string:
		return from
	case json.Number:
		f.note(path, true)
		return from.String()
	case bool:
		f.note(path, true)
		return strconv.FormatBool(from)
	default:
		f.note(path, false)
		return ""
	}
}

// number is an integer that may be null or absent.
type number struct{ value *int64 }

// or returns the number, or other where there is none.
func (n number) or(other int64) int64 {
	if n.value == nil {
		return other
	}
	return *n.value
}

func (f *filler) number(to *number, from any, path string) {
	var written string
	switch from := from.(type) {
	case json.Number:
		written = from.String()
	case string:
		if written = strings.TrimSpace(from); written == "" {
			return
		}
	}

	n, ok := integer(written)
	if _, isNumber := from.(json.Number); !ok || !isNumber || strings.ContainsAny(written, ".eE") {
		f.note(path, ok)
	}
	if ok {
		to.value = &n
	}
}

// integer reads a whole number, also one that is written with a fraction of nothing.
func integer(written string) (int64, bool) {
	if n, err := strconv.ParseInt(written, 10, 64); err == nil {
		return n, true
	}
	n, err := strconv.ParseFloat(written, 64)
	if err != nil || n != math.Trunc(n) || math.Abs(n) >= 1<<53 {
		return 0, false
	}
	return int64(n), true
}

// flag is a truth that may be null.
type flag bool

func (f *filler) flag(to *flag, from any, path string) {
	switch from := from.(type) {
	case bool:
		*to = flag(from)
		return
	case string:
		word := strings.ToLower(strings.TrimSpace(from))
		if word == "" {
			return
		}
		read := true
		switch word {
		case "true", "t", "yes", "y", "on", "1":
			*to = true
		case "false", "f", "no", "n", "off", "0":
		default:
			read = false
		}
		f.note(path, read)
	case json.Number:
		n, ok := integer(from.String())
		ok = ok && (n == 0 || n == 1)
		*to = flag(ok && n == 1)
		f.note(path, ok)
	default:
		f.note(path, false)
	}
}

// instant is a time in milliseconds since 1970.
type instant struct{ time.Time }

func (f *filler) instant(to *instant, from any, path string) {
	written, ok := f.written(from)
	at, isTime := result.ReadTime(written)
	ok = ok && isTime

	// Anything but milliseconds, which have 13 digits, is another form than documented.
	if _, isNumber := from.(json.Number); !ok || !at.IsZero() && (!isNumber || len(written) != len("1700000000000")) {
		f.note(path, ok)
	}
	if ok {
		to.Time = at
	}
}

// written returns the text of a string or number.
func (f *filler) written(from any) (string, bool) {
	switch from := from.(type) {
	case string:
		return strings.TrimSpace(from), true
	case json.Number:
		return from.String(), true
	default:
		return "", false
	}
}

// text is a string that may be null.
type text string

func texts(list []text) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = string(t)
	}
	return out
}

// AnswerFields lists the paths that Result.Unread may name, sorted.
func AnswerFields() []string {
	paths := []string{encryptionField}
	addPaths(&paths, reflect.TypeFor[answer](), "")
	slices.Sort(paths)
	return paths
}

func addPaths(paths *[]string, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if path != "" {
		*paths = append(*paths, path)
	}
	switch t {
	case reflect.TypeFor[number](), reflect.TypeFor[instant](), reflect.TypeFor[result.Sensitive]():
		return
	}
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			field := t.Field(i)
			addPaths(paths, field.Type, join(path, fieldName(field)))
		}
	}
}
