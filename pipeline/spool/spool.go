// Package spool keeps inline media while a result is in flight.
//
// A Batch holds what one result brings along. Each item is written once, from
// the socket, and read as often as sinks need it. Small items stay in memory;
// larger ones go to files that are sealed with a random key which exists only
// in this process, so that a crash leaves nothing readable. Digests and the
// content type are taken while writing.
//
// A quota bounds all items of all batches. When it is used up, writers wait
// instead of failing, except those of the oldest batch: it may always go on, so
// that something finishes and makes room.
package spool

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Config says where media in flight goes and how much of it there may be.
type Config struct {
	// Dir is the folder of the sealed files. It is made with mode 0700.
	Dir string
	// MemoryLimit is the size in bytes up to which an item stays in memory.
	MemoryLimit int64
	// Quota bounds the bytes of all items together. One result may exceed it,
	// so that there is always one that gets done.
	Quota int64
}

// DefaultConfig returns the defaults; Dir is left to the caller.
func DefaultConfig() Config { return Config{MemoryLimit: 256 << 10, Quota: 4 << 30} }

// Validate says what is wrong with c.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return errors.New("spool: the folder is missing")
	case c.MemoryLimit < 0:
		return errors.New("spool: the memory limit must not be negative")
	case c.Quota < 1:
		return errors.New("spool: the quota must be positive")
	}
	return nil
}

// Spool is the place of all media in flight of this process. Its methods may be
// called concurrently.
type Spool struct {
	cfg  Config
	aead cipher.AEAD
	// instance begins the name of every file of this process; lock is held as
	// long as the process lives, so that others know whose files are orphans.
	instance string
	lock     *os.File
	files    atomic.Uint64

	mu      sync.Mutex
	used    int64
	nextAge uint64
	open    map[uint64]*Batch
	// changed is closed and replaced when used shrinks or a batch ends.
	changed chan struct{}
}

const (
	lockSuffix = ".lock"
	fileSuffix = ".sealed"
)

// Open makes the folder ready and removes what dead processes left in it.
func Open(cfg Config) (*Spool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool folder: %w", err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the spool's key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make the spool's key: %w", err)
	}
	s := &Spool{cfg: cfg, aead: aead, instance: strings.ToLower(rand.Text()), open: map[uint64]*Batch{}, changed: make(chan struct{})}
	if s.lock, err = sweepAndLock(cfg.Dir, s.instance); err != nil {
		return nil, fmt.Errorf("sweep and lock the spool folder: %w", err)
	}
	return s, nil
}

// takeLock creates path if needed and locks it until the file is closed or the
// process dies. With unix.LOCK_NB in how, unix.EWOULDBLOCK means that a living
// process holds it.
func takeLock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), how); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// sweepAndLock removes the files of processes that no longer hold their lock,
// and takes a lock for this instance. Both happen under one more lock, so that
// no sweeper sees a process that has not got its lock yet.
func sweepAndLock(dir, instance string) (*os.File, error) {
	gate, err := takeLock(filepath.Join(dir, "gate"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer func() { _ = gate.Close() }()
	if err := sweep(dir); err != nil {
		return nil, err
	}
	return takeLock(filepath.Join(dir, instance+lockSuffix), unix.LOCK_EX|unix.LOCK_NB)
}

func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	alive := map[string]bool{}
	var orphans []string
	for _, entry := range entries {
		instance, isLock := strings.CutSuffix(entry.Name(), lockSuffix)
		if !isLock {
			continue
		}
		lock, err := takeLock(filepath.Join(dir, entry.Name()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			alive[instance] = true
		case err != nil:
			return err
		default:
			_ = lock.Close()
			orphans = append(orphans, entry.Name())
		}
	}
	for _, entry := range entries {
		instance, _, isMedia := strings.Cut(entry.Name(), "-")
		if isMedia && strings.HasSuffix(entry.Name(), fileSuffix) && !alive[instance] {
			orphans = append(orphans, entry.Name())
		}
	}
	for _, name := range orphans {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Usage is how much is in flight.
type Usage struct {
	// Bytes are in use, of Quota.
	Bytes, Quota int64
	// Batches are open.
	Batches int
}

// Usage returns how much is in flight now.
func (s *Spool) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Usage{Bytes: s.used, Quota: s.cfg.Quota, Batches: len(s.open)}
}

// Close removes what is left of this process. Every batch must be closed before.
func (s *Spool) Close() error {
	s.mu.Lock()
	left := len(s.open)
	s.mu.Unlock()
	err := os.Remove(s.lock.Name())
	_ = s.lock.Close()
	if left > 0 {
		return fmt.Errorf("close the spool: %d batches are still open", left)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("close the spool: %w", err)
	}
	return nil
}

// Begin opens a batch. It waits while the quota is used up; ctx ends the wait.
func (s *Spool) Begin(ctx context.Context) (*Batch, error) {
	for {
		s.mu.Lock()
		if s.used < s.cfg.Quota || len(s.open) == 0 {
			b := &Batch{spool: s, age: s.nextAge}
			s.nextAge++
			s.open[b.age] = b
			s.mu.Unlock()
			return b, nil
		}
		changed := s.changed
		s.mu.Unlock()
		if err := wait(ctx, changed); err != nil {
			return nil, err
		}
	}
}

func wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrFull, context.Cause(ctx))
	}
}

// reserve takes n bytes for b, and waits while that would exceed the quota and
// an older batch is open.
func (s *Spool) reserve(ctx context.Context, b *Batch, n int64) error {
	for {
		s.mu.Lock()
		if s.used+n <= s.cfg.Quota || s.oldest() == b.age {
			s.used += n
			s.mu.Unlock()
			return nil
		}
		changed := s.changed
		s.mu.Unlock()
		if err := wait(ctx, changed); err != nil {
			return err
		}
	}
}

// oldest returns the age of the oldest open batch; s.mu is held.
func (s *Spool) oldest() uint64 {
	oldest := s.nextAge
	for age := range s.open {
		oldest = min(oldest, age)
	}
	return oldest
}

// free gives n bytes back, and ends the batch if it is over.
func (s *Spool) free(n int64, over *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	if over != nil {
		delete(s.open, over.age)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}
