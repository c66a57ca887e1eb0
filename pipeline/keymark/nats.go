package keymark

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Bucket is the key-value bucket with the mark. It is a bucket of its own since it must
// outlive servers and weeks in which no daemon runs.
const Bucket = streams.KeyringBucket

const (
	markKey = "mark"
	// markTries bounds how often a mark is compared again because somebody else has
	// just written it.
	markTries = 5
)

// NATS is the place that all daemons share, with the results that are parked there.
type NATS struct {
	JS jetstream.JetStream
	// Replicas is on how many servers of a cluster the mark is kept, 1 to 5.
	Replicas int
	// Parked tells how many parked results each key seals; nil if nothing is parked.
	Parked interface {
		KeyUse(ctx context.Context) (map[string]int, error)
	}
	// Keys are those that are asked about.
	Keys *privacy.Keyring
}

// Name implements Place.
func (NATS) Name() string { return "NATS" }

// Keyring implements Place.
func (n NATS) Keyring(ctx context.Context) (privacy.Mark, error) {
	kv, err := n.JS.KeyValue(ctx, Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return privacy.Mark{}, nil
	}
	if err != nil {
		return privacy.Mark{}, fmt.Errorf("open the key-value bucket %s: %w", Bucket, err)
	}
	mark, _, err := n.read(ctx, kv)
	return mark, err
}

// read returns the mark and its revision, which is 0 if there is none.
func (NATS) read(ctx context.Context, kv jetstream.KeyValue) (privacy.Mark, uint64, error) {
	entry, err := kv.Get(ctx, markKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return privacy.Mark{}, 0, nil
	}
	if err != nil {
		return privacy.Mark{}, 0, fmt.Errorf("read the keyring's fingerprint in the key-value bucket %s: %w", Bucket, err)
	}
	mark, err := privacy.ParseMark(entry.Value())
	if err != nil {
		err = fmt.Errorf("key-value bucket %s: %w", Bucket, err)
	}
	return mark, entry.Revision(), err
}

// MarkKeyring implements Place.
func (n NATS) MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	kv, err := n.open(ctx)
	if err != nil {
		return fmt.Errorf("open the key-value bucket %s: %w", Bucket, err)
	}
	for range markTries {
		there, revision, err := n.read(ctx, kv)
		switch {
		case err != nil && (instead == "" || !errors.Is(err, privacy.ErrMark)):
			return err
		case err == nil && there == mark:
			return nil
		case err == nil && !there.IsZero() && there.Fingerprint != mark.Fingerprint && there.Fingerprint != instead:
			return sinks.ErrOtherKeyring
		}
		if revision == 0 {
			_, err = kv.Create(ctx, markKey, mark.Encode())
		} else {
			_, err = kv.Update(ctx, markKey, mark.Encode(), revision)
		}
		if !errors.Is(err, jetstream.ErrKeyExists) {
			return wrapNote(err)
		}
	}
	return fmt.Errorf("key-value bucket %s: others keep writing the keyring's fingerprint", Bucket)
}

func wrapNote(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("note the keyring's fingerprint in the key-value bucket %s: %w", Bucket, err)
}

// open makes the bucket where it is missing.
func (n NATS) open(ctx context.Context) (jetstream.KeyValue, error) {
	return streams.OpenKeyValue(ctx, n.JS, streams.KeyringNeed(), n.Replicas)
}

// Sample implements Place: parked results say which key they need.
func (n NATS) Sample(ctx context.Context) (Sample, error) {
	var sample Sample
	if n.Parked == nil {
		return sample, nil
	}
	use, err := n.Parked.KeyUse(ctx)
	for id, results := range use {
		sample.Held += results
		sample.Sealed += results
		if n.Keys.Has(id) {
			sample.Opened += results
		}
	}
	return sample, err
}
