package setting

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// MaxFile bounds a file of settings, secrets or certificates, in bytes.
const MaxFile = 1 << 20

// ReadFile reads a file of at most MaxFile bytes that people write: see Text. Errors name
// the file and hold nothing of it.
func ReadFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read

	data, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > MaxFile:
		return nil, fmt.Errorf("%s is larger than %d bytes", path, MaxFile)
	}
	return Text(data), nil
}

// Text returns what editors and shells write as UTF-8: without a byte order mark, and
// from UTF-16 where the mark says so. What is no such text is returned as it is.
func Text(data []byte) []byte {
	text, _, err := transform.Bytes(unicode.BOMOverride(transform.Nop), data)
	if err != nil {
		return data
	}
	return text
}

// KeyPair is tls.LoadX509KeyPair for files as ReadFile reads them.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
