package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
)

// The letter of a result that was lost says what held it up until it was too late, and is
// counted where the alarm looks.
func TestExpiredLettersSayWhatHeldThemUp(t *testing.T) {
	t.Parallel()
	down := &faceid.Error{Class: faceid.Transient, Code: "InternalError.Db", Err: errors.New("down")}
	wrongKey := &faceid.Error{Class: faceid.RequestTrouble, Err: errors.New("no key")}
	for name, test := range map[string]struct {
		before []error
		code   string
		says   []string
	}{
		"one cause":          {[]error{down}, "InvalidParameterValue.BizTokenExpired", []string{"the API cannot be reached or fails (InternalError.Db), class transient"}},
		"several, in order":  {[]error{wrongKey, down}, "InvalidParameterValue.BizTokenExpired", []string{"the API refuses what is asked for, class request", "(InternalError.Db), class transient"}},
		"the whole account":  {[]error{arrears}, "InvalidParameterValue.BizTokenExpired", []string{"the API refuses the account (UnauthorizedOperation.Arrears), class account"}},
		"nothing was before": {nil, "InvalidParameterValue.BizTokenExpired", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var stage atomic.Int64
			b.api.answer = func(context.Context, string, int) error {
				if i := int(stage.Load()); i < len(test.before) {
					return test.before[i]
				}
				return expired
			}
			began := time.Now().UTC().Truncate(time.Second)
			b.publish("T-1")
			b.start()
			for i := range test.before {
				calls := b.api.count("T-1")
				b.until("it was tried often", func() bool { return b.api.count("T-1") > calls+50 })
				stage.Store(int64(i) + 1)
			}
			b.until("there is a dead letter", func() bool { return len(b.dead()) > 0 })

			l := b.dead()[0]
			if l.Reason != event.Expired || l.Code != test.code || !strings.HasPrefix(l.Detail, test.code+": the token expired") {
				t.Errorf("%+v", l)
			}
			rest := l.Detail
			for _, word := range test.says {
				_, after, ok := strings.Cut(rest, word)
				if !ok {
					t.Fatalf("the letter does not say %q, or not at its place: %s", word, l.Detail)
				}
				rest = after
			}
			if len(test.says) == 0 && strings.Contains(l.Detail, "before that") {
				t.Errorf("%s", l.Detail)
			}
			if len(test.says) > 0 {
				span := strings.SplitN(strings.SplitN(l.Detail, " from ", 2)[1], " to ", 2)
				first, err := time.Parse(time.RFC3339, span[0])
				if err != nil || first.Before(began) || first.After(l.Last) {
					t.Errorf("since %s, %v: %s", first, err, l.Detail)
				}
			}
			b.until("it is counted", func() bool {
				n, _ := value(b.scrape(), "dead_letters_total", `account="main",reason="expired"`)
				return n == 1
			})
		})
	}
}

// However many troubles there were, a letter names a few.
func TestHeldUpIsBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var over atomic.Bool
	b.api.answer = func(_ context.Context, _ string, n int) error {
		if over.Load() {
			return expired
		}
		codes := []string{"InternalError.A", "InternalError.B", "InternalError.C", "InternalError.D", "InternalError.E", "InternalError.F"}
		return &faceid.Error{Class: faceid.RequestTrouble, Code: codes[n%len(codes)], Err: errors.New("down")}
	}
	b.publish("T-1")
	b.start()
	b.until("it was tried often", func() bool { return b.api.count("T-1") > 12 })
	over.Store(true)
	b.until("there is a dead letter", func() bool { return len(b.dead()) > 0 })
	if l := b.dead()[0]; strings.Count(l.Detail, "InternalError.") != 4 || len(l.Detail) > 1000 {
		t.Errorf("%s", l.Detail)
	}
}
