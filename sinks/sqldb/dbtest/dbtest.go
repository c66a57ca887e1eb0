// Package dbtest starts real database servers for tests: PostgreSQL, pgbouncer in front
// of it, and MariaDB, from the system's packages (`make tools` installs them), with a data folder, a
// port of the loopback interface and a password of their own.
//
// A server starts when the first test of a test binary asks for it, and all tests
// of the binary share it. Each gets an empty database. (A Postgres is a server that
// nobody shares, and that may be crashed.) The server ends with the test binary, however that ends: a guardian process waits for the end of a pipe
// from it, stops the server and removes the folder.
//
// The servers are set up as an unfriendly owner would: another time zone than
// UTC, and MariaDB with latin1, whatever a client asks for when it connects, and
// without strict mode. They do not sync to disk.
package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// account is the user that tests connect as. It owns its databases and may
	// make other users.
	account = "faceid"
	// startTimeout bounds how long a server may take to answer.
	startTimeout = time.Minute
	pollInterval = 20 * time.Millisecond
)

// server is one that runs.
type server struct {
	folder   string
	port     int
	password string
	// guardian holds the pipe on whose end the server ends.
	guardian *exec.Cmd
	pipe     io.Closer
}

// kind is what differs between servers.
type kind struct {
	name string
	// users are the system's accounts to run as when started by root, the first
	// that there is.
	users []string
	// signal ends the server at once. Nobody needs its data any more.
	signal string
	// prepare makes the data folder with the programs it needs.
	prepare func(context.Context, *server, *syscall.SysProcAttr) error
	// command is the server and its arguments.
	command func(*server) ([]string, error)
	// ready tells whether the server answers.
	ready func(context.Context, *server) error
}

// start makes a data folder and starts a server in it. Somebody else may take its port
// before the server does; then there is another one.
func start(k kind) (s *server, err error) {
	for range 3 {
		s, err = startOnce(k)
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return s, err
}

// errEnded means that a server ended by itself.
var errEnded = errors.New("it ended")

func startOnce(k kind) (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	as, owner, err := identity(k.users)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "faceid-dbtest-"+k.name+"-")
	if err != nil {
		return nil, err
	}
	s := &server{folder: folder, password: rand.Text()}
	if err := s.set(ctx, k, as, owner); err != nil {
		_ = os.RemoveAll(folder)
		return nil, fmt.Errorf("set up %s: %w", k.name, err)
	}
	command, err := k.command(s)
	if err == nil {
		err = s.run(ctx, k, as, command)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", k.name, err)
	}
	return s, nil
}

// set fills the folder.
func (s *server) set(ctx context.Context, k kind, as *syscall.SysProcAttr, owner int) (err error) {
	if s.port, err = freePort(ctx); err != nil {
		return err
	}
	if err := writeCertificates(s.folder); err != nil {
		return err
	}
	if err := chown(s.folder, owner); err != nil {
		return err
	}
	return k.prepare(ctx, s, as)
}

// guardian runs a server until its standard input ends, which it does when the
// test binary does. The folder stays until then, with the log, and longer if
// another guardian has started the server again.
const guardian = `
folder=$1 signal=$2
shift 2
exec 3<&0
"$@" </dev/null >>"$folder/log" 2>&1 &
server=$!
echo $server >"$folder/pid"
(cat <&3 >/dev/null; kill -s "$signal" $server) 2>/dev/null &
wait $server
cat <&3 >/dev/null
if [ "$(cat "$folder/pid")" = $server ]; then rm -rf "$folder"; fi
`

// run starts the server under its guardian and waits until it answers.
func (s *server) run(ctx context.Context, k kind, as *syscall.SysProcAttr, command []string) error {
	// The guardian must outlive a test that is interrupted with its group.
	own := *as
	own.Setpgid = true
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardian, "sh", s.folder, k.signal}, command...)...) //nolint:noctx,gosec // it ends with this process, and runs what this package says
	cmd.SysProcAttr = &own
	cmd.Dir = s.folder
	pipe, err := cmd.StdinPipe() // the kernel closes it at the latest
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.guardian, s.pipe = cmd, pipe
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := k.ready(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
			if s.ended() {
				return errors.Join(fmt.Errorf("%w: %s", errEnded, s.lastWords()), s.close())
			}
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w: %s", err, s.lastWords())
		}
	}
}

// ended tells whether the server has started and is gone.
func (s *server) ended() bool {
	pid, err := s.pid()
	return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// pid is the server's process.
func (s *server) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.folder, "pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// lastWords is the end of the server's log.
func (s *server) lastWords() string {
	log, err := os.ReadFile(filepath.Join(s.folder, "log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-2000):])
}

// close ends the server and removes its folder.
func (s *server) close() error { return errors.Join(s.pipe.Close(), s.guardian.Wait()) }

func (s *server) path(name string) string { return filepath.Join(s.folder, name) }

// identity is whom to run servers as: they refuse to be root.
func identity(users []string) (as *syscall.SysProcAttr, owner int, err error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, -1, nil
	}
	for _, name := range append(users, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return nil, 0, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, uid, nil
	}
	return nil, 0, errors.New("root cannot run a database server, and there is no user nobody")
}

// chown gives a folder and the files in it to the server's user.
func chown(folder string, owner int) error {
	if owner < 0 {
		return nil
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Chown(filepath.Join(folder, e.Name()), owner, -1); err != nil {
			return err
		}
	}
	return os.Chown(folder, owner, -1)
}

// freePort returns a port that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("not a TCP address")
	}
	return address.Port, l.Close()
}

// program finds one of the system's programs in PATH or in folders.
func program(name string, folders ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, pattern := range folders {
		found, _ := filepath.Glob(filepath.Join(pattern, name)) // the patterns are well formed
		sort.Strings(found)
		if len(found) > 0 {
			return found[len(found)-1], nil // the latest version
		}
	}
	return "", fmt.Errorf("%s is not installed: run `make tools`", name)
}

// tool runs a program that prepares something.
func tool(ctx context.Context, as *syscall.SysProcAttr, folder, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // what this package says
	cmd.SysProcAttr = as
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "HOME="+folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, out[max(0, len(out)-2000):])
	}
	return nil
}

// databases counts those that tests were given.
var databases atomic.Int64

func databaseName() string { return fmt.Sprintf("test_%d", databases.Add(1)) }

// get returns the server that the binary's tests share.
func get(t testing.TB, server func() (*server, error)) *server {
	t.Helper()
	s, err := server()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
