package extract

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string value: kept in the JSON if it is short, taken out if not.
func (s *scanner) text(p path) error {
	known := s.fields[p.pattern]
	limit := s.cfg.UnknownLimit
	if known {
		limit = s.cfg.KeepText
	}
	raw, whole, err := s.rawString(limit + 1) // with the opening quote
	if err != nil {
		return err
	}
	if whole {
		return s.emit(raw)
	}
	if len(s.media) == s.cfg.MaxMedia {
		return ErrTooLarge
	}
	w := s.batch.Create(s.ctx)
	var sink textSink = &plainSink{w: w}
	if known {
		sink = newBase64Sink(w, p.field)
	}
	damage := &tolerant{textSink: sink}
	if err := s.divert(raw[1:], damage); err != nil {
		return err
	}
	if damage.err != nil {
		s.damaged = append(s.damaged, damage.err)
		return s.emit([]byte("null"))
	}
	item, err := w.Finish()
	if err != nil {
		return err
	}
	return s.take(p, item, known)
}

// textSink takes the characters of a string.
type textSink interface {
	// run takes bytes that stand for themselves.
	run(p []byte) error
	// escaped takes a character that was written as an escape sequence.
	escaped(r rune) error
	// end is called after the last character.
	end() error
}

// tolerant is a textSink that takes the rest of a field that is damaged, for nothing.
type tolerant struct {
	textSink
	// err says what is wrong; nil as long as nothing is.
	err *FieldError
}

func (t *tolerant) run(p []byte) error {
	return t.unless(func() error { return t.textSink.run(p) })
}

func (t *tolerant) escaped(r rune) error {
	return t.unless(func() error { return t.textSink.escaped(r) })
}

func (t *tolerant) end() error { return t.unless(t.textSink.end) }

func (t *tolerant) unless(do func() error) error {
	if t.err != nil {
		return nil //nolint:nilerr // It costs this medium only, whose end it is kept for.
	}
	err := do()
	if errors.As(err, &t.err) {
		return nil
	}
	return err
}

// divert gives the characters of a string to sink: first those in head, raw,
// then the rest of the string from the document.
func (s *scanner) divert(head []byte, sink textSink) error {
	d := diverter{sink: sink}
	for len(head) > 0 {
		run := head
		if i := bytes.IndexByte(head, '\\'); i >= 0 {
			run = head[:i]
		}
		if err := d.run(run); err != nil {
			return err
		}
		head = head[len(run):]
		if len(head) == 0 {
			break
		}
		n := escapeLength(head)
		if err := d.escape(head[:n]); err != nil {
			return err
		}
		head = head[n:]
	}
	for {
		if err := s.more(); err != nil {
			return err
		}
		run := s.run()
		if err := d.run(run); err != nil {
			return err
		}
		s.next += len(run)
		if s.next == s.end {
			continue
		}
		switch s.window[s.next] {
		case '"':
			s.next++
			return d.end()
		case '\\':
			escape, err := s.escape()
			if err != nil {
				return err
			}
			if err := d.escape(escape); err != nil {
				return err
			}
		default:
			return s.wrong()
		}
	}
}

func escapeLength(p []byte) int {
	if p[1] == 'u' {
		return 6
	}
	return 2
}

// diverter decodes escape sequences; a surrogate waits for its other half.
type diverter struct {
	sink textSink
	high rune
}

func (d *diverter) run(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := d.lone(); err != nil {
		return err
	}
	return d.sink.run(p)
}

// lone ends a surrogate that got no other half, the way encoding/json does.
func (d *diverter) lone() error {
	if d.high == 0 {
		return nil
	}
	d.high = 0
	return d.sink.escaped(utf8.RuneError)
}

func (d *diverter) escape(seq []byte) error {
	r := unescape(seq)
	if d.high != 0 {
		if pair := utf16.DecodeRune(d.high, r); pair != utf8.RuneError {
			d.high = 0
			return d.sink.escaped(pair)
		}
		if err := d.lone(); err != nil {
			return err
		}
	}
	if utf16.IsSurrogate(r) {
		d.high = r
		return nil
	}
	return d.sink.escaped(r)
}

func (d *diverter) end() error {
	if err := d.lone(); err != nil {
		return err
	}
	return d.sink.end()
}

// unescape returns the character of a valid escape sequence.
func unescape(seq []byte) rune {
	switch seq[1] {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'u':
		n, _ := strconv.ParseUint(string(seq[2:]), 16, 16)
		return rune(n)
	default: // quote, backslash, slash
		return rune(seq[1])
	}
}

// plainSink keeps the characters as they are.
type plainSink struct {
	w interface{ Write(p []byte) (int, error) }
}

func (s *plainSink) run(p []byte) error {
	_, err := s.w.Write(p)
	return err
}

func (s *plainSink) escaped(r rune) error {
	_, err := s.w.Write(utf8.AppendRune(nil, r))
	return err
}

func (s *plainSink) end() error { return nil }
