package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// claimName is the file in data_dir that its daemon locks, and writes the address of its
// admin endpoint into. The lock goes with the process, whatever ends it.
const claimName = "daemon.lock"

// claim is a data folder in the hands of this process.
type claim struct{ file *os.File }

// claimDataDir takes the data folder for the daemon that this process is going to be: two
// in one folder would share its spool, keyring and embedded NATS server.
func claimDataDir(dir string) (*claim, error) {
	if err := makeDataDir(dir); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, claimName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dataDirError(dir, err)
	}

	err = unix.FcntlFlock(file.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		other := heldBy(file)
		_ = file.Close()
		return nil, fmt.Errorf("another daemon%s works in %s: stop it, or give this one a data_dir, an http.admin and, with the embedded NATS server, a nats.url of its own", other, dir)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return &claim{file}, nil
}

// announce tells commands beside this daemon where its admin endpoint is.
func (c *claim) announce(address string) error {
	err := c.file.Truncate(0)
	if err == nil {
		_, err = c.file.WriteAt([]byte(address+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", c.file.Name(), err)
	}
	return nil
}

// release gives the folder back.
func (c *claim) release() error { return c.file.Close() }

// neighbour is the daemon that works in a data folder.
type neighbour struct {
	// pid is how messages name its process: " (process 17)", or empty where the system
	// does not tell.
	pid string
	// port is that of its admin endpoint, or empty.
	port string
}

// findNeighbour returns the daemon that works in a data folder, or nil. It takes no lock,
// so that it never is in the way of a daemon that starts.
func findNeighbour(dir string) (*neighbour, error) {
	file, err := os.Open(filepath.Join(dir, claimName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nobody is no error
	}
	if err != nil {
		return nil, dataDirError(dir, err)
	}
	defer func() { _ = file.Close() }() // only read

	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock); err != nil {
		return nil, fmt.Errorf("look for the lock of %s: %w", dir, err)
	}
	if lock.Type == unix.F_UNLCK {
		return nil, nil //nolint:nilnil // nobody is no error
	}
	text, err := io.ReadAll(io.LimitReader(file, 1<<10))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	_, port, _ := net.SplitHostPort(strings.TrimSpace(string(text)))
	return &neighbour{pid: pidText(lock.Pid), port: port}, nil
}

// heldBy names the process that has the lock of a file.
func heldBy(file *os.File) string {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if unix.FcntlFlock(file.Fd(), unix.F_GETLK, &lock) != nil || lock.Type == unix.F_UNLCK {
		return ""
	}
	return pidText(lock.Pid)
}

// pidText is empty for a process that this one cannot see, as in another container.
func pidText(pid int32) string {
	if pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// makeDataDir makes the data folder if it is not there, and makes sure that it can be
// written.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dataDirError(dir, err)
	}
	probe, err := os.CreateTemp(dir, ".check-")
	if err != nil {
		return dataDirError(dir, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return dataDirError(dir, err)
	}
	return nil
}

// dataDirError says what is wrong with the data folder and what to do.
func dataDirError(dir string, err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	hint := "check the disk"
	switch {
	case errors.Is(err, fs.ErrPermission):
		hint = fmt.Sprintf("give user %d the right to write there, or name another folder", os.Getuid())
	case errors.Is(err, unix.EROFS):
		hint = "the file system is read-only: mount it writable, or name another folder"
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrExist):
		hint = "something on the path is not a folder: name another one"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = "the disk is full: free some space or enlarge it"
	}
	return fmt.Errorf("%s cannot be used: %w: %s", dir, err, hint)
}
