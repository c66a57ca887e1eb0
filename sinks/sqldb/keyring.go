package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// markRow is the one row of the table keyring.
type markRow struct {
	name string
	privacy.Mark
}

// markRowName is the key of the row.
const markRowName = "keyring"

var keyring = table[markRow]{"keyring", []column[markRow]{
	{"name", func(m *markRow) any { return &m.name }},
	{"fingerprint", func(m *markRow) any { return text(&m.Fingerprint) }},
	{"active_key", func(m *markRow) any { return text(&m.ActiveKey) }},
	{"since", func(m *markRow) any { return instant(&m.Since) }},
}}

// Keyring implements sinks.Keeper.
func (s *Sink) Keyring(ctx context.Context) (privacy.Mark, error) {
	var mark privacy.Mark
	err := s.prepare(ctx)
	if err == nil {
		err = s.transaction(ctx, s.dialect.read, func(tx querierExecer) (err error) {
			mark, err = s.mark(ctx, tx, "")
			return err
		})
	}
	if err != nil {
		return privacy.Mark{}, s.dialect.explain(ctx, "read the keyring's fingerprint", err)
	}
	return mark, nil
}

// mark reads the row; end is what follows the condition.
func (s *Sink) mark(ctx context.Context, tx querier, end string) (privacy.Mark, error) {
	row, err := keyring.one(ctx, tx, s.dialect, markRowName, end)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && row.IsZero():
		return privacy.Mark{}, nil
	case err != nil:
		return privacy.Mark{}, err
	case !row.Valid():
		return privacy.Mark{}, fmt.Errorf("table keyring: %w", privacy.ErrMark)
	}
	return row.Mark, nil
}

// MarkKeyring implements sinks.Keeper.
func (s *Sink) MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error {
	err := s.prepare(ctx)
	if err == nil {
		err = s.transaction(ctx, s.dialect.write, func(tx querierExecer) error { return s.markKeyring(ctx, tx, mark, instead) })
	}
	switch {
	case errors.Is(err, sinks.ErrOtherKeyring):
		return sinks.ErrOtherKeyring
	case err != nil:
		return s.dialect.explain(ctx, "note the keyring's fingerprint", err)
	}
	return nil
}

func (s *Sink) markKeyring(ctx context.Context, tx querierExecer, mark privacy.Mark, instead string) error {
	// A row that is not there cannot be locked, so an empty one is put there.
	empty, err := s.dialect.arguments(keyring.places(&markRow{name: markRowName}))
	if err != nil {
		return err
	}
	keep := s.dialect.onConflict("name", []string{"name"})
	if err := insert(ctx, tx, s.dialect, keyring.name, keyring.names(), []row{empty}, keep); err != nil {
		return err
	}

	there, err := s.mark(ctx, tx, s.dialect.forUpdate)
	switch {
	case err != nil && instead == "":
		return err
	case err == nil && !there.IsZero() && there.Fingerprint != mark.Fingerprint && there.Fingerprint != instead:
		return sinks.ErrOtherKeyring
	}
	args, err := s.dialect.arguments(keyring.places(&markRow{markRowName, mark}))
	if err != nil {
		return err
	}
	return keyring.replace(ctx, tx, s.dialect, []row{args})
}

// KeyUse implements sinks.Keeper.
func (s *Sink) KeyUse(ctx context.Context, key sinks.Key) (map[string]int, error) {
	rec, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.policy.KeyUse(rec), nil
}
