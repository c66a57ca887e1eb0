package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/tjfoc/gmsm/sm4"
)

// bodyBuffer is how much of a body is read at a time, in bytes.
const bodyBuffer = 64 << 10

// maxGCM is the most that one key and IV may encrypt, in bytes (NIST SP 800-38D
// §5.2.1.1). Up to it the counter of 32 bits does not wrap.
const maxGCM = 1<<36 - 2*blockSize

// OpenBody decrypts a whole answer. The ciphertext is what EncryptedBody holds
// without its base64; e is the Encryption object beside it.
//
// The ciphertext is read twice, from where it stands: here, to check it, and then
// by the returned reader, whose errors are those of the ciphertext. Memory stays at
// about 200 KiB whatever the size. With SM4GCM the tag is checked, so that every
// byte that the reader returns is authentic. With AES256CBC, which has none, the
// padding and that the plaintext is UTF-8: what is behind it is for the JSON
// parser to refuse.
//
// Errors are ErrMalformed and ErrKeyMismatch as with OpenFields, and those of the
// ciphertext. The reader is for one goroutine.
func (s *Session) OpenBody(ciphertext io.ReadSeeker, e Encryption) (io.Reader, error) {
	iv, err := s.accept(e)
	if err != nil {
		return nil, fmt.Errorf("opening an encrypted body: %w", err)
	}
	start, err := ciphertext.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("opening an encrypted body: %w", err)
	}
	check := s.checkCBC
	if s.algorithm == SM4GCM {
		check = s.checkGCM
	}
	open, err := check(ciphertext, iv, e.TagList)
	if err != nil {
		return nil, fmt.Errorf("opening an encrypted body: %w", err)
	}
	if _, err := ciphertext.Seek(start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("opening an encrypted body: %w", err)
	}
	return open(ciphertext), nil
}

// checkGCM checks the tag and returns what then decrypts.
func (s *Session) checkGCM(ciphertext io.Reader, iv []byte, tags []string) (func(io.Reader) io.Reader, error) {
	if len(tags) != 1 {
		return nil, malformed("%d tags for one body", len(tags))
	}
	tag, err := decode("the tag", tags[0])
	if err != nil {
		return nil, err
	}
	if len(tag) != gcmTagSize {
		return nil, malformed("the tag has %d bytes, not %d", len(tag), gcmTagSize)
	}
	block, err := sm4.NewCipher(s.key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	want, err := gcmTag(block, iv, ciphertext)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(want[:], tag) != 1 {
		return nil, mismatch("the tag is wrong")
	}
	return func(r io.Reader) io.Reader {
		counter := gcmCounter(iv, 2) // 1 was for the tag
		return &cipher.StreamReader{S: cipher.NewCTR(block, counter[:]), R: r}
	}, nil
}

// gcmCounter returns the block that GCM encrypts for its nth step, for an IV of 12
// bytes (NIST SP 800-38D §7.1).
func gcmCounter(iv []byte, n byte) [blockSize]byte {
	var counter [blockSize]byte
	copy(counter[:], iv)
	counter[blockSize-1] = n
	return counter
}

// gcmTag returns the tag of a ciphertext.
func gcmTag(block cipher.Block, iv []byte, ciphertext io.Reader) ([gcmTagSize]byte, error) {
	hash := newGHASH(block)
	buf := make([]byte, bodyBuffer)
	for {
		n, err := fill(ciphertext, buf)
		hash.write(buf[:n])
		if hash.size > maxGCM {
			return [gcmTagSize]byte{}, malformed("the body is larger than GCM allows")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return [gcmTagSize]byte{}, err
		}
	}
	tag := hash.finish()
	mask := gcmCounter(iv, 1)
	block.Encrypt(mask[:], mask[:])
	subtle.XORBytes(tag[:], tag[:], mask[:])
	return tag, nil
}

// fill reads until p is full or the source ends, which gives io.EOF, also after
// some bytes. Unlike io.ReadFull it does not use io.ErrUnexpectedEOF, with which a
// source says that it was cut off.
func fill(r io.Reader, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// checkCBC decrypts once without keeping anything, and returns what decrypts for
// good.
func (s *Session) checkCBC(ciphertext io.Reader, iv []byte, _ []string) (func(io.Reader) io.Reader, error) {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	open := func(r io.Reader) io.Reader { return newCBCReader(block, iv, r) }
	buf := make([]byte, bodyBuffer)
	defer clear(buf)
	var text textCheck
	for plaintext := open(ciphertext); ; {
		n, err := plaintext.Read(buf)
		if !text.write(buf[:n]) {
			return nil, mismatch("what comes out is not text")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if !text.finish() {
		return nil, mismatch("what comes out is not text")
	}
	return open, nil
}
