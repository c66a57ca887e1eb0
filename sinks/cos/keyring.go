package cos

import (
	"context"
	"errors"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// markKey is the object that names the keyring; it is no token's.
const markKey = indexPrefix + "keyring"

// maxMark bounds what is read of it, in bytes.
const maxMark = 4 << 10

// Keyring implements sinks.Keeper.
func (s *Sink) Keyring(ctx context.Context) (privacy.Mark, error) {
	mark, err := s.mark(ctx)
	if err != nil {
		return privacy.Mark{}, fmt.Errorf("read the keyring's fingerprint: %w", err)
	}
	return mark, nil
}

func (s *Sink) mark(ctx context.Context) (privacy.Mark, error) {
	data, _, err := s.archive.getSmall(ctx, markKey, maxMark)
	if errors.Is(err, errNoObject) {
		return privacy.Mark{}, nil
	}
	if err != nil {
		return privacy.Mark{}, err
	}
	mark, err := privacy.ParseMark(data)
	if err != nil {
		err = fmt.Errorf("%s/%s: %w", s.archive, markKey, err)
	}
	return mark, err
}

// MarkKeyring implements sinks.Keeper.
func (s *Sink) MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	err := s.markKeyring(ctx, mark, instead)
	if err != nil && !errors.Is(err, sinks.ErrOtherKeyring) {
		return fmt.Errorf("note the keyring's fingerprint: %w", err)
	}
	return err
}

func (s *Sink) markKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	there, err := s.mark(ctx)
	if err == nil && there.IsZero() {
		version, createErr := s.archive.create(ctx, markKey, mark.Encode())
		switch {
		case createErr == nil && version == "":
			return nil
		case createErr == nil:
			return s.settleMark(ctx, version)
		case !errors.Is(createErr, errExists):
			return createErr
		}
		there, err = s.mark(ctx)
	}
	switch {
	case err != nil && (instead == "" || !errors.Is(err, privacy.ErrMark)):
		return err
	case err == nil && there == mark:
		return nil
	case err == nil && there.Fingerprint != mark.Fingerprint && there.Fingerprint != instead:
		return sinks.ErrOtherKeyring
	}
	_, err = s.archive.putSmall(ctx, markKey, mark.Encode(), plainHeaders())
	return err
}

// settleMark sees to it that of several first marks one stays. In a bucket with versions
// COS does not look whether there is an object, so the oldest version wins, and the
// others are taken back by those who wrote them.
func (s *Sink) settleMark(ctx context.Context, version string) error {
	versions, err := s.archive.versions(ctx, markKey)
	if err != nil {
		return err
	}
	oldest := version
	for _, v := range versions { // the latest is first
		if v.key == markKey && v.marker {
			break // what is older was removed
		}
		if v.key == markKey {
			oldest = v.id
		}
	}
	if oldest == version {
		return nil
	}
	return errors.Join(sinks.ErrOtherKeyring, s.archive.remove(ctx, markKey, version))
}

// KeyUse implements sinks.Keeper. It asks every sealed object of the token, also those
// of earlier answers, which no manifest lists.
func (s *Sink) KeyUse(ctx context.Context, key sinks.Key) (map[string]int, error) {
	x, _, err := s.manifestOf(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("look for sealed objects: %w", err)
	}
	use := map[string]int{}
	for marker := ""; ; {
		objects, next, err := s.archive.list(ctx, x.Folder, marker)
		if err != nil {
			return nil, fmt.Errorf("look for sealed objects: %w", err)
		}
		for _, object := range objects {
			if object.key == x.manifest() || object.size < privacy.MediaHeaderSize {
				continue
			}
			id, err := s.keyOf(ctx, object.key)
			if err != nil {
				return nil, fmt.Errorf("look for sealed objects: %w", err)
			}
			if id != "" {
				use[id]++
			}
		}
		if next == "" {
			return use, nil
		}
		marker = next
	}
}

// keyOf returns the key that an object says it is sealed with, and "" of one that is not
// sealed or no longer there.
func (s *Sink) keyOf(ctx context.Context, object string) (string, error) {
	body, err := s.archive.get(ctx, object, 0, privacy.MediaHeaderSize)
	if errors.Is(err, errNoObject) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	header, err := privacy.ReadMediaHeader(body)
	err = errors.Join(err, body.Close())
	if errors.Is(err, privacy.ErrNotSealed) {
		return "", nil
	}
	return header.KeyID, err
}
