package costest

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// failure is an answer that is an error of COS.
type failure struct {
	status        int
	code, message string
	retryAfter    string
}

func notFound(code string) *failure {
	return &failure{status: http.StatusNotFound, code: code, message: "not there"}
}

func denied(message string) *failure {
	return &failure{status: http.StatusForbidden, code: "AccessDenied", message: message}
}

func badRequest(code, message string) *failure {
	return &failure{status: http.StatusBadRequest, code: code, message: message}
}

// call is one request on its way.
type call struct {
	Request
	server *Server
	bucket *bucket
	w      http.ResponseWriter
	r      *http.Request
	query  url.Values
	fault  Fault
	whose  Credential
}

var bucketHost = regexp.MustCompile(`^([a-z0-9-]+-[0-9]+)\.cos\.([a-z0-9-]+)\.myqcloud\.com$`)

// serve answers one request. There is no mux, which would clean paths.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c := &call{server: s, w: w, r: r, query: r.URL.Query()}
	host := bucketHost.FindStringSubmatch(r.Host)
	if host != nil {
		c.Bucket = host[1]
	}
	c.Key = strings.TrimPrefix(r.URL.Path, "/")
	c.Header = r.Header.Clone()
	c.Action = c.action()
	s.mu.Lock()
	s.requests = append(s.requests, c.Request)
	id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%08x_%s_1a2b", s.options.Now().Unix(), s.next()))
	s.mu.Unlock()
	w.Header().Set("X-Cos-Request-Id", id)
	w.Header().Set("Date", s.options.Now().UTC().Format(http.TimeFormat))
	c.fault = s.faultOf(c.Request)
	if f := s.before(r, c.fault); f != nil {
		c.fail(f)
		return
	}
	if c.fault.LoseAnswer {
		c.w = lostAnswer{http.Header{}}
	}
	if f := c.admit(host); f != nil {
		c.fail(f)
	} else if f := c.do(); f != nil {
		c.fail(f)
	}
	if c.fault.LoseAnswer {
		panic(http.ErrAbortHandler)
	}
}

// admit finds the caller and the bucket, and asks whether the one may use the
// other.
func (c *call) admit(host []string) (f *failure) {
	if c.whose, f = c.server.authenticate(c.r); f != nil {
		return f
	}
	c.server.mu.Lock()
	c.bucket = c.server.buckets[c.Bucket]
	c.server.mu.Unlock()
	if host == nil || c.bucket == nil || c.bucket.region != host[2] {
		return notFound("NoSuchBucket")
	}
	action := c.Action
	if action == "PutObjectCopy" {
		action = "PutObject"
	}
	if !c.allowed(action, c.Bucket, c.Key) {
		return denied("Access Denied.")
	}
	if c.Header.Get("X-Cos-Tagging") != "" && !c.allowed("PutObjectTagging", c.Bucket, c.Key) {
		return denied("Access Denied.")
	}
	if len(c.Key) > 850 {
		return badRequest("KeyTooLong", "the key is too long")
	}
	return nil
}

func (c *call) allowed(action, bucket, key string) bool {
	return c.whose.Allow == nil || c.whose.Allow(action, bucket, key)
}

