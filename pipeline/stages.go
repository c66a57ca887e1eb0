package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// stages are the sinks by what they do. A sink that does several things is in
// several stages.
type stages struct {
	archive []sinks.Archiver
	record  []sinks.Recorder
	notify  []sinks.Notifier
	// What the ledger calls the work of each.
	archiveNames, recordNames, notifyNames []string
}

// The parts of the ledger's names that tell a sink's work in one stage from that in
// another.
const (
	inArchive = "archive "
	inRecord  = "record "
	inNotify  = "notify "
)

func sortStages(all []sinks.Sink) (stages, error) {
	var s stages
	for _, sink := range all {
		archiver, isArchiver := sink.(sinks.Archiver)
		recorder, isRecorder := sink.(sinks.Recorder)
		notifier, isNotifier := sink.(sinks.Notifier)
		if isArchiver {
			s.archive, s.archiveNames = append(s.archive, archiver), append(s.archiveNames, inArchive+sink.Name())
		}
		if isRecorder {
			s.record, s.recordNames = append(s.record, recorder), append(s.recordNames, inRecord+sink.Name())
		}
		if isNotifier {
			s.notify, s.notifyNames = append(s.notify, notifier), append(s.notifyNames, inNotify+sink.Name())
		}
		if !isArchiver && !isRecorder && !isNotifier {
			return stages{}, fmt.Errorf("sink %s neither archives nor records nor notifies", sink.Name())
		}
	}
	if len(s.archive)+len(s.record) == 0 {
		return stages{}, errors.New("no sink keeps anything: results would be acknowledged and lost")
	}
	return s, nil
}

// groups returns names stage by stage.
func (s stages) groups() [][]string { return [][]string{s.archiveNames, s.recordNames, s.notifyNames} }

// names returns what the ledger calls the work of each sink: a sink in several
// stages has several.
func (s stages) names() []string { return slices.Concat(s.archiveNames, s.recordNames, s.notifyNames) }

// keepers returns the sinks that archive or record.
func (s stages) keepers() []sinks.Sink {
	list := make([]sinks.Sink, 0, len(s.archive)+len(s.record))
	for _, a := range s.archive {
		list = append(list, a)
	}
	for _, r := range s.record {
		list = append(list, r)
	}
	return list
}

// store takes the task's result through all stages, and leaves out what the ledger's
// entry says is done; what is newly done it adds. Every sink of a stage is tried even
// when another one failed, so that one sink's outage delays only what depends on it; a
// stage begins when the one before is complete, but for records, which wait for archives
// no longer than until the deadline nears. The error is sinkErrors.
func (w *Worker) store(ctx context.Context, t *task, r *result.Result, e *entry) error {
	e.fit(r)
	known := len(e.Done)
	archived := w.stage(ctx, "archive", func() error {
		return each(w.stages.archive, func(a sinks.Archiver) *sinkError { return w.archive(ctx, a, r, e) })
	})
	if archived != nil && (!w.nears(t) || !isDelay(archived)) {
		return archived
	}
	r.Missing = append(r.Missing, lacking(r.Assets, e.Done)...)
	if len(e.Done) > known {
		// Records and messages tell where archives have put things.
		e.forget(inRecord, inNotify)
	}

	recorded := w.stage(ctx, "record", func() error {
		return each(w.stages.record, func(s sinks.Recorder) *sinkError {
			return w.once(ctx, e, inRecord, s, func(ctx context.Context) error { return s.Record(ctx, r) })
		})
	})
	if archived != nil || recorded != nil {
		return joined(archived, recorded)
	}
	return w.stage(ctx, "notify", func() error {
		return each(w.stages.notify, func(s sinks.Notifier) *sinkError {
			return w.once(ctx, e, inNotify, s, func(ctx context.Context) error { return s.Notify(ctx, r) })
		})
	})
}

// nears reports whether the deadline of a task is so near that its record waits for no
// archive any more.
func (w *Worker) nears(t *task) bool { return t.deadline().Sub(w.cfg.Now()) < urgentBefore }

// lacking returns the assets that an archive could not have, and no other one has.
func lacking(assets []result.Asset, done map[string][]sinks.Receipt) []result.Missing {
	var list []result.Missing
	for i, a := range assets {
		var reason result.MissingReason
		held := false
		for _, receipts := range done {
			if i >= len(receipts) || receipts[i].Field != a.Field {
				continue // it is of a record, or of a message
			}
			// Who only refers to an object does not know its size.
			held = held || receipts[i].Missing == "" && receipts[i].Size >= 0
			reason = cmp.Or(reason, receipts[i].Missing)
		}
		if reason != "" && !held {
			list = append(list, result.Missing{Field: a.Field, Reason: reason})
		}
	}
	return list
}

// blocked reports whether nothing can be done for a task's result now: all sinks of the
// first stage that is not complete are down, as far as they do not have it.
func (w *Worker) blocked(t *task, e *entry) bool {
	groups := w.stages.groups()
	if w.nears(t) {
		groups = [][]string{slices.Concat(w.stages.archiveNames, w.stages.recordNames), w.stages.notifyNames}
	}
	for _, group := range groups {
		open := false
		missing := 0
		for _, name := range group {
			if _, done := e.Done[name]; !done {
				_, sink, _ := strings.Cut(name, " ")
				missing++
				open = open || !w.gates[sink].shut()
			}
		}
		if missing > 0 {
			return !open
		}
	}
	return false
}

