package costest

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// bucket holds objects; the server's mutex guards it.
type bucket struct {
	BucketOptions
	name, region string
	// keys holds the versions of each key, the oldest first; without versioning
	// there is one.
	keys    map[string][]*object
	uploads map[string]*upload
}

// object is one version of an object, or a delete marker.
type object struct {
	blob
	etag        string
	header      http.Header
	modified    time.Time
	version     string
	marker      bool
	retainUntil time.Time
}

// latest returns what a key holds now, or nil.
func (b *bucket) latest(key string) *object {
	versions := b.keys[key]
	if len(versions) == 0 || versions[len(versions)-1].marker {
		return nil
	}
	return versions[len(versions)-1]
}

// find returns the version that a request names, or the latest.
func (b *bucket) find(key, version string) *object {
	if version == "" {
		return b.latest(key)
	}
	for _, o := range b.keys[key] {
		if o.version == version && !o.marker {
			return o
		}
	}
	return nil
}

// store makes o what a key holds.
func (s *Server) store(b *bucket, key string, o *object) {
	o.modified = s.options.Now().UTC()
	if !b.Versioned {
		b.keys[key] = []*object{o}
		return
	}
	o.version = "v" + s.next()
	b.keys[key] = append(b.keys[key], o)
}

// kept are the headers that an object has from the request which stored it.
func kept(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Cos-Meta-") || strings.HasPrefix(name, "X-Cos-Server-Side-Encryption") ||
			name == "X-Cos-Storage-Class" || name == "X-Cos-Tagging" || name == "Content-Type" {
			out[name] = values
		}
	}
	return out
}

// lock reads the object lock headers.
func (c *call) lock() (until time.Time, f *failure) {
	mode, date := c.Header.Get("X-Cos-Object-Lock-Mode"), c.Header.Get("X-Cos-Object-Lock-Retain-Until-Date")
	if mode == "" && date == "" {
		return time.Time{}, nil
	}
	return c.lockUntil(mode, date)
}

func (c *call) lockUntil(mode, date string) (time.Time, *failure) {
	until, err := time.Parse(time.RFC3339, date)
	if err != nil || mode != "COMPLIANCE" {
		return time.Time{}, badRequest("InvalidArgument", "the object lock is not valid")
	}
	if !c.bucket.ObjectLock {
		return time.Time{}, badRequest("InvalidRequest", "the bucket has no object lock")
	}
	return until, nil
}

// classes are the storage classes that there are.
var classes = map[string]bool{
	"": true, "STANDARD": true, "STANDARD_IA": true, "MAZ_STANDARD": true, "MAZ_STANDARD_IA": true,
	"INTELLIGENT_TIERING": true, "MAZ_INTELLIGENT_TIERING": true, "ARCHIVE": true, "DEEP_ARCHIVE": true,
}

// storable tells whether the request's object may be stored under its key. The
// mutex is held.
func (c *call) storable() *failure {
	if !classes[c.Header.Get("X-Cos-Storage-Class")] {
		return badRequest("InvalidStorageClass", "there is no such storage class")
	}
	old := c.bucket.latest(c.Key)
	if c.bucket.Versioned || old == nil {
		return nil
	}
	if c.Header.Get("X-Cos-Forbid-Overwrite") == "true" {
		return &failure{status: http.StatusConflict, code: "FileAlreadyExists", message: "the object is there already"}
	}
	if old.locked(c.server.options.Now()) {
		return denied("the object is locked")
	}
	return nil
}

func (o *object) locked(now time.Time) bool { return now.Before(o.retainUntil) }

// put stores an object as the request asks, and answers with its headers.
func (c *call) put(o *object) *failure {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if f := c.storable(); f != nil {
		return f
	}
	c.server.store(c.bucket, c.Key, o)
	c.describe(o)
	return nil
}

func (c *call) describe(o *object) {
	h := c.w.Header()
	h.Set("ETag", `"`+o.etag+`"`)
	crc := o.crc
	if c.fault.WrongCRC {
		crc ^= 1
	}
	h.Set("X-Cos-Hash-Crc64ecma", strconv.FormatUint(crc, 10))
	if o.version != "" {
		h.Set("X-Cos-Version-Id", o.version)
	}
	for name, values := range o.header {
		if strings.HasPrefix(name, "X-Cos-Server-Side-Encryption") {
			h[name] = values
		}
	}
}

