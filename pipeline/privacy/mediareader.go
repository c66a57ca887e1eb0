package privacy

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// SealedMedia is an asset in its sealed form. It is a result.Content, so that a
// sink can store it in the place of the asset's own: in one go, or in parts that
// several readers read at once.
type SealedMedia struct {
	keys    *mediaKeys
	header  MediaHeader
	digest  result.Digest
	content result.Content
}

var _ result.Content = (*SealedMedia)(nil)

// Header describes the sealed form.
func (m *SealedMedia) Header() MediaHeader { return m.header }

// Size is how many bytes the sealed form has.
func (m *SealedMedia) Size() int64 { return SealedMediaSize(m.digest.Size) }

// Open returns a reader of the sealed form, which belongs to one goroutine. Of
// content that has not the size of its digest, Read fails with ErrWrongContent.
// A reader that reads everything from the first byte on also fails so, before the
// last chunk, if the SHA-256 is another; one that seeks past something cannot
// know. So who uploads parts reads the whole once before, or compares afterwards.
func (m *SealedMedia) Open() (io.ReadSeekCloser, error) {
	aead, err := m.keys.aead()
	if err != nil {
		return nil, fmt.Errorf("seal media: %w", err)
	}
	plain, err := m.content.Open()
	if err != nil {
		return nil, err
	}
	return &sealReader{
		media: m, aead: aead, plain: plain, head: m.header.encode(), loaded: -1,
		nonces: hmac.New(sha256.New, m.keys.nonce), sum: sha256.New(),
	}, nil
}

// sealReader seals chunk after chunk as it is read.
type sealReader struct {
	media  *SealedMedia
	aead   cipher.AEAD
	plain  io.ReadSeekCloser
	head   []byte
	nonces hash.Hash

	// pos is where in the sealed form the next byte comes from.
	pos int64
	// out is the sealed chunk with the number loaded, or -1.
	out    []byte
	loaded int64
	// next is the chunk at whose start the plaintext stands.
	next int64
	buf  []byte
	// sum has hashed all chunks before the number hashed.
	sum    hash.Hash
	hashed int64
}

func (r *sealReader) Close() error { return r.plain.Close() }

func (r *sealReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.media.Size()
	default:
		return 0, errors.New("seek sealed media: unknown whence")
	}
	if offset < 0 {
		return 0, errors.New("seek sealed media: before its start")
	}
	r.pos = offset
	return offset, nil
}

func (r *sealReader) Read(p []byte) (int, error) {
	if r.pos >= r.media.Size() {
		return 0, io.EOF
	}
	from := r.head
	within := r.pos
	if r.pos >= MediaHeaderSize {
		chunk := (r.pos - MediaHeaderSize) / sealedChunk
		if chunk != r.loaded {
			if err := r.load(chunk); err != nil {
				r.loaded, r.next = -1, -1 // where the plaintext stands is not known
				return 0, err
			}
		}
		from, within = r.out, (r.pos-MediaHeaderSize)%sealedChunk
	}
	n := copy(p, from[within:])
	r.pos += int64(n)
	return n, nil
}

// load reads and seals a chunk.
func (r *sealReader) load(chunk int64) error {
	h := r.media.header
	if err := r.readPlain(chunk); err != nil {
		return err
	}
	if chunk == 0 {
		r.sum.Reset()
		r.hashed = 0
	}
	if chunk == r.hashed {
		_, _ = r.sum.Write(r.buf) // never fails
		r.hashed++
	}
	if r.hashed == h.chunks() && chunk == r.hashed-1 && [sha256.Size]byte(r.sum.Sum(nil)) != r.media.digest.SHA256 {
		return ErrWrongContent
	}
	position := h.position(chunk)
	r.nonces.Reset()
	_, _ = r.nonces.Write(position) // never fails
	_, _ = r.nonces.Write(r.buf)
	r.out = append(r.out[:0], r.nonces.Sum(nil)[:nonceSize]...)
	r.out = r.aead.Seal(r.out, r.out[:nonceSize], r.buf, position)
	r.loaded = chunk
	return nil
}

// readPlain reads a chunk of the plaintext, and after the last one looks for what
// should not be there.
func (r *sealReader) readPlain(chunk int64) error {
	h := r.media.header
	if chunk != r.next {
		if _, err := r.plain.Seek(chunk*mediaChunk, io.SeekStart); err != nil {
			return err
		}
	}
	if r.buf == nil {
		size := min(mediaChunk, h.Size)
		r.buf, r.out = make([]byte, size), make([]byte, 0, nonceSize+size+tagSize)
	}
	r.buf = r.buf[:h.plainLen(chunk)]
	if _, err := io.ReadFull(r.plain, r.buf); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrWrongContent
		}
		return err
	}
	r.next = chunk + 1
	if r.next < h.chunks() {
		return nil
	}
	return atEnd(r.plain, ErrWrongContent)
}

// atEnd returns nil if a reader has nothing more to give, and longer if it has.
func atEnd(r io.Reader, longer error) error {
	_, err := io.ReadFull(r, make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return longer
	}
	return err
}

// resealing is the plaintext of a sealed form that is stored.
type resealing struct {
	policy *Policy
	ref    MediaRef
	open   func() (io.ReadCloser, error)
}

func (r resealing) Open() (io.ReadSeekCloser, error) {
	stored, err := r.open()
	if err != nil {
		return nil, err
	}
	plain, err := r.policy.OpenMedia(r.ref, stored)
	if err != nil {
		return nil, errors.Join(err, stored.Close())
	}
	return unseekable{plain, stored}, nil
}

type unseekable struct {
	io.Reader
	io.Closer
}

func (unseekable) Seek(int64, int) (int64, error) {
	return 0, errors.New("media that is sealed anew can only be read from its start on")
}

// openReader opens chunk after chunk as it is read.
type openReader struct {
	header MediaHeader
	aead   cipher.AEAD
	sealed io.Reader

	next int64
	buf  []byte
	rest bytes.Reader
	err  error
}

func (r *openReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.rest.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.next == r.header.chunks() {
			return 0, io.EOF
		}
		if r.err = r.load(); r.err != nil {
			return 0, r.err
		}
	}
	return r.rest.Read(p)
}

// load opens the next chunk.
func (r *openReader) load() error {
	h := r.header
	size := nonceSize + h.plainLen(r.next) + tagSize
	if r.buf == nil {
		r.buf = make([]byte, size) // the first is the largest
	}
	b := r.buf[:size]
	if _, err := io.ReadFull(r.sealed, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrNotAuthentic
		}
		return err
	}
	if r.next == h.chunks()-1 {
		if err := atEnd(r.sealed, ErrNotAuthentic); err != nil {
			return err
		}
	}
	plain, err := r.aead.Open(b[nonceSize:nonceSize], b[:nonceSize], b[nonceSize:], h.position(r.next))
	if err != nil {
		return ErrNotAuthentic
	}
	r.rest.Reset(plain)
	r.next++
	return nil
}
