//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// restartPause is the wait before a process that ended is started again.
	restartPause = 100 * time.Millisecond
	// stopWait is how long a process may take to end when it is asked to.
	stopWait = 30 * time.Second
)

// build compiles a main package of this module, or one that it depends on.
func build(ctx context.Context, pkg, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, pkg) //nolint:gosec // packages that this program names
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// process is a program that is kept running, as systemd or Kubernetes would: when
// it ends, however that comes, it is started again. Its methods may be called by
// several goroutines.
type process struct {
	name    string
	command []string
	log     *os.File
	stopped chan struct{} // closed by stop: no more starts
	done    chan struct{} // closed when the keeper has ended
	once    sync.Once

	mu  sync.Mutex
	cmd *exec.Cmd // nil between two runs
	// hold keeps a process from being started again until it is closed.
	hold chan struct{}
	// starts counts runs, failures those that ended with an error by themselves.
	starts, failures int
	// expected says that the end of the present run was asked for.
	expected bool
	last     error
}

// keep starts a program and keeps it running until stop. Its output goes to a file
// in logs.
func keep(logs, name string, command ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{name: name, command: command, log: log, stopped: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p, nil
}

func (p *process) run() {
	defer close(p.done)
	for p.mayStart() {
		cmd, err := p.start()
		if err == nil {
			err = cmd.Wait()
		}
		p.ended(err)
	}
}

// mayStart waits until the process may be started; false means never again.
func (p *process) mayStart() bool {
	p.mu.Lock()
	hold, first := p.hold, p.starts == 0
	p.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-p.stopped:
			return false
		}
	}
	if first {
		return true
	}
	pause := time.NewTimer(restartPause)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-p.stopped:
		return false
	}
}

func (p *process) start() (*exec.Cmd, error) {
	cmd := exec.Command(p.command[0], p.command[1:]...) //nolint:gosec,noctx // programs that this one built; stop ends them
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// The kernel ends it with this program, and a signal from the terminal is this
	// program's to pass on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts++
	p.expected = false
	err := cmd.Start()
	if err == nil {
		p.cmd = cmd
	}
	return cmd, err
}

func (p *process) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd = nil
	if err != nil && !p.expected {
		p.failures++
	}
	p.last = err
}

// signal sends a signal to the process, if it runs just now. It says whether the
// process will end of it.
func (p *process) signal(s syscall.Signal, ends bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.expected = p.expected || ends
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// kill ends the present run as a power cut would; another follows at once.
func (p *process) kill() { p.signal(syscall.SIGKILL, true) }

// terminate asks the present run to end; another follows at once.
func (p *process) terminate() { p.signal(syscall.SIGTERM, true) }

// freeze stops the process where it is, until thaw.
func (p *process) freeze() { p.signal(syscall.SIGSTOP, false) }

func (p *process) thaw() { p.signal(syscall.SIGCONT, false) }

// down ends the process by a signal and keeps it away until the returned function
// is called.
func (p *process) down(s syscall.Signal) (up func()) {
	hold := make(chan struct{})
	p.mu.Lock()
	p.hold = hold
	p.mu.Unlock()
	p.signal(s, true)
	return func() {
		p.mu.Lock()
		p.hold = nil
		p.mu.Unlock()
		close(hold)
	}
}

// stop asks the process to end for good, and insists after a while. The error is
// that of the last run, which must end well. Stopping it again does nothing.
func (p *process) stop() (err error) {
	p.once.Do(func() { err = p.end() })
	return err
}

func (p *process) end() error {
	close(p.stopped)
	p.thaw()
	p.terminate()
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	var late error
	select {
	case <-p.done:
	case <-timer.C:
		late = fmt.Errorf("%s did not end within %s", p.name, stopWait)
		p.kill()
		<-p.done
	}
	if err := errors.Join(late, p.last, p.log.Close()); err != nil {
		return fmt.Errorf("stop %s: %w; it said last:\n%s", p.name, err, lastWords(p.log.Name()))
	}
	return nil
}

// lastWords returns the end of a log, for who cannot look into it any more: a run's
// folder goes with the run.
func lastWords(log string) []byte {
	const most = 4 << 10
	text, err := os.ReadFile(log)
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-most):]
}

// counts returns how often the process was started, and how many runs failed that
// nobody had ended.
func (p *process) counts() (starts, failures int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts, p.failures
}
