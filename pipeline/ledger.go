package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// LedgerBucket is the key-value bucket of the ledger.
	LedgerBucket = streams.LedgerBucket
	// ledgerFresh is the age from which on an entry that is still needed is renewed.
	ledgerFresh = 24 * time.Hour
	// maxLedgerEntry bounds what is read of an entry, in bytes; NATS itself takes
	// no message above 1 MiB by default.
	maxLedgerEntry = 1 << 20
)

// ledger remembers per token which sinks have its result, so that a sink which
// failed does not make the others work again, and a token that comes twice is not
// pulled twice. It only saves work: without it everything is done again, with the
// same end. So no event waits for it, and what cannot be read counts as nothing.
type ledger struct{ kv jetstream.KeyValue }

// openLedger makes sure of the bucket.
func openLedger(ctx context.Context, js jetstream.JetStream, replicas int) (*ledger, error) {
	kv, err := streams.OpenKeyValue(ctx, js, streams.LedgerNeed(), replicas)
	if err != nil {
		return nil, fmt.Errorf("open the ledger (key-value bucket %s): %w", LedgerBucket, err)
	}
	return &ledger{kv}, nil
}

// entry is what the ledger knows of one token. It holds no personal data.
type entry struct {
	// Sequence and Published are the place of the latest event for which the entry was
	// written, in the stream of events.
	Sequence  uint64    `json:"sequence,omitempty"`
	Published time.Time `json:"published"`
	// Assets identifies the assets of the result that the sinks were given.
	Assets string `json:"assets"`
	// Done is the work that is done, see stages.names, with the receipts of
	// archives.
	Done map[string][]sinks.Receipt `json:"done"`
	// Parked says that the result is parked: its events go the way of that.
	Parked bool `json:"parked,omitempty"`
	// Complete says that all sinks of the worker that wrote the entry have the
	// result. Only those who do not know the sinks go by it.
	Complete bool `json:"complete,omitempty"`
	// Express is about the token's events that are worked on out of turn; nil if none was.
	Express *expressed `json:"express,omitempty"`
	// Wait is why the token's event waits; nil if none does.
	Wait *Wait `json:"wait,omitempty"`
	// Erased says that the token was erased; nil if not. It spares a pull: the sinks
	// decide, see Worker.isErased.
	Erased *sinks.Tombstone `json:"erased,omitempty"`

	// revision is that of the entry in the bucket, and written when it was made; 0 if
	// there is none.
	revision uint64
	written  time.Time
}

// expressed says when an event of a token was last worked on out of turn, and how often in
// a row nothing was heard of that: the worker ended, and it may be the event that ends
// workers.
type expressed struct {
	At       time.Time `json:"at"`
	Unending int       `json:"unending,omitempty"`
}

// rests tells whether an event is left to its turn at the given time.
func (x *expressed) rests(now time.Time) bool {
	return x != nil && (x.Unending >= crashLimit || now.Sub(x.At).Abs() < expressAgain)
}

func newEntry() *entry { return &entry{Done: map[string][]sinks.Receipt{}} }

func ledgerKey(product result.Product, token string) string {
	return string(product) + "." + result.TokenHash(product, token)
}

// load returns what is known of the task's token. An event that asks for another
// ingestion (see event.Publisher.PublishAgain) knows only what was done for itself and
// later ones.
func (l *ledger) load(ctx context.Context, t *task) (*entry, error) {
	e, err := l.read(ctx, ledgerKey(t.product, t.event.Token))
	if err == nil && e.outdated(t.past.Again) {
		return &entry{Done: map[string][]sinks.Receipt{}, Express: e.Express, revision: e.revision}, nil
	}
	return e, err
}

func (e *entry) place() event.Place { return event.Place{Sequence: e.Sequence, Time: e.Published} }

// outdated tells whether the entry is of the time before an event that asks for all work
// to be done once more; again is where that began, and zero for other events.
func (e *entry) outdated(again event.Place) bool {
	return again != (event.Place{}) && again.After(e.place())
}

