// Package feed reads events from where they come by other ways than a publisher's own
// message: lists of tokens that people keep in files.
//
// A list comes in as text and goes out line by line, each as an event or with the reason
// why it is none. Reading is strict about form, for the one who made the list can
// correct it.
package feed

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Line is one line of a list that names an event, or should.
type Line struct {
	// Number counts from 1; lines that are blank or begin with # are counted.
	Number int
	Event  event.Event
	// Err is a *event.MalformedError that says why the line is no event; nil if it is.
	Err error
}

// ReadList calls visit for the lines of a list, until visit returns an error, which it
// returns. A list is UTF-8, or UTF-16 with a byte order mark, and each line of it
//   - a token,
//   - an event in JSON, or
//   - a row of CSV, separated by commas, semicolons or tabs, if the first line is a header
//     that names a column "token" in any spelling that events may have.
//
// name stands for the list in errors; now is compared with the times of events.
func ReadList(r io.Reader, name string, product result.Product, now time.Time, visit func(Line) error) error {
	text := transform.NewReader(r, unicode.BOMOverride(transform.Nop))
	scanner := bufio.NewScanner(text)
	scanner.Buffer(make([]byte, 0, 4096), event.MaxBody)

	l := list{product: product, now: now}
	number := 0
	for scanner.Scan() {
		number++
		line := bytes.TrimSpace(scanner.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		e, err := l.read(line)
		if errors.Is(err, errHeader) {
			continue
		}
		if err := visit(Line{Number: number, Event: e, Err: err}); err != nil {
			return err
		}
	}

	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d: the line is longer than %d bytes", name, number+1, event.MaxBody)
	case err != nil:
		return fmt.Errorf("%s:%d: %w", name, number+1, err)
	}
	return nil
}

// errHeader says that a line is the header of a CSV.
var errHeader = errors.New("a header")

// list is what is known of a list while it is read.
type list struct {
	product result.Product
	now     time.Time
	// begun is set once a line was read.
	begun bool
	// columns are the names in the header of a CSV; nil if it is none.
	columns   []string
	separator rune
}

// read reads one line that is neither blank nor a comment.
func (l *list) read(line []byte) (event.Event, error) {
	first := !l.begun
	l.begun = true

	switch {
	case l.columns != nil:
		return l.row(line)
	case line[0] == '{' && len(line) > 1:
		return event.Parse(l.product, line, l.now)
	case first && l.header(string(line)):
		return event.Event{}, errHeader
	}
	token := string(line)
	return event.Event{Token: token}, CheckToken(token)
}

// header reports whether line is the header of a CSV, and takes it for that.
func (l *list) header(line string) bool {
	for _, separator := range ",;\t" {
		columns, err := cells(line, separator)
		if err != nil {
			continue
		}
		for _, name := range columns {
			if event.FieldOf(name) == event.FieldToken {
				l.columns, l.separator = columns, separator
				return true
			}
		}
	}
	return false
}

// cells splits a row.
func cells(line string, separator rune) ([]string, error) {
	reader := csv.NewReader(strings.NewReader(line))
	reader.Comma, reader.TrimLeadingSpace = separator, separator != '\t'
	return reader.Read()
}

// row reads a row as an event whose values are text. Columns that an event does not have
// are somebody else's.
func (l *list) row(line []byte) (event.Event, error) {
	values, err := cells(string(line), l.separator)
	switch {
	case err != nil:
		return event.Event{}, malformed("not a row of CSV: its quotes do not fit together")
	case len(values) != len(l.columns):
		return event.Event{}, malformed("%d cells, the header has %d", len(values), len(l.columns))
	}

	fields := map[string]string{}
	for i, name := range l.columns {
		if field := event.FieldOf(name); field != "" && values[i] != "" {
			fields[string(field)] = values[i]
		}
	}
	token := strings.TrimSpace(fields[string(event.FieldToken)])
	if err := CheckToken(token); err != nil {
		return event.Event{}, err
	}
	return parseRow(l.product, fields, l.now)
}

// CheckToken reports, as a *event.MalformedError, why text that somebody gave for a token
// is none: beside what events demand, it is of the characters that tokens are made of.
func CheckToken(text string) error {
	switch {
	case strings.HasPrefix(text, "["), strings.HasPrefix(text, `"`), strings.ContainsAny(text, "{}]"):
		return malformed("a piece of JSON: give one event a line, {\"token\": …}")
	case strings.Contains(text, "://"):
		return malformed("a URL, not a token")
	case strings.ContainsAny(text, ",;\t"):
		return malformed("several values: a CSV needs a first line that names its columns, such as token,rule_id")
	case event.FieldOf(text) != "":
		return malformed("the name of a field, not a token")
	case strings.Trim(text, tokenCharacters) != "" && event.CheckToken(text) == nil:
		return malformed("a token has letters, digits and any of + / = _ - . : ~ only")
	}
	return event.CheckToken(text)
}

// tokenCharacters are those of UUIDs and both alphabets of base64, and such as other
// makers of identifiers use.
const tokenCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-.:~"

// parseRow reads the fields of a row as those of an event in JSON.
func parseRow(product result.Product, fields map[string]string, now time.Time) (event.Event, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return event.Event{}, malformed("a row that is no text")
	}
	return event.Parse(product, body, now)
}

func malformed(format string, args ...any) error {
	return &event.MalformedError{Problem: fmt.Sprintf(format, args...)}
}
