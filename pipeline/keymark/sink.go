package keymark

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// sampled is how many results are looked at from the first on, and how many per product
// that lie anywhere.
const sampled = 12

// Sink is a sink as a Place.
type Sink struct {
	sinks.Keeper
	// Policy is the one that the sink was opened with.
	Policy *privacy.Policy
}

// Name implements Place.
func (s Sink) Name() string { return "sink " + s.Keeper.Name() }

// Sample implements Place: it looks at the first results and at some that lie anywhere
// among the others, so that two keyrings which sealed one half each are both seen.
func (s Sink) Sample(ctx context.Context) (Sample, error) {
	var sample Sample
	seen := map[sinks.Key]bool{}
	look := func(after sinks.Key, most int) error {
		for key, err := range s.Keys(ctx, after) {
			if err != nil {
				return err
			}
			if !seen[key] {
				seen[key] = true
				if err := s.look(ctx, key, &sample); err != nil {
					return err
				}
			}
			if most--; most == 0 {
				break
			}
		}
		return nil
	}

	err := look(sinks.Key{}, sampled)
	if err != nil || len(seen) < sampled {
		return sample, err // these were all
	}
	for _, product := range result.Products() {
		for range sampled {
			var hash [16]byte
			_, _ = rand.Read(hash[:]) // never fails: it ends the process instead
			if err := look(sinks.Key{Product: product, Hash: hex.EncodeToString(hash[:])}, 1); err != nil {
				return sample, err
			}
		}
	}
	return sample, nil
}

// look adds one result to a sample. One that was erased meanwhile is left out.
func (s Sink) look(ctx context.Context, key sinks.Key, sample *Sample) error {
	use, err := s.KeyUse(ctx, key)
	if errors.Is(err, sinks.ErrNotFound) || errors.Is(err, sinks.ErrErased) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	sample.Held++
	if err == nil && len(use) == 0 {
		return nil
	}

	if err == nil {
		err = s.opens(ctx, key)
	}
	var unknown *privacy.UnknownKeyError
	switch {
	case err == nil:
		sample.Sealed++
		sample.Opened++
	case errors.As(err, &unknown):
		sample.Sealed++
	default:
		// What is damaged, or cannot be read now, says nothing of a keyring.
		sample.Unjudged = err
	}
	return nil
}

// opens returns nil if a sealed value or asset of a result opens, and else what the last
// one says.
func (s Sink) opens(ctx context.Context, key sinks.Key) (err error) {
	switch keeper := s.Keeper.(type) {
	case sinks.RecordKeeper:
		rec, err := keeper.Get(ctx, key)
		if err != nil {
			return err
		}
		return s.Policy.Opens(rec)
	case sinks.ArchiveKeeper:
		manifest, err := keeper.Manifest(ctx, key)
		if err != nil {
			return err
		}
		for _, receipt := range manifest {
			if err = opensAsset(ctx, keeper, key, receipt); err == nil {
				return nil
			}
		}
		return err
	}
	return errors.New("it cannot be read back")
}

// opensAsset reads the beginning of an asset, which is authentic if it can be read.
func opensAsset(ctx context.Context, archive sinks.ArchiveKeeper, key sinks.Key, receipt sinks.Receipt) error {
	asset, err := archive.OpenAsset(ctx, key, receipt)
	if err != nil {
		return err
	}
	_, err = asset.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		err = nil // it is empty, and that is authentic, too
	}
	return errors.Join(err, asset.Close())
}
