package costest

import (
	"crypto/md5" //nolint:gosec // COS makes ETags so
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// minPart is the least size of every part but the last, in bytes.
const minPart = 1 << 20

// upload is a multipart upload that is under way.
type upload struct {
	key       string
	header    http.Header
	until     time.Time
	parts     map[int]blob
	initiated time.Time
}

func (c *call) initiate() *failure {
	until, f := c.lock()
	if f != nil {
		return f
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if f := c.storable(); f != nil {
		return f
	}
	id := "upload-" + c.server.next()
	c.bucket.uploads[id] = &upload{
		key: c.Key, header: kept(c.Header), until: until, parts: map[int]blob{}, initiated: c.server.options.Now().UTC(),
	}
	c.answer(http.StatusOK, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: c.Bucket, Key: c.Key, UploadID: id})
	return nil
}

// upload returns the upload that the request names. The mutex is held.
func (c *call) upload() (*upload, *failure) {
	u := c.bucket.uploads[c.query.Get("uploadId")]
	if u == nil || u.key != c.Key {
		return nil, notFound("NoSuchUpload")
	}
	return u, nil
}

func (c *call) uploadPart() *failure {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > 10_000 {
		return badRequest("InvalidArgument", "the part number is not valid")
	}
	body, f := c.read(c.server.options.DigestsOnly && c.r.ContentLength > smallBody)
	if f != nil {
		return f
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	u, f := c.upload()
	if f != nil {
		return f
	}
	u.parts[number] = body
	c.describe(&object{blob: body, etag: body.md5Hex()})
	return nil
}

func (c *call) complete() *failure {
	var asked struct {
		Parts []struct {
			PartNumber int
			ETag       string
		} `xml:"Part"`
	}
	if f := c.decode(&asked); f != nil {
		return f
	}
	if c.fault.CopyError {
		c.answer(http.StatusOK, errorAnswer{Code: "InternalError", Message: "as the test asked"})
		return nil
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	u, f := c.upload()
	if f != nil {
		return f
	}
	var whole blob
	sums := md5.New() //nolint:gosec // see the import
	for i, p := range asked.Parts {
		part, there := u.parts[p.PartNumber]
		switch {
		case p.PartNumber != i+1, !there, strings.Trim(p.ETag, `"`) != part.md5Hex():
			return badRequest("InvalidPart", "a part is not there or another")
		case part.size < minPart && i < len(asked.Parts)-1:
			return badRequest("EntityTooSmall", "a part is too small")
		}
		whole = whole.joined(part)
		_, _ = sums.Write(part.md5[:]) // never fails
	}
	if f := c.storable(); f != nil {
		return f
	}
	o := &object{
		blob: whole, header: u.header, retainUntil: u.until,
		etag: hex.EncodeToString(sums.Sum(nil)) + "-" + strconv.Itoa(len(asked.Parts)),
	}
	c.server.store(c.bucket, c.Key, o)
	delete(c.bucket.uploads, c.query.Get("uploadId"))
	c.describe(o)
	c.answer(http.StatusOK, struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Location string
		Bucket   string
		Key      string
		ETag     string
	}{Location: c.r.Host + "/" + c.Key, Bucket: c.Bucket, Key: c.Key, ETag: `"` + o.etag + `"`})
	return nil
}

func (c *call) abort() *failure {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if _, f := c.upload(); f != nil {
		return f
	}
	delete(c.bucket.uploads, c.query.Get("uploadId"))
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *call) listParts() *failure {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	u, f := c.upload()
	if f != nil {
		return f
	}
	type part struct {
		PartNumber int
		ETag       string
		Size       int64
	}
	var answer struct {
		XMLName     xml.Name `xml:"ListPartsResult"`
		Key         string
		UploadID    string `xml:"UploadId"`
		IsTruncated bool
		Parts       []part `xml:"Part"`
	}
	answer.Key, answer.UploadID = c.Key, c.query.Get("uploadId")
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		answer.Parts = append(answer.Parts, part{n, fmt.Sprintf("%q", u.parts[n].md5Hex()), u.parts[n].size})
	}
	c.answer(http.StatusOK, answer)
	return nil
}
