package costest

import (
	"bytes"
	"crypto/md5" //nolint:gosec // COS defines Content-MD5 and ETag so
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash/crc64"
	"io"
)

var ecma = crc64.MakeTable(crc64.ECMA)

// smallBody is the size up to which bodies are kept in any case, in bytes.
const smallBody = 64 << 10

// blob is a body: its digests and, if they are kept, its bytes in pieces, so that
// parts become an object without being copied.
type blob struct {
	size   int64
	crc    uint64
	md5    [md5.Size]byte
	pieces [][]byte
	// dropped says that the bytes were not kept.
	dropped bool
}

func blobOf(b []byte) blob {
	return blob{
		size: int64(len(b)), crc: crc64.Checksum(b, ecma),
		md5: md5.Sum(b), pieces: [][]byte{b}, //nolint:gosec // see the import
	}
}

// readBlob reads a body to its end; size is what it is said to have.
func readBlob(r io.Reader, size int64, drop bool) (blob, error) {
	b := blob{dropped: drop}
	sum := md5.New() //nolint:gosec // see the import
	piece := make([]byte, min(256<<10, max(size, 0)+1))
	for {
		n, err := io.ReadFull(r, piece)
		_, _ = sum.Write(piece[:n]) // never fails
		b.crc = crc64.Update(b.crc, ecma, piece[:n])
		b.size += int64(n)
		if !drop && n > 0 {
			b.pieces = append(b.pieces, bytes.Clone(piece[:n]))
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			// net/http says io.ErrUnexpectedEOF of a body that was cut, and so does
			// ReadFull of the last piece: the caller compares sizes.
			b.md5 = [md5.Size]byte(sum.Sum(nil))
			return b, nil
		default:
			return b, err
		}
	}
}

func (b blob) md5Hex() string    { return hex.EncodeToString(b.md5[:]) }
func (b blob) md5Base64() string { return base64.StdEncoding.EncodeToString(b.md5[:]) }
func (b blob) bytes() []byte     { return bytes.Join(b.pieces, nil) }

// reader reads n bytes from offset on.
func (b blob) reader(offset, n int64) io.Reader {
	readers := make([]io.Reader, len(b.pieces))
	for i, p := range b.pieces {
		readers[i] = bytes.NewReader(p)
	}
	all := io.MultiReader(readers...)
	_, _ = io.CopyN(io.Discard, all, offset)
	return io.LimitReader(all, n)
}

// joined is the blob of two in a row; its MD5 is not known.
func (b blob) joined(next blob) blob {
	return blob{
		size: b.size + next.size, crc: combine(b.crc, next.crc, next.size),
		pieces: append(b.pieces[:len(b.pieces):len(b.pieces)], next.pieces...), dropped: b.dropped || next.dropped,
	}
}

// combine returns the CRC of two byte strings in a row from the CRC of each and
// the length of the second: the first's register is run through that many zero
// bytes, by squaring the matrix that does one zero bit (as zlib's crc32_combine).
func combine(crc1, crc2 uint64, len2 int64) uint64 {
	var bit [64]uint64
	bit[0] = crc64.ECMA
	for i := 1; i < 64; i++ {
		bit[i] = 1 << (i - 1)
	}
	m := square(square(square(bit))) // one zero byte
	for n := len2; n > 0; n >>= 1 {
		if n&1 != 0 {
			crc1 = times(m, crc1)
		}
		m = square(m)
	}
	return crc1 ^ crc2
}

func times(m [64]uint64, v uint64) (sum uint64) {
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			sum ^= m[i]
		}
	}
	return sum
}

func square(m [64]uint64) (out [64]uint64) {
	for i := range m {
		out[i] = times(m, m[i])
	}
	return out
}