// once calls a sink unless it was done before.
func (w *Worker) once(ctx context.Context, e *entry, stage string, sink sinks.Sink, call func(context.Context) error) *sinkError {
	if _, done := e.Done[stage+sink.Name()]; done {
		return nil
	}
	if err := w.callSink(ctx, stage, sink, call); err != nil {
		return err
	}
	e.Done[stage+sink.Name()] = nil
	return nil
}

func each[S any](list []S, call func(S) *sinkError) error {
	var failed sinkErrors
	for _, one := range list {
		if err := call(one); err != nil {
			failed = append(failed, err)
			if err.class == sinks.ClassErased {
				break
			}
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return failed
}

func (w *Worker) stage(ctx context.Context, name string, do func() error) error {
	began := time.Now()
	err := do()
	w.metrics.Stage(ctx, name, time.Since(began))
	return err
}

func (w *Worker) archive(ctx context.Context, a sinks.Archiver, r *result.Result, e *entry) *sinkError {
	name := inArchive + a.Name()
	if receipts, done := e.Done[name]; !done || len(receipts) != len(r.Assets) {
		err := w.callSink(ctx, inArchive, a, func(ctx context.Context) error {
			receipts, err := a.Archive(ctx, r)
			if err == nil && len(receipts) != len(r.Assets) {
				err = fmt.Errorf("%d receipts for %d assets", len(receipts), len(r.Assets))
			}
			if err == nil {
				e.Done[name] = receipts
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for i, receipt := range e.Done[name] {
		if receipt.Missing == "" {
			r.Assets[i].Stored = append(r.Assets[i].Stored, receipt)
		}
	}
	return nil
}

// callSink calls a sink with tries in place, or not at all while it is down.
func (w *Worker) callSink(ctx context.Context, stage string, sink sinks.Sink, call func(context.Context) error) (failed *sinkError) {
	ctx, step := span.Start(ctx, stage+sink.Name(), span.Sink.String(sink.Name()))
	defer func() { endSink(step, failed) }()
	g := w.gates[sink.Name()]
	p := g.enter()
	if p == passNone {
		return &sinkError{sink: sink.Name(), class: sinks.ClassTransient, err: g.errDown()}
	}
	// What a panic leaves behind counts as a failure.
	class, after := sinks.ClassTransient, time.Duration(0)
	err := errPanic
	defer func() { g.leave(p, class, after, err) }()
	judge := judgeSink
	if p == passProbe {
		judge = never
	}
	err = w.cfg.Retry.try(ctx, func() error {
		err := call(ctx)
		if err != nil {
			class, _ := sinks.ClassOf(err)
			w.metrics.SinkError(sink.Name(), string(class))
		}
		return err
	}, judge)
	class, after = sinks.ClassOf(err)
	if err == nil {
		w.troubles.over("sink/" + sink.Name())
		w.metrics.SinkUp(sink.Name(), true)
		return nil
	}
	if class == sinks.ClassTransient || class == sinks.ClassThrottled {
		w.metrics.SinkUp(sink.Name(), false)
	}
	return &sinkError{sink: sink.Name(), class: class, after: after, err: err}
}

// errPanic is what a call of a sink ends with that does not return.
var errPanic = errors.New("the call of the sink panicked")

func never(error) again { return again{} }

func judgeSink(err error) again {
	class, after := sinks.ClassOf(err)
	return again{retry: class == sinks.ClassTransient || class == sinks.ClassThrottled, least: after}
}

// sinkError is a sink's last word on a result, for now.
type sinkError struct {
	sink  string
	class sinks.Class
	after time.Duration
	err   error
}

func (e *sinkError) Error() string { return fmt.Sprintf("sink %s: %v", e.sink, e.err) }
func (e *sinkError) Unwrap() error { return e.err }

// sinkErrors are the sinks that do not have a result, of one stage or of archives and
// records.
type sinkErrors []*sinkError

// joined returns the errors of two stages as those of one.
func joined(one, other error) error {
	var failed, more sinkErrors
	_, _ = errors.As(one, &failed), errors.As(other, &more)
	return slices.Concat(failed, more)
}

func (e sinkErrors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "; ")
}

// erased tells whether a sink says that the token was erased.
func (e sinkErrors) erased() bool {
	class, _ := e.class()
	return class == sinks.ClassErased
}

// class is what the pipeline does about all of them together: as long as one
// sink may still take the result, the event is worth another try.
func (e sinkErrors) class() (sinks.Class, time.Duration) {
	class, after := sinks.ClassPermanent, time.Duration(0)
	for _, one := range e {
		switch one.class {
		case sinks.ClassCanceled, sinks.ClassErased:
			return one.class, 0
		case sinks.ClassTransient, sinks.ClassThrottled, sinks.ClassWaiting:
			class, after = sinks.ClassTransient, max(after, one.after)
		}
	}
	return class, after
}
