package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// gate holds transactions back until it opens.
type gate struct {
	open chan struct{}
	// arrived are transactions that begin or wait, committed those that are over.
	arrived   chan struct{}
	committed atomic.Int64
}

// gated opens a sink whose transactions wait at a gate.
func gated(t *testing.T, d *database) (*sqldb.Sink, *gate) {
	t.Helper()
	g := &gate{open: make(chan struct{}), arrived: make(chan struct{}, 1000)}
	armed := false
	sink, err := sqldb.OpenWith(t.Context(), d.cfg, env(t), stepping(func(ctx context.Context, what string) error {
		switch {
		case !armed:
		case what == "committed":
			g.committed.Add(1)
		case what == "begin":
			g.arrived <- struct{}{}
			select {
			case <-g.open:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}))
	must(t, err)
	armed = true
	return sink.(*sqldb.Sink), g
}

// recording is a call of Record that is on its way.
type recording struct {
	r       *result.Result
	cancel  context.CancelFunc
	outcome chan error
}

func record(t *testing.T, sink *sqldb.Sink, r *result.Result) *recording {
	ctx, cancel := context.WithCancel(t.Context())
	rec := &recording{r, cancel, make(chan error, 1)}
	go func() { rec.outcome <- sink.Record(ctx, r) }()
	return rec
}

// queued waits until a number of results wait for a writer.
func queued(t *testing.T, sink *sqldb.Sink, n int) {
	t.Helper()
	until(t, fmt.Sprintf("%d results wait", n), func() bool { return sink.Queued() == n })
}

// until waits for a condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for !met() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came to be that %s", what)
		}
	}
}

// busy starts as many transactions as the sink has writers.
func busy(t *testing.T, d *database, sink *sqldb.Sink, g *gate) (first []*recording) {
	t.Helper()
	writers := 2
	if d.name == "sqlite" {
		writers = 1
	}
	for i := range writers {
		first = append(first, record(t, sink, sinktest.Archived(sinktest.Result(1000+i))))
		<-g.arrived
	}
	return first
}

func wantStored(t *testing.T, d *database, all []*recording) {
	t.Helper()
	for _, rec := range all {
		if err := <-rec.outcome; err != nil {
			t.Errorf("%s: %v", rec.r.Token, err)
		}
		if _, err := d.reader.Get(t.Context(), sinks.KeyOf(rec.r.Product, rec.r.Token)); err != nil {
			t.Errorf("%s: %v", rec.r.Token, err)
		}
	}
}

// Results that come while others are written share as few transactions as there
// can be.
func TestGroup(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		sink, g := gated(t, d)
		all := busy(t, d, sink, g)
		writers := len(all)
		for i := range 2*sqldb.MaxGroup + 10 {
			all = append(all, record(t, sink, sinktest.Archived(sinktest.Result(i))))
		}
		queued(t, sink, 2*sqldb.MaxGroup+10)
		close(g.open)
		wantStored(t, d, all)
		must(t, sink.Close(t.Context()))
		if n, want := g.committed.Load(), int64(writers+3); n != want {
			t.Errorf("%d transactions, want %d", n, want)
		}
	})
}

// A group is bounded in bytes as well.
func TestGroupOfLargeResults(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	sink, g := gated(t, d)
	all := busy(t, d, sink, g)
	for i := range 3 {
		r := sinktest.Archived(sinktest.Result(i))
		r.Raw = result.NewSensitive(`"` + strings.Repeat("x", 1<<20) + `"`)
		all = append(all, record(t, sink, r))
	}
	queued(t, sink, 3)
	close(g.open)
	wantStored(t, d, all)
	must(t, sink.Close(t.Context()))
	if n := g.committed.Load(); n != 4 {
		t.Errorf("%d transactions, want 4", n)
	}
}

// One result that the database refuses, and one that was erased, harm no other.
func TestPoisonInGroup(t *testing.T) {
	refuse := map[string][]string{
		"sqlite":   {`CREATE TRIGGER refuse BEFORE INSERT ON results WHEN NEW.token = 'POISON' BEGIN SELECT RAISE(ABORT, 'no'); END`},
		"postgres": {`ALTER TABLE results ADD CHECK (token <> 'POISON')`},
		"mariadb":  {`ALTER TABLE results ADD CHECK (token <> 'POISON')`},
	}
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		d.exec(t, refuse[s.name]...)
		sink, g := gated(t, d)
		erased := sinktest.Archived(sinktest.Result(7))
		must(t, sinktest.Erase(t.Context(), d.reader, sinks.KeyOf(erased.Product, erased.Token)))
		good := busy(t, d, sink, g)
		for i := range 5 {
			good = append(good, record(t, sink, sinktest.Archived(sinktest.Result(i))))
		}
		poison := sinktest.Archived(sinktest.Result(6))
		poison.Token = "POISON"
		bad, gone := record(t, sink, poison), record(t, sink, erased)
		queued(t, sink, 7)
		close(g.open)
		wantStored(t, d, good)
		if class, _ := sinks.ClassOf(<-bad.outcome); class != sinks.ClassPermanent {
			t.Errorf("the class of a result that is refused is %q", class)
		}
		if err := <-gone.outcome; !errors.Is(err, sinks.ErrErased) {
			t.Errorf("an erased token: %v", err)
		}
		must(t, sink.Close(t.Context()))
	})
}

