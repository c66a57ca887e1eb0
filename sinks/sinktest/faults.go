package sinktest

import (
	"context"
	"errors"
	"sync"
)

// ErrFault is the error of a step that a Faults made fail.
var ErrFault = errors.New("injected fault")

// Faults makes a chosen step of a call fail. The edge of the sink under test,
// its file system, driver or transport, is wrapped so that it asks Step before
// every operation that changes something.
//
// All methods are safe for use by several goroutines, and a nil *Faults never
// fails a step.
type Faults struct {
	mu sync.Mutex
	// at is the number of the step that fails, from 1; 0 while disarmed.
	at     int
	mode   faultMode
	cancel context.CancelFunc

	steps int
	fired bool
}

type faultMode int

const (
	// dieAt is a crash: the step and all after it fail, clean-up included, for a
	// dead process does nothing.
	dieAt faultMode = iota
	// failAt is an error: the one step fails, those after it work.
	failAt
	// cancelAt cancels the caller's context; the step itself works.
	cancelAt
)

// Step reports whether the next operation may go on. On an error the operation
// must not be done and must fail with that error. An operation that a crash can
// cut in two, such as a write, asks again half way.
func (f *Faults) Step() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == 0 {
		return nil
	}
	f.steps++
	switch {
	case f.steps < f.at:
		return nil
	case f.mode == cancelAt:
		f.fired = true
		f.cancel()
		return nil
	case f.mode == failAt && f.steps > f.at:
		return nil
	}
	f.fired = true
	return ErrFault
}

// arm makes the n-th step from now on fail.
func (f *Faults) arm(n int, mode faultMode, cancel context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.mode, f.cancel, f.steps, f.fired = n, mode, cancel, 0, false
}

// disarm lets every step pass, and tells whether a step failed and how many
// there were.
func (f *Faults) disarm() (fired bool, steps int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = 0
	return f.fired, f.steps
}
