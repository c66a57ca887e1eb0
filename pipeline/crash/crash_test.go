package crash_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/crash"
)

func poisoned(value string) { panic(errors.New(value)) }

func TestGuardTellsThePlaceOnly(t *testing.T) {
	err := crash.Guard(func() error { poisoned("SECRET"); return nil })
	p, panicked := crash.Of(err)
	if !panicked || !strings.HasPrefix(err.Error(), "panicked at ") || !strings.Contains(err.Error(), "crash_test.poisoned (") {
		t.Fatalf("%v", err)
	}
	if strings.Contains(p.Stack, "SECRET") || strings.Contains(p.Stack, "0x") {
		t.Errorf("the stack has values: %s", p.Stack)
	}
	plain := errors.New("plain")
	if got := crash.Guard(func() error { return plain }); got != plain { //nolint:errorlint // It is passed on as it is.
		t.Errorf("%v", got)
	}
	for _, stack := range crash.Goroutines() {
		if strings.Contains(stack, "TestGuardTellsThePlaceOnly") {
			return
		}
	}
	t.Error("this goroutine is not among all")
}
