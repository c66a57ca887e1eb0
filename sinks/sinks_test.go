package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

func TestClassOf(t *testing.T) {
	cause := errors.New("cause")
	for _, test := range []struct {
		err   error
		class sinks.Class
		after time.Duration
	}{
		{nil, "", 0},
		{cause, sinks.ClassTransient, 0},
		{context.DeadlineExceeded, sinks.ClassTransient, 0},
		{fmt.Errorf("write: %w", context.Canceled), sinks.ClassCanceled, 0},
		{sinks.Permanent(cause), sinks.ClassPermanent, 0},
		{fmt.Errorf("record: %w", sinks.ErrErased), sinks.ClassErased, 0},
		{fmt.Errorf("record: %w", sinks.Permanent(cause)), sinks.ClassPermanent, 0},
		{fmt.Errorf("upload: %w", sinks.Throttled(cause, 3*time.Second)), sinks.ClassThrottled, 3 * time.Second},
		{fmt.Errorf("copy: %w", sinks.Waiting(cause, 5*time.Second)), sinks.ClassWaiting, 5 * time.Second},
		{errors.Join(sinks.Throttled(cause, time.Second), sinks.Permanent(cause)), sinks.ClassPermanent, 0},
	} {
		class, after := sinks.ClassOf(test.err)
		if class != test.class || after != test.after {
			t.Errorf("%v: %s, %s", test.err, class, after)
		}
		if test.err != nil && !slices.Contains(sinks.Classes(), class) {
			t.Errorf("Classes has no %s", class)
		}
	}
	if sinks.Permanent(nil) != nil || sinks.Throttled(nil, time.Second) != nil {
		t.Error("no error became one")
	}
	if err := sinks.Permanent(cause); !errors.Is(err, cause) || err.Error() != "cause" {
		t.Errorf("%v", err)
	}
}

// config is a sink type of this test.
type config struct{ sinks.Config }

func TestRegistry(t *testing.T) {
	sinks.Register("test", func() sinks.Config { return &config{} })
	one, ok := sinks.NewConfig("test")
	two, _ := sinks.NewConfig("test")
	if !ok || one == two {
		t.Error("configurations are shared")
	}
	if _, ok := sinks.NewConfig("tset"); ok {
		t.Error("an unknown type is known")
	}
	if !slices.Contains(sinks.Types(), "test") || !slices.IsSorted(sinks.Types()) {
		t.Errorf("%v", sinks.Types())
	}
	defer func() {
		if recover() == nil {
			t.Error("a type was registered twice")
		}
	}()
	sinks.Register("test", func() sinks.Config { return &config{} })
}
