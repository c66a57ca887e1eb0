package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	// startWait bounds the start of the embedded server, which reads back its
	// streams, and the wait for one that another process is starting.
	startWait = 30 * time.Second
	pollWait  = 50 * time.Millisecond
)

// address is how other processes of the same user reach the embedded server.
type address struct {
	URL      string `json:"url"`
	Password string `json:"password"`
}

// embedded is a nats-server in this process.
type embedded struct {
	server  *server.Server
	address address
	lock    *os.File
	file    string
}

// busyError says that another process runs the server of this folder.
type busyError struct{ address address }

func (*busyError) Error() string { return "another process runs the embedded NATS server" }

// whenBusy is what to do about another process that runs the server: it is
// called with the address where that listens, again and again until it returns
// an error or the server has ended.
type whenBusy func(address) error

// joinAnother returns a *busyError with the address.
func joinAnother(a address) error { return &busyError{a} }

// waitForAnother has the caller wait, and says so once.
func waitForAnother(log *slog.Logger) whenBusy {
	var once sync.Once
	return func(address) error {
		once.Do(func() {
			log.Warn("a command, or another daemon, runs the embedded NATS server: waiting until it ends", "for", startWait.String())
		})
		return nil
	}
}

// startEmbedded starts the server of dir.
func startEmbedded(ctx context.Context, dir string, busy whenBusy) (*embedded, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the embedded NATS server: %w", err)
	}
	file := filepath.Join(dir, "address.json")
	lock, err := takeLock(ctx, dir, file, busy)
	if err != nil {
		return nil, err
	}
	e := &embedded{lock: lock, file: file}
	if err := e.start(dir); err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

// takeLock takes the lock of dir, and asks busy what to do once its holder has
// said where it listens. A holder that is just starting has not yet, one that is
// stopping does not any more: both are over soon.
func takeLock(ctx context.Context, dir, file string, busy whenBusy) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	poll := time.NewTicker(pollWait)
	defer poll.Stop()
	for {
		lock, err := lockDir(dir)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return lock, err
		}
		a, err := readAddress(file)
		if err == nil {
			if err := busy(a); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("another process uses %s but cannot be reached: %w", dir, err)
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("another process uses %s: stop it (perhaps a daemon runs already), or set nats.url: %w", dir, ctx.Err())
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
}

// lockDir takes the lock that dies with the process that holds it.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the embedded NATS server: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return lock, nil
}

func (e *embedded) start(dir string) error {
	// What a killed process left would send others to a dead port.
	if err := os.Remove(e.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old address of the embedded NATS server: %w", err)
	}
	password := rand.Text()
	options := &server.Options{
		ServerName:    "faceid-ingest",
		Host:          "127.0.0.1",
		Port:          server.RANDOM_PORT,
		Authorization: password,
		JetStream:     true,
		StoreDir:      dir,
		// An event that was acknowledged to its publisher must survive a power cut.
		SyncAlways: true,
		NoLog:      true,
		NoSigs:     true,
	}
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	e.server = s
	s.Start()
	if !s.ReadyForConnections(startWait) {
		return fmt.Errorf("the embedded NATS server did not start within %s; its files are in %s", startWait, dir)
	}
	e.address = address{URL: s.ClientURL(), Password: password}
	return writeAddress(e.file, e.address)
}

func writeAddress(file string, a address) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the address of the embedded NATS server: %w", err)
	}
	temp := file + ".new"
	if err := os.WriteFile(temp, body, 0o600); err != nil {
		return fmt.Errorf("write the address of the embedded NATS server: %w", err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("write the address of the embedded NATS server: %w", err)
	}
	return nil
}

func readAddress(file string) (address, error) {
	body, err := os.ReadFile(file)
	if err != nil {
		return address{}, fmt.Errorf("read the address of the embedded NATS server: %w", err)
	}
	var a address
	if err := json.Unmarshal(body, &a); err != nil {
		return address{}, fmt.Errorf("read %s: %w", file, err)
	}
	return a, nil
}

// stop ends the server, takes its address away and releases the folder.
func (e *embedded) stop() {
	if e.server != nil {
		_ = os.Remove(e.file)
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	_ = e.lock.Close()
}

// redactURL keeps passwords in NATS URLs out of errors.
func redactURL(list string) string {
	urls := strings.Split(list, ",")
	for i, one := range urls {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			urls[i] = "(not a URL)"
			continue
		}
		urls[i] = u.Redacted()
	}
	return strings.Join(urls, ",")
}
