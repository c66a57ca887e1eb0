package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"
)

// Error is one problem of a configuration file. It holds no value of the file.
type Error struct {
	// File is the name of the file.
	File string
	// Line and Column are where the problem is, from 1; 0 if it is nowhere.
	Line, Column int
	// Path is the key, such as "accounts[0].rate_limit"; empty for syntax.
	Path string
	// Problem says what was expected.
	Problem string
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
	}
	if e.Path == "" {
		return where + ": " + e.Problem
	}
	return where + ": " + e.Path + ": " + e.Problem
}

// join puts problems in the order of the file.
func join(problems []*Error) error {
	sort.SliceStable(problems, func(i, j int) bool {
		a, b := problems[i], problems[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// nearest returns the known name that is closest to a mistyped one, or "" if
// none is close.
func nearest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(name), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
