package sinktest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// recorder is a testing.TB that notes failures instead of failing.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	said     strings.Builder
	cleanups []func()
}

// verdict runs a check to its end and tells whether it failed, and its words.
func verdict(t *testing.T, check func(testing.TB, sinktest.Factory), f sinktest.Factory) (failed bool, said string) {
	t.Helper()
	r := &recorder{TB: t}
	r.apart(func() { check(r, f) })
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		do := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		r.apart(do)
	}
	return r.failed, r.said.String()
}

// apart runs do in a goroutine that FailNow may end.
func (r *recorder) apart(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
}

func (r *recorder) Cleanup(do func()) { r.cleanups = append(r.cleanups, do) }

func (r *recorder) Fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) FailNow() {
	r.Fail()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Log(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(&r.said, args...)
}

func (r *recorder) Logf(format string, args ...any)   { r.Log(fmt.Sprintf(format, args...)) }
func (r *recorder) Error(args ...any)                 { r.Log(args...); r.Fail() }
func (r *recorder) Errorf(format string, args ...any) { r.Logf(format, args...); r.Fail() }
func (r *recorder) Fatal(args ...any)                 { r.Log(args...); r.FailNow() }
func (r *recorder) Fatalf(format string, args ...any) { r.Logf(format, args...); r.FailNow() }
