//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// run does everything: it sets up, breaks things while events flow, waits until all
// is drained, compares, and searches. It returns a report if it came to that, and an
// error if anything is not as promised. Progress goes to out.
func run(ctx context.Context, o options, out io.Writer) (r *report, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	began := time.Now()
	var saying sync.Mutex
	say := func(format string, args ...any) {
		saying.Lock()
		defer saying.Unlock()
		_, _ = fmt.Fprintf(out, "%5.1fs  "+format+"\n", append([]any{seconds(began)}, args...)...)
	}
	s := &site{options: o, say: say}
	defer func() { err = errors.Join(err, s.close()) }()
	say("setting up: seed %d, %d tokens, %d workers", o.Seed, o.Tokens, o.Workers)
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	if o.Keep {
		say("everything is in %s", s.folder)
	}
	r = &report{site: s}
	for _, phase := range []struct {
		what  string
		do    func(context.Context, *report) error
		takes *float64
	}{
		{"publishing, and breaking things", s.storm, &r.Storm},
		{"the faults are over, waiting until all is drained", s.settle, &r.Drain},
		{"stopping the workers", s.stopWorkers, &r.Stop},
		{"comparing", s.compare, &r.Audit},
		{"stopping the servers, searching for what must not be readable", s.search, &r.Search},
	} {
		say("%s", phase.what)
		began := time.Now()
		if err := phase.do(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", phase.what, err)
		}
		*phase.takes = seconds(began)
	}
	r.complete()
	return r, r.verdict()
}

func seconds(since time.Time) float64 { return time.Since(since).Seconds() }

// storm publishes everything while faults happen, and returns when both are done.
func (s *site) storm(ctx context.Context, r *report) error {
	weather := &storm{tell: func(fault) {}, counts: map[string]int{}}
	if s.Verbose {
		weather.tell = func(f fault) { s.say("    %s", f) }
	}
	stop := s.progress(ctx)
	defer stop()
	rate := perSecond
	if s.Short {
		rate = perSecondShort
	}
	published := make(chan error, 1)
	go func() { published <- s.publisher.publish(ctx, s.tokens, s.forgeries, rate) }()
	err := weather.blow(ctx, s.faults)
	err = errors.Join(err, <-published, ctx.Err())
	r.Faults = weather.counts
	return err
}

// settle waits until all is drained, or the limit has passed.
func (s *site) settle(ctx context.Context, r *report) (err error) {
	stop := s.progress(ctx)
	defer stop()
	r.level, r.Drained, err = s.drain(ctx)
	return err
}

func (s *site) compare(ctx context.Context, r *report) (err error) {
	r.audit, err = s.audit(ctx)
	return err
}

func (s *site) search(ctx context.Context, r *report) (err error) {
	if err := s.stopServers(ctx); err != nil {
		return err
	}
	r.scan, err = s.scanAll()
	return err
}

// stopWorkers ends the workers as a shutdown does, all at once. Their wires stay.
func (s *site) stopWorkers(context.Context, *report) error {
	errs := make(chan error, len(s.workers))
	for _, w := range s.workers {
		go func() { errs <- w.stop() }()
	}
	all := make([]error, len(s.workers))
	for i := range all {
		all[i] = <-errs
	}
	return errors.Join(all...)
}
