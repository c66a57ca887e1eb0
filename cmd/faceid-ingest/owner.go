package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// ownerError says that files belong to somebody else than who runs the command. It
// is found before anything is opened, so that nothing has been changed.
type ownerError struct{ problem string }

func (e *ownerError) Error() string { return e.problem }

// localPlace is a file or folder on this machine that the daemon makes or changes.
type localPlace struct {
	// what is the key of the configuration that names it, or what it is.
	what, path string
}

// localPlaces lists all of them.
func localPlaces(cfg *config.Config) []localPlace {
	list := []localPlace{
		{"data_dir", cfg.DataDir},
		{"the keyring", keyringFile(cfg)},
		{"the audit log", auditFile(cfg)},
		{"spool.dir", spoolDir(cfg)},
	}
	if cfg.NATS.URL == broker.Embedded {
		list = append(list, localPlace{"the embedded NATS server's folder", natsDir(cfg)})
	}
	for _, s := range cfg.Sinks {
		switch c := s.Config.(type) {
		case *dir.Config:
			list = append(list, localPlace{"the archive of sink " + s.Name, c.Path})
		case *sqldb.SQLite:
			for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
				list = append(list, localPlace{"the database of sink " + s.Name, c.Path + suffix})
			}
		}
	}
	return list
}

// refuseForeign returns an error if the command runs as root and something it may
// write to belongs to another user: what root makes or replaces, the daemon of that
// user cannot use, and does not start again.
func refuseForeign(cfg *config.Config) error {
	if os.Geteuid() != 0 {
		return nil // a stranger is stopped by the operating system
	}
	// A folder of another user in which everything is root's is a volume whose daemon
	// has always run as root, as in a container: there, commands are root's, too.
	if rootsOnly(natsDir(cfg), spoolDir(cfg), auditFile(cfg), filepath.Join(cfg.DataDir, keyringName)) {
		return nil
	}

	for _, place := range localPlaces(cfg) {
		path, owner, err := nearestOwner(place.path)
		if err != nil {
			return fmt.Errorf("see whom %s belongs to: %w", place.what, err)
		}
		if owner != 0 {
			return &ownerError{fmt.Sprintf("%s: %s belongs to user %d, and this command runs as root: the daemon could not use what it makes or replaces there. "+
				"Nothing was changed. Run it as that user: %s; if the daemon itself runs as root, give it the folder: chown root %s",
				place.what, path, owner, runAs(path, owner), path)}
		}
	}
	return nil
}

// nearestOwner returns the owner of a path, or of the nearest folder above it that can
// be seen, and which of them it is.
func nearestOwner(path string) (string, int, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", 0, err
	}

	for {
		info, err := os.Stat(path)
		switch parent := filepath.Dir(path); {
		case err == nil:
			return path, ownerOf(info), nil
		case parent == path:
			return "", 0, err
		default:
			path = parent
		}
	}
}

// ownerOf returns the user id of a file's owner: this process's where files have none.
func ownerOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return os.Geteuid()
}

// dynamicFolder is where systemd keeps the state of units with DynamicUser=; only
// root gets into it from outside of such a unit.
const dynamicFolder = "/var/lib/private/"

// runAs says how to run a command as the owner of a path.
func runAs(path string, owner int) string {
	if target, err := filepath.EvalSymlinks(path); err == nil && strings.HasPrefix(target, dynamicFolder) {
		return "deploy/faceid-ingest-as-service runs commands as systemd runs the daemon (DynamicUser)"
	}
	return fmt.Sprintf("sudo -u '#%d' faceid-ingest …", owner)
}

// refuseForDaemon is refuseForeign for the daemon, which also looks whether it is kept
// from what an earlier command, run as somebody else, left behind.
func refuseForDaemon(cfg *config.Config) error {
	if os.Geteuid() != 0 {
		return refuseUnusable(cfg)
	}
	return refuseForeign(cfg)
}

// rootsOnly reports whether some of the paths are there, and those are root's.
func rootsOnly(paths ...string) bool {
	found := false
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if ownerOf(info) != 0 {
			return false
		}
		found = true
	}
	return found
}

// maxTold bounds how many files an error names.
const maxTold = 8

// refuseUnusable returns an error that names the files of others which this process
// cannot use, and says how to give them back.
func refuseUnusable(cfg *config.Config) error {
	var unusable []string
	note := func(path string, info fs.FileInfo) {
		if ownerOf(info) != os.Geteuid() && !usable(path, info) && !slices.Contains(unusable, path) {
			unusable = append(unusable, path)
		}
	}
	for _, place := range localPlaces(cfg) {
		if info, err := os.Stat(place.path); err == nil {
			note(place.path, info)
		}
	}
	// The keyring needs only to be read, and may be where nobody writes.
	unusable = slices.DeleteFunc(unusable, func(path string) bool {
		return path == keyringFile(cfg) && unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS) == nil
	})
	// Below these, each file is the daemon's own.
	for _, folder := range []string{natsDir(cfg), spoolDir(cfg)} {
		_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return fs.SkipDir // what cannot be looked into has been noted
			}
			if len(unusable) == maxTold {
				return fs.SkipAll
			}
			if info, err := entry.Info(); err == nil {
				note(path, info)
			}
			return nil
		})
	}
	if len(unusable) == 0 {
		return nil
	}
	return &ownerError{fmt.Sprintf("user %d cannot use %s: perhaps a command was run as another user. Give it back, as root: chown -R %d:%d %s",
		os.Geteuid(), whose(unusable), os.Geteuid(), os.Getegid(), strings.Join(unusable, " "))}
}

// usable reports whether this process may read and change a file, or enter a folder.
func usable(path string, info fs.FileInfo) bool {
	mode := uint32(unix.R_OK | unix.W_OK)
	if info.IsDir() {
		mode |= unix.X_OK
	}
	return unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS) == nil
}

// whose lists paths with their owners.
func whose(paths []string) string {
	told := make([]string, 0, len(paths))
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			told = append(told, fmt.Sprintf("%s, which belongs to user %d", path, ownerOf(info)))
		}
	}
	return strings.Join(told, ", and ")
}

// foreignHint says whose a file is that a process was not let to.
func foreignHint(err error) string {
	var failed *fs.PathError
	if !errors.Is(err, fs.ErrPermission) || !errors.As(err, &failed) {
		return ""
	}
	path, owner, err := nearestOwner(failed.Path)
	if err != nil || owner == os.Geteuid() {
		return ""
	}
	return fmt.Sprintf("%s belongs to user %d, and this process is user %d: run it as that user (%s), or give the file to this one: chown -R %d %s",
		path, owner, os.Geteuid(), runAs(path, owner), os.Geteuid(), path)
}