// Who gives up leaves at once, and the others stay.
func TestCancelledInGroup(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		sink, g := gated(t, d)
		first := busy(t, d, sink, g)
		stays := []*recording{record(t, sink, sinktest.Archived(sinktest.Result(1)))}
		leaves := record(t, sink, sinktest.Archived(sinktest.Result(2)))
		queued(t, sink, 2)
		for _, rec := range []*recording{leaves, first[0]} { // one waits, one is being written
			rec.cancel()
			if err := <-rec.outcome; !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled Record: %v", err)
			}
		}
		// The writer of the first, whose transaction has ended for want of callers,
		// goes on with those who stayed.
		<-g.arrived
		close(g.open)
		wantStored(t, d, append(stays, first[1:]...))
		must(t, sink.Close(t.Context()))
		for _, rec := range []*recording{leaves, first[0]} {
			if _, err := d.reader.Get(t.Context(), sinks.KeyOf(rec.r.Product, rec.r.Token)); !errors.Is(err, sinks.ErrNotFound) {
				t.Errorf("a cancelled result: %v", err)
			}
		}
	})
}

// Of two results of a token the one that came last is what stays.
func TestOneTokenTwiceInQueue(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	sink, g := gated(t, d)
	busy(t, d, sink, g)
	var last *recording
	for i := range 3 {
		r := sinktest.Archived(sinktest.Result(1))
		r.RequestID = fmt.Sprint("request ", i)
		last = record(t, sink, r)
		queued(t, sink, i+1)
	}
	close(g.open)
	wantStored(t, d, []*recording{last})
	must(t, sink.Close(t.Context()))
	rec, err := d.reader.Get(t.Context(), sinks.KeyOf(last.r.Product, last.r.Token))
	must(t, err)
	if rec.RequestID != "request 2" {
		t.Errorf("%q stays", rec.RequestID)
	}
}

// Close lets what waits be written.
func TestCloseWaits(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	sink, g := gated(t, d)
	all := busy(t, d, sink, g)
	for i := range 5 {
		all = append(all, record(t, sink, sinktest.Archived(sinktest.Result(i))))
	}
	queued(t, sink, 5)
	closed := make(chan error, 1)
	go func() { closed <- sink.Close(t.Context()) }()
	close(g.open)
	must(t, <-closed)
	wantStored(t, d, all)
	if err := sink.Record(t.Context(), sinktest.Result(9)); err == nil {
		t.Error("a closed sink records")
	}
}

// While one process erases a token and another records it, whoever is first, the
// token is gone in the end.
func TestRecordMeetsErase(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		for _, held := range []string{"INSERT INTO results", "DELETE FROM attempts", "commit"} {
			for name, order := range map[string][2]func(*sqldb.Sink, *result.Result) error{
				"record first": {recordOne, eraseOne}, "erase first": {eraseOne, recordOne},
			} {
				t.Run(name+", held at "+held, func(t *testing.T) { meet(t, newDatabase(t, s), held, order) })
			}
		}
	})
}

func recordOne(sink *sqldb.Sink, r *result.Result) error { return sink.Record(context.Background(), r) }
func eraseOne(sink *sqldb.Sink, r *result.Result) error {
	return sinktest.Erase(context.Background(), sink, sinks.KeyOf(r.Product, r.Token))
}

// meet holds the first call at a step, starts the second, and lets both go.
func meet(t *testing.T, d *database, held string, order [2]func(*sqldb.Sink, *result.Result) error) {
	r := sinktest.Archived(sinktest.Result(1))
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	armed := false
	opened, err := sqldb.OpenWith(t.Context(), d.cfg, env(t), stepping(func(_ context.Context, what string) error {
		if armed && strings.HasPrefix(what, held) {
			once.Do(func() { close(arrived); <-release })
		}
		return nil
	}))
	must(t, err)
	first := opened.(*sqldb.Sink)
	second := d.open(t, env(t))
	armed = true
	outcome := make(chan error, 2)
	go func() { outcome <- order[0](first, r) }()
	<-arrived
	go func() { outcome <- order[1](second, r) }()
	close(release)
	for range 2 {
		if err := <-outcome; err != nil && !errors.Is(err, sinks.ErrErased) {
			t.Error(err)
		}
	}
	must(t, first.Close(t.Context()))
	if rows := d.rows(t, r.TokenHash()); rows != "" {
		t.Errorf("an erased token has rows: %s", rows)
	}
	if err := sinktest.Erase(t.Context(), d.reader, sinks.KeyOf(r.Product, r.Token)); err != nil {
		t.Error(err)
	}
}
