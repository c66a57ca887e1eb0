package parking

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// errMissing means that a chunk is not there.
var errMissing = errors.New("a part of it is missing")

// Take returns the parked result of a token, with its media in batch; it stays parked
// until it is dropped. Media are what they were when the result was parked, byte for
// byte.
//
// Errors: ErrNotParked, ErrDamaged, *privacy.UnknownKeyError; or NATS, the keyring or
// the spool fail, which passes. On an error the batch may hold media of no use.
func (s *Store) Take(ctx context.Context, p result.Product, token string, batch *spool.Batch) (*result.Result, error) {
	r, _, err := s.take(ctx, sinks.KeyOf(p, token), batch)
	if err != nil {
		return nil, fmt.Errorf("take a parked result: %w", err)
	}
	return r, nil
}

func (s *Store) take(ctx context.Context, key sinks.Key, batch *spool.Batch) (*result.Result, object, error) {
	o, err := s.look(ctx, nameOf(key.Product, key.Hash))
	switch {
	case err != nil:
		return nil, o, err
	case !o.exists():
		return nil, o, ErrNotParked
	case o.info.NUID == "":
		return nil, o, fmt.Errorf("its description cannot be read: %w", ErrDamaged)
	}
	keep := func(medium io.Reader) (result.Content, result.Digest, error) {
		w := batch.Create(ctx)
		if _, err := io.Copy(w, medium); err != nil {
			return nil, result.Digest{}, err
		}
		item, err := w.Finish()
		if err != nil {
			return nil, result.Digest{}, err
		}
		return item, item.Digest(), nil
	}
	sealed := &chunkReader{fetch: func(from uint64) ([]byte, uint64, error) { return s.fetch(ctx, o, from) }, left: o.info.Chunks}
	r, err := s.policy.OpenParcel(key.Product, key.Hash, sealed, keep)
	switch {
	case errors.Is(err, errMissing):
		err = s.whyMissing(ctx, o)
	case errors.Is(err, privacy.ErrDamagedParcel):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r, o, err
}

// whyMissing tells damage from what others have done while an object was read, or
// did not bring to its end before.
func (s *Store) whyMissing(ctx context.Context, o object) error {
	now, err := s.look(ctx, o.name)
	switch {
	case err != nil:
		return err
	case !now.exists():
		return ErrNotParked
	case now.seq != o.seq:
		return errReplaced
	}
	if _, _, err = s.fetch(ctx, o, 0); err == nil {
		return fmt.Errorf("%w: %w", ErrDamaged, errMissing)
	}
	if !errors.Is(err, errMissing) {
		return err
	}
	// All chunks are gone at once, and the description last: a removal was cut off.
	if err := s.remove(ctx, o); err != nil {
		return err
	}
	return ErrNotParked
}

// fetch returns the first chunk of an object from a sequence on, and where the next
// one may be.
func (s *Store) fetch(ctx context.Context, o object, from uint64) (chunk []byte, next uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	msg, err := s.stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(s.prefix("C")+o.info.NUID))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, 0, errMissing
	case err != nil:
		return nil, 0, err
	}
	return msg.Data, msg.Sequence + 1, nil
}

// chunkReader reads an object chunk by chunk. It holds nothing that would have to be
// closed.
type chunkReader struct {
	fetch func(from uint64) (chunk []byte, next uint64, err error)
	// left is how many chunks are still to come, next is where.
	left uint32
	next uint64
	now  []byte
}

func (r *chunkReader) Read(b []byte) (int, error) {
	for len(r.now) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		var err error
		if r.now, r.next, err = r.fetch(r.next); err != nil {
			return 0, err
		}
		r.left--
	}
	n := copy(b, r.now)
	r.now = r.now[n:]
	return n, nil
}

// Reseal seals a parked result under the keyring's active key and the configured
// cipher, and tells whether that changed anything: one that is so sealed already is
// only read. Its media go through batch. One that was dropped or parked anew meanwhile
// is left as it is. Errors are those of Take and Park.
func (s *Store) Reseal(ctx context.Context, key sinks.Key, batch *spool.Batch) (changed bool, err error) {
	r, old, err := s.take(ctx, key, batch)
	if err != nil {
		return false, fmt.Errorf("reseal a parked result: %w", err)
	}
	parcel, err := s.policy.SealParcel(r)
	if err != nil {
		return false, fmt.Errorf("reseal a parked result: %w", err)
	}
	id, cipher := parcel.Seal()
	if id == old.info.Metadata[keyName] && string(cipher) == old.info.Metadata[cipherName] {
		return false, nil
	}
	switch err := s.put(ctx, parcel, old); {
	case errors.Is(err, errReplaced):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reseal a parked result: %w", err)
	}
	return true, nil
}
