package sqldb

import (
	"database/sql/driver"
	"encoding/json"
	"strings"
	"time"
)

// textValue stores "" as NULL: "not there" looks the same in every column. NUL,
// which PostgreSQL cannot hold and at which other tools cut a text off, is escaped
// in every database.
type textValue[T ~string] struct{ p *T }

func text[T ~string](p *T) textValue[T] { return textValue[T]{p} }

// Value implements driver.Valuer.
func (v textValue[T]) Value() (driver.Value, error) {
	if *v.p == "" {
		return nil, nil
	}
	return withoutNUL.Replace(string(*v.p)), nil
}

// Scan implements sql.Scanner.
func (v textValue[T]) Scan(src any) error {
	s, err := asText(src)
	*v.p = T(withNUL.Replace(s))
	return err
}

// The escape is a character that Unicode has set aside for uses such as this one.
const escape = "\uFFFF"

var (
	withoutNUL = strings.NewReplacer("\x00", escape+"0", escape, escape+"1")
	withNUL    = strings.NewReplacer(escape+"0", "\x00", escape+"1", escape)
)

// listValue stores a list as a JSON array, and an empty one as NULL.
type listValue[T any] struct{ p *[]T }

func list[T any](p *[]T) listValue[T] { return listValue[T]{p} }

// Value implements driver.Valuer.
func (v listValue[T]) Value() (driver.Value, error) {
	if len(*v.p) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(*v.p)
	return string(b), err
}

// Scan implements sql.Scanner.
func (v listValue[T]) Scan(src any) error {
	*v.p = nil
	s, err := asText(src)
	if err != nil || s == "" {
		return err
	}
	if json.Unmarshal([]byte(s), v.p) != nil {
		return errColumn
	}
	return nil
}

// timeFormat has a fixed width, so that texts sort as the times do.
const (
	timeFormat = "2006-01-02T15:04:05.000000Z"
	dayFormat  = time.DateOnly
)

// timeValue stores a time in UTC to the microsecond, which is what the coarsest
// of the databases keeps, and the zero time as NULL. How it is stored is the
// dialect's choice.
type timeValue struct{ p *time.Time }

func instant(p *time.Time) timeValue { return timeValue{p} }

// Scan implements sql.Scanner.
func (v timeValue) Scan(src any) error {
	if t, ok := src.(time.Time); ok {
		*v.p = t.UTC()
		return nil
	}
	*v.p = time.Time{}
	s, err := asText(src)
	if err != nil || s == "" {
		return err
	}
	if *v.p, err = time.Parse(timeFormat, s); err != nil {
		return errColumn
	}
	return nil
}

// dayOf stores the UTC day of a time that another column keeps.
type dayOf struct{ t *time.Time }

// Value implements driver.Valuer.
func (v dayOf) Value() (driver.Value, error) { return v.t.UTC().Format(dayFormat), nil }

// Scan implements sql.Scanner.
func (dayOf) Scan(any) error { return nil }

// errColumn does not say what the value is.
var errColumn = &knownError{"a column holds a value that faceid-ingest has not written: restore it"}

func asText(src any) (string, error) {
	switch s := src.(type) {
	case nil:
		return "", nil
	case string:
		return s, nil
	case []byte:
		return string(s), nil
	}
	return "", errColumn
}
