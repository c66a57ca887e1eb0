package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

const (
	// reapBatch is how many advisories are fetched at once.
	reapBatch = 16
	// reapAgain is the wait before an advisory that could not be acted on comes
	// again.
	reapAgain = 30 * time.Second
)

// reap takes up events that were delivered as often as they may be, until ctx is done:
// workers that took them ended before they could look at them. Workers share the
// advisories.
func (w *Worker) reap(ctx context.Context, advisories jetstream.Consumer) {
	for ctx.Err() == nil {
		err := w.reapOnce(ctx, advisories)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			w.troubles.over("reap")
			continue
		}
		w.troubles.note(ctx, "reap", "cannot look for events that no worker survives, trying again", "error", err)
		if sleep(ctx, reapAgain) != nil {
			return
		}
	}
}

func (w *Worker) reapOnce(ctx context.Context, advisories jetstream.Consumer) error {
	request, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	batch, err := advisories.Fetch(reapBatch, jetstream.FetchContext(request))
	if err != nil {
		return ignoreTimeout(err)
	}
	var errs []error
	for msg := range batch.Messages() {
		if err := w.guarded(ctx, func() error { return w.reapOne(ctx, msg) }); err != nil {
			_ = msg.NakWithDelay(reapAgain)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, ignoreTimeout(batch.Error()))...)
}

func (w *Worker) reapOne(ctx context.Context, msg jetstream.Msg) error {
	advisory, err := event.DecodeAdvisory(msg.Data(), streams.NameIn(w.js, event.Stream))
	if err != nil {
		return msg.TermWithReason("malformed")
	}
	stream, err := w.js.Stream(ctx, advisory.Stream)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", advisory.Stream, err)
	}
	raw, err := stream.GetMsg(ctx, advisory.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return msg.DoubleAck(ctx)
	}
	if err != nil {
		return fmt.Errorf("read an event that no worker survives: %w", err)
	}
	if err := w.endCrashed(ctx, stream, raw, advisory); err != nil {
		return err
	}
	return msg.DoubleAck(ctx)
}

// endCrashed does with the event what suspect does, unless its work is done: only its
// acknowledgements were lost then.
func (w *Worker) endCrashed(ctx context.Context, stream jetstream.Stream, raw *jetstream.RawStreamMsg, advisory event.Advisory) error {
	lane, account, product, err := event.ParseSubject(raw.Subject)
	if err != nil || advisory.Consumer != event.ConsumerName(account, lane) {
		// Somebody else's message, or another one's consumer of ours.
		return nil //nolint:nilerr // there is nothing to do about it
	}
	consumer, err := stream.Consumer(ctx, advisory.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), err == nil && consumer.CachedInfo().Delivered.Stream < raw.Sequence:
		// Nobody was given the event: its turn comes. The advisory is forged, or of a
		// consumer that was deleted.
		return nil
	case err != nil:
		return fmt.Errorf("look at consumer %s: %w", advisory.Consumer, err)
	}
	past := pastOf(raw)
	deadline := time.Time{}
	if e, err := event.Decode(product, raw.Data); err == nil {
		known, err := w.ledger.read(ctx, ledgerKey(product, e.Token))
		if err == nil && !known.outdated(past.Again) && known.Erased != nil {
			return event.Erase(ctx, stream, raw.Sequence)
		}
		if err == nil && !known.outdated(past.Again) && known.covers(w.stages.names()) {
			return event.Remove(ctx, stream, raw.Sequence)
		}
		deadline = e.Deadline(past.First)
	}
	past.Attempts += advisory.Deliveries
	past.Crashes++
	past.NotBefore = w.apart(past.Crashes, deadline)
	if past.Crashes < crashLimit {
		if err := w.publisher.Republish(ctx, raw.Subject, raw.Data, raw.Header, past, renewalID(advisory.Stream, raw.Sequence, raw.Time)); err != nil {
			return fmt.Errorf("put an event on the stream anew: %w", err)
		}
		return event.Remove(ctx, stream, raw.Sequence)
	}
	end := crashed(past.Attempts)
	letter := w.storedLetter(raw, account)
	letter.Attempts, letter.Reason, letter.Code, letter.Detail = past.Attempts, end.reason, end.code, end.Error()
	return w.buryStored(ctx, stream, letter)
}

func pastOf(raw *jetstream.RawStreamMsg) event.Past {
	return event.PastOf(event.Place{Sequence: raw.Sequence, Time: raw.Time}, raw.Header)
}

// storedLetter returns what a dead letter of a stored event says in any case.
func (w *Worker) storedLetter(raw *jetstream.RawStreamMsg, account string) event.DeadLetter {
	past := pastOf(raw)
	return event.DeadLetter{
		Account: account, Attempts: past.Attempts, First: past.First, Last: w.cfg.Now(), History: past.History, Again: past.Again,
		Subject: raw.Subject, StreamSequence: raw.Sequence, Body: raw.Data, Trace: raw.Header,
	}
}

// buryStored stores the letter and takes its event, which comes to no worker any more or
// too late, off its stream.
func (w *Worker) buryStored(ctx context.Context, stream jetstream.Stream, letter event.DeadLetter) error {
	if err := w.publisher.Bury(ctx, letter); err != nil {
		return err
	}
	w.metrics.Dead(letter.Account, string(letter.Reason))
	w.log.WarnContext(ctx, "gave an event up that no worker holds; it is a dead letter now", "account", letter.Account,
		"reason", letter.Reason, "code", letter.Code, "subject", letter.Subject, "sequence", letter.StreamSequence)
	return event.Remove(ctx, stream, letter.StreamSequence)
}
