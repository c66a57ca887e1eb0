package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps has the kernel write no core dump of this process, and let no other
// process of its user read its memory.
func forbidDumps() error {
	dumpable := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if dumpable != nil {
		dumpable = fmt.Errorf("prctl PR_SET_DUMPABLE: %w", dumpable)
	}
	limit := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if limit != nil {
		limit = fmt.Errorf("setrlimit RLIMIT_CORE: %w", limit)
	}
	return errors.Join(dumpable, limit)
}
