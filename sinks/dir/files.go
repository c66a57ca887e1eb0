package dir

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// files are the operations that change the archive, see tree.
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

// lockPoll is how often a writer that waits for its turn looks again.
const lockPoll = 5 * time.Millisecond

var errLocked = errors.New("locked by another writer")

// lock waits for the lock on a file, which is made if need be. The lock is of
// this call: other calls of the same process wait for it too.
func (t tree) lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := t.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
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
func (t tree) tryLock(path string) (unlock func(), err error) {
	f, err := t.OpenFile(path, os.O_RDWR, 0)
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
