package privacy

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/tjfoc/gmsm/sm4"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Sealed media is a header and chunks, each of which can be opened alone:
//
//	"FIMEDIA" 01 │ cipher │ 000000 │ key id (4) │ plaintext size (8) │ salt (32)
//	then per 64 KiB of plaintext, and once for an empty one:
//	nonce (12) │ ciphertext │ tag (16)
//
// The keys of a file are derived from the sealing key that the header names, the
// whole header, and where the file belongs (MediaRef): a header that was altered
// and a file that was moved give other keys, under which nothing opens. The
// number of a chunk and whether it is the last are its associated data, as in the
// STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): a file that is
// cut, extended or put together in another order does not open.
//
// Sealing is deterministic, so that a repeated upload writes the bytes that are
// there already. The salt is a MAC of the MediaRef and of the plaintext's
// SHA-256, so different plaintexts have different keys. That alone would make a
// counter a safe nonce only where the content never differs from its digest, and
// a reader learns whether it does when the first chunks are written already. So a
// nonce is not the counter but the first 96 bits of HMAC-SHA-256 over number, last
// mark and plaintext of its chunk (as in SIV, RFC 5297): it repeats only where all
// of these do, and then the ciphertext does, too. What a stranger can tell from two
// sealed files of one asset is whether they are the same.

const (
	mediaMagic = "FIMEDIA\x01"
	// MediaHeaderSize is how many bytes ReadMediaHeader reads.
	MediaHeaderSize = 56
	mediaChunk      = 64 << 10
	sealedChunk     = nonceSize + mediaChunk + tagSize
	maxMediaSize    = 1 << 50 // bytes; keeps sums of sizes far from overflow
)

// ErrWrongContent means that the bytes to be sealed are not those that their
// digest describes.
var ErrWrongContent = errors.New("the bytes are not those that their digest describes")

// MediaRef says where sealed media belongs: which asset of which token it is.
type MediaRef struct {
	Product result.Product
	// TokenHash is result.TokenHash.
	TokenHash string
	// Field is Asset.Field.
	Field string
}

