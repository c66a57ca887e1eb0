package spool

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	// chunkSize is how much plaintext is sealed at a time, in bytes. It bounds
	// what a seek has to decrypt.
	chunkSize = 64 << 10
	// sealedSize is a full chunk with its tag.
	sealedSize = chunkSize + 16
)

// sealedFile is a file of AES-256-GCM chunks. The nonce is the file's number in
// this process and the chunk's number in the file, so none repeats under the
// process's key. The associated data tells the last chunk from the others:
// without it, a file cut at a chunk's edge would look whole.
type sealedFile struct {
	aead   cipher.AEAD
	id     uint64
	file   *os.File
	plain  []byte
	sealed []byte
	chunks uint32
	size   int64
}

func (f *sealedFile) nonce(chunk uint32) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce, f.id)
	binary.BigEndian.PutUint32(nonce[8:], chunk)
	return nonce
}

func associated(last bool) []byte {
	if last {
		return []byte{1}
	}
	return []byte{0}
}

func (f *sealedFile) write(p []byte) error {
	f.size += int64(len(p))
	for len(p) > 0 {
		// A full chunk is written only when more follows: the last one is marked.
		if len(f.plain) == chunkSize {
			if err := f.flush(false); err != nil {
				return err
			}
		}
		n := min(len(p), chunkSize-len(f.plain))
		f.plain = append(f.plain, p[:n]...)
		p = p[n:]
	}
	return nil
}

func (f *sealedFile) flush(last bool) error {
	f.sealed = f.aead.Seal(f.sealed[:0], f.nonce(f.chunks), f.plain, associated(last))
	f.chunks++
	f.plain = f.plain[:0]
	if _, err := f.file.Write(f.sealed); err != nil {
		return fmt.Errorf("write a spool file: %w", err)
	}
	return nil
}

// finish writes the last chunk and drops the plaintext.
func (f *sealedFile) finish() error {
	err := f.flush(true)
	clear(f.plain[:cap(f.plain)])
	f.plain, f.sealed = nil, nil
	return err
}

func (f *sealedFile) remove() error {
	err := os.Remove(f.file.Name())
	_ = f.file.Close()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a spool file: %w", err)
	}
	return nil
}

func (f *sealedFile) open(item *Item) (io.ReadSeekCloser, error) {
	return &sealedReader{file: f, item: item, loaded: -1}, nil
}

// sealedReader reads a sealed file; all readers share its descriptor.
type sealedReader struct {
	file   *sealedFile
	item   *Item
	offset int64
	// loaded is the number of the chunk in plain, or -1.
	loaded int64
	plain  []byte
	sealed []byte
	closed bool
}

func (r *sealedReader) Read(p []byte) (int, error) {
	if r.closed || r.item.released() {
		return 0, ErrClosed
	}
	if r.offset >= r.file.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	chunk := r.offset / chunkSize
	if chunk != r.loaded {
		if err := r.load(chunk); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.plain[r.offset%chunkSize:])
	r.offset += int64(n)
	return n, nil
}

func (r *sealedReader) load(chunk int64) error {
	if r.sealed == nil {
		r.sealed, r.plain = make([]byte, sealedSize), make([]byte, 0, chunkSize)
	}
	r.loaded = -1
	last := chunk == int64(r.file.chunks)-1
	size := int64(sealedSize)
	if last {
		size = r.file.size - chunk*chunkSize + int64(r.file.aead.Overhead())
	}
	if _, err := r.file.file.ReadAt(r.sealed[:size], chunk*sealedSize); err != nil {
		if r.item.released() {
			return ErrClosed
		}
		return fmt.Errorf("read a spool file: %w", err)
	}
	plain, err := r.file.aead.Open(r.plain[:0], r.file.nonce(uint32(chunk)), r.sealed[:size], associated(last))
	if err != nil {
		return errors.New("read a spool file: its content was changed")
	}
	r.plain, r.loaded = plain, chunk
	return nil
}

func (r *sealedReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.file.size
	default:
		return 0, errors.New("seek in a spool file: invalid whence")
	}
	if offset < 0 {
		return 0, errors.New("seek in a spool file: negative position")
	}
	r.offset = offset
	return offset, nil
}

func (r *sealedReader) Close() error {
	r.closed = true
	clear(r.plain[:cap(r.plain)])
	return nil
}
