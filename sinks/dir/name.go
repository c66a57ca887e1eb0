package dir

import (
	"errors"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Folder returns the folder of a token, relative to the archive folder and with
// forward slashes.
func Folder(p result.Product, token string) string { return folder(sinks.KeyOf(p, token)) }

// folder is the folder of a valid key.
func folder(k sinks.Key) string { return path.Join(string(k.Product), k.Hash[:2], k.Hash) }

var tokenHash = regexp.MustCompile(`^[0-9a-f]{32}$`)

// folder returns the path of a token's folder. A key that no token has would lead
// out of the archive.
func (s *Sink) folder(k sinks.Key) (string, error) {
	if !k.Product.Valid() || !tokenHash.MatchString(k.Hash) {
		return "", errors.New("no token has such a key")
	}
	return filepath.Join(s.root, filepath.FromSlash(folder(k))), nil
}

// sealedSuffix is what the name of a sealed file has behind that of the file it
// would be otherwise.
const sealedSuffix = ".sealed"

// twin returns the name that a file has in the other form.
func twin(name string) string {
	if plain, sealed := strings.CutSuffix(name, sealedSuffix); sealed {
		return plain
	}
	return name + sealedSuffix
}

// fileName returns the name of the file of an asset: "BestFrame.BestFrames[1]"
// gives "BestFrame.BestFrames-1.jpg". Different fields give different names.
func fileName(a result.Asset) string {
	return result.FieldName(a.Field) + "." + result.Extension(a.ContentType)
}