func (c *call) putObject() *failure {
	until, f := c.lock()
	if f != nil {
		return f
	}
	body, f := c.read(c.server.options.DigestsOnly && c.r.ContentLength > smallBody)
	if f != nil {
		return f
	}
	return c.put(&object{blob: body, etag: body.md5Hex(), header: kept(c.Header), retainUntil: until})
}

func (c *call) copyObject() *failure {
	if c.fault.CopyError {
		c.answer(http.StatusOK, errorAnswer{Code: "InternalError", Message: "as the test asked"})
		return nil
	}
	host, path, _ := strings.Cut(c.Header.Get("X-Cos-Copy-Source"), "/")
	key, err := url.PathUnescape(path)
	parts := bucketHost.FindStringSubmatch(host)
	if err != nil || parts == nil {
		return badRequest("InvalidArgument", "the copy source is not valid")
	}
	if !c.allowed("GetObject", parts[1], key) {
		return denied("Access Denied.")
	}
	c.server.mu.Lock()
	from := c.server.buckets[parts[1]]
	var source *object
	if from != nil && from.region == parts[2] {
		source = from.latest(key)
	}
	c.server.mu.Unlock()
	switch {
	case from == nil || from.region != parts[2]:
		return notFound("NoSuchBucket")
	case source == nil:
		return notFound("NoSuchKey")
	}
	o := &object{blob: source.blob, etag: source.etag, header: source.header.Clone()}
	if c.Header.Get("X-Cos-Metadata-Directive") == "Replaced" {
		o.header = kept(c.Header)
	}
	if f := c.put(o); f != nil {
		return f
	}
	c.answer(http.StatusOK, struct {
		XMLName xml.Name `xml:"CopyObjectResult"`
		ETag    string
		CRC64   string
	}{ETag: `"` + o.etag + `"`, CRC64: strconv.FormatUint(o.crc, 10)})
	return nil
}

// getObject answers GET and HEAD.
func (c *call) getObject() *failure {
	c.server.mu.Lock()
	o := c.bucket.find(c.Key, c.query.Get("versionId"))
	c.server.mu.Unlock()
	if o == nil {
		return notFound("NoSuchKey")
	}
	first, n, partly, f := byteRange(c.Header.Get("Range"), o.size)
	if f != nil {
		return f
	}
	c.describe(o)
	h := c.w.Header()
	for name, values := range o.header {
		if name != "X-Cos-Tagging" {
			h[name] = values
		}
	}
	h.Set("Last-Modified", o.modified.Format(http.TimeFormat))
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	status := http.StatusOK
	if partly {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+n-1, o.size))
		status = http.StatusPartialContent
	}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(status)
		return nil
	}
	if o.dropped {
		return &failure{status: http.StatusInternalServerError, code: "InternalError", message: "the bytes were not kept"}
	}
	c.w.WriteHeader(status)
	body := o.reader(first, n)
	if cut := c.fault.CutBody; cut > 0 && cut < n {
		_, _ = io.CopyN(c.w, body, cut)             // the client may be gone
		_ = http.NewResponseController(c.w).Flush() // so that the bytes are there before the end
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(c.w, body) // the client may be gone
	return nil
}

// byteRange reads a Range header of the forms that COS's own SDK sends.
func byteRange(header string, size int64) (first, n int64, partly bool, f *failure) {
	if header == "" {
		return 0, size, false, nil
	}
	from, to, _ := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last := size - 1
	if to != "" && err == nil {
		last, err = strconv.ParseInt(to, 10, 64)
	}
	if err != nil || first < 0 || first >= size || last < first {
		return 0, 0, false, &failure{status: http.StatusRequestedRangeNotSatisfiable, code: "InvalidRange", message: "no such range"}
	}
	return first, min(last, size-1) - first + 1, true, nil
}

