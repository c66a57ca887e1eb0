// Package setting holds what values the settings of a configuration may have.
//
// The limits stand in tags of the structs' fields, where validation and the JSON schema
// both read them, so that they cannot say different things:
//
//	Level string `yaml:"level" enum:"debug,info,warn,error"`
//	Slots int    `yaml:"slots" min:"1" max:"4096"`
//	Grace Duration `yaml:"grace" min:"0s" max:"24h"`
//
// An enum that begins with a comma also takes the empty text. Bounds are written as the
// setting itself is.
package setting

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Limits are what values a setting may have.
type Limits struct {
	// Enum lists them; nil if any will do.
	Enum []string
	// Min and Max are bounds, which are values themselves; empty if there is none.
	Min, Max string
}

// LimitsOf reads the limits of a struct's field.
func LimitsOf(f reflect.StructField) Limits {
	l := Limits{Min: f.Tag.Get("min"), Max: f.Tag.Get("max")}
	if list, ok := f.Tag.Lookup("enum"); ok {
		l.Enum = strings.Split(list, ",")
	}
	return l
}

// Problem is a setting that is not within its limits.
type Problem struct {
	// Path is the setting's key, with those it is below: "tls.mode".
	Path string
	// Problem says what it must be. It does not hold the value.
	Problem string
}

// Check returns what is not within its limits in a struct, or a pointer to one, in the
// order of its fields. Structs below it are looked into, lists and maps are not.
func Check(config any) []Problem {
	return check(reflect.Indirect(reflect.ValueOf(config)), "")
}

func check(v reflect.Value, path string) []Problem {
	var problems []Problem
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, how, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if how != "inline" && (key == "" || key == "-") {
			continue
		}
		under := strings.Trim(path+"."+key, ".")
		if f.Type.Kind() == reflect.Struct {
			problems = append(problems, check(v.Field(i), under)...)
			continue
		}
		if limits := LimitsOf(f); !limits.take(v.Field(i)) {
			problems = append(problems, Problem{under, "must be " + limits.String()})
		}
	}
	return problems
}

// String says what is allowed, for people: "1 to 4096", "none, fields or body".
func (l Limits) String() string {
	switch {
	case l.Enum != nil:
		named := slices.DeleteFunc(slices.Clone(l.Enum), func(s string) bool { return s == "" })
		text := named[0]
		if last := len(named) - 1; last > 0 {
			text = strings.Join(named[:last], ", ") + " or " + named[last]
		}
		if len(named) < len(l.Enum) {
			text += ", or empty"
		}
		return text
	case l.Max == "":
		return l.Min + " or more"
	case l.Min == "":
		return "at most " + l.Max
	default:
		return l.Min + " to " + l.Max
	}
}

// take reports whether a value is within the limits.
func (l Limits) take(v reflect.Value) bool {
	if l.Enum != nil {
		return slices.Contains(l.Enum, v.String())
	}
	return (l.Min == "" || Number(v) >= number(v.Type(), l.Min)) && (l.Max == "" || Number(v) <= number(v.Type(), l.Max))
}

// Number returns a setting's value, in the unit of its type.
func Number(v reflect.Value) float64 {
	if v.CanFloat() {
		return v.Float()
	}
	return float64(v.Int())
}

// number reads a bound as the setting itself is read. It panics if it is none, which is
// a mistake of the program.
func number(t reflect.Type, text string) float64 {
	v := reflect.New(t)
	if reader, ok := v.Interface().(encoding.TextUnmarshaler); ok {
		if err := reader.UnmarshalText([]byte(text)); err != nil {
			panic(fmt.Sprintf("setting: the bound %q of a %s: %v", text, t, err))
		}
		return Number(v.Elem())
	}

	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(fmt.Sprintf("setting: the bound %q of a %s: %v", text, t, err))
	}
	return n
}
