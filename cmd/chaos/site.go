//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
)

const (
	// perSecond is the rate of new tokens.
	perSecond, perSecondShort = 10, 12
	// diskSpare is the room on the small disk beyond what all media take.
	diskSpare = 48 << 20
	clusterOf = 3
)

// site is everything of a run: processes, stand-ins, and the wires between them.
type site struct {
	options
	layout
	// say prints a line of progress; several goroutines may call it.
	say       func(format string, args ...any)
	plan      plan
	tokens    []*issued
	forgeries []forged
	faults    []fault

	disk      *disk
	standIns  *standIns
	nats      *natsServers
	postgres  *dbtest.Postgres
	workers   []*worker
	publisher *publisher
	// own are the publisher's wires; nc and js go past all wires.
	own map[string][]*proxy
	nc  *nats.Conn
	js  jetstream.JetStream
	// kills counts workers that were killed.
	kills atomic.Int64
	// closers undo what was set up, the last first.
	closers []func() error
}

// open sets everything up. What was is undone by close, also after an error.
func (s *site) open(ctx context.Context) error {
	random := rand.New(rand.NewSource(s.Seed))
	s.tokens, s.forgeries = issue(random, s.Tokens)
	for _, step := range []func(context.Context) error{
		s.openFolder, s.openServers, s.openStandIns, s.openStreams, s.openPublisher, s.openWorkers,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.plan = s.makePlan()
	s.faults = schedule(random, s.plan, s.kinds())
	return nil
}

func (s *site) makePlan() plan {
	p := plan{pace: 1, gap: 2 * time.Second, every: map[time.Duration]kind{s.Kill: s.kill()}}
	p.span = time.Duration(s.Tokens)*time.Second/perSecond + 10*time.Second
	leaders := 4 * s.Kill
	if s.Short {
		p.pace, p.gap, leaders = 0.35, 260*time.Millisecond, 2*s.Kill
		p.span = time.Duration(s.Tokens)*time.Second/perSecondShort + time.Second
	}
	if s.Cluster {
		p.every[leaders] = s.killLeader()
	}
	return p
}

func (s *site) onClose(do func() error) { s.closers = append(s.closers, do) }

func (s *site) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *site) openFolder(ctx context.Context) (err error) {
	if s.folder, err = os.MkdirTemp("", "faceid-chaos-"); err != nil {
		return err
	}
	s.onClose(func() error {
		if s.Keep {
			return nil
		}
		return os.RemoveAll(s.folder)
	})
	s.logs = filepath.Join(s.folder, "logs")
	if err := os.Mkdir(s.logs, 0o700); err != nil {
		return err
	}
	if s.disk, err = mountDisk(filepath.Join(s.folder, "disk"), s.mediaSize()+diskSpare); err != nil {
		return err
	}
	s.onClose(s.disk.unmount)
	s.archive = s.disk.archive()
	if _, err := privacy.CreateWrappedKeyring(ctx, filepath.Join(s.folder, keyringName), nil); err != nil {
		return err
	}
	if s.binary = s.Binary; s.binary == "" {
		s.binary = filepath.Join(s.folder, "faceid-ingest")
		return build(ctx, "github.com/faceid-ingest/faceid-ingest/cmd/faceid-ingest", s.binary)
	}
	return nil
}

// mediaSize is what the dir sink has to keep, in bytes.
func (s *site) mediaSize() (n int64) {
	for _, t := range s.tokens {
		for _, m := range t.media() {
			if !m.Form.InCOS() {
				n += m.Size + m.Size/500 + 8<<10 // sealed, in whole pages, with a manifest
			}
		}
	}
	return n
}

func (s *site) openServers(ctx context.Context) (err error) {
	binary := filepath.Join(s.folder, "nats-server")
	if err := build(ctx, natsPackage, binary); err != nil {
		return err
	}
	s.replicas = 1
	if s.Cluster {
		s.replicas = clusterOf
	}
	folder := filepath.Join(s.folder, "nats")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	if s.nats, err = startNATS(ctx, binary, folder, s.logs, s.replicas); err != nil {
		return err
	}
	if s.postgres, err = dbtest.NewPostgres(ctx); err != nil {
		return errors.Join(err, s.nats.stop())
	}
	s.database = s.postgres.URL()
	// The servers' files are searched when they have ended, and before they go.
	s.onClose(s.postgres.Close)
	s.onClose(func() error { return s.stopServers(context.WithoutCancel(ctx)) })
	return nil
}

// stopServers ends NATS and PostgreSQL and leaves their files.
func (s *site) stopServers(ctx context.Context) error {
	if s.nats == nil {
		return nil
	}
	err := errors.Join(s.nats.stop(), s.postgres.Crash(ctx))
	s.nats = nil
	return err
}

func (s *site) openStandIns(ctx context.Context) (err error) {
	if s.standIns, err = startStandIns(ctx, s.folder); err != nil {
		return err
	}
	s.onClose(s.standIns.close)
	s.targets = map[string][]string{
		toNATS: s.nats.addresses(), toPostgres: {s.postgres.Address()},
		toCOS:  {strings.TrimPrefix(s.standIns.cos.URL(), "http://")},
		toAPI:  {strings.TrimPrefix(s.standIns.api.URL(), "http://")},
		toHook: {s.standIns.hook.server.Listener.Addr().String()},
	}
	return nil
}

func (s *site) openStreams(ctx context.Context) (err error) {
	if s.nc, s.js, err = connectNATS(s.nats.addresses()); err != nil {
		return err
	}
	s.onClose(func() error { s.nc.Close(); return nil })
	return makeStreams(ctx, s.js, s.replicas)
}

func (s *site) openPublisher(ctx context.Context) (err error) {
	if s.own, err = wire(ctx, map[string][]string{toNATS: s.nats.addresses()}); err != nil {
		return err
	}
	s.onClose(func() error { return unwire(s.own) })
	nc, js, err := connectNATS(addressesOf(s.own[toNATS]))
	if err != nil {
		return err
	}
	s.onClose(func() error { nc.Close(); return nil })
	s.publisher = newPublisher(js, s.standIns)
	return nil
}

func (s *site) openWorkers(ctx context.Context) error {
	for i := range s.Workers {
		w, err := newWorker(ctx, s.layout, i)
		if err != nil {
			return fmt.Errorf("start worker %d: %w", i, err)
		}
		s.workers = append(s.workers, w)
		s.onClose(func() error { return errors.Join(w.stop(), unwire(w.wires)) })
	}
	return nil
}

// wiresTo are all wires to a service, of all who use it.
func (s *site) wiresTo(service string) []*proxy {
	list := append([]*proxy(nil), s.own[service]...)
	for _, w := range s.workers {
		list = append(list, w.wires[service]...)
	}
	return list
}

// cuts counts the connections that were cut.
func (s *site) cuts() (n int) {
	for _, service := range services() {
		for _, p := range s.wiresTo(service) {
			n += p.countOfCuts()
		}
	}
	return n
}
