package export

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// place is where one export is written.
type place interface {
	// add writes a file whole, or fails and leaves nothing of it. The error is a
	// *readError if the source cannot be read or is not what it should be, and the
	// place is as it was before.
	add(ctx context.Context, name string, src source) (digest, error)
	// finish puts the export where it belongs, and returns where that is, and
	// whether an equal one was there, which stays.
	finish(m *Manifest) (path string, unchanged bool, err error)
	// close takes away what was not finished.
	close() error
}

// source is where the bytes of a file come from. It may be opened more than once.
type source struct {
	open func() (io.ReadCloser, error)
	// check says whether what was read is right; may be nil.
	check func(digest) error
	// read is told how much was read; may be nil.
	read func(n int64)
}

// readError is of a source, not of the place.
type readError struct{ err error }

func (e *readError) Error() string { return "read it: " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

var ecma = crc64.MakeTable(crc64.ECMA)

// copyTo copies all of a source. The error is a *readError unless to fails.
func (s source) copyTo(ctx context.Context, to io.Writer) (_ digest, err error) {
	content, err := s.open()
	if err != nil {
		return digest{}, &readError{err}
	}
	defer func() {
		if closeErr := content.Close(); err == nil && closeErr != nil {
			err = &readError{closeErr}
		}
	}()

	sha, crc := sha256.New(), crc64.New(ecma)
	size := int64(0)
	buf := make([]byte, 64<<10)
	for {
		if ctx.Err() != nil {
			return digest{}, context.Cause(ctx)
		}
		n, readErr := content.Read(buf)
		_, _ = sha.Write(buf[:n]) // never fails
		_, _ = crc.Write(buf[:n]) // never fails
		size += int64(n)
		if _, err := to.Write(buf[:n]); err != nil {
			return digest{}, err
		}
		if s.read != nil {
			s.read(size)
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return digest{}, &readError{readErr}
		}
	}

	got := newDigest(size, sha.Sum(nil), crc.Sum64())
	if s.check != nil {
		if err := s.check(got); err != nil {
			return digest{}, &readError{err}
		}
	}
	return got, nil
}

// nameOf names the export of a token. Product and hash are of a closed set and hex
// digits, whatever the token is.
func nameOf(key sinks.Key) string { return string(key.Product) + "-" + key.Hash }

// path returns where the export of a token belongs.
func (e *Exporter) path(key sinks.Key) string {
	name := nameOf(key)
	if len(e.cfg.Recipients) > 0 {
		name += ".tar.age"
	}
	return filepath.Join(e.cfg.Dir, name)
}

// open claims the place of an export.
func (e *Exporter) open(ctx context.Context, found *Found) (place, error) {
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for exports: %w", err)
	}
	if len(e.cfg.Recipients) > 0 {
		return openSealed(e.path(found.Key), nameOf(found.Key), e.cfg.Recipients)
	}
	return openFolder(ctx, e.path(found.Key), found)
}

// partSuffix is what the name of an export has at its end while it is written.
const partSuffix = ".part"

// claim opens what an export is written into, which is at path, and locks it. What
// another export left there that was cut off is the caller's to take away.
func claim(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin an export: %w", err)
	}
	if err := claimed(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func claimed(f *os.File, path string) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: another export of this token is at work there: wait for its end", path)
	}
	// It may have ended between opening and locking, and renamed what was opened.
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	if err != nil || !os.SameFile(mine, there) {
		return fmt.Errorf("%s: another export of this token has just ended: try again", path)
	}
	return nil
}

// syncFolder makes the names in a folder last.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