// place returns what the ledger notes of the task's event: where it began if all work is
// to be done once more, else where it stands; zero on the lane of parked results, whose
// places are of another stream.
func (t *task) place() event.Place {
	switch {
	case t.past.Again != (event.Place{}):
		return t.past.Again
	case t.lane == event.Parked:
		return event.Place{}
	}
	return event.PlaceOf(t.meta)
}

// read returns an entry; what is not there is an empty one.
func (l *ledger) read(ctx context.Context, key string) (*entry, error) {
	value, err := l.kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return newEntry(), nil
	case err != nil:
		return newEntry(), fmt.Errorf("read the ledger: %w", err)
	}
	stored := entry{revision: value.Revision(), written: value.Created()}
	if len(value.Value()) > maxLedgerEntry || json.Unmarshal(value.Value(), &stored) != nil || stored.Done == nil {
		fresh := newEntry()
		fresh.revision = value.Revision()
		return fresh, errors.New("read the ledger: an entry is not one of this program's")
	}
	return &stored, nil
}

// keepFresh writes an entry again before its time is over.
func (l *ledger) keepFresh(ctx context.Context, t *task, e *entry, names []string, now time.Time) error {
	if e.revision == 0 || now.Sub(e.written) < ledgerFresh {
		return nil
	}
	return l.save(ctx, t, e, names)
}

// ledgerTries is how often an entry is written when others write it at the same
// time: few, for nobody but a second event of the token does.
const ledgerTries = 5

// save writes e. What another worker has written meanwhile is not undone: its work
// is added if it was done with the same assets, and not before an event that asks for all
// to be done once more.
func (l *ledger) save(ctx context.Context, t *task, e *entry, names []string) error {
	key := ledgerKey(t.product, t.event.Token)
	if at := t.place(); at.After(e.place()) {
		e.Sequence, e.Published = at.Sequence, at.Time.UTC()
	}
	if e.Express != nil {
		e.Express.Unending = 0
	}
	for range ledgerTries {
		if e.Erased != nil {
			// Where it was stored, or parked, it is not any more.
			e.Done, e.Parked, e.Wait = map[string][]sinks.Receipt{}, false, nil
		}
		e.Complete = e.covers(names)
		e.Parked = e.Parked && !e.Complete
		if e.Complete {
			e.Wait = nil
		}
		err := l.write(ctx, key, e)
		if err == nil || !isConflict(err) {
			return err
		}
		other, err := l.read(ctx, key)
		switch {
		case err != nil && other.revision == 0:
			return err
		case other.outdated(t.past.Again):
			e.revision = other.revision
		default:
			e.merge(other)
		}
	}
	return errors.New("write the ledger: others write the same entry all the time")
}

// write writes e if nobody has since it was read; see isConflict.
func (l *ledger) write(ctx context.Context, key string, e *entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode an entry of the ledger: %w", err)
	}
	if e.revision == 0 {
		_, err = l.kv.Create(ctx, key, text)
	} else {
		_, err = l.kv.Update(ctx, key, text, e.revision)
	}
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
}

// express notes that the task is worked on out of turn, before that is done, and tells
// whether it may be: nobody else does so now or did lately, and it has not been the last
// that was heard of workers.
func (l *ledger) express(ctx context.Context, t *task, now time.Time) (bool, error) {
	key := ledgerKey(t.product, t.event.Token)
	e, err := l.read(ctx, key)
	if err != nil || e.Express.rests(now) {
		return false, err
	}
	next := expressed{At: now.UTC(), Unending: 1}
	if e.Express != nil {
		next.Unending += e.Express.Unending
	}
	e.Express = &next
	err = l.write(ctx, key, e)
	if isConflict(err) {
		return false, nil
	}
	return err == nil, err
}

