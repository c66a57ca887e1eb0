package sinks

import (
	"context"
	"errors"
	"time"
)

// Class is what the pipeline does about a sink's error, and the value of the
// metric label "class".
type Class string

const (
	// ClassTransient is retried with growing delay for as long as there is time.
	// It is the class of every error that does not say another.
	ClassTransient Class = "transient"
	// ClassThrottled is retried, but not before the delay the sink named.
	ClassThrottled Class = "throttled"
	// ClassWaiting means that the sink is well, and that this result alone waits for
	// what others have to bring, such as an object that FaceID has not written yet. It
	// is retried until the sink gives that up.
	ClassWaiting Class = "waiting"
	// ClassPermanent means that this result will never be taken, whatever the
	// time: the event becomes a dead letter.
	ClassPermanent Class = "permanent"
	// ClassErased means that the token was erased, see Eraser: there is nothing
	// left to do.
	ClassErased Class = "erased"
	// ClassCanceled means that the caller gave up; it is nobody's fault.
	ClassCanceled Class = "canceled"
)

// Classes lists every class, for metrics that show all of them from the start.
func Classes() []Class {
	return []Class{ClassTransient, ClassThrottled, ClassWaiting, ClassPermanent, ClassErased, ClassCanceled}
}

// PermanentError says that repeating the call cannot help: the sink refuses
// this very result. A sink that is misconfigured or unreachable is transient:
// its owner can mend it while the event waits.
type PermanentError struct{ Err error }

// Permanent marks err as permanent; nil stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{Err: err}
}

func (e *PermanentError) Error() string { return e.Err.Error() }
func (e *PermanentError) Unwrap() error { return e.Err }

// ThrottledError says that the sink wants to be asked again, later.
type ThrottledError struct {
	Err error
	// After is the least time to wait; 0 leaves it to the caller.
	After time.Duration
}

// Throttled marks err as throttled for at least the given time; nil stays nil.
func Throttled(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &ThrottledError{Err: err, After: after}
}

func (e *ThrottledError) Error() string { return e.Err.Error() }
func (e *ThrottledError) Unwrap() error { return e.Err }

// WaitingError says that a result waits for something that is not the sink's to mend.
type WaitingError struct {
	Err error
	// After is the least time to wait before it is looked for again.
	After time.Duration
}

// Waiting marks err as that of a result that waits; nil stays nil.
func Waiting(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &WaitingError{Err: err, After: after}
}

func (e *WaitingError) Error() string { return e.Err.Error() }
func (e *WaitingError) Unwrap() error { return e.Err }

// ClassOf returns the class of a sink's error and, for a throttled or waiting one, the
// time to wait at least. A nil error has no class.
func ClassOf(err error) (Class, time.Duration) {
	var throttled *ThrottledError
	var waiting *WaitingError
	var permanent *PermanentError
	switch {
	case err == nil:
		return "", 0
	case errors.Is(err, ErrErased):
		return ClassErased, 0
	case errors.As(err, &permanent):
		return ClassPermanent, 0
	case errors.As(err, &throttled):
		return ClassThrottled, throttled.After
	case errors.As(err, &waiting):
		return ClassWaiting, waiting.After
	case errors.Is(err, context.Canceled):
		return ClassCanceled, 0
	default:
		return ClassTransient, 0
	}
}
