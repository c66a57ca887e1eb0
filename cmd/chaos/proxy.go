//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// proxy forwards TCP connections to one server, and does to them what networks do.
// Its methods may be called by several goroutines.
type proxy struct {
	target   string
	listener net.Listener
	work     sync.WaitGroup

	mu      sync.Mutex
	trouble trouble
	// changed is closed and replaced when trouble changes.
	changed chan struct{}
	links   map[*link]struct{}
	cuts    int
	closed  bool
}

// trouble is what happens on a proxy's connections. The zero value is nothing.
type trouble struct {
	// stall lets nothing through, in neither direction, and closes nothing.
	stall bool
	// refuse closes new connections.
	refuse bool
	// delay is added to every piece of data.
	delay time.Duration
	// cutAfter ends each connection when so many more bytes have passed in one
	// direction; 0 never does.
	cutAfter int
}

// link is one connection through a proxy.
type link struct {
	client, server net.Conn
	once           sync.Once
}

func (l *link) close() {
	l.once.Do(func() {
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// reset closes both ends with RST in place of FIN: what was on the way is lost.
func (l *link) reset() {
	for _, conn := range []net.Conn{l.client, l.server} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	l.close()
}

// newProxy listens on a free port of the loopback interface.
func newProxy(ctx context.Context, target string) (*proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &proxy{target: target, listener: listener, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.work.Go(p.accept)
	return p, nil
}

// address is where the proxy listens.
func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.work.Go(func() { p.serve(client) })
		}
	}
}

func (p *proxy) serve(client net.Conn) {
	if now, _ := p.now(); now.refuse {
		_ = client.Close()
		return
	}
	server, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server}
	if !p.add(l) {
		l.close()
		return
	}
	defer p.remove(l)
	p.work.Go(func() { p.forward(l, server, client) })
	p.forward(l, client, server)
}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *proxy) remove(l *link) {
	l.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// forward copies one direction until either end is gone or trouble comes.
func (p *proxy) forward(l *link, to, from net.Conn) {
	defer l.close()
	buffer := make([]byte, 16<<10)
	passed := 0
	for {
		n, err := from.Read(buffer)
		now, open := p.gate()
		if !open {
			return
		}
		if now.cutAfter > 0 && passed+n > now.cutAfter {
			_, _ = to.Write(buffer[:max(0, min(n, now.cutAfter-passed))])
			p.countCuts(1)
			return
		}
		if now.cutAfter > 0 {
			passed += n
		} else {
			passed = 0
		}
		if _, writeErr := to.Write(buffer[:n]); writeErr != nil || err != nil {
			if errors.Is(err, io.EOF) && writeErr == nil {
				closeWrite(to) // the other direction may go on
				p.await(l)
			}
			return
		}
	}
}

// closeWrite passes on that one side has nothing more to say.
func closeWrite(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// halfOpen is how long a connection may stay that one side has closed.
const halfOpen = time.Second

// await gives the other direction of a half-closed connection time to end.
func (p *proxy) await(l *link) {
	_ = l.client.SetDeadline(time.Now().Add(halfOpen))
	_ = l.server.SetDeadline(time.Now().Add(halfOpen))
}

// gate waits while the proxy is stalled, and for the delay; it returns what the
// trouble is then, and false when the proxy was closed.
func (p *proxy) gate() (trouble, bool) {
	for {
		now, changed := p.now()
		switch {
		case p.isClosed():
			return now, false
		case now.stall:
			<-changed
		case now.delay > 0:
			timer := time.NewTimer(now.delay)
			select {
			case <-timer.C:
			case <-changed:
			}
			timer.Stop()
			return now, true
		default:
			return now, true
		}
	}
}

func (p *proxy) now() (trouble, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble, p.changed
}

func (p *proxy) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// set makes trouble, until end is called. What was stalled is cut off then: no
// network gives back what it has swallowed.
func (p *proxy) set(t trouble) (end func()) {
	p.change(t)
	return func() {
		if t.stall {
			p.reset()
		}
		p.change(trouble{})
	}
}

func (p *proxy) change(t trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = t
	close(p.changed)
	p.changed = make(chan struct{})
}

// reset cuts all connections that there are.
func (p *proxy) reset() {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.reset()
	}
	p.countCuts(len(links))
}

func (p *proxy) countCuts(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts += n
}

// countOfCuts is how many connections were cut so far.
func (p *proxy) countOfCuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// close ends the proxy and its connections, and waits for them.
func (p *proxy) close() error {
	p.mu.Lock()
	p.closed = true
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	err := p.listener.Close()
	cuts := p.countOfCuts()
	p.reset()
	p.mu.Lock()
	p.cuts = cuts // these were not faults
	p.mu.Unlock()
	p.work.Wait()
	return err
}