// survived notes that the worker outlived what express has noted.
func (l *ledger) survived(ctx context.Context, t *task) error {
	return l.change(ctx, ledgerKey(t.product, t.event.Token), func(e *entry) bool {
		if e.Express == nil || e.Express.Unending == 0 {
			return false
		}
		e.Express.Unending = 0
		return true
	})
}

// postponed notes why the task's event waits. An entry whose work is done meanwhile is left
// as it is.
func (l *ledger) postponed(ctx context.Context, t *task, wait Wait) error {
	return l.change(ctx, ledgerKey(t.product, t.event.Token), func(e *entry) bool {
		if e.Complete || e.Erased != nil {
			return false
		}
		e.Wait = wait.after(e.Wait)
		return true
	})
}

// pauseKey is the key of an account's last pause; no product has such a name.
func pauseKey(account string) string { return "pause." + account }

// notePause notes why an account is paused.
func (l *ledger) notePause(ctx context.Context, account string, pause Hold) error {
	text, err := json.Marshal(pause)
	if err == nil {
		_, err = l.kv.Put(ctx, pauseKey(account), text)
	}
	if err != nil {
		return fmt.Errorf("note in the ledger why an account is paused: %w", err)
	}
	return nil
}

// lastPause returns why an account was paused last; zero if nobody knows.
func (l *ledger) lastPause(ctx context.Context, account string) (Hold, error) {
	value, err := l.kv.Get(ctx, pauseKey(account))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return Hold{}, nil
	case err != nil:
		return Hold{}, fmt.Errorf("read in the ledger why an account was paused: %w", err)
	}

	var pause Hold
	if len(value.Value()) > maxLedgerEntry || json.Unmarshal(value.Value(), &pause) != nil {
		return Hold{}, errors.New("read in the ledger why an account was paused: it is not one of this program's entries")
	}
	return pause, nil
}

// change reads an entry and writes it again, if do changes it.
func (l *ledger) change(ctx context.Context, key string, do func(*entry) bool) error {
	for range ledgerTries {
		e, err := l.read(ctx, key)
		if err != nil && e.revision == 0 || !do(e) {
			return err
		}
		if err := l.write(ctx, key, e); !isConflict(err) {
			return err
		}
	}
	return errors.New("write the ledger: others write the same entry all the time")
}

// isConflict tells whether somebody else has written the key: servers say so with
// another code where the stream has replicas.
func isConflict(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// merge adds the work of an entry that another worker has written.
func (e *entry) merge(other *entry) {
	e.revision = other.revision
	if other.Erased != nil {
		e.Erased = other.Erased
	}
	if other.Assets != e.Assets {
		return
	}
	for name, receipts := range other.Done {
		if _, done := e.Done[name]; !done {
			e.Done[name] = receipts
		}
	}
}

// covers tells whether every sink has the result.
func (e *entry) covers(names []string) bool {
	for _, name := range names {
		if _, done := e.Done[name]; !done {
			return false
		}
	}
	return true
}

// forget drops what is known of some stages.
func (e *entry) forget(stages ...string) {
	maps.DeleteFunc(e.Done, func(name string, _ []sinks.Receipt) bool {
		return slices.ContainsFunc(stages, func(stage string) bool { return strings.HasPrefix(name, stage) })
	})
}

// fit drops what was done with other assets than those of r: the answer of the
// API has changed.
func (e *entry) fit(r *result.Result) {
	if assets := fingerprint(r.Assets); e.Assets != assets {
		e.Assets, e.Done = assets, map[string][]sinks.Receipt{}
	}
}

// fingerprint identifies assets by where they stand and what they are.
func fingerprint(assets []result.Asset) string {
	var b strings.Builder
	for _, a := range assets {
		fmt.Fprintf(&b, "%q", a.Field)
		if a.COS != nil {
			fmt.Fprintf(&b, "%q%q%q", a.COS.Bucket, a.COS.Region, a.COS.Key)
		} else {
			fmt.Fprintf(&b, "%d/%s", a.Digest.Size, a.Digest.SHA256Hex())
		}
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:16])
}
