package spool

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// sniffLength is how many of an item's first bytes decide its content type.
const sniffLength = 512

// sniff returns the media type that the first bytes of an item show. It knows
// what net/http knows, and the forms of phones' cameras and microphones which
// that does not.
func sniff(head []byte) string {
	switch {
	case len(head) >= 12 && string(head[4:8]) == "ftyp":
		return sniffISO(string(head[8:12]))
	case bytes.HasPrefix(head, []byte("#!AMR")):
		return "audio/amr"
	case bytes.HasPrefix(head, []byte("FLV\x01")):
		return "video/x-flv"
	case len(head) >= 2 && head[0] == 0xff && head[1]&0xf6 == 0xf0:
		return "audio/aac"
	case len(head) >= 3 && head[0] == 0xff && head[1]&0xe6 == 0xe2 && head[2] != 0xff:
		return "audio/mpeg"
	}
	contentType, _, _ := strings.Cut(http.DetectContentType(head), ";")
	if contentType == "audio/wave" {
		return "audio/wav"
	}
	return contentType
}

// sniffISO tells the ISO base media files apart by their brand.
func sniffISO(brand string) string {
	switch {
	case strings.HasPrefix(brand, "qt"):
		return "video/quicktime"
	case brand == "heic" || brand == "heix" || brand == "mif1":
		return "image/heic"
	case strings.HasPrefix(brand, "M4A"):
		return "audio/mp4"
	case strings.HasPrefix(brand, "3g"):
		return "video/3gpp"
	default:
		return "video/mp4"
	}
}

func kindOf(contentType string) result.Kind {
	kind, _, _ := strings.Cut(contentType, "/")
	switch kind {
	case "image":
		return result.Image
	case "video":
		return result.Video
	case "audio":
		return result.Audio
	}
	return result.Unknown
}

// ContentType returns the media type that the first bytes of a medium show;
// "application/octet-stream" if they show none.
func ContentType(content []byte) string { return sniff(content[:min(len(content), sniffLength)]) }

// KindOf returns the kind of medium that content is by its first bytes.
func KindOf(content []byte) result.Kind {
	return kindOf(ContentType(content))
}
