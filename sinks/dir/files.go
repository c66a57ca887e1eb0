package dir

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// files are the operations that change the archive. Reading goes to package os
// directly.
type files interface {
	// Mkdir makes one folder of mode 0700.
	Mkdir(path string) error
	// Create makes a file of mode 0600 that was not there.
	Create(path string) (file, error)
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in a folder last.
	SyncDir(path string) error
}

type file interface {
	io.WriteCloser
	// Sync makes the content last.
	Sync() error
}

// osFiles are those of the operating system.
type osFiles struct{}

func (osFiles) Mkdir(path string) error      { return os.Mkdir(path, 0o700) }
func (osFiles) Rename(from, to string) error { return os.Rename(from, to) }
func (osFiles) Remove(path string) error     { return os.Remove(path) }

func (osFiles) Create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err // not a file that holds a nil *os.File
	}
	return f, nil
}

func (osFiles) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockPoll is how often a writer that waits for its turn looks again.
const lockPoll = 5 * time.Millisecond

var errLocked = errors.New("locked by another writer")

// lock waits for the lock on a file, which is made if need be. The lock is of
// this call: other calls of the same process wait for it too.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		unlock, err := flock(f)
		if err == nil {
			return unlock, nil
		}
		if errors.Is(err, errLocked) {
			err = pause(ctx, lockPoll)
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
	}
}

// tryLock takes the lock on a file that is there, or says errLocked.
func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	unlock, err = flock(f)
	if err != nil {
		_ = f.Close()
	}
	return unlock, err
}

// flock locks f until it is closed, which the operating system does for a
// process that dies.
func flock(f *os.File) (unlock func(), err error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, errLocked
		case err != nil:
			return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		return func() { _ = f.Close() }, nil
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