func (c *call) deleteObject() *failure {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	marker, version, f := c.remove(c.Key, c.query.Get("versionId"))
	if f != nil {
		return f
	}
	if marker {
		c.w.Header().Set("X-Cos-Delete-Marker", "true")
	}
	if version != "" {
		c.w.Header().Set("X-Cos-Version-Id", version)
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// remove takes an object away, or hides it behind a delete marker. The mutex is
// held.
func (c *call) remove(key, version string) (marker bool, id string, f *failure) {
	b := c.bucket
	now := c.server.options.Now()
	if b.Versioned && version == "" {
		o := &object{marker: true}
		c.server.store(b, key, o)
		return true, o.version, nil
	}
	for i, o := range b.keys[key] {
		if o.version != version {
			continue
		}
		if o.locked(now) {
			return false, "", denied("the object is locked")
		}
		if b.keys[key] = append(b.keys[key][:i:i], b.keys[key][i+1:]...); len(b.keys[key]) == 0 {
			delete(b.keys, key)
		}
		return o.marker, version, nil
	}
	return false, version, nil // removing what is not there is no error
}

func (c *call) deleteMany() *failure {
	var asked struct {
		Objects []struct {
			Key       string
			VersionID string `xml:"VersionId"`
		} `xml:"Object"`
	}
	if f := c.decode(&asked); f != nil {
		return f
	}
	type keyed struct{ Key, Code, Message string }
	var done struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Deleted []keyed
		Error   []keyed
	}
	c.server.mu.Lock()
	for _, o := range asked.Objects {
		f := denied("Access Denied.")
		if c.allowed("DeleteObject", c.Bucket, o.Key) {
			_, _, f = c.remove(o.Key, o.VersionID)
		}
		if f != nil {
			done.Error = append(done.Error, keyed{o.Key, f.code, f.message})
			continue
		}
		done.Deleted = append(done.Deleted, keyed{Key: o.Key})
	}
	c.server.mu.Unlock()
	c.answer(http.StatusOK, done)
	return nil
}

// retention is the body of the retention requests.
type retention struct {
	XMLName         xml.Name `xml:"Retention"`
	Mode            string
	RetainUntilDate string
}

func (c *call) putRetention() *failure {
	var asked retention
	if f := c.decode(&asked); f != nil {
		return f
	}
	until, f := c.lockUntil(asked.Mode, asked.RetainUntilDate)
	if f != nil {
		return f
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	o := c.bucket.latest(c.Key)
	switch {
	case o == nil:
		return notFound("NoSuchKey")
	case until.Before(o.retainUntil):
		return denied("a lock cannot be shortened")
	}
	o.retainUntil = until
	return nil
}

func (c *call) getRetention() *failure {
	c.server.mu.Lock()
	o := c.bucket.find(c.Key, c.query.Get("versionId"))
	var until time.Time
	if o != nil {
		until = o.retainUntil
	}
	c.server.mu.Unlock()
	switch {
	case o == nil:
		return notFound("NoSuchKey")
	case until.IsZero():
		return notFound("NoSuchObjectLockConfiguration")
	}
	c.answer(http.StatusOK, retention{Mode: "COMPLIANCE", RetainUntilDate: until.UTC().Format(time.RFC3339)})
	return nil
}

func (c *call) getTagging() *failure {
	c.server.mu.Lock()
	o := c.bucket.latest(c.Key)
	c.server.mu.Unlock()
	if o == nil {
		return notFound("NoSuchKey")
	}
	tags, err := url.ParseQuery(o.header.Get("X-Cos-Tagging"))
	if err != nil {
		return badRequest("InvalidTag", "the tags are not valid")
	}
	type tag struct{ Key, Value string }
	var answer struct {
		XMLName xml.Name `xml:"Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}
	for key := range tags {
		answer.Tags = append(answer.Tags, tag{key, tags.Get(key)})
	}
	c.answer(http.StatusOK, answer)
	return nil
}

// getObjectLock says whether objects of the bucket can be locked.
func (c *call) getObjectLock() *failure {
	if !c.bucket.ObjectLock {
		return &failure{status: http.StatusNotFound, code: "ObjectLockConfigurationNotFoundError", message: "no object lock"}
	}
	c.answer(http.StatusOK, struct {
		XMLName           xml.Name `xml:"ObjectLockConfiguration"`
		ObjectLockEnabled string
	}{ObjectLockEnabled: "Enabled"})
	return nil
}
