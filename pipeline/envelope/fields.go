package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/tjfoc/gmsm/sm4"
)

// OpenFields decrypts the fields of a JSON document that the EncryptList of e
// names, and no others; e is the Encryption object of the same answer. The
// document may have the outer "Response" object or not, as may the paths.
//
// It returns the document with each ciphertext replaced; every other byte is as it
// was. A field that is null, or empty without a tag, has nothing to decrypt and
// stays (FACTS §11, 5). Anything else that does not fit is an error that names the
// path, and then nothing is returned: ErrMalformed if the list, a path, base64 or
// the authenticated text is wrong; ErrKeyMismatch if a tag is, or, for AES256CBC,
// which has none, the padding or the text.
func (s *Session) OpenFields(doc []byte, e Encryption) ([]byte, error) {
	iv, err := s.accept(e)
	if err != nil {
		return nil, fmt.Errorf("opening fields: %w", err)
	}
	if s.algorithm == SM4GCM && len(e.TagList) != len(e.EncryptList) {
		return nil, fmt.Errorf("opening fields: %w", malformed("%d tags for %d fields", len(e.TagList), len(e.EncryptList)))
	}
	fields, err := locate(doc, e.EncryptList)
	if err != nil {
		return nil, fmt.Errorf("opening fields: %w", err)
	}
	defer func() {
		for i := range fields {
			clear(fields[i].plaintext)
		}
	}()
	open, err := s.opener(iv)
	if err != nil {
		return nil, fmt.Errorf("opening fields: %w", err)
	}
	for i := range fields {
		tag := ""
		if s.algorithm == SM4GCM {
			tag = e.TagList[i]
		}
		if err := fields[i].open(open, tag); err != nil {
			return nil, fmt.Errorf("opening %s: %w", e.EncryptList[i], err)
		}
	}
	return splice(doc, fields)
}

// field is an encrypted string of a document.
type field struct {
	// start and end are its place in the document, quotes included; end is 0 as
	// long as it has not been found.
	start, end int
	// null says that there is no string.
	null       bool
	ciphertext string
	plaintext  []byte
}

// openFunc decrypts one ciphertext; tag is nil where the algorithm has none.
type openFunc func(ciphertext, tag []byte) ([]byte, error)

func (f *field) open(open openFunc, tag string) error {
	if f.null || (f.ciphertext == "" && tag == "") {
		return nil
	}
	ciphertext, err := decode("the value", f.ciphertext)
	if err != nil {
		return err
	}
	rawTag, err := decode("the tag", tag)
	if err != nil {
		return err
	}
	f.plaintext, err = open(ciphertext, rawTag)
	return err
}

// opener returns the decryption of the session's algorithm. A new one is made for
// each document: the ciphers of gmsm are not for concurrent use (FACTS §7.1).
func (s *Session) opener(iv []byte) (openFunc, error) {
	if s.algorithm == AES256CBC {
		block, err := aes.NewCipher(s.key)
		if err != nil {
			return nil, fmt.Errorf("making the cipher: %w", err)
		}
		return func(ciphertext, _ []byte) ([]byte, error) { return openCBC(block, iv, ciphertext) }, nil
	}
	block, err := sm4.NewCipher(s.key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	return func(ciphertext, tag []byte) ([]byte, error) { return openGCM(aead, iv, ciphertext, tag) }, nil
}

func openCBC(block cipher.Block, iv, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, malformed("%d bytes are not whole blocks", len(ciphertext))
	}
	plaintext := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plaintext, ciphertext)
	text, ok := unpad(plaintext)
	if !ok {
		clear(plaintext)
		return nil, mismatch("the padding is wrong")
	}
	if !utf8.Valid(text) {
		clear(plaintext)
		return nil, mismatch("what comes out is not text")
	}
	return text, nil
}

// unpad takes PKCS#7 padding off whole blocks.
func unpad(b []byte) ([]byte, bool) {
	n := int(b[len(b)-1])
	if n == 0 || n > aes.BlockSize || n > len(b) {
		return nil, false
	}
	for _, c := range b[len(b)-n:] {
		if int(c) != n {
			return nil, false
		}
	}
	return b[:len(b)-n], true
}

