package cos

import (
	"context"
	"crypto/md5" //nolint:gosec // COS defines Content-MD5 so
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/tencentyun/cos-go-sdk-v5"

	"github.com/faceid-ingest/faceid-ingest/pipeline/crash"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// object describes an object that is about to be stored.
type object struct {
	tokenHash, field, contentType string
	// sha256 is that of the bytes as they are stored, in hex; empty if not known.
	sha256 string
}

// headers are what an asset is stored with.
func (s *Sink) headers(o object) *cos.ObjectPutHeaderOptions {
	h := &cos.ObjectPutHeaderOptions{
		ContentType: o.contentType, XCosStorageClass: s.cfg.StorageClass,
		XCosMetaXXX: &http.Header{}, XOptionHeader: &http.Header{},
	}
	for name, value := range map[string]string{"token-hash": o.tokenHash, "field": result.FieldName(o.field), "sha256": o.sha256} {
		if o.tokenHash != "" && value != "" {
			h.XCosMetaXXX.Set("X-Cos-Meta-"+name, value)
		}
	}
	switch s.cfg.SSE {
	case sseCOS:
		h.XCosServerSideEncryption = "AES256"
	case sseKMS:
		h.XCosServerSideEncryption = "cos/kms"
		if s.cfg.KMSKeyID != "" {
			h.XOptionHeader.Set("X-Cos-Server-Side-Encryption-Cos-Kms-Key-Id", s.cfg.KMSKeyID)
		}
	}
	if len(s.cfg.Tags) > 0 {
		tags := url.Values{}
		for key, value := range s.cfg.Tags {
			tags.Set(key, value)
		}
		h.XOptionHeader.Set("X-Cos-Tagging", tags.Encode())
	}
	return h
}

// chunkSize is how much of an asset is in memory at a time, in bytes.
const chunkSize = 128 << 10

var ecma = crc64.MakeTable(crc64.ECMA)

// plan is what is known of bytes before they are uploaded: their digests, and the MD5
// of each part.
type plan struct {
	digest   result.Digest
	partSize int64
	sums     [][md5.Size]byte
}

// planFor returns a plan without sums for that many bytes: in one part up to the
// limit.
func (s *Sink) planFor(size int64) *plan {
	if size <= int64(s.cfg.SinglePutLimit) {
		return &plan{partSize: max(1, size)}
	}
	return &plan{partSize: max(int64(s.cfg.PartSize), (size+maxParts-1)/maxParts)}
}

// measure reads content, which must have size bytes, and plans its upload.
func (s *Sink) measure(ctx context.Context, content result.Content, size int64) (_ *plan, err error) {
	if size < 0 {
		return nil, errContent
	}
	reader, err := content.Open()
	if err != nil {
		return nil, fmt.Errorf("read it: %w", err)
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	p := s.planFor(size)
	sum := sha256.New()
	for left := size; left > 0 || len(p.sums) == 0; {
		n := min(left, p.partSize)
		if err := p.measurePart(ctx, io.LimitReader(reader, n), n, sum); err != nil {
			return nil, err
		}
		left -= n
	}
	if err := atEnd(reader); err != nil {
		return nil, err
	}
	p.digest.SHA256 = [sha256.Size]byte(sum.Sum(nil))
	return p, nil
}

func (p *plan) measurePart(ctx context.Context, from io.Reader, size int64, sum io.Writer) error {
	part := md5.New() //nolint:gosec // see the import
	buf := make([]byte, min(chunkSize, size+1))
	for left := size; ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.Read(buf)
		left -= int64(n)
		_, _ = sum.Write(buf[:n])  // never fails
		_, _ = part.Write(buf[:n]) // never fails
		p.digest.CRC64 = crc64.Update(p.digest.CRC64, ecma, buf[:n])
		p.digest.Size += int64(n)
		switch {
		case left == 0:
			p.sums = append(p.sums, [md5.Size]byte(part.Sum(nil)))
			return nil
		case errors.Is(err, io.EOF):
			return errContent
		case err != nil:
			return fmt.Errorf("read it: %w", err)
		}
	}
}

// atEnd returns an error if a reader has something left.
func atEnd(r io.Reader) error {
	_, err := io.ReadFull(r, make([]byte, 1))
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return errContent
	}
	return fmt.Errorf("read it: %w", err)
}

