//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// run does everything: it sets up, breaks things while events flow, waits until all
// is drained, compares, and searches. It returns a report if it came to that, and an
// error if anything is not as promised. Progress goes to out.
func run(ctx context.Context, o options, out io.Writer) (r *report, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &site{options: o}
	defer func() { err = errors.Join(err, s.close()) }()
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	say("setting up: seed %d, %d tokens, %d workers", o.Seed, o.Tokens, o.Workers)
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	if o.Keep {
		say("everything is in %s", s.folder)
	}
	r = &report{site: s}
	if err := s.storm(ctx, out, r); err != nil {
		return nil, err
	}
	say("the faults are over, waiting until all is drained")
	began := time.Now()
	stop := s.progress(ctx, out)
	r.level, r.Drained, err = s.drain(ctx)
	stop()
	if r.Drain = seconds(began); err != nil {
		return nil, err
	}
	if !r.Drained {
		say("not drained within %s: %s", s.Limit, r.level)
	}
	say("waited %.0fs; stopping the workers, comparing", r.Drain)
	began = time.Now()
	if err := s.stopWorkers(); err != nil {
		return nil, err
	}
	if r.audit, err = s.audit(ctx); err != nil {
		return nil, err
	}
	say("compared; stopping the servers, searching for what must not be readable")
	if err := s.stopServers(ctx); err != nil {
		return nil, fmt.Errorf("stop the servers: %w", err)
	}
	if r.scan, err = s.scanAll(); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	r.Audit = seconds(began)
	r.complete()
	return r, r.verdict()
}

func seconds(since time.Time) float64 { return time.Since(since).Seconds() }

// storm publishes everything while faults happen, and returns when both are done.
func (s *site) storm(ctx context.Context, out io.Writer, r *report) error {
	weather := &storm{verbose: io.Discard, counts: map[string]int{}}
	if s.Verbose {
		weather.verbose = out
	}
	stop := s.progress(ctx, out)
	defer stop()
	began := time.Now()
	rate := perSecond
	if s.Short {
		rate = perSecondShort
	}
	published := make(chan error, 1)
	go func() { published <- s.publisher.publish(ctx, s.tokens, s.forgeries, rate) }()
	err := weather.blow(ctx, s.faults)
	err = errors.Join(err, <-published, ctx.Err())
	r.Faults, r.Storm = weather.counts, seconds(began)
	return err
}

// stopWorkers ends the workers as a shutdown does, all at once. Their wires stay.
func (s *site) stopWorkers() error {
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
