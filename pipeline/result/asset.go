package result

import (
	"encoding/hex"
	"io"
	"strconv"
)

// Kind says what an asset is.
type Kind string

const (
	// Image is a photo: identity card, best frame or screenshot.
	Image Kind = "image"
	// Video is a recording of the liveness or intention step.
	Video Kind = "video"
	// Audio is a spoken answer.
	Audio Kind = "audio"
	// Unknown is a large string in a place this version does not know; its
	// characters are kept exactly as they were sent.
	Unknown Kind = "unknown"
)

// Asset is one picture, video or sound of a result. Either Content or COS is
// set, never both.
type Asset struct {
	// Field is the path of the asset inside the Response object, with array
	// indexes, such as "BestFrame.BestFrames[1]". Unique within a result.
	Field string
	Kind  Kind
	// ContentType is the media type found by looking at the bytes, or by the
	// name of the object for COS assets; "application/octet-stream" if unknown.
	ContentType string

	// Content gives the bytes of an inline asset, and Digest describes them.
	Content Content
	Digest  Digest

	// COS says where FaceID put the object when data storage is on.
	COS *COSObject

	// Stored lists where archive sinks put the asset. It is empty until they
	// have run; record and notify sinks see all of them.
	Stored []Receipt
}

// Content is the bytes of an inline asset. Open may be called any number of
// times and by several goroutines; each reader starts at the first byte and
// belongs to one goroutine. Readers fail once the result has been released.
type Content interface {
	Open() (io.ReadSeekCloser, error)
}

// Digest identifies bytes.
type Digest struct {
	// Size is in bytes.
	Size int64
	// SHA256 is the SHA-256 of all bytes.
	SHA256 [32]byte
	// CRC64 is CRC-64/ECMA-182 as COS computes it (x-cos-hash-crc64ecma).
	CRC64 uint64
}

// SHA256Hex returns the SHA-256 in lower-case hex.
func (d Digest) SHA256Hex() string { return hex.EncodeToString(d.SHA256[:]) }

// CRC64String returns the CRC in decimal, the way COS prints it.
func (d Digest) CRC64String() string { return strconv.FormatUint(d.CRC64, 10) }

// COSObject names an object in Tencent COS.
type COSObject struct {
	// Bucket is the full bucket name with its APPID, such as "faceid-1250000000".
	Bucket string
	// Region is such as "ap-guangzhou".
	Region string
	// Key is the object key, without a leading slash and not URL-encoded.
	Key string
}

// Receipt is what an archive sink says it stored for one asset.
type Receipt struct {
	// Sink is the configured name of the sink.
	Sink string `json:"sink"`
	// Field is the Asset.Field this is about.
	Field string `json:"field"`
	// Location is where to find it: a path relative to the sink's root, or a
	// URL such as "cos://bucket/key". It holds no personal data and no token. It is
	// empty where the asset is missing.
	Location string `json:"location"`
	// Missing is set where the sink could not have the asset, and says why; empty where
	// it has it.
	Missing MissingReason `json:"missing,omitempty"`
	// Size is in bytes; -1 where the sink only refers to an object whose size
	// it could not learn.
	Size int64 `json:"size"`
	// SHA256 is lower-case hex; empty where the bytes never passed through this
	// process (server-side copies).
	SHA256 string `json:"sha256,omitempty"`
	// CRC64 is CRC-64/ECMA-182 in decimal; empty if unknown.
	CRC64 string `json:"crc64,omitempty"`
}
