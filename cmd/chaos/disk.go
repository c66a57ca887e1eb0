//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk is a small file system of its own, which can be filled up.
type disk struct{ path string }

// mountDisk mounts a tmpfs of so many bytes.
func mountDisk(path string, size int64) (*disk, error) {
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	options := fmt.Sprintf("size=%d,mode=0700", size)
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return nil, fmt.Errorf("mount a small disk at %s: %w (it takes root, or a kernel that lets users make namespaces)", path, err)
	}
	return &disk{path}, nil
}

// archive is the folder on the disk for the dir sink.
func (d *disk) archive() string { return filepath.Join(d.path, "archive") }

// fill takes all the room there is, until the returned function is called.
func (d *disk) fill() (free func() error, err error) {
	name := filepath.Join(d.path, "ballast")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	if closed := f.Close(); !errors.Is(err, unix.ENOSPC) || closed != nil {
		return nil, errors.Join(fmt.Errorf("fill the small disk: %w", err), closed, os.Remove(name))
	}
	return func() error { return os.Remove(name) }, nil
}

func (d *disk) unmount() error {
	if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the small disk: %w", err)
	}
	return nil
}

// namespaceMark tells the program that it is in a namespace of its own.
const namespaceMark = "FACEID_CHAOS_NAMESPACE"

// ownNamespace makes mounting possible for a user who is not root: it runs this
// program again in a mount namespace of its own, and returns its exit code. done
// is false where that is not needed, and the caller goes on.
func ownNamespace() (code int, done bool) {
	if os.Geteuid() == 0 || os.Getenv(namespaceMark) != "" {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx,gosec // this program; signals of the terminal reach it, too
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), namespaceMark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN},
		Pdeathsig:   syscall.SIGTERM,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, true
	case errors.As(err, &exit):
		return max(1, exit.ExitCode()), true
	}
	return 0, false // no namespaces here: mountDisk says what is missing
}
