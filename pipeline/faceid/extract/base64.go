package extract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/segmentio/asm/base64"
)

// blockSize is how much base64 is decoded at a time, in bytes.
const blockSize = 32 << 10

// dataURI matches the prefix that browsers put before base64 (RFC 2397).
var dataURI = regexp.MustCompile(`(?i)^data:[a-z0-9.+/-]*(;[a-z0-9.=_+-]*)*;base64,`)

// maxPrefix bounds that prefix, in bytes.
const maxPrefix = 256

// base64Sink decodes base64 as people send it: standard or URL-safe alphabet,
// padded or not, white space between, a data URI before.
type base64Sink struct {
	w     io.Writer
	field string
	// block collects characters; the first open of them are known to be of the
	// standard alphabet, left over from the block before.
	block []byte
	open  int
	out   []byte
	// begun says that a data URI would have been found by now.
	begun bool
	// digits counts the characters that stand for bits, padding the "=" after
	// them, seen all characters before this block.
	digits  int64
	padding int
	seen    int64
}

func newBase64Sink(w io.Writer, field string) *base64Sink {
	return &base64Sink{w: w, field: field, block: make([]byte, 0, blockSize), out: make([]byte, blockSize)}
}

func (s *base64Sink) wrong(format string, args ...any) error {
	return &FieldError{Field: s.field, Problem: "not base64: " + fmt.Sprintf(format, args...)}
}

func (s *base64Sink) run(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), cap(s.block)-len(s.block))
		s.block = append(s.block, p[:n]...)
		p = p[n:]
		if len(s.block) == cap(s.block) {
			if err := s.decode(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *base64Sink) escaped(r rune) error {
	if r > 0x7f {
		return s.wrong("character %d", s.seen+int64(len(s.block)-s.open)+1)
	}
	return s.run([]byte{byte(r)})
}

// decode writes the bytes of the block's whole groups of four characters, and
// keeps the rest for the next block.
func (s *base64Sink) decode() error {
	if !s.begun {
		s.begun = true
		prefix := len(dataURI.Find(s.block[:min(len(s.block), maxPrefix)]))
		s.block = s.block[:copy(s.block, s.block[prefix:])]
		s.seen = int64(prefix)
	}
	fresh := len(s.block) - s.open
	whole := len(s.block) &^ 3
	n, err := base64.RawStdEncoding.Decode(s.out, s.block[:whole])
	if err == nil && n == whole/4*3 && s.padding == 0 {
		// The rest has not been looked at yet.
		rest := s.block[whole:]
		s.digits += int64(whole - s.open)
		s.seen += int64(fresh - len(rest))
		s.block, s.open = s.block[:copy(s.block, rest)], 0
		_, err = s.w.Write(s.out[:n])
		return err
	}
	// Something else than the standard alphabet is in it.
	if err := s.clean(); err != nil {
		return err
	}
	s.seen += int64(fresh)
	whole = len(s.block) &^ 3
	if n, err = base64.RawStdEncoding.Decode(s.out, s.block[:whole]); err != nil {
		return s.wrong("near character %d", s.seen)
	}
	s.block = s.block[:copy(s.block, s.block[whole:])]
	s.open = len(s.block)
	_, err = s.w.Write(s.out[:n])
	return err
}

// digit maps a character of either alphabet to the standard one, others to 0.
var digit = func() (d [256]byte) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		d[c] = c
	}
	d['-'], d['_'] = '+', '/'
	return d
}()

// clean brings the block into the standard alphabet: without white space and
// padding.
func (s *base64Sink) clean() error {
	kept := s.block[:s.open]
	for i, c := range s.block[s.open:] {
		at := s.seen + int64(i) + 1
		switch {
		case isSpace(c):
		case c == '=':
			s.padding++
			if over := int(s.digits & 3); over < 2 || over+s.padding > 4 {
				return s.wrong("padding at character %d", at)
			}
		case digit[c] == 0:
			return s.wrong("character %d", at)
		case s.padding > 0:
			return s.wrong("character %d follows the padding", at)
		default:
			kept = append(kept, digit[c])
			s.digits++
		}
	}
	s.block = kept
	return nil
}

// end decodes what is left.
func (s *base64Sink) end() error {
	if err := s.decode(); err != nil {
		return err
	}
	if s.open < len(s.block) {
		if err := s.clean(); err != nil {
			return err
		}
	}
	if len(s.block) == 1 {
		return s.wrong("it ends in the middle of a byte")
	}
	n, err := base64.RawStdEncoding.Decode(s.out, s.block)
	if err != nil {
		return s.wrong("it ends in the middle of a byte")
	}
	_, err = s.w.Write(s.out[:n])
	return err
}

// errNotBase64 stands for the details, which the caller does not need.
var errNotBase64 = errors.New("not base64")

// DecodeBase64 decodes a short string the way Extract decodes media fields.
func DecodeBase64(text string) ([]byte, error) {
	var out bytes.Buffer
	s := newBase64Sink(&out, "")
	if s.run([]byte(text)) != nil || s.end() != nil {
		return nil, errNotBase64
	}
	return out.Bytes(), nil
}
