package sinks

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// leastRoom is how much room a disk has at least that is not full, in bytes: with less,
// no video could be kept.
const leastRoom = 16 << 20

// HasRoom looks whether the disk of a file or folder is full, or nearly so: a small file
// may still be written where no result can be kept. The error wraps an *fs.PathError, and
// unix.ENOSPC if that is what is wrong.
func HasRoom(path string) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(path, &disk); err != nil {
		return &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	if left := disk.Bavail * uint64(disk.Bsize); left < leastRoom {
		return &fs.PathError{Op: "statfs", Path: path, Err: fmt.Errorf("%w: %d KiB are left", unix.ENOSPC, left>>10)}
	}
	return nil
}
