//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of the given size on the site's folder of the given
// name. Where the test may not mount, it runs itself again in a user namespace of its
// own, in which it may.
func (s *site) smallDisk(name, size string) *disk {
	s.t.Helper()
	folder := s.path(name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		s.t.Fatal(err)
	}
	mount := func(flags uintptr, options string) {
		s.t.Helper()
		if err := syscall.Mount("tmpfs", folder, "tmpfs", flags, options); err != nil {
			s.t.Fatalf("mount a disk: %v", err)
		}
	}
	mount(0, "mode=0700,size="+size)
	s.t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
	return &disk{
		grow:     func() { s.t.Helper(); mount(syscall.MS_REMOUNT, "size=64m") },
		readOnly: func() { s.t.Helper(); mount(syscall.MS_REMOUNT|syscall.MS_RDONLY, "") },
	}
}

// disk is a small one. Its functions make it larger and writable, or read-only.
type disk struct{ grow, readOnly func() }

// mayMount runs the test again as the root of a user namespace, if this process may
// not mount. It returns false if that has been done.
func mayMount(t *testing.T) bool {
	t.Helper()
	const again = "FACEID_TEST_MAY_MOUNT"
	if os.Geteuid() == 0 || os.Getenv(again) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), again+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	output, err := cmd.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Errorf("in a user namespace: %v", err)
	}
	return false
}

// metric tells whether a line is among the daemon's metrics.
func (p *process) metric(line string) bool {
	p.t.Helper()
	_, page := p.admin("/metrics")
	return strings.Contains(page, line)
}

// A disk that is full, and one that turns read-only: the results wait in parking, the
// log says why, and when the disk is well again all of them are there, once.
func TestDiskTrouble(t *testing.T) {
	if !mayMount(t) {
		return
	}
	t.Parallel()
	s := newSite(t, "worker: {", "worker: {timeout: 1m, ")
	media := s.smallDisk("media", "1m")
	ballast := s.path("media/ballast")
	if err := os.WriteFile(ballast, make([]byte, 900<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	checks := newChecks(30, 8<<10)
	s.publish(checks[:10])
	p := s.start()
	until(t, "results are parked", func() bool { return s.status().Parked.Results > 0 })
	p.says(syscall.ENOSPC.Error())
	if status := s.status(); status.Dead != 0 {
		t.Errorf("given up: %+v", status.DeadByReason)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	media.grow()
	until(t, "all are settled", func() bool { return s.open() == 0 })

	media.readOnly()
	s.publish(checks[10:20])
	until(t, "results are parked", func() bool { return s.status().Parked.Results > 0 })
	p.says(syscall.EROFS.Error())
	until(t, "status says so", func() bool {
		stdout, _ := s.command(exitDone, "status")
		return strings.Contains(stdout, "sink media does not take results") && strings.Contains(stdout, "parked: ")
	})
	stdout, _ := s.command(exitDone, "status")
	t.Logf("status says:\n%s", stdout)
	// In the middle of it, a polite end; what is parked survives it.
	p.stop()
	media.grow()
	s.publish(checks[20:])
	p = s.start()
	until(t, "all are settled", func() bool { return s.open() == 0 })
	if status := s.status(); status.Dead != 0 || status.Parked.Results != 0 {
		t.Errorf("%+v", status)
	}
	p.stop()
	s.holdsExactly(checks)
}

// The API's clock and this machine's drift apart and come together again: the account
// waits, with words that say why, and nothing is given up, also of what is old.
func TestClockJump(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	checks := newChecks(20, 8<<10)
	s.publish(checks[:10])
	p := s.start()
	until(t, "the first are settled", func() bool { return s.open() == 0 })
	s.clock.offset.Store(int64(80 * time.Hour))
	s.publish(checks[10:])
	until(t, "the account is paused", func() bool { return p.metric(accountPaused) })
	until(t, "status says so", func() bool {
		stdout, _ := s.command(exitDone, "status")
		return strings.Contains(stdout, "account main is paused by daemon") && strings.Contains(stdout, "clock is more than five minutes off")
	})
	s.clock.offset.Store(0)
	until(t, "all are settled", func() bool { return s.open() == 0 })
	if status := s.status(); status.Dead != 0 || len(status.Paused) != 0 {
		t.Errorf("%+v", status)
	}
	p.stop()
	s.holdsExactly(checks)
}

// A polite end in the middle of many events, again and again, loses and doubles
// nothing, and hands back what it holds at once.
func TestPoliteEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t, "ack_wait: 1m", "ack_wait: 1h") // what is not handed back would be missed
	checks := newChecks(300, 64<<10)
	s.publish(checks)
	for _, asked := range []int{40, 120, 200} {
		p := s.start()
		until(t, fmt.Sprintf("the API was asked %d times", asked), func() bool { return s.api.Stats().Requests >= asked })
		p.stop()
	}
	p := s.start()
	until(t, "all events are settled", func() bool { return s.open() == 0 })
	p.stop()
	for _, c := range checks {
		if n := s.api.Calls(c.Token); n != 1 {
			t.Errorf("%s was asked for %d times", c.Token, n)
		}
	}
	s.holdsExactly(checks)
}

// A second event of an ingested token costs no call, whichever way it comes.
func TestDuplicatesCostNoCall(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	checks := newChecks(5, 8<<10)
	s.publish(checks)
	p := s.start()
	until(t, "all are settled", func() bool { return s.open() == 0 })
	before := s.api.Stats().Requests
	for _, c := range checks {
		conn, err := (&app{configFile: s.config}).connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Without a message id, as another program would, and as a backfill.
		for _, subject := range []string{"faceid.completed.main.", "faceid.backfill.main."} {
			_, pubErr := conn.JS.Publish(t.Context(), subject+string(c.Product), []byte(`{"token":"`+c.Token+`"}`))
			err = errors.Join(err, pubErr)
		}
		if err = errors.Join(err, conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the duplicates are settled", func() bool {
		return p.metric(`outcome="known"`) && s.open() == 0
	})
	if after := s.api.Stats().Requests; after != before {
		t.Errorf("%d calls for duplicates", after-before)
	}
	p.stop()
	s.holdsExactly(checks)
}