func openGCM(aead cipher.AEAD, iv, ciphertext, tag []byte) ([]byte, error) {
	if len(tag) != gcmTagSize {
		return nil, malformed("the tag has %d bytes, not %d", len(tag), gcmTagSize)
	}
	plaintext, err := aead.Open(nil, iv, slices.Concat(ciphertext, tag), nil)
	if err != nil {
		return nil, mismatch("the tag is wrong")
	}
	if !utf8.Valid(plaintext) {
		clear(plaintext)
		return nil, malformed("what comes out is not text")
	}
	return plaintext, nil
}

// locate finds the fields of a list in a document, in the list's order.
func locate(doc []byte, list []string) ([]field, error) {
	root, err := parsePaths(list)
	if err != nil {
		return nil, err
	}
	if !json.Valid(doc) {
		return nil, malformed("the answer is not JSON")
	}
	l := &locator{doc: doc, tokens: json.NewDecoder(bytes.NewReader(doc)), list: list, fields: make([]field, len(list))}
	l.tokens.UseNumber() // a number may be larger than any type
	if err := l.value(root); err != nil {
		return nil, err
	}
	for i, f := range l.fields {
		if f.end == 0 {
			return nil, malformed("the answer has no %s", list[i])
		}
	}
	return l.fields, nil
}

// locator walks through a document once.
type locator struct {
	doc    []byte
	tokens *json.Decoder
	list   []string
	fields []field
}

// value walks through the next value, which stands at b; b is nil where no path
// leads. It goes down no further than the paths do.
func (l *locator) value(b *branch) error {
	before := int(l.tokens.InputOffset())
	token, err := l.tokens.Token()
	if err != nil {
		return malformed("the answer is not JSON")
	}
	delim, nested := token.(json.Delim)
	if b != nil && b.field >= 0 {
		if err := l.found(b.field, before, token); err != nil {
			return err
		}
	}
	switch {
	case !nested:
		return nil
	case b == nil:
		return l.skip()
	case delim == '{':
		return l.object(b)
	default:
		return l.array(b)
	}
}

func (l *locator) object(b *branch) error {
	for l.tokens.More() {
		token, err := l.tokens.Token()
		if err != nil {
			return malformed("the answer is not JSON")
		}
		key, _ := token.(string)
		if err := l.value(b.down(key)); err != nil {
			return err
		}
	}
	return l.close()
}

func (l *locator) array(b *branch) error {
	for i := 0; l.tokens.More(); i++ {
		if err := l.value(b.down(index(i))); err != nil {
			return err
		}
	}
	return l.close()
}

func (l *locator) close() error {
	if _, err := l.tokens.Token(); err != nil {
		return malformed("the answer is not JSON")
	}
	return nil
}

// skip walks to the end of the object or array that has just begun.
func (l *locator) skip() error {
	for depth := 1; depth > 0; {
		token, err := l.tokens.Token()
		if err != nil {
			return malformed("the answer is not JSON")
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

// found notes the field that the token is; the token lies between before and
// where the decoder stands.
func (l *locator) found(i, before int, token json.Token) error {
	f := &l.fields[i]
	if f.end != 0 {
		return malformed("the answer has %s twice", l.list[i])
	}
	f.end = int(l.tokens.InputOffset())
	switch value := token.(type) {
	case nil:
		f.null = true
	case string:
		f.ciphertext = value
		// Space, a colon or a comma may stand before it.
		f.start = before + bytes.IndexByte(l.doc[before:f.end], '"')
	default:
		return malformed("%s is not a string", l.list[i])
	}
	return nil
}

// splice puts the plaintexts in place of the ciphertexts.
func splice(doc []byte, fields []field) ([]byte, error) {
	inOrder := slices.Clone(fields)
	slices.SortFunc(inOrder, func(a, b field) int { return a.end - b.end })
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	done := 0
	for _, f := range inOrder {
		if f.null {
			continue
		}
		out.Write(doc[done:f.start])
		if err := encoder.Encode(string(f.plaintext)); err != nil {
			return nil, errors.New("a decrypted field cannot be written as JSON")
		}
		out.Truncate(out.Len() - 1) // the encoder ends with a new line
		done = f.end
	}
	out.Write(doc[done:])
	return out.Bytes(), nil
}
