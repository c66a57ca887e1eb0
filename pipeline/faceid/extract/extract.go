// Package extract takes the media out of a JSON answer while it arrives.
//
// A JSON document goes in as a stream. Out come a small JSON document, in which
// each large string is replaced by a handle, and the media themselves, in a
// spool.Batch: the base64 of known media fields decoded, any other string over a
// limit as it is. Neither a medium nor the document is ever in memory as a
// whole, and every byte is looked at once.
//
// Apart from the limits, exactly the documents are taken that encoding/json
// takes. Errors never hold anything of the document but the path of a field.
package extract

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// Config says what counts as media and what the limits are.
type Config struct {
	// Fields are the paths of media fields inside the Response object, with []
	// for array elements: "BestFrame.BestFrames[]". The documents may have the
	// outer "Response" key or not.
	Fields []string
	// KeepText is the length in bytes up to which the string of a media field
	// stays in the JSON: it may be a path in COS, and only the whole document
	// tells.
	KeepText int
	// UnknownLimit is the length in bytes up to which any other string stays in
	// the JSON.
	UnknownLimit int
	// MaxBody bounds the document, in bytes after decompression.
	MaxBody int64
	// MaxJSON bounds the small JSON, in bytes.
	MaxJSON int
	// MaxDepth bounds nesting.
	MaxDepth int
	// MaxMedia bounds the number of media.
	MaxMedia int
}

// DefaultConfig returns limits far above what the FaceID API sends; Fields is
// left to the caller.
func DefaultConfig() Config {
	return Config{
		KeepText: 4 << 10, UnknownLimit: 64 << 10,
		MaxBody: 256 << 20, MaxJSON: 1 << 20, MaxDepth: 64, MaxMedia: 256,
	}
}

// Document is what Extract makes of an answer.
type Document struct {
	// JSON is the document with handles in place of media.
	JSON []byte
	// Media are the media by handle. Where the document repeats a key, as
	// encoding/json does the last one counts, and the handle of an earlier one
	// is here but no longer in what JSON decodes to.
	Media map[string]Medium
	// Damaged are media fields whose base64 cannot be decoded. In JSON they are null: of
	// what is damaged nothing is kept.
	Damaged []*FieldError
	// Took is how long reading it took, as Transport measures it.
	Took time.Duration
}

// Medium is a string that was taken out of the document.
type Medium struct {
	// Field is the path of the string inside the Response object, such as
	// "BestFrame.BestFrames[1]". Characters that no real key has are replaced.
	Field string
	// Item holds the bytes.
	Item *spool.Item
	// Known tells a media field, whose base64 was decoded, from another string,
	// whose bytes are kept as they were.
	Known bool
}

// Errors of documents over a limit.
var (
	ErrTooLarge = errors.New("the answer is larger than allowed")
	ErrTooDeep  = errors.New("the answer is nested deeper than allowed")
)

// SyntaxError says where a document is not JSON.
type SyntaxError struct {
	// Offset is the number of bytes before the wrong one.
	Offset int64
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("invalid JSON at byte %d", e.Offset) }

// FieldError says what is wrong with the content of a field.
type FieldError struct {
	// Field is a path as in Medium.Field.
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Extract reads one JSON document from src up to its end. The media go into
// batch, which the caller closes, also after an error. A document that ends too
// early gives io.ErrUnexpectedEOF; otherwise see the errors of this package. A medium
// whose base64 is damaged costs no other, see Document.Damaged.
func Extract(ctx context.Context, src io.Reader, batch *spool.Batch, cfg Config) (*Document, error) {
	s := &scanner{
		ctx:    ctx,
		src:    src,
		window: make([]byte, windowSize),
		cfg:    cfg,
		fields: make(map[string]bool, len(cfg.Fields)),
		batch:  batch,
		nonce:  rand.Text(),
		media:  map[string]Medium{},
	}
	for _, f := range cfg.Fields {
		s.fields[f] = true
	}
	if err := s.document(); err != nil {
		return nil, err
	}
	return &Document{JSON: s.out, Media: s.media, Damaged: s.damaged}, nil
}

// path is where the scanner stands: as patterns spell it, and with indexes.
type path struct{ pattern, field string }

// maxKey is how much of a key is kept in a path, in bytes.
const maxKey = 64

// key returns the path of a member; the outer Response object does not count.
func (p path) key(name string) path {
	if p.pattern == "" && name == "Response" {
		return p
	}
	name = safeKey(name)
	if p.pattern == "" {
		return path{name, name}
	}
	return path{p.pattern + "." + name, p.field + "." + name}
}

func (p path) index(i int) path {
	return path{p.pattern + "[]", p.field + "[" + strconv.Itoa(i) + "]"}
}

// safeKey keeps what a sender wrote as a key from being mistaken for a path, or
// from carrying anything into errors and names.
func safeKey(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', r == '_', r == '-':
			return r
		}
		return '_'
	}, name)
	return name[:min(len(name), maxKey)]
}

// handle makes the next handle. The nonce keeps a sender from forging one.
func (s *scanner) handle() string { return "spool:" + s.nonce + ":" + strconv.Itoa(len(s.media)) }

// take adds a medium and writes its handle in place of the string.
func (s *scanner) take(p path, item *spool.Item, known bool) error {
	handle := s.handle()
	s.media[handle] = Medium{Field: p.field, Item: item, Known: known}
	return s.emit([]byte(`"` + handle + `"`))
}
