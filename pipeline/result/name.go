package result

import (
	"crypto/sha256"
	"encoding/hex"
	"mime"
	"regexp"
	"strings"
)

// plainField is the grammar of the field paths that FaceID has: names, parted by
// dots, with array indexes. Names have no hyphen, so that an index can have one.
var plainField = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(\[[0-9]{1,6}\])*(\.[A-Za-z][A-Za-z0-9]*(\[[0-9]{1,6}\])*)*$`)

// MaxFieldName is the length of the longest FieldName. It keeps names of files far
// below the 255 bytes of common file systems.
const MaxFieldName = 128

// FieldName returns an asset's field as it is in the name of a file or object:
// "BestFrame.BestFrames[1]" gives "BestFrame.BestFrames-1". A field that is not in
// the grammar of FaceID's gives "field-" and a hash, so that no name leads out of its
// folder, whoever wrote the field. Different fields give different names.
func FieldName(field string) string {
	if len(field) <= MaxFieldName && plainField.MatchString(field) {
		return strings.NewReplacer("[", "-", "]", "").Replace(field)
	}
	return HashedName(field)
}

// HashedName is the FieldName of a field that is not in the grammar.
func HashedName(field string) string {
	sum := sha256.Sum256([]byte(field))
	return "field-" + hex.EncodeToString(sum[:16])
}

// extensions are of the types that pipeline/spool tells apart; mime.ExtensionsByType
// would depend on the machine. None is the end or the beginning of another, so that a
// name in front of one is never ambiguous.
var extensions = map[string]string{
	"image/jpeg":      "jpg",
	"image/png":       "png",
	"image/webp":      "webp",
	"image/bmp":       "bmp",
	"image/gif":       "gif",
	"image/heic":      "heic",
	"video/mp4":       "mp4",
	"video/webm":      "webm",
	"video/quicktime": "mov",
	"video/avi":       "avi",
	"video/3gpp":      "3gp",
	"video/x-flv":     "flv",
	"audio/wav":       "wav",
	"audio/mpeg":      "mp3",
	"audio/mp4":       "m4a",
	"audio/aac":       "aac",
	"audio/amr":       "amr",
	"audio/ogg":       "ogg",
	"application/ogg": "ogg",
}

// Extension returns the extension of a file of a media type, without the dot; "bin"
// for a type that is not one of FaceID's media.
func Extension(contentType string) string {
	base, _, err := mime.ParseMediaType(contentType)
	if ext, known := extensions[base]; err == nil && known {
		return ext
	}
	return "bin"
}
