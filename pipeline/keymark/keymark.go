// Package keymark finds out whether a keyring is the one that sealed what is stored,
// before anything is opened or sealed with it.
//
// In go a keyring and the places that hold what it seals: NATS and every sink that can
// be read back. Each place notes the fingerprint of its keyring (privacy.Mark). Out
// comes a Finding for each of them: that the keyring is right, that it is another one,
// that it is lost, or that the place cannot be looked at. A place without a note, as
// earlier versions left them, is judged by a sample: the keyring must open it.
//
// Examine changes nothing. Settle notes the keyring where none is noted; of two that
// try, the one that is first in NATS wins.
package keymark

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// placeWait bounds what is asked of one place, a sample included.
const placeWait = 20 * time.Second

// Place holds what a keyring seals, and a mark of it. Its methods may be called by
// several goroutines at once.
type Place interface {
	Name() string
	// Keyring and MarkKeyring are those of sinks.Keeper.
	Keyring(ctx context.Context) (privacy.Mark, error)
	MarkKeyring(ctx context.Context, mark privacy.Mark, instead string) error
	// Sample looks at some of what the place holds.
	Sample(ctx context.Context) (Sample, error)
}

// Sample is what some of the content of a place says of a keyring.
type Sample struct {
	// Held is how many results were looked at; 0 means that there is none.
	Held int
	// Sealed of them hold sealed values and say of the keyring whether it is theirs, and
	// Opened of those it opens.
	Sealed, Opened int
	// Unjudged says why another one of them says nothing of the keyring: it is damaged, or
	// cannot be read now. Nil if there is none.
	Unjudged error
}

// Finding is what a place says of a keyring.
type Finding struct {
	Place Place
	// Mark is what the place notes; zero if it notes nothing, or cannot be looked at.
	Mark privacy.Mark
	// Sample is of a place that notes nothing.
	Sample Sample
	// Refusal says why the keyring must not be used; nil if nothing speaks against it.
	Refusal error
	// Unseen says why the place cannot be looked at.
	Unseen error
}

// LostError means that a place holds what a keyring sealed, and there is none.
type LostError struct {
	// Noted is zero where the place notes none.
	Noted privacy.Mark
	// Held is how many results were seen there.
	Held int
}

func (e *LostError) Error() string {
	if e.Noted.IsZero() {
		return "it holds results, which may be sealed"
	}
	return "it is sealed by the keyring with the fingerprint " + e.Noted.Fingerprint
}

// SealedOtherwiseError means that a keyring opens nothing of a sample.
type SealedOtherwiseError struct {
	Path string
	// Looked is how many sealed results were tried.
	Looked int
}

func (e *SealedOtherwiseError) Error() string {
	return fmt.Sprintf("of %d sealed results, %s opens none: they are sealed by another keyring", e.Looked, e.Path)
}

// Examine asks all places about a keyring, in their order.
func Examine(ctx context.Context, keys *privacy.Keyring, places []Place) []Finding {
	findings := make([]Finding, 0, len(places))
	for _, place := range places {
		findings = append(findings, examine(ctx, keys, place))
	}
	return findings
}

func examine(ctx context.Context, keys *privacy.Keyring, place Place) Finding {
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	f := Finding{Place: place}
	mark, err := place.Keyring(ctx)
	if err == nil && mark.IsZero() {
		f.Sample, err = place.Sample(ctx)
	}
	if err != nil {
		f.Unseen = err
		return f
	}
	f.Mark = mark

	switch {
	case !keys.Made() && (!mark.IsZero() || f.Sample.Held > 0):
		f.Refusal = &LostError{Noted: mark, Held: f.Sample.Held}
	case !mark.IsZero():
		f.Refusal = keys.Accepts(mark)
	case f.Sample.Sealed > 0 && f.Sample.Opened == 0:
		f.Refusal = &SealedOtherwiseError{Path: keys.Path(), Looked: f.Sample.Sealed}
	case f.Sample.Opened == 0 && f.Sample.Unjudged != nil:
		f.Unseen = fmt.Errorf("of a sample of %d results, none says which keyring seals it: %w", f.Sample.Held, f.Sample.Unjudged)
	}
	return f
}

// Mixed returns how many sealed results of a sample the keyring does not open, though
// it opens others.
func (f Finding) Mixed() int { return f.Sample.Sealed - f.Sample.Opened }

// Settle notes the keyring in every place of the findings that notes none, or an older
// active key of the same keyring. A place that lost the race to another keyring is
// examined anew: its refusal is in the finding that is returned in its place, and the
// places behind it are left as they are. So is what cannot be reached now.
func Settle(ctx context.Context, keys *privacy.Keyring, findings []Finding) ([]Finding, error) {
	mark, err := keys.Mark()
	if err != nil {
		return findings, err
	}
	for i, f := range findings {
		if f.Unseen != nil || f.Refusal != nil || f.Mark == mark {
			continue
		}
		err := note(ctx, f.Place, mark, "")
		switch {
		case errors.Is(err, sinks.ErrOtherKeyring):
			findings[i] = examine(ctx, keys, f.Place)
			return findings, nil
		case err != nil:
			findings[i].Unseen = err
		default:
			findings[i].Mark = mark
		}
	}
	return findings, nil
}

// Adopt notes the keyring in every place of the findings, whatever they note now. The
// error joins one for each place where it cannot be noted.
func Adopt(ctx context.Context, keys *privacy.Keyring, findings []Finding) error {
	mark, err := keys.Mark()
	if err != nil {
		return err
	}
	var failed []error
	for _, f := range findings {
		// Something must be named as what is replaced, for what is no mark to be replaced.
		instead := cmp.Or(f.Mark.Fingerprint, mark.Fingerprint)
		if err := note(ctx, f.Place, mark, instead); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", f.Place.Name(), err))
		}
	}
	return errors.Join(failed...)
}

func note(ctx context.Context, place Place, mark privacy.Mark, instead string) error {
	ctx, cancel := context.WithTimeout(ctx, placeWait)
	defer cancel()
	return place.MarkKeyring(ctx, mark, instead)
}
