package cos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// maxCopy is the largest object that COS copies by one request, in bytes.
const maxCopy = 5 << 30

// storeForeign stores an asset that FaceID put into COS, and completes its entry.
// Only the bucket that the asset names is touched, which pipeline/faceid has held to
// the account's own.
func (t *token) storeForeign(ctx context.Context, a result.Asset, e *Entry) error {
	from := t.sink.links.bucket(a.COS.Bucket, a.COS.Region, t.sink.links.source)
	there, err := from.head(ctx, a.COS.Key)
	if err != nil {
		return missing(err)
	}
	e.Size, e.CRC64 = there.size, there.crc
	switch {
	case e.referenced():
		return nil
	case t.copies(a):
		return t.copyForeign(ctx, from, a.COS.Key, there, e)
	}
	return t.pull(ctx, from, a.COS.Key, there, e)
}

// copyForeign copies on COS's side, and asks COS whether the copy is the same.
func (t *token) copyForeign(ctx context.Context, from *bucket, source string, want stat, e *Entry) error {
	if want.size > maxCopy {
		return sinks.Permanent(fmt.Errorf("%s: the object has %d bytes, and COS copies 5 GiB at most: set mode to pull or reference", from, want.size))
	}
	to := t.sink.archive
	_, key, _ := split(e.Location)
	if !t.fresh && want.crc != "" {
		same, err := t.holds(ctx, key, want)
		if err != nil {
			return err
		}
		if same {
			return t.retain(ctx, key)
		}
	}
	err := to.copyFrom(ctx, key, from, source, t.sink.headers(object{
		tokenHash: t.TokenHash, field: e.Field, contentType: mediaType(e.ContentType),
	}))
	if errors.Is(err, errForbidden) && want.crc != "" {
		if same, headErr := t.holds(ctx, key, want); headErr == nil && same {
			return nil // another replica was faster, and has locked it
		}
		return to.whyLocked(ctx, key, "", err)
	}
	if err != nil {
		return missing(err)
	}
	same, err := t.holds(ctx, key, want)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%s: the copy differs from what was copied", to)
	}
	return t.retain(ctx, key)
}

// holds tells whether an object of this size and CRC-64, as far as COS knows the
// latter, is under a key.
func (t *token) holds(ctx context.Context, key string, want stat) (bool, error) {
	there, err := t.sink.archive.head(ctx, key)
	if errors.Is(err, errNoObject) {
		return false, nil
	}
	return err == nil && there.size == want.size && (want.crc == "" || there.crc == want.crc), err
}

// pull takes an object through this process.
func (t *token) pull(ctx context.Context, from *bucket, source string, want stat, e *Entry) error {
	content := remote{ctx, from, source}
	p, err := t.sink.measure(ctx, content, want.size)
	if err != nil {
		return missing(err)
	}
	if want.crc != "" && p.digest.CRC64String() != want.crc {
		return fmt.Errorf("%s: the object came with other bytes than COS says it has", from)
	}
	e.describe(p.digest)
	open := func(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
		if n == 0 {
			return io.NopCloser(strings.NewReader("")), nil // there is no empty range
		}
		body, err := from.get(ctx, source, offset, n)
		return body, missing(err)
	}
	return t.put(ctx, content, p, open, e)
}

// missing has the error of a request for FaceID's object say so, if the object is not
// there.
func missing(err error) error {
	if errors.Is(err, errNoObject) {
		return fmt.Errorf("%w: %w", errMissing, err)
	}
	return err
}

// remote is an object in COS as a result.Content.
type remote struct {
	ctx  context.Context // of the call that reads it
	from *bucket
	key  string
}

func (r remote) Open() (io.ReadSeekCloser, error) { return &remoteReader{remote: r}, nil }

// remoteReader asks for the object when it is read, from where it stands on.
type remoteReader struct {
	remote
	pos  int64
	body io.ReadCloser
}

func (r *remoteReader) Read(p []byte) (int, error) {
	if r.body == nil {
		body, err := r.from.get(r.ctx, r.key, r.pos, -1)
		if err != nil {
			return 0, err
		}
		r.body = body
	}
	n, err := r.body.Read(p)
	r.pos += int64(n)
	return n, err
}

func (r *remoteReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	default:
		return 0, errors.New("an object in COS is read from its start")
	}
	if offset == r.pos {
		return offset, nil
	}
	r.pos = offset
	return offset, r.Close()
}

func (r *remoteReader) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}

// wanted reads the CRC of an entry; ok is false if there is none.
func (e *Entry) wanted() (crc uint64, ok bool) {
	crc, err := strconv.ParseUint(e.CRC64, 10, 64)
	return crc, err == nil
}
