package verify_test

import (
	"errors"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/verify"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// A token is one token in however many sinks it is, also in a run that is cut off
// anywhere and goes on.
func TestTokensAreCountedOnce(t *testing.T) {
	const n = 70
	s := newStock(t, n, false)
	all := []sinks.Sink{s.archive, s.records}
	for i, from := range []sinks.Keeper{s.archive, s.records, s.records} {
		r := s.results[i]
		if _, err := from.Erase(t.Context(), sinks.KeyOf(r.Product, r.Token), "test"); err != nil {
			t.Fatal(err)
		}
	}

	whole, _ := s.run(nil)
	if whole.Tokens != n {
		t.Errorf("counted %d tokens of %d", whole.Tokens, n)
	}

	cfg := verify.Config{Sample: 1, Parallel: 3, Policy: s.policy, Against: all, Report: func(verify.Problem) error { return nil }}
	var at verify.Position
	cfg.Progress = func(p verify.Position) error {
		at = p
		return errors.New("cut off")
	}
	sum, err := verify.Run(t.Context(), cfg, all, at)
	for err != nil {
		sum, err = verify.Run(t.Context(), cfg, all, at)
	}
	if sum != whole {
		t.Errorf("%+v with interruptions, %+v without", sum, whole)
	}
}
