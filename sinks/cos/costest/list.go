package costest

import (
	"encoding/xml"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pageSize returns how many entries a listing may have, 1 to 1000.
func (c *call) pageSize(param string) int {
	n, err := strconv.Atoi(c.query.Get(param))
	if err != nil || n < 1 || n > 1000 {
		return 1000
	}
	return n
}

// text writes a key as the request wants it in XML.
func (c *call) text(key string) string {
	if c.query.Get("encoding-type") == "url" {
		return strings.ReplaceAll(url.QueryEscape(key), "+", "%20")
	}
	return key
}

func (c *call) listObjects() *failure {
	if c.query.Get("delimiter") != "" {
		return &failure{status: http.StatusNotImplemented, code: "NotImplemented", message: "the stand-in has no delimiter"}
	}
	type entry struct {
		Key          string
		LastModified string
		ETag         string
		Size         int64
		StorageClass string
	}
	var answer struct {
		XMLName      xml.Name `xml:"ListBucketResult"`
		Name         string
		EncodingType string `xml:"EncodingType,omitempty"`
		Prefix       string
		Marker       string
		NextMarker   string `xml:"NextMarker,omitempty"`
		MaxKeys      int
		IsTruncated  bool
		Contents     []entry
	}
	answer.Name, answer.MaxKeys = c.Bucket, c.pageSize("max-keys")
	answer.EncodingType = c.query.Get("encoding-type")
	answer.Prefix, answer.Marker = c.text(c.query.Get("prefix")), c.text(c.query.Get("marker"))
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(c.bucket.keys)) {
		o := c.bucket.latest(key)
		if o == nil || !strings.HasPrefix(key, c.query.Get("prefix")) || key <= c.query.Get("marker") {
			continue
		}
		if len(answer.Contents) == answer.MaxKeys {
			answer.IsTruncated = true
			answer.NextMarker = answer.Contents[len(answer.Contents)-1].Key
			break
		}
		answer.Contents = append(answer.Contents, entry{
			c.text(key), o.modified.Format(time.RFC3339), `"` + o.etag + `"`, o.size, o.header.Get("X-Cos-Storage-Class"),
		})
	}
	c.answer(http.StatusOK, answer)
	return nil
}

func (c *call) listVersions() *failure {
	type entry struct {
		Key       string
		VersionID string `xml:"VersionId"`
		IsLatest  bool
		Size      int64 `xml:"Size,omitempty"`
	}
	var answer struct {
		XMLName             xml.Name `xml:"ListVersionsResult"`
		Name                string
		IsTruncated         bool
		NextKeyMarker       string  `xml:"NextKeyMarker,omitempty"`
		NextVersionIDMarker string  `xml:"NextVersionIdMarker,omitempty"`
		Versions            []entry `xml:"Version"`
		Markers             []entry `xml:"DeleteMarker"`
	}
	answer.Name = c.Bucket
	limit := c.pageSize("max-keys")
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	begun := c.query.Get("key-marker") == ""
	for _, key := range slices.Sorted(maps.Keys(c.bucket.keys)) {
		versions := c.bucket.keys[key]
		for i := len(versions) - 1; i >= 0; i-- {
			o := versions[i]
			if !begun {
				begun = key > c.query.Get("key-marker") ||
					key == c.query.Get("key-marker") && o.version == c.query.Get("version-id-marker")
				if !begun || key == c.query.Get("key-marker") {
					continue
				}
			}
			if !strings.HasPrefix(key, c.query.Get("prefix")) {
				continue
			}
			if len(answer.Versions)+len(answer.Markers) == limit {
				answer.IsTruncated = true
				c.answer(http.StatusOK, answer)
				return nil
			}
			answer.NextKeyMarker, answer.NextVersionIDMarker = c.text(key), o.version
			e := entry{c.text(key), o.version, i == len(versions)-1, o.size}
			if o.marker {
				answer.Markers = append(answer.Markers, e)
			} else {
				answer.Versions = append(answer.Versions, e)
			}
		}
	}
	answer.NextKeyMarker, answer.NextVersionIDMarker = "", ""
	c.answer(http.StatusOK, answer)
	return nil
}

func (c *call) listUploads() *failure {
	type entry struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated string
	}
	var answer struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket      string
		IsTruncated bool
		Uploads     []entry `xml:"Upload"`
	}
	answer.Bucket = c.Bucket
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	for id, u := range c.bucket.uploads {
		if strings.HasPrefix(u.key, c.query.Get("prefix")) {
			answer.Uploads = append(answer.Uploads, entry{c.text(u.key), id, u.initiated.Format(time.RFC3339)})
		}
	}
	slices.SortFunc(answer.Uploads, func(a, b entry) int {
		return strings.Compare(a.Key+"\x00"+a.UploadID, b.Key+"\x00"+b.UploadID)
	})
	if limit := c.pageSize("max-uploads"); len(answer.Uploads) > limit {
		answer.Uploads, answer.IsTruncated = answer.Uploads[:limit], true
	}
	c.answer(http.StatusOK, answer)
	return nil
}
