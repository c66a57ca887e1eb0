package extract

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// windowSize is how much of the document is in memory at a time, in bytes.
const windowSize = 64 << 10

// scanner walks the document. What is not a medium goes to out as it is, without
// the white space between tokens.
type scanner struct {
	//nolint:containedctx // a scanner lives within one call of Extract.
	ctx    context.Context
	cfg    Config
	fields map[string]bool
	batch  *spool.Batch
	nonce  string
	media  map[string]Medium
	// damaged is that of the Document.
	damaged []*FieldError
	out     []byte

	src    io.Reader
	window []byte
	// window[next:end] is not consumed yet; consumed counts what was before it.
	next, end int
	consumed  int64
}

// fill reads more of the document into the empty window. At its end it returns
// io.EOF.
func (s *scanner) fill() error {
	s.consumed += int64(s.next)
	s.next, s.end = 0, 0
	for range 100 { // a reader that gives nothing for so long is broken
		if err := s.ctx.Err(); err != nil {
			return fmt.Errorf("read the answer: %w", context.Cause(s.ctx))
		}
		n, err := s.src.Read(s.window)
		if n > 0 {
			s.end = n
			if s.consumed+int64(n) > s.cfg.MaxBody {
				return ErrTooLarge
			}
			return nil
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
	}
	return fmt.Errorf("read the answer: %w", io.ErrNoProgress)
}

// more makes sure that there is a byte in the window, inside a document.
func (s *scanner) more() error {
	if s.next < s.end {
		return nil
	}
	err := s.fill()
	if err == io.EOF { //nolint:errorlint // fill returns it bare, and only for the end of the document.
		return io.ErrUnexpectedEOF
	}
	return err
}

// peek returns the next byte without consuming it.
func (s *scanner) peek() (byte, error) {
	if err := s.more(); err != nil {
		return 0, err
	}
	return s.window[s.next], nil
}

func (s *scanner) wrong() error { return &SyntaxError{Offset: s.consumed + int64(s.next)} }

func (s *scanner) emit(p []byte) error {
	if len(s.out)+len(p) > s.cfg.MaxJSON {
		return ErrTooLarge
	}
	s.out = append(s.out, p...)
	return nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// skipSpace returns the next byte that is not white space, unconsumed.
func (s *scanner) skipSpace() (byte, error) {
	for {
		c, err := s.peek()
		if err != nil || !isSpace(c) {
			return c, err
		}
		s.next++
	}
}

// document reads the one value of the document, and that nothing follows.
func (s *scanner) document() error {
	if err := s.value(path{}, 0); err != nil {
		return err
	}
	for {
		for ; s.next < s.end; s.next++ {
			if !isSpace(s.window[s.next]) {
				return s.wrong()
			}
		}
		err := s.fill()
		if err == io.EOF { //nolint:errorlint // as in more.
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *scanner) value(p path, depth int) error {
	c, err := s.skipSpace()
	if err != nil {
		return err
	}
	switch {
	case c == '{':
		return s.object(p, depth+1)
	case c == '[':
		return s.array(p, depth+1)
	case c == '"':
		return s.text(p)
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	default:
		return s.wrong()
	}
}

// token consumes the next byte, which must be one of want, and emits it.
func (s *scanner) token(want string) (byte, error) {
	c, err := s.skipSpace()
	if err != nil {
		return 0, err
	}
	if bytes.IndexByte([]byte(want), c) < 0 {
		return 0, s.wrong()
	}
	s.next++
	return c, s.emit([]byte{c})
}

func (s *scanner) object(p path, depth int) error {
	if depth > s.cfg.MaxDepth {
		return ErrTooDeep
	}
	if _, err := s.token("{"); err != nil {
		return err
	}
	c, err := s.skipSpace()
	if err != nil {
		return err
	}
	if c == '}' {
		_, err := s.token("}")
		return err
	}
	for {
		name, err := s.name()
		if err != nil {
			return err
		}
		if _, err := s.token(":"); err != nil {
			return err
		}
		if err := s.value(p.key(name), depth); err != nil {
			return err
		}
		if c, err = s.token(",}"); err != nil || c == '}' {
			return err
		}
	}
}

func (s *scanner) array(p path, depth int) error {
	if depth > s.cfg.MaxDepth {
		return ErrTooDeep
	}
	if _, err := s.token("["); err != nil {
		return err
	}
	c, err := s.skipSpace()
	if err != nil {
		return err
	}
	if c == ']' {
		_, err := s.token("]")
		return err
	}
	for i := 0; ; i++ {
		if err := s.value(p.index(i), depth); err != nil {
			return err
		}
		if c, err = s.token(",]"); err != nil || c == ']' {
			return err
		}
	}
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		c, err := s.peek()
		if err != nil {
			return err
		}
		if c != word[i] {
			return s.wrong()
		}
		s.next++
	}
	return s.emit([]byte(word))
}

// number copies a number byte for byte; json.Valid knows the grammar.
func (s *scanner) number() error {
	begin := len(s.out)
	at := s.wrong()
	for {
		c, err := s.peek()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			break // a number may end the document
		}
		if err != nil {
			return err
		}
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		s.next++
		if err := s.emit([]byte{c}); err != nil {
			return err
		}
	}
	if !json.Valid(s.out[begin:]) {
		return at
	}
	return nil
}

// name reads the name of a member.
func (s *scanner) name() (string, error) {
	c, err := s.skipSpace()
	if err != nil {
		return "", err
	}
	if c != '"' {
		return "", s.wrong()
	}
	raw, whole, err := s.rawString(s.cfg.MaxJSON)
	if err != nil {
		return "", err
	}
	if !whole {
		return "", ErrTooLarge
	}
	if err := s.emit(raw); err != nil {
		return "", err
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return "", s.wrong()
	}
	return name, nil
}

// rawString reads a string as it stands, with its quotes, up to limit bytes. It
// returns whole false, and what it has read, where the string is longer.
func (s *scanner) rawString(limit int) (raw []byte, whole bool, err error) {
	raw = append(raw, s.window[s.next])
	s.next++
	for {
		if err := s.more(); err != nil {
			return nil, false, err
		}
		run := s.run()
		if room := limit - len(raw); len(run) > room {
			run = run[:max(room, 0)]
			s.next += len(run)
			return append(raw, run...), false, nil
		}
		raw = append(raw, run...)
		s.next += len(run)
		if s.next == s.end {
			continue
		}
		switch s.window[s.next] {
		case '"':
			s.next++
			return append(raw, '"'), true, nil
		case '\\':
			escape, err := s.escape()
			if err != nil {
				return nil, false, err
			}
			raw = append(raw, escape...)
		default:
			return nil, false, s.wrong()
		}
	}
}

// run returns the bytes of the window up to the next quote, backslash or control
// character.
func (s *scanner) run() []byte {
	run := s.window[s.next:s.end]
	if i := bytes.IndexByte(run, '"'); i >= 0 {
		run = run[:i]
	}
	if i := bytes.IndexByte(run, '\\'); i >= 0 {
		run = run[:i]
	}
	return run[:plainLength(run)]
}

// plainLength returns how many bytes come before the first control character. It
// looks at eight bytes at a time: with media, this is most of the scanner's work.
func plainLength(p []byte) int {
	const (
		spaces = 0x2020202020202020
		high   = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(p); i += 8 {
		// A byte below a space borrows its high bit, unless that was set before.
		if w := binary.LittleEndian.Uint64(p[i:]); (w-spaces)&^w&high != 0 {
			break
		}
	}
	for ; i < len(p); i++ {
		if p[i] < ' ' {
			return i
		}
	}
	return len(p)
}

// escape consumes one escape sequence and returns it as it stands.
func (s *scanner) escape() ([]byte, error) {
	s.next++
	c, err := s.peek()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte([]byte(`"\/bfnrtu`), c) < 0 {
		return nil, s.wrong()
	}
	s.next++
	escape := []byte{'\\', c}
	if c != 'u' {
		return escape, nil
	}
	for range 4 {
		c, err := s.peek()
		if err != nil {
			return nil, err
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return nil, s.wrong()
		}
		s.next++
		escape = append(escape, c)
	}
	return escape, nil
}