// action names what a request asks for.
func (c *call) action() string {
	has := c.query.Has
	if c.Key == "" {
		switch {
		case c.r.Method == http.MethodHead:
			return "HeadBucket"
		case c.r.Method == http.MethodGet && has("uploads"):
			return "ListMultipartUploads"
		case c.r.Method == http.MethodGet && has("versions"):
			return "GetBucketObjectVersions"
		case c.r.Method == http.MethodGet && has("object-lock"):
			return "GetBucketObjectLockConfiguration"
		case c.r.Method == http.MethodGet:
			return "GetBucket"
		case c.r.Method == http.MethodPost && has("delete"):
			return "DeleteMultipleObjects"
		}
		return ""
	}
	switch {
	case c.r.Method == http.MethodPost && has("uploads"):
		return "InitiateMultipartUpload"
	case c.r.Method == http.MethodPost && has("uploadId"):
		return "CompleteMultipartUpload"
	case c.r.Method == http.MethodPut && has("uploadId"):
		return "UploadPart"
	case c.r.Method == http.MethodGet && has("uploadId"):
		return "ListParts"
	case c.r.Method == http.MethodDelete && has("uploadId"):
		return "AbortMultipartUpload"
	case c.r.Method == http.MethodPut && has("retention"):
		return "PutObjectRetention"
	case c.r.Method == http.MethodGet && has("retention"):
		return "GetObjectRetention"
	case c.r.Method == http.MethodGet && has("tagging"):
		return "GetObjectTagging"
	case c.r.Method == http.MethodPut && c.r.Header.Get("X-Cos-Copy-Source") != "":
		return "PutObjectCopy"
	case c.r.Method == http.MethodPut:
		return "PutObject"
	case c.r.Method == http.MethodGet:
		return "GetObject"
	case c.r.Method == http.MethodHead:
		return "HeadObject"
	case c.r.Method == http.MethodDelete:
		return "DeleteObject"
	}
	return ""
}

func (c *call) do() *failure {
	switch c.Action {
	case "HeadBucket":
		return nil
	case "ListMultipartUploads":
		return c.listUploads()
	case "GetBucketObjectVersions":
		return c.listVersions()
	case "GetBucketObjectLockConfiguration":
		return c.getObjectLock()
	case "GetBucket":
		return c.listObjects()
	case "DeleteMultipleObjects":
		return c.deleteMany()
	case "InitiateMultipartUpload":
		return c.initiate()
	case "CompleteMultipartUpload":
		return c.complete()
	case "UploadPart":
		return c.uploadPart()
	case "ListParts":
		return c.listParts()
	case "AbortMultipartUpload":
		return c.abort()
	case "PutObjectRetention":
		return c.putRetention()
	case "GetObjectRetention":
		return c.getRetention()
	case "GetObjectTagging":
		return c.getTagging()
	case "PutObjectCopy":
		return c.copyObject()
	case "PutObject":
		return c.putObject()
	case "GetObject", "HeadObject":
		return c.getObject()
	case "DeleteObject":
		return c.deleteObject()
	}
	return &failure{status: http.StatusNotImplemented, code: "NotImplemented", message: "the stand-in does not do this"}
}

func (c *call) fail(f *failure) {
	if f.retryAfter != "" {
		c.w.Header().Set("Retry-After", f.retryAfter)
	}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(f.status)
		return
	}
	c.answer(f.status, errorXML(f))
}

// errorAnswer is the body of an error.
type errorAnswer struct {
	XMLName  xml.Name `xml:"Error"`
	Code     string
	Message  string
	Resource string
}

func errorXML(f *failure) errorAnswer { return errorAnswer{Code: f.code, Message: f.message} }

func (c *call) answer(status int, body any) {
	text, err := xml.Marshal(body)
	if err != nil {
		panic("costest: " + err.Error()) // answers are of this package's own types
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(text) // the client may be gone
}

// decode reads a small XML body.
func (c *call) decode(into any) *failure {
	body, f := c.body()
	if f != nil {
		return f
	}
	if xml.Unmarshal(body.bytes(), into) != nil {
		return badRequest("MalformedXML", "the body is not what it should be")
	}
	return nil
}

// body reads a body that is kept in any case.
func (c *call) body() (blob, *failure) { return c.read(false) }

// read reads the request's body and compares it with what its headers say.
func (c *call) read(drop bool) (blob, *failure) {
	b, err := readBlob(c.r.Body, c.r.ContentLength, drop)
	switch {
	case err != nil || b.size != c.r.ContentLength:
		return b, badRequest("IncompleteBody", "the body is not as long as its header says")
	case c.Header.Get("Content-Md5") != "" && c.Header.Get("Content-Md5") != b.md5Base64():
		return b, badRequest("BadDigest", "the body is not what Content-MD5 says")
	}
	return b, nil
}
