package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// fetched is a result in this process. The batch holds its media; whoever has it
// closes it.
type fetched struct {
	result *result.Result
	batch  *spool.Batch
	// parked says that the result lies in parking.
	parked bool
}

// fetch gets the task's result: from parking if it is of that lane, else from the
// API. What the API will never give may still be parked, if the ledger forgot.
func (w *Worker) fetch(ctx context.Context, t *task) (fetched, error) {
	if t.lane == event.Parked {
		f, err := w.take(ctx, t)
		if err == nil || !gone(err) {
			return f, err
		}
		return w.pull(ctx, t)
	}
	if w.waitsForRoom(ctx, t) {
		return fetched{}, &later{err: errRoomFirst}
	}
	f, err := w.pull(ctx, t)
	var pulling *pullError
	if errors.As(err, &pulling) && pulling.class == faceid.Permanent {
		taken, takeErr := w.take(ctx, t)
		if takeErr == nil || !gone(takeErr) {
			return taken, takeErr
		}
	}
	return f, err
}

// gone tells whether parking does not have a result, or not whole.
func gone(err error) bool {
	return errors.Is(err, parking.ErrNotParked) || errors.Is(err, parking.ErrDamaged)
}

// take gets a result from parking.
func (w *Worker) take(ctx context.Context, t *task) (_ fetched, err error) {
	ctx, step := span.Start(ctx, "take from parking")
	defer func() {
		if errors.Is(err, parking.ErrNotParked) {
			step.End() // Where results are looked for in vain, nothing is wrong.
			return
		}
		endStep(step, err)
	}()
	batch, err := w.spool.Begin(ctx)
	if err != nil {
		return fetched{}, err
	}
	r, err := w.parking.Take(ctx, t.product, t.event.Token, batch)
	if err == nil {
		return fetched{r, batch, true}, nil
	}
	_ = batch.Close()
	var unknown *privacy.UnknownKeyError
	switch {
	case errors.Is(err, parking.ErrDamaged):
		w.log.ErrorContext(ctx, "a parked result is damaged; it is pulled again, if the API still has it", append(t.attrs(), "error", err)...)
	case errors.As(err, &unknown):
		err = fmt.Errorf("%w: all workers need one keyring", err)
	}
	return fetched{}, fmt.Errorf("take a parked result: %w", err)
}

// pull gets a result from the API. While the API refuses all calls of the account,
// one of its events waits here, see probe.
func (w *Worker) pull(ctx context.Context, t *task) (f fetched, err error) {
	began := time.Now()
	defer func() { w.metrics.Stage(ctx, "pull", time.Since(began)) }()
	if t.account.pause.held() {
		return fetched{}, &pausedError{account: t.account.Name}
	}
	ctx, step := span.Start(ctx, "pull")
	defer func() { endPull(step, err) }()
	f, err = w.pullTries(ctx, t)
	if err != nil && refusesAccount(err) {
		if t.outOfTurn {
			// The account is tried with an event that was delivered.
			return fetched{}, &pausedError{account: t.account.Name}
		}
		f, err = w.probe(ctx, t, err)
	}
	if err == nil {
		w.troubles.over(apiTrouble(t))
	}
	return f, err
}

// pullTries pulls with tries in place.
func (w *Worker) pullTries(ctx context.Context, t *task) (f fetched, err error) {
	err = w.cfg.Retry.try(ctx, func() error {
		f, err = w.pullOnce(ctx, t)
		return err
	}, judgePull)
	if err != nil {
		return fetched{}, newPullError(err)
	}
	return f, nil
}

func (w *Worker) pullOnce(ctx context.Context, t *task) (f fetched, err error) {
	batch, err := w.spool.Begin(ctx)
	if err != nil {
		return fetched{}, err
	}
	defer func() {
		if f.result == nil {
			_ = batch.Close()
		}
	}()
	r, err := t.account.Client.Get(ctx, t.query(w.cfg.Now()), batch)
	w.metrics.Call(t.account.Name, faceid.Action(t.product), callClass(err), faceid.CodeLabel(err))
	if err != nil {
		return fetched{}, err
	}
	return fetched{result: r, batch: batch}, nil
}

func callClass(err error) string {
	if err == nil {
		return "ok"
	}
	return string(faceid.ClassOf(err))
}

func judgePull(err error) again {
	class := faceid.ClassOf(err)
	return again{retry: class == faceid.Transient || class == faceid.Throttled, least: retryAfter(err)}
}

// retryAfter is how long the API wants not to be asked.
func retryAfter(err error) time.Duration {
	var api *faceid.Error
	if errors.As(err, &api) {
		return api.After
	}
	return 0
}

// pullError says that a result could not be had from the API.
type pullError struct {
	class faceid.Class
	err   error
}

func newPullError(err error) *pullError { return &pullError{class: faceid.ClassOf(err), err: err} }

func (e *pullError) Error() string { return e.err.Error() }
func (e *pullError) Unwrap() error { return e.err }

func apiTrouble(t *task) string { return "api/" + t.account.Name }

func apiCode(err error) string {
	var api *faceid.Error
	if errors.As(err, &api) && api.Code != "" {
		return api.Code
	}
	return string(faceid.ClassOf(err))
}
