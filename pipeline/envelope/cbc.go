package envelope

import (
	"crypto/cipher"
	"errors"
	"io"
	"unicode/utf8"
)

// cbcReader decrypts CBC with PKCS#7 padding as it is read. It holds the last
// block back until the source ends, since padding is in it.
type cbcReader struct {
	src  io.Reader
	mode cipher.BlockMode
	// buf has room for the block that was held back and for what is read next.
	buf [blockSize + bodyBuffer]byte
	// held is how much of buf is held back: nothing before the first read, then a
	// block. ready is plaintext in buf after which the held block stands.
	held  int
	ready []byte
	err   error
}

func newCBCReader(block cipher.Block, iv []byte, src io.Reader) *cbcReader {
	return &cbcReader{src: src, mode: cipher.NewCBCDecrypter(block, iv)}
}

func (r *cbcReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 && r.err == nil {
		r.next()
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	if len(r.ready) > 0 {
		return n, nil
	}
	return n, r.err
}

// next decrypts what fits into the buffer.
func (r *cbcReader) next() {
	if r.held > 0 {
		copy(r.buf[:blockSize], r.buf[r.held-blockSize:r.held])
		r.held = blockSize
	}
	n, err := fill(r.src, r.buf[r.held:r.held+bodyBuffer])
	end := r.held + n
	if n%blockSize != 0 {
		if err == nil || errors.Is(err, io.EOF) {
			err = malformed("the ciphertext is not whole blocks")
		}
		r.err = err
		return
	}
	r.mode.CryptBlocks(r.buf[r.held:end], r.buf[r.held:end])
	switch {
	case err == nil:
		r.ready, r.held = r.buf[:end-blockSize], end
	case !errors.Is(err, io.EOF):
		r.err = err
	case end == 0:
		r.err = malformed("the ciphertext is empty")
	default:
		text, ok := unpad(r.buf[:end])
		if !ok {
			r.err = mismatch("the padding is wrong")
			return
		}
		r.ready, r.err = text, io.EOF
	}
}

// textCheck tells whether bytes that come in pieces are UTF-8.
type textCheck struct {
	// open holds the beginning of a character that a piece ended in.
	open [utf8.UTFMax]byte
	n    int
}

// write reports whether the text may still be UTF-8.
func (c *textCheck) write(p []byte) bool {
	for c.n > 0 && len(p) > 0 {
		c.open[c.n] = p[0]
		c.n++
		p = p[1:]
		if utf8.FullRune(c.open[:c.n]) {
			if !utf8.Valid(c.open[:c.n]) {
				return false
			}
			c.n = 0
		}
	}
	// A character that is not complete begins within the last three bytes.
	for i := max(0, len(p)-utf8.UTFMax+1); i < len(p); i++ {
		if utf8.RuneStart(p[i]) && !utf8.FullRune(p[i:]) {
			c.n = copy(c.open[:], p[i:])
			p = p[:i]
			break
		}
	}
	return utf8.Valid(p)
}

// finish reports whether the text ended with a whole character.
func (c *textCheck) finish() bool { return c.n == 0 }
