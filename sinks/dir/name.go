package dir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"mime"
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

// plainField is the grammar of the field paths that FaceID has: names, parted by
// dots, with array indexes. Names have no hyphen, so that an index can have one.
var plainField = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(\[[0-9]{1,6}\])*(\.[A-Za-z][A-Za-z0-9]*(\[[0-9]{1,6}\])*)*$`)

// maxPlainField keeps names far below the 255 bytes of common file systems.
const maxPlainField = 128

// fileName returns the name of the file of an asset: "BestFrame.BestFrames[1]"
// gives "BestFrame.BestFrames-1.jpg". A field that is not in the grammar gives
// "field-" and a hash. Different fields give different names.
func fileName(a result.Asset) string {
	if len(a.Field) <= maxPlainField && plainField.MatchString(a.Field) {
		return strings.NewReplacer("[", "-", "]", "").Replace(a.Field) + extension(a.ContentType)
	}
	sum := sha256.Sum256([]byte(a.Field))
	return "field-" + hex.EncodeToString(sum[:16]) + extension(a.ContentType)
}

// extensions are of the types that pipeline/spool tells apart;
// mime.ExtensionsByType would depend on the machine.
var extensions = map[string]string{
	"image/jpeg":      ".jpg",
	"image/png":       ".png",
	"image/webp":      ".webp",
	"image/bmp":       ".bmp",
	"image/gif":       ".gif",
	"image/heic":      ".heic",
	"video/mp4":       ".mp4",
	"video/webm":      ".webm",
	"video/quicktime": ".mov",
	"video/avi":       ".avi",
	"video/3gpp":      ".3gp",
	"video/x-flv":     ".flv",
	"audio/wav":       ".wav",
	"audio/mpeg":      ".mp3",
	"audio/mp4":       ".m4a",
	"audio/aac":       ".aac",
	"audio/amr":       ".amr",
	"audio/ogg":       ".ogg",
	"application/ogg": ".ogg",
}

func extension(contentType string) string {
	base, _, err := mime.ParseMediaType(contentType)
	if ext, known := extensions[base]; err == nil && known {
		return ext
	}
	return ".bin"
}
