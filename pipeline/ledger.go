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

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const (
	// LedgerBucket is the key-value bucket of the ledger.
	LedgerBucket = "FACEID_LEDGER"
	// ledgerLife is how long an entry lasts after it was last written. An event
	// that waits for a sink renews its entry with every try, which are at most
	// Retry.RedeliverMax apart. After that only sinks' idempotence keeps a second
	// event of a token from having a second effect.
	ledgerLife = 24 * time.Hour
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
	kv, err := js.KeyValue(ctx, LedgerBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:       LedgerBucket,
			Description:  "Which sinks have the result of a token",
			TTL:          ledgerLife,
			MaxValueSize: maxLedgerEntry,
			Storage:      jetstream.FileStorage,
			Replicas:     replicas,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open the ledger (key-value bucket %s): %w", LedgerBucket, err)
	}
	return &ledger{kv}, nil
}

// entry is what the ledger knows of one token. It holds no personal data.
type entry struct {
	// Sequence is that of the event for which the entry was written.
	Sequence uint64 `json:"sequence"`
	// Assets identifies the assets of the result that the sinks were given.
	Assets string `json:"assets"`
	// Done is the work that is done, see stages.names, with the receipts of
	// archives.
	Done map[string][]sinks.Receipt `json:"done"`
}

func ledgerKey(t *task) string {
	return string(t.product) + "." + result.TokenHash(t.product, t.event.Token)
}

// load returns what is known of the task's token. An event that asks for another
// ingestion (see event.Again) knows only what was done for itself.
func (l *ledger) load(ctx context.Context, t *task) (*entry, error) {
	e := &entry{Done: map[string][]sinks.Receipt{}}
	value, err := l.kv.Get(ctx, ledgerKey(t))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return e, nil
	case err != nil:
		return e, fmt.Errorf("read the ledger: %w", err)
	}
	var stored entry
	if len(value.Value()) > maxLedgerEntry || json.Unmarshal(value.Value(), &stored) != nil || stored.Done == nil {
		return e, errors.New("read the ledger: an entry is not one of this program's")
	}
	if t.again() && stored.Sequence < t.meta.Sequence.Stream {
		return e, nil
	}
	return &stored, nil
}

func (l *ledger) save(ctx context.Context, t *task, e *entry) error {
	e.Sequence = t.meta.Sequence.Stream
	text, err := json.Marshal(e)
	if err == nil {
		_, err = l.kv.Put(ctx, ledgerKey(t), text)
	}
	if err != nil {
		return fmt.Errorf("write the ledger: %w", err)
	}
	return nil
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
