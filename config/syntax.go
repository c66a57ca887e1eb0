package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// lineKey matches the key of a line, and what its indentation is.
var lineKey = regexp.MustCompile(`^(\s*)(?:- +)*([A-Za-z_][A-Za-z0-9_-]*)[ \t]*(?::|：|$)`)

var definedAt = regexp.MustCompile(`already defined at \[(\d+):`)

// syntaxProblem says in plain words what the parser stumbled over in a file: the key,
// the character, and what to do. Values are not repeated. at is where the parser was,
// message what it said; where the trouble is may be another place.
func syntaxProblem(data []byte, at place, message string) (place, string) {
	lines := strings.Split(string(data), "\n")
	if at.line < 1 || at.line > len(lines) {
		return at, "is not valid YAML: " + firstLine(message)
	}

	for i, line := range lines[:at.line] {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 && strings.TrimSpace(line) != "" {
			return place{i + 1, tab + 1}, keyed(line, "is indented by a tab: YAML takes only spaces there")
		}
	}

	line := lines[at.line-1]
	if match := definedAt.FindStringSubmatch(message); match != nil {
		return at, keyed(line, "is there twice, first in line "+match[1]+": take one of them out, or put together what is below them")
	}
	return at, keyed(line, wrongLine(lines[:at.line], at, message))
}

// keyed puts the key of a line before what is said of it.
func keyed(line, problem string) string {
	if match := lineKey.FindStringSubmatch(line); match != nil {
		return fmt.Sprintf("is not valid YAML: key %q %s", short(match[2]), problem)
	}
	return "is not valid YAML: this line " + problem
}

// wrongLine says what is wrong with the last line, where the parser stopped.
func wrongLine(lines []string, at place, message string) string {
	line := strings.TrimRight(lines[len(lines)-1], "\r")
	character, _ := utf8.DecodeRuneInString(after(line, at.column-1))

	switch {
	case strings.Contains(message, "end character of"):
		return fmt.Sprintf("has a value that begins with %s, and it is not closed: put the same behind it", charName(character))
	case strings.Contains(message, "reserved character"), strings.Contains(message, "cannot start any token"):
		return fmt.Sprintf("has a value that begins with %s, which YAML keeps for itself: put the value into quotes", charName(character))
	case strings.Contains(message, "must be specified"), strings.Contains(message, "end token"):
		return `comes where a list or mapping in brackets is not closed: put the missing "]" or "}", also if it belongs into a line before`
	case strings.Contains(message, "unexpected key name"):
		if _, problem := lookalike(strings.TrimSpace(line)); problem != "" {
			return problem
		}
		return `has no ":" with a space behind it`
	}

	if indent, ok := outOfLine(lines); ok {
		return fmt.Sprintf("begins in column %d, and what it could belong to above in %s: keys of one mapping begin in the same column", len(indent.own)+1, indent.others)
	}
	switch {
	case strings.ContainsRune("]}", character):
		return fmt.Sprintf("has %s, which nothing before opens: take it out, or put the value into quotes", charName(character))
	case strings.HasPrefix(message, "mapping value"), strings.HasPrefix(message, "block sequence"):
		return `has a value in which ": " or "- " would begin something new: put the value into quotes, or what belongs below the key into lines of their own`
	}
	return "is not expected here: see that it, and the line before, are indented as their neighbours, and that quotes and brackets are closed"
}

// indentation is that of a line which fits none above.
type indentation struct{ own, others string }

// outOfLine reports whether the last line is indented as none that is open above it.
func outOfLine(lines []string) (indentation, bool) {
	width := func(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }
	last := lines[len(lines)-1]
	own := width(last)

	var open []string
	least := own + 1<<10
	for _, line := range slices.Backward(lines[:len(lines)-1]) {
		text := strings.TrimSpace(line)
		if text == "" || strings.HasPrefix(text, "#") || width(line) >= least {
			continue
		}
		if len(open) == 0 && width(line) < own {
			return indentation{}, false // it is below that line
		}
		least = width(line)
		// The keys of a list's item begin behind its dash.
		for item := line; strings.HasPrefix(item[width(item):], "- "); {
			item = strings.Repeat(" ", width(item)+2) + item[width(item)+2:]
			open = append(open, strconv.Itoa(width(item)+1))
			if width(item) == own {
				return indentation{}, false
			}
		}
		if least == own {
			return indentation{}, false
		}
		open = append(open, strconv.Itoa(least+1))
		if least == 0 {
			break
		}
	}

	slices.Reverse(open)
	return indentation{last[:own], strings.Join(slices.Compact(open), " or ")}, len(open) > 0
}

// after returns what is behind the first n characters of s.
func after(s string, n int) string {
	for ; n > 0 && s != ""; n-- {
		_, size := utf8.DecodeRuneInString(s)
		s = s[size:]
	}
	return s
}

// lookalikes are characters that input methods and word processors write in place of
// those of YAML.
var lookalikes = map[rune]string{
	'：': `a full-width colon, where ":" with a space behind it is meant`, '，': `a full-width comma, where "," is meant`,
	'\u00a0': "a no-break space, where a space is meant", '\u3000': "a full-width space, where spaces are meant",
	'\u200b': "a zero-width space, which has to go", '“': `a typographic quote, where '"' is meant`, '”': `a typographic quote, where '"' is meant`,
}

// lookalike says which character of a key is not what it looks like, and returns what is
// before it: what is behind may be a value. Both are empty if there is none.
func lookalike(key string) (before, problem string) {
	for i, r := range key {
		if what, ok := lookalikes[r]; ok {
			return key[:i], fmt.Sprintf("has %s (U+%04X)", what, r)
		}
	}
	return "", ""
}

// charName names a character for people.
func charName(r rune) string {
	switch {
	case r == '\t':
		return "a tab"
	case r == utf8.RuneError || r < ' ':
		return fmt.Sprintf("the character U+%04X", r)
	default:
		return fmt.Sprintf("the character %c", r)
	}
}
