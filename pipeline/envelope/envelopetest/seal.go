package envelopetest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/emmansun/gmsm/sm4"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
)

// Sealer encrypts one answer. It may be used by any number of goroutines.
type Sealer struct {
	algorithm envelope.Algorithm
	block     cipher.Block
	iv        []byte
}

// NewSealer takes a key and an IV: of 32 and 16 bytes for AES256CBC, of 16 and 12
// for SM4GCM. It serves where the key does not come in a request, as with KMS.
func NewSealer(algorithm envelope.Algorithm, key, iv []byte) (*Sealer, error) {
	newBlock, keySize, ivSize := aes.NewCipher, 32, 16
	if algorithm == envelope.SM4GCM {
		newBlock, keySize, ivSize = sm4.NewCipher, 16, 12
	}
	if len(key) != keySize || len(iv) != ivSize {
		return nil, fmt.Errorf("%s needs a key of %d bytes and an IV of %d", algorithm, keySize, ivSize)
	}
	block, err := newBlock(key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher: %w", err)
	}
	return &Sealer{algorithm, block, iv}, nil
}

// encryption is the object that goes with an answer.
func (s *Sealer) encryption(list, tags []string) envelope.Encryption {
	return envelope.Encryption{
		EncryptList: list,
		TagList:     tags,
		Iv:          base64.StdEncoding.EncodeToString(s.iv),
		Algorithm:   s.algorithm,
	}
}

// Text encrypts one value; the tag is empty for AES256CBC. Both are base64.
func (s *Sealer) Text(plaintext string) (ciphertext, tag string) {
	if s.algorithm == envelope.AES256CBC {
		padded := pad([]byte(plaintext))
		cipher.NewCBCEncrypter(s.block, s.iv).CryptBlocks(padded, padded)
		return base64.StdEncoding.EncodeToString(padded), ""
	}
	aead, err := cipher.NewGCM(s.block)
	if err != nil {
		panic(err) // of a cipher with blocks of 16 bytes
	}
	sealed := aead.Seal(nil, s.iv, []byte(plaintext), nil)
	end := len(sealed) - aead.Overhead()
	return base64.StdEncoding.EncodeToString(sealed[:end]), base64.StdEncoding.EncodeToString(sealed[end:])
}

func pad(b []byte) []byte {
	n := aes.BlockSize - len(b)%aes.BlockSize
	return append(b, bytes.Repeat([]byte{byte(n)}, n)...)
}

// Fields encrypts the strings of a document that the paths name, and returns it
// with the Encryption object of the answer, which is for the caller to put in.
// Paths begin where the document does: with "Response" if that is its outer object.
func (s *Sealer) Fields(doc []byte, paths ...string) ([]byte, envelope.Encryption, error) {
	var root any
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	if err := decoder.Decode(&root); err != nil {
		return nil, envelope.Encryption{}, fmt.Errorf("reading the document: %w", err)
	}
	var tags []string
	for _, path := range paths {
		put, value, err := at(root, path)
		if err != nil {
			return nil, envelope.Encryption{}, fmt.Errorf("encrypting %s: %w", path, err)
		}
		ciphertext, tag := s.Text(value)
		put(ciphertext)
		if tag != "" {
			tags = append(tags, tag)
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(root); err != nil {
		return nil, envelope.Encryption{}, fmt.Errorf("writing the document: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), s.encryption(paths, tags), nil
}

// at returns the string at a path and what replaces it.
func at(root any, path string) (put func(string), value string, err error) {
	for step := range strings.SplitSeq(strings.ReplaceAll(path, "[", ".["), ".") {
		switch node := root.(type) {
		case map[string]any:
			root, put = node[step], func(v string) { node[step] = v }
		case []any:
			i, err := strconv.Atoi(strings.Trim(step, "[]"))
			if err != nil || i >= len(node) {
				return nil, "", errors.New("no such element")
			}
			root, put = node[i], func(v string) { node[i] = v }
		default:
			return nil, "", errors.New("no such field")
		}
	}
	value, ok := root.(string)
	if !ok {
		return nil, "", errors.New("not a string")
	}
	return put, value, nil
}

// Body encrypts a whole answer from src to dst, which gets bytes and not base64,
// and returns the Encryption object. Memory stays flat.
func (s *Sealer) Body(dst io.Writer, src io.Reader) (envelope.Encryption, error) {
	list := []string{"EncryptionBody"}
	if s.algorithm == envelope.AES256CBC {
		return s.encryption(list, nil), s.bodyCBC(dst, src)
	}
	tag, err := s.bodyGCM(dst, src)
	return s.encryption(list, []string{base64.StdEncoding.EncodeToString(tag)}), err
}

func (s *Sealer) bodyCBC(dst io.Writer, src io.Reader) error {
	mode := cipher.NewCBCEncrypter(s.block, s.iv)
	return chunks(src, func(chunk []byte, last bool) error {
		if last {
			chunk = pad(chunk)
		}
		mode.CryptBlocks(chunk, chunk)
		_, err := dst.Write(chunk)
		return err
	})
}

func (s *Sealer) bodyGCM(dst io.Writer, src io.Reader) ([]byte, error) {
	first := append(bytes.Clone(s.iv), 0, 0, 0, 1)
	second := append(bytes.Clone(s.iv), 0, 0, 0, 2)
	stream := cipher.NewCTR(s.block, second)
	sum := newTextbookGHASH(s.block)
	err := chunks(src, func(chunk []byte, _ bool) error {
		stream.XORKeyStream(chunk, chunk)
		sum.write(chunk)
		_, err := dst.Write(chunk)
		return err
	})
	tag := make([]byte, aes.BlockSize)
	s.block.Encrypt(tag, first)
	sum.finish(tag)
	return tag, err
}

// chunkSize is how much of a body is encrypted at a time, in bytes.
const chunkSize = 64 << 10

// chunks calls f with the whole of src in pieces of chunkSize bytes; the last one
// is shorter, and may be empty.
func chunks(src io.Reader, f func(chunk []byte, last bool) error) error {
	buf := make([]byte, chunkSize, chunkSize+aes.BlockSize)
	for {
		n, err := io.ReadFull(src, buf)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return fmt.Errorf("reading a body: %w", err)
		}
		if err := f(buf[:n], last); err != nil {
			return fmt.Errorf("writing an encrypted body: %w", err)
		}
		if last {
			return nil
		}
	}
}
