package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// module is what import paths of this project begin with.
const module = "github.com/faceid-ingest/faceid-ingest"

// docs finds the comments of structs in the sources.
type docs struct {
	root string
	// known are the comments of a package's structs, by "Struct.Field" and "Struct".
	known map[string]map[string]string
}

// field is one key of the configuration.
type field struct {
	key string
	// doc says what the key means, with keys in place of the names of fields.
	doc    string
	value  reflect.Value
	limits setting.Limits
}

// fields returns the keys of a struct, in their order.
func (d *docs) fields(v reflect.Value) ([]field, error) {
	comments, err := d.of(v.Type())
	if err != nil {
		return nil, err
	}
	var list []field
	last := comments[v.Type().Name()]
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, how, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if how == "inline" {
			more, err := d.fields(v.Field(i))
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
		if key == "" || key == "-" {
			continue
		}
		// A comment above several fields is about all of them.
		doc := comments[v.Type().Name()+"."+f.Name]
		if doc == "" && !isStruct(f.Type) {
			doc = last
		}
		if doc == "" && isStruct(f.Type) {
			inner, err := d.of(f.Type)
			if err != nil {
				return nil, err
			}
			doc = inner[f.Type.Name()]
		}
		last = doc
		list = append(list, field{key: key, doc: withKeys(doc, v.Type()), value: v.Field(i), limits: setting.LimitsOf(f)})
	}
	return list, nil
}

func isStruct(t reflect.Type) bool { return t.Kind() == reflect.Struct }

// of returns the comments of the package in which a type stands.
func (d *docs) of(t reflect.Type) (map[string]string, error) {
	path, ours := strings.CutPrefix(t.PkgPath(), module)
	if !ours {
		return nil, nil
	}
	if known, ok := d.known[path]; ok {
		return known, nil
	}
	found := map[string]string{}
	files, err := filepath.Glob(filepath.Join(d.root, path, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("read the comments of %s: %w", name, err)
		}
		collect(file, found)
	}
	d.known[path] = found
	return found, nil
}

// collect adds the comments of a file's structs and their fields.
func collect(file *ast.File, found map[string]string) {
	for _, decl := range file.Decls {
		general, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range general.Specs {
			named, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			structure, ok := named.Type.(*ast.StructType)
			if !ok {
				continue
			}
			found[named.Name.Name] = flat(general.Doc)
			for _, f := range structure.Fields.List {
				for _, name := range f.Names {
					found[named.Name.Name+"."+name.Name] = flat(f.Doc)
				}
			}
		}
	}
}

// flat returns a comment as one line.
func flat(group *ast.CommentGroup) string {
	return strings.Join(strings.Fields(group.Text()), " ")
}

var word = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)

// withKeys puts keys in place of the names of a struct's fields: who reads a
// configuration knows only those. The type's own name at the beginning goes, too.
func withKeys(doc string, t reflect.Type) string {
	return word.ReplaceAllStringFunc(doc, func(name string) string {
		// Inside a sentence, capitals are a word of their own, such as NATS.
		if strings.ToUpper(name) == name && !strings.HasPrefix(doc, name) {
			return name
		}
		if f, ok := t.FieldByName(name); ok {
			if key, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); key != "" {
				return key
			}
		}
		return name
	})
}