// opener opens n bytes from offset on. Parts are asked for in their order, and by
// one goroutine each.
type opener func(ctx context.Context, offset, n int64) (io.ReadCloser, error)

// opening reads each part with a reader of its own.
func opening(content result.Content) opener {
	return func(_ context.Context, offset, _ int64) (io.ReadCloser, error) {
		reader, err := content.Open()
		if err != nil {
			return nil, fmt.Errorf("read it: %w", err)
		}
		if _, err := reader.Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(fmt.Errorf("read it: %w", err), reader.Close())
		}
		return reader, nil
	}
}

// upload stores what was measured under a key, in workers parts at once.
func (s *Sink) upload(ctx context.Context, key string, p *plan, open opener, workers int, o object) error {
	o.sha256 = p.digest.SHA256Hex()
	if len(p.sums) > 1 {
		return s.uploadParts(ctx, key, p, open, workers, o)
	}
	body, err := newPart(ctx, open, 0, p.digest.Size)
	if err != nil {
		return err
	}
	err = s.archive.put(ctx, key, body, p.digest.Size, p.sums[0], p.digest.CRC64String(), s.headers(o))
	return body.end(err)
}

func (s *Sink) uploadParts(ctx context.Context, key string, p *plan, open opener, workers int, o object) (err error) {
	id, err := s.archive.initiate(ctx, key, s.headers(o))
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		bounded, cancel := lastWords(ctx)
		defer cancel()
		if aborted := s.archive.abort(bounded, key, id); aborted != nil {
			s.log.Warn("an upload was given up, and what was sent of it is still in the bucket: a lifecycle rule should remove it", "error", aborted.Error())
		}
	}()
	etags, err := s.sendParts(ctx, key, id, p, open, workers)
	if err != nil {
		return err
	}
	return s.archive.complete(ctx, key, id, etags, p.digest.CRC64String())
}

// sendParts sends all parts and returns their ETags. The first error ends all.
func (s *Sink) sendParts(parent context.Context, key, id string, p *plan, open opener, workers int) ([]string, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	etags := make([]string, len(p.sums))
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, len(p.sums)) {
		wg.Go(func() {
			for i := range numbers {
				err := crash.Guard(func() (err error) {
					etags[i], err = s.sendPart(ctx, key, id, p, open, i)
					return err
				})
				if err != nil {
					cancel(fmt.Errorf("part %d: %w", i+1, err))
				}
			}
		})
	}
	for i := range p.sums {
		if ctx.Err() != nil {
			break
		}
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	if err := parent.Err(); err != nil {
		return nil, err
	}
	return etags, context.Cause(ctx)
}

func (s *Sink) sendPart(ctx context.Context, key, id string, p *plan, open opener, i int) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	offset := int64(i) * p.partSize
	size := min(p.partSize, p.digest.Size-offset)
	body, err := newPart(ctx, open, offset, size)
	if err != nil {
		return "", err
	}
	etag, err := s.archive.uploadPart(ctx, key, id, i+1, body, size, p.sums[i])
	return etag, body.end(err)
}

// part is the body of one request. net/http may read it for a moment after the
// request has ended, which its reader must not see.
type part struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	reader io.ReadCloser
	left   int64
	err    error
	ended  bool
}

func newPart(ctx context.Context, open opener, offset, size int64) (*part, error) {
	ctx, cancel := context.WithCancel(ctx)
	reader, err := open(ctx, offset, size)
	if err != nil {
		cancel()
		return nil, err
	}
	return &part{ctx: ctx, cancel: cancel, reader: reader, left: size}, nil
}

func (p *part) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
		return 0, errEnded
	case p.ctx.Err() != nil:
		return 0, p.ctx.Err()
	case p.left == 0:
		return 0, io.EOF
	}
	n, err := p.reader.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if err = nil; p.left > 0 {
			err = errContent
		}
	}
	if err != nil {
		p.err = fmt.Errorf("read it: %w", err)
	}
	return n, p.err
}

var errEnded = errors.New("the request has ended")

// end closes the reader, and returns what went wrong with it or else with the
// request.
func (p *part) end(request error) error {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	closed := p.reader.Close()
	if p.err != nil {
		return p.err
	}
	return errors.Join(request, closed)
}
