package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// A token is erased in the sinks, whose tombstones refuse it from then on, and everywhere
// that its event or result may be on its way: the ledger, the streams, the parking, the
// dead letters. Whoever has the event in work at that time finds a tombstone at the latest
// when it is stored, and finishes what the erasure could not see.

// MarkErased notes in the ledger that a token was erased, so that its events end without a
// pull. A mark that is there already stays, and is returned. Without a ledger there is
// nothing to mark.
func MarkErased(ctx context.Context, js jetstream.JetStream, key sinks.Key, stone sinks.Tombstone) error {
	l, err := lookAtLedger(ctx, js)
	if l == nil || err != nil {
		return err
	}
	return l.change(ctx, string(key.Product)+"."+key.Hash, func(e *entry) bool {
		marked := e.Erased != nil && len(e.Done) == 0 && !e.Parked && e.Wait == nil
		if e.Erased == nil {
			e.Erased = &stone
		}
		e.Done, e.Assets, e.Parked, e.Complete, e.Wait = map[string][]sinks.Receipt{}, "", false, false, nil
		return !marked
	})
}

// ReadErased returns the ledger's mark that a token was erased; nil if it has none.
func ReadErased(ctx context.Context, js jetstream.JetStream, key sinks.Key) (*sinks.Tombstone, error) {
	l, err := lookAtLedger(ctx, js)
	if l == nil || err != nil {
		return nil, err
	}
	e, err := l.read(ctx, string(key.Product)+"."+key.Hash)
	return e.Erased, err
}

// lookAtLedger opens the ledger if there is one; nil if not.
func lookAtLedger(ctx context.Context, js jetstream.JetStream) (*ledger, error) {
	kv, err := js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the ledger (key-value bucket %s): %w", LedgerBucket, err)
	}
	return &ledger{kv}, nil
}

// isErased reports whether a token of which the ledger says so was erased: a sink has a
// tombstone of it, or there is none that could have. Whoever took the tombstones away has
// let the token in again. The error is that of a sink that cannot be asked, if no other
// one has a tombstone.
func (w *Worker) isErased(ctx context.Context, key sinks.Key) (bool, error) {
	var errs []error
	asked := false
	for _, sink := range w.stages.keepers() {
		keeper, ok := sink.(sinks.Keeper)
		if !ok {
			continue
		}
		asked = true
		held, err := keeper.Holds(ctx, key)
		if err != nil {
			errs = append(errs, fmt.Errorf("sink %s: %w", sink.Name(), err))
		} else if held.Erased != nil {
			return true, nil
		}
	}
	return !asked, errors.Join(errs...)
}

// erasedMeanwhile reports whether the token of a task that is about to become a dead letter
// was erased.
func (w *Worker) erasedMeanwhile(ctx context.Context, t *task) bool {
	if t.event.Token == "" {
		return false
	}
	e, err := w.ledger.load(ctx, t)
	if err != nil || e.Erased == nil {
		return false
	}
	gone, err := w.isErased(ctx, t.key())
	return err == nil && gone
}

// eraseAgain finishes the erasure of a task's token, of which a sink says that it was
// erased.
func (w *Worker) eraseAgain(ctx context.Context, t *task) error {
	err := w.finishErasure(ctx, t.key())
	if err = errors.Join(err, w.parking.Drop(ctx, t.product, t.event.Token)); err != nil {
		return fmt.Errorf("erase what was stored of an erased token: %w", err)
	}
	return errErased
}

// finishErasure erases a token from every sink that keeps results: one of them says
// that it was erased, and whoever erased it wanted it to be gone from all. What was
// stored a moment ago in others goes, too.
func (w *Worker) finishErasure(ctx context.Context, key sinks.Key) error {
	reason := w.reasonOfErasure(ctx, key)
	var errs []error
	for _, sink := range w.stages.keepers() {
		if eraser, ok := sink.(sinks.Eraser); ok {
			if _, err := eraser.Erase(ctx, key, reason); err != nil {
				errs = append(errs, fmt.Errorf("sink %s: %w", sink.Name(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// reasonOfErasure returns why a token was erased, as far as a sink can say.
func (w *Worker) reasonOfErasure(ctx context.Context, key sinks.Key) string {
	for _, sink := range w.stages.keepers() {
		if keeper, ok := sink.(sinks.Keeper); ok {
			if held, err := keeper.Holds(ctx, key); err == nil && held.Erased != nil && held.Erased.Reason != "" {
				return held.Erased.Reason
			}
		}
	}
	return ""
}
