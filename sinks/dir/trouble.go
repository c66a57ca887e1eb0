package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

var (
	errNotFolder = errors.New("not a folder")
	// errNotDir is what the operating system says of a path through a file.
	errNotDir error = unix.ENOTDIR
	// errContent is of an asset whose bytes are not what the result says. The
	// next fetch of the result may bring the right ones.
	errContent = errors.New("the bytes are not those that the result describes")
)

// explain says what the archive was about to do, what is wrong, and what its
// owner can do about it. The paths in such errors are made of hashes and of the
// field names of FaceID.
func (s *Sink) explain(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if hint := s.hint(err); hint != "" {
		return fmt.Errorf("archive folder %s: %s: %w: %s", s.root, doing, err, hint)
	}
	return fmt.Errorf("archive folder %s: %s: %w", s.root, doing, err)
}

func (s *Sink) hint(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return "the disk is full (or out of inodes): free some space or enlarge it"
	case errors.Is(err, unix.EDQUOT):
		return "the disk quota is used up: raise it or free some space"
	case errors.Is(err, unix.EROFS):
		return "the file system is read-only: mount it writable; after disk errors, check it first"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("give user id %d the right to write there", os.Getuid())
	case errors.Is(err, errLink):
		return "what is done in the archive would be done where it leads: put the folder itself there (mount --bind, if it is on another disk)"
	case errors.Is(err, errNotDir), errors.Is(err, errNotFolder):
		return "a file is in the way: the path must name a folder"
	case errors.Is(err, fs.ErrNotExist):
		return "the folder or its parent is not there: create it, or mount its volume"
	case errors.Is(err, unix.EIO):
		return "the disk reports an error: check it"
	case errors.Is(err, unix.ESTALE):
		return "the network file system was lost: mount it again"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return "too many open files: raise the limit (ulimit -n, LimitNOFILE)"
	}
	return ""
}
