// Package costest is Tencent COS in the test's own process.
//
// The server verifies what COS verifies: the q-sign signature with its key time,
// headers and parameters (FACTS §6.2), session tokens, permissions, Content-MD5 and
// content length. It does objects, ranges, multipart uploads, server-side copies,
// listings, versions, tags and object lock, answers with the CRC-64 of what it
// stored, and fails in every way that a test asks for (see Fault).
//
// Requests find their bucket by the Host header, as in
// "media-1250000000.cos.ap-guangzhou.myqcloud.com", so one server serves all
// buckets: point the SDK's BucketURL at URL and set the client's Host.
//
// The package is for tests, also for those of other packages, and imports nothing
// of testing.
package costest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Options says how a server behaves; the zero value is COS as it usually is.
type Options struct {
	// DigestsOnly keeps size and digests of bodies of more than 64 KiB and drops
	// their bytes, for tests of uploads larger than memory. A GET of such an object
	// fails.
	DigestsOnly bool
	// Now is the server's clock; nil is time.Now.
	Now func() time.Time
}

// Credential is one key pair that the server knows.
type Credential struct {
	SecretID, SecretKey string
	// Token is the session token that requests must carry; empty for long-lived
	// keys.
	Token string
	// Allow says what the key's CAM policy allows; nil allows everything. Actions
	// are named as in CAM without "name/cos:", such as "PutObject"; key is empty
	// for actions on a bucket.
	Allow func(action, bucket, key string) bool
}

// BucketOptions says what a bucket is like.
type BucketOptions struct {
	// Versioned keeps old versions and makes x-cos-forbid-overwrite have no effect,
	// as COS does.
	Versioned bool
	// ObjectLock lets objects be locked against removal and change.
	ObjectLock bool
}

// Request is one request that the server has had.
type Request struct {
	// Action is named as in CAM, without "name/cos:"; a copy is "PutObjectCopy".
	Action, Bucket, Key string
	Header              http.Header
}

// Server is a running COS. Its methods may be called by several goroutines.
type Server struct {
	options Options
	url     string
	http    *http.Server
	served  chan error
	stop    func() bool
	closing chan struct{}
	once    sync.Once

	mu          sync.Mutex
	credentials map[string]Credential
	buckets     map[string]*bucket
	faults      []*activeFault
	requests    []Request
	serial      int
}

// Start starts a server on the loopback interface, on a free port. It ends with
// ctx or Close.
func Start(ctx context.Context, options Options) (*Server, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a COS stand-in: %w", err)
	}
	s := &Server{
		options: options, url: "http://" + listener.Addr().String(),
		served: make(chan error, 1), closing: make(chan struct{}),
		credentials: map[string]Credential{}, buckets: map[string]*bucket{},
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	go func() { s.served <- s.http.Serve(listener) }()
	s.stop = context.AfterFunc(ctx, func() { _ = s.shutdown() })
	return s, nil
}

// URL is where the server listens, such as "http://127.0.0.1:40123".
func (s *Server) URL() string { return s.url }

// Close ends the server and all its connections, and waits for it.
func (s *Server) Close() error {
	s.stop()
	return s.shutdown()
}

func (s *Server) shutdown() (err error) {
	s.once.Do(func() {
		close(s.closing)
		err = s.http.Close()
		if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	})
	return err
}

// AddCredential makes a key pair known, in place of one of the same SecretID.
func (s *Server) AddCredential(c Credential) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials[c.SecretID] = c
}

// CreateBucket makes a bucket that is not there; name has the APPID.
func (s *Server) CreateBucket(name, region string, options BucketOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[name] == nil {
		s.buckets[name] = &bucket{
			name: name, region: region, BucketOptions: options,
			keys: map[string][]*object{}, uploads: map[string]*upload{},
		}
	}
}

// DeleteBucket takes a bucket away with all that is in it, and returns a function
// that brings it back.
func (s *Server) DeleteBucket(name string) (restore func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[name]
	delete(s.buckets, name)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.buckets[name] = b
	}
}

// Put stores an object as its owner would, past all checks. The bucket must be
// there.
func (s *Server) Put(bucket, key, contentType string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &object{blob: blobOf(bytes.Clone(body)), header: http.Header{"Content-Type": {contentType}}}
	o.etag = o.md5Hex()
	s.store(s.buckets[bucket], key, o)
}

// Delete takes an object away for good, past all checks.
func (s *Server) Delete(bucket, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets[bucket].keys, key)
}

// Object is what the server holds under one key.
type Object struct {
	Key string
	// Version is empty in a bucket without versions.
	Version string
	Size    int64
	CRC64   uint64
	// ETag is without quotes.
	ETag        string
	ContentType string
	// Header holds the object's other headers as they were sent: x-cos-meta-*,
	// x-cos-storage-class, x-cos-server-side-encryption*, x-cos-tagging.
	Header http.Header
	// RetainUntil is zero for an object that is not locked.
	RetainUntil time.Time
}

func (o *object) describe(key string) Object {
	return Object{
		Key: key, Version: o.version, Size: o.size, CRC64: o.crc, ETag: o.etag,
		ContentType: o.header.Get("Content-Type"), Header: o.header.Clone(), RetainUntil: o.retainUntil,
	}
}

// Objects lists the latest versions in a bucket, in the order of their keys.
func (s *Server) Objects(bucket string) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Object
	b := s.buckets[bucket]
	if b == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(b.keys)) {
		if o := b.latest(key); o != nil {
			all = append(all, o.describe(key))
		}
	}
	return all
}

// Versions counts all versions in a bucket, delete markers and old ones included.
func (s *Server) Versions(bucket string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, versions := range s.buckets[bucket].keys {
		n += len(versions)
	}
	return n
}

// Body returns the bytes of an object, and whether it is there.
func (s *Server) Body(bucket, key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[bucket]
	if b == nil || b.latest(key) == nil {
		return nil, false
	}
	return b.latest(key).bytes(), true
}

// Uploads lists the keys of multipart uploads that are neither completed nor
// aborted, sorted.
func (s *Server) Uploads(bucket string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]string, 0, len(s.buckets[bucket].uploads))
	for _, u := range s.buckets[bucket].uploads {
		keys = append(keys, u.key)
	}
	slices.Sort(keys)
	return keys
}

// Requests returns the requests so far, those that failed included.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Dump returns all that the server holds and has been sent, as text to be searched:
// keys, headers and bodies of all versions and parts, and the headers of requests
// but for their authorization.
func (s *Server) Dump() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out bytes.Buffer
	header := func(h http.Header) {
		h = h.Clone()
		h.Del("Authorization")
		_ = h.Write(&out) // a buffer takes everything
	}
	for _, b := range s.buckets {
		for key, versions := range b.keys {
			for _, o := range versions {
				fmt.Fprintf(&out, "object %s %s\n", b.name, key)
				header(o.header)
				out.Write(o.bytes())
			}
		}
		for _, u := range b.uploads {
			fmt.Fprintf(&out, "upload %s %s\n", b.name, u.key)
			header(u.header)
			for _, p := range u.parts {
				out.Write(p.bytes())
			}
		}
	}
	for _, r := range s.requests {
		fmt.Fprintf(&out, "request %s %s %s\n", r.Action, r.Bucket, r.Key)
		header(r.Header)
	}
	return out.Bytes()
}

// next returns a number that has not been used.
func (s *Server) next() string {
	s.serial++
	return strconv.Itoa(s.serial)
}
