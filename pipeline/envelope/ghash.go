package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// ghash is the hash of GCM (NIST SP 800-38D §6.4) over a ciphertext that comes in
// pieces; neither gmsm nor the standard library has one. Associated data is empty
// (FACTS §1.4).
type ghash struct {
	// table holds the product of the hash key with every byte.
	table [256]element
	sum   element
	// size is the number of bytes so far.
	size uint64
}

// element is of GF(2^128): the first bit of the block is the highest of high, and
// stands for x^0.
type element struct{ high, low uint64 }

// blockSize is that of the ciphers, in bytes; AES and SM4 share it.
const blockSize = aes.BlockSize

func newElement(block []byte) element {
	return element{binary.BigEndian.Uint64(block), binary.BigEndian.Uint64(block[8:])}
}

func (e element) plus(o element) element { return element{e.high ^ o.high, e.low ^ o.low} }

// timesX returns e multiplied by x modulo x^128 + x^7 + x^2 + x + 1.
func (e element) timesX() element {
	over := e.low & 1
	return element{e.high>>1 ^ over*(0xe1<<56), e.high<<63 | e.low>>1}
}

// reduction tells what the byte that a shift by eight pushes out adds to high.
var reduction = func() (table [256]uint64) {
	for i := range table {
		e := element{low: uint64(i)}
		for range 8 {
			e = e.timesX()
		}
		table[i] = e.high
	}
	return table
}()

// newGHASH takes the hash key from the cipher: the encrypted block of zeros.
func newGHASH(block cipher.Block) *ghash {
	var key [blockSize]byte
	block.Encrypt(key[:], key[:])
	defer clear(key[:])
	h := &ghash{}
	e := newElement(key[:])
	for bit := 0x80; bit > 0; bit >>= 1 {
		h.table[bit] = e
		e = e.timesX()
	}
	for i := range h.table {
		rest := i & (i - 1)
		h.table[i] = h.table[rest].plus(h.table[i^rest])
	}
	return h
}

// write adds ciphertext. Only the last piece may end within a block.
func (h *ghash) write(p []byte) {
	h.size += uint64(len(p))
	for len(p) >= blockSize {
		h.add(p[:blockSize])
		p = p[blockSize:]
	}
	if len(p) > 0 {
		var last [blockSize]byte
		copy(last[:], p)
		h.add(last[:])
	}
}

// add adds one block: sum = (sum + block) * key, byte by byte after Horner.
func (h *ghash) add(block []byte) {
	_ = block[blockSize-1]
	high := h.sum.high ^ binary.BigEndian.Uint64(block)
	low := h.sum.low ^ binary.BigEndian.Uint64(block[8:])
	var z element
	for range 8 {
		e := &h.table[low&0xff]
		z = element{z.high>>8 ^ reduction[z.low&0xff] ^ e.high, z.high<<56 ^ z.low>>8 ^ e.low}
		low >>= 8
	}
	for range 8 {
		e := &h.table[high&0xff]
		z = element{z.high>>8 ^ reduction[z.low&0xff] ^ e.high, z.high<<56 ^ z.low>>8 ^ e.low}
		high >>= 8
	}
	h.sum = z
}

// finish adds the lengths and returns the hash.
func (h *ghash) finish() [blockSize]byte {
	var out [blockSize]byte
	binary.BigEndian.PutUint64(out[8:], h.size*8)
	h.add(out[:])
	binary.BigEndian.PutUint64(out[:], h.sum.high)
	binary.BigEndian.PutUint64(out[8:], h.sum.low)
	return out
}
