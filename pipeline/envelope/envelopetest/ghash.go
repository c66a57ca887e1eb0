package envelopetest

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// textbookGHASH is GHASH bit by bit, as NIST SP 800-38D §6.3 and §6.4 write it
// down: slow, and plainly right.
type textbookGHASH struct {
	keyHigh, keyLow uint64
	high, low       uint64
	size            uint64
}

func newTextbookGHASH(block cipher.Block) *textbookGHASH {
	var key [aes.BlockSize]byte
	block.Encrypt(key[:], key[:])
	return &textbookGHASH{keyHigh: binary.BigEndian.Uint64(key[:]), keyLow: binary.BigEndian.Uint64(key[8:])}
}

// write adds p; only the last piece may end within a block.
func (h *textbookGHASH) write(p []byte) {
	h.size += uint64(len(p))
	for len(p) > 0 {
		var block [aes.BlockSize]byte
		p = p[copy(block[:], p):]
		h.add(binary.BigEndian.Uint64(block[:]), binary.BigEndian.Uint64(block[8:]))
	}
}

// add adds a block and multiplies by the key.
func (h *textbookGHASH) add(high, low uint64) {
	high, low = high^h.high, low^h.low
	var zHigh, zLow uint64
	vHigh, vLow := h.keyHigh, h.keyLow
	for range 128 {
		// All ones if the first bit is set, else zero: no branch to mispredict.
		set := -(high >> 63)
		zHigh, zLow = zHigh^vHigh&set, zLow^vLow&set
		high, low = high<<1|low>>63, low<<1
		over := -(vLow & 1)
		vHigh, vLow = vHigh>>1^over&0xe100000000000000, vHigh<<63|vLow>>1
	}
	h.high, h.low = zHigh, zLow
}

// finish adds the lengths and puts the hash over the encrypted first counter.
func (h *textbookGHASH) finish(tag []byte) {
	h.add(0, h.size*8)
	binary.BigEndian.PutUint64(tag, binary.BigEndian.Uint64(tag)^h.high)
	binary.BigEndian.PutUint64(tag[8:], binary.BigEndian.Uint64(tag[8:])^h.low)
}