// encode writes r without ambiguity.
func (r MediaRef) encode() []byte {
	var b []byte
	for _, part := range []string{string(r.Product), r.TokenHash, r.Field} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

// MediaHeader is what sealed media says of itself. It is not authentic before
// OpenMedia has given the first byte.
type MediaHeader struct {
	// KeyID names the sealing key.
	KeyID  string
	Cipher Cipher
	// Size is the plaintext's, in bytes.
	Size int64
	salt [sha256.Size]byte
}

// ReadMediaHeader reads the head of sealed media and not a byte more. The error
// is ErrNotSealed if it is none, or what r says.
func ReadMediaHeader(r io.Reader) (MediaHeader, error) {
	b := make([]byte, MediaHeaderSize)
	_, err := io.ReadFull(r, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return MediaHeader{}, ErrNotSealed
	case err != nil:
		return MediaHeader{}, err
	}
	return parseMediaHeader(b)
}

func parseMediaHeader(b []byte) (MediaHeader, error) {
	rest, ok := bytes.CutPrefix(b, []byte(mediaMagic))
	if !ok || !bytes.Equal(rest[1:4], make([]byte, 3)) {
		return MediaHeader{}, ErrNotSealed
	}
	size := binary.BigEndian.Uint64(rest[8:16])
	if size > maxMediaSize {
		return MediaHeader{}, ErrNotSealed
	}
	h := MediaHeader{KeyID: hex.EncodeToString(rest[4:8]), Size: int64(size), salt: [sha256.Size]byte(rest[16:])}
	for c, n := range cipherByte {
		if rest[0] == n {
			h.Cipher = c
			return h, nil
		}
	}
	return MediaHeader{}, ErrNotSealed
}

func (h MediaHeader) encode() []byte {
	b := append(make([]byte, 0, MediaHeaderSize), mediaMagic...)
	b = append(b, cipherByte[h.Cipher], 0, 0, 0)
	b, _ = hex.AppendDecode(b, []byte(h.KeyID)) // a key id is eight hex digits
	b = binary.BigEndian.AppendUint64(b, uint64(h.Size))
	return append(b, h.salt[:]...)
}

// chunks is how many chunks there are.
func (h MediaHeader) chunks() int64 { return max(1, (h.Size+mediaChunk-1)/mediaChunk) }

// plainLen is the length of a chunk's plaintext.
func (h MediaHeader) plainLen(chunk int64) int {
	return int(min(mediaChunk, h.Size-chunk*mediaChunk))
}

// SealedMediaSize returns how many bytes plain bytes of media have when sealed:
// 0.05 % more.
func SealedMediaSize(plain int64) int64 {
	return MediaHeaderSize + plain + MediaHeader{Size: plain}.chunks()*(nonceSize+tagSize)
}

// HasKeyring tells whether the policy can seal media; values of fields have a
// keyring wherever their rules need one.
func (p *Policy) HasKeyring() bool { return p.keys != nil }

// SealMedia returns content sealed under the keyring's active key, which is read
// anew if its file has changed, and the configured cipher. digest describes
// content. Equal arguments give equal bytes while key and cipher are the same.
//
// It fails if the policy has no keyring or the keyring cannot be read.
func (p *Policy) SealMedia(ref MediaRef, digest result.Digest, content result.Content) (*SealedMedia, error) {
	if p.keys == nil {
		return nil, errors.New("seal media: the privacy policy has no keyring: set privacy.keyring_file")
	}
	set, err := p.keys.current()
	if err != nil {
		return nil, fmt.Errorf("seal media: %w", err)
	}
	return p.sealMedia(set.active, ref, digest, content)
}

func (p *Policy) sealMedia(key sealingKey, ref MediaRef, digest result.Digest, content result.Content) (*SealedMedia, error) {
	if digest.Size < 0 || digest.Size > maxMediaSize {
		return nil, fmt.Errorf("seal media: %d bytes: %w", digest.Size, ErrWrongContent)
	}
	h := MediaHeader{KeyID: key.id, Cipher: p.cipher, Size: digest.Size, salt: mediaSalt(key, ref, digest)}
	return &SealedMedia{keys: newMediaKeys(key, ref, h), header: h, digest: digest, content: content}, nil
}

// ResealMedia returns media sealed anew under the active key and the configured
// cipher, and whether that changes anything: of what is so sealed already it
// returns nil and false, having read no more than the header. digest describes
// the plaintext. open opens the sealed form that is there; the result's readers
// call it, each once, and cannot seek.
//
// Errors are those of SealMedia and OpenMedia.
func (p *Policy) ResealMedia(ref MediaRef, digest result.Digest, open func() (io.ReadCloser, error)) (*SealedMedia, bool, error) {
	if p.keys == nil {
		return nil, false, errors.New("reseal media: the privacy policy has no keyring: set privacy.keyring_file")
	}
	set, err := p.keys.current()
	if err != nil {
		return nil, false, fmt.Errorf("reseal media: %w", err)
	}
	old, err := open()
	if err != nil {
		return nil, false, err
	}
	h, err := ReadMediaHeader(old)
	if err = errors.Join(err, old.Close()); err != nil {
		return nil, false, fmt.Errorf("reseal media: %w", err)
	}
	if h.KeyID == set.active.id && h.Cipher == p.cipher {
		return nil, false, nil
	}
	if _, known := set.find(h.KeyID); !known {
		return nil, false, fmt.Errorf("reseal media: %w", &UnknownKeyError{ID: h.KeyID})
	}
	sealed, err := p.sealMedia(set.active, ref, digest, resealing{p, ref, open})
	return sealed, err == nil, err
}

// OpenMedia returns a reader of the plaintext of sealed media. It reads the
// header at once; no byte of a chunk is released before the chunk is authentic,
// and none of the last before it is known to be the end.
//
// The error of OpenMedia is ErrNotSealed, *UnknownKeyError, or the keyring or
// sealed cannot be read; that of Read is ErrNotAuthentic or what sealed says.
func (p *Policy) OpenMedia(ref MediaRef, sealed io.Reader) (io.Reader, error) {
	h, err := ReadMediaHeader(sealed)
	if err != nil {
		return nil, fmt.Errorf("open media: %w", err)
	}
	if p.keys == nil {
		return nil, fmt.Errorf("open media: %w", &UnknownKeyError{ID: h.KeyID})
	}
	set, err := p.keys.current()
	if err != nil {
		return nil, fmt.Errorf("open media: %w", err)
	}
	key, known := set.find(h.KeyID)
	if !known {
		return nil, fmt.Errorf("open media: %w", &UnknownKeyError{ID: h.KeyID})
	}
	aead, err := newMediaKeys(key, ref, h).aead()
	if err != nil {
		return nil, fmt.Errorf("open media: %w", err)
	}
	return &openReader{header: h, aead: aead, sealed: sealed}, nil
}

// mediaSalt makes the keys of different plaintexts differ.
func mediaSalt(key sealingKey, ref MediaRef, digest result.Digest) [sha256.Size]byte {
	mac := hmac.New(sha256.New, key.key.derive("faceid-ingest media salt v1", 32))
	mac.Write(digest.SHA256[:])
	mac.Write(ref.encode())
	return [sha256.Size]byte(mac.Sum(nil))
}

// mediaKeys are the keys of one sealed file.
type mediaKeys struct {
	cipher Cipher
	chunk  []byte
	nonce  []byte
}

func newMediaKeys(k sealingKey, ref MediaRef, h MediaHeader) *mediaKeys {
	where := string(h.encode()) + string(ref.encode())
	size := 32
	if h.Cipher == SM4GCM {
		size = 16
	}
	return &mediaKeys{
		cipher: h.Cipher,
		chunk:  k.key.derive("faceid-ingest media chunk v1\x00"+where, size),
		nonce:  k.key.derive("faceid-ingest media nonce v1\x00"+where, 32),
	}
}

// aead is built per reader: gmsm's SM4 block keeps scratch buffers and may not be
// shared by goroutines (FACTS §7.1).
func (k *mediaKeys) aead() (cipher.AEAD, error) {
	var block cipher.Block
	var err error
	if k.cipher == SM4GCM {
		block, err = sm4.NewCipher(k.chunk)
	} else {
		block, err = aes.NewCipher(k.chunk)
	}
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Format prints no key.
func (k *mediaKeys) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// position is the associated data of a chunk.
func (h MediaHeader) position(chunk int64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 9), uint64(chunk))
	if chunk == h.chunks()-1 {
		return append(b, 1)
	}
	return append(b, 0)
}
