package parking

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// abandonedAfter is how old chunks without a description must be to be removed:
// twice as old as those of a parking that may still be announced.
const abandonedAfter = 2 * parkWait

// objects returns all objects, one question to the server for each.
func (s *Store) objects(ctx context.Context) (map[string]object, error) {
	found := map[string]object{}
	for from := uint64(0); ; {
		msg, err := s.next(ctx, from)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		from = msg.Sequence + 1
		name, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(msg.Subject, s.prefix("M")))
		if err != nil {
			continue // not ours
		}
		// One that was replaced in between comes twice, the valid one last.
		found[string(name)] = parseObject(string(name), msg)
	}
}

func (s *Store) next(ctx context.Context, from uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	return s.stream.GetMsg(ctx, from, jetstream.WithGetMsgSubject(s.prefix("M")+">"))
}

// KeyUse returns how many parked results each sealing key is needed for, by its id.
func (s *Store) KeyUse(ctx context.Context) (map[string]int, error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, fmt.Errorf("list parked results: %w", err)
	}
	use := map[string]int{}
	for _, o := range objects {
		if id := o.info.Metadata[keyName]; o.exists() && id != "" {
			use[id]++
		}
	}
	return use, nil
}

// Keys lists the tokens of which a result is parked, in the order of sinks.Key.
func (s *Store) Keys(ctx context.Context) ([]sinks.Key, error) {
	objects, err := s.objects(ctx)
	if err != nil {
		return nil, fmt.Errorf("list parked results: %w", err)
	}
	keys := make([]sinks.Key, 0, len(objects))
	for name, o := range objects {
		product, hash, ours := strings.Cut(name, ".")
		if ours && o.exists() {
			keys = append(keys, sinks.Key{Product: result.Product(product), Hash: hash})
		}
	}
	slices.SortFunc(keys, sinks.Key.Compare)
	return keys, nil
}

// sweep removes chunks that belong to no object and are so old: their parking, or the
// removal of what they replaced, was cut off.
func (s *Store) sweep(ctx context.Context, age time.Duration) error {
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(s.prefix("C")+">"))
	if err != nil {
		return fmt.Errorf("look for abandoned chunks: %w", err)
	}
	// Objects are listed after the chunks, so that none is overlooked.
	objects, err := s.objects(ctx)
	if err != nil {
		return fmt.Errorf("look for abandoned chunks: %w", err)
	}
	used := make(map[string]bool, len(objects))
	for _, o := range objects {
		used[s.prefix("C")+o.info.NUID] = true
	}
	for subject := range info.State.Subjects {
		if used[subject] {
			continue
		}
		if err := s.sweepOne(ctx, subject, info.TimeStamp.Add(-age)); err != nil {
			return fmt.Errorf("remove abandoned chunks: %w", err)
		}
	}
	return nil
}

// Sweep removes what parkings that were cut off over an hour ago have left. It looks
// again only when something may have become so old since the last time, and asks the
// server once per parked result then; Park calls it where there is no room.
func (s *Store) Sweep(ctx context.Context) error {
	s.mu.Lock()
	due := time.Since(s.swept) > abandonedAfter
	if due {
		s.swept = time.Now()
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	err := s.sweep(ctx, abandonedAfter)
	if err != nil {
		s.mu.Lock()
		s.swept = time.Time{}
		s.mu.Unlock()
	}
	return err
}

// sweepOne removes chunks if the latest of them is from before a time of the server.
func (s *Store) sweepOne(ctx context.Context, subject string, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	last, err := s.stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil // its parking failed, and has removed them
	case err != nil:
		return err
	case !last.Time.Before(before):
		return nil
	}
	return s.purge(ctx, subject)
}
