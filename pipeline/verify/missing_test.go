package verify_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/verify"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// without is an archive that could not have one asset.
type without struct {
	sinks.ArchiveKeeper
	field string
}

func (a without) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	receipts, err := a.ArchiveKeeper.Manifest(ctx, key)
	for i, receipt := range receipts {
		if receipt.Field == a.field {
			receipts[i] = sinks.Receipt{Sink: a.Name(), Field: a.field, Size: -1, Missing: result.NotFound}
		}
	}
	return receipts, err
}

// What was missing from the start is counted, and is no problem unless a record says
// otherwise.
func TestMissingSinceItWasArchived(t *testing.T) {
	const field = "VideoData.LivenessVideo"
	s := newStock(t, 2, false)
	s.archive = without{s.archive, field}
	r := s.results[0]
	r.Missing = []result.Missing{{Field: field, Reason: result.NotFound}}
	for i := range r.Assets {
		if r.Assets[i].Field == field {
			r.Assets[i].Stored = nil
		}
	}
	if err := s.records.Record(t.Context(), r); err != nil {
		t.Fatal(err)
	}

	sum, problems := s.run(nil)
	if want := []string{"differs records " + field}; !slices.Equal(problems, want) {
		t.Errorf("%q, want %q, of the other token", problems, want)
	}
	if sum.Missing != 2 || sum.Assets != 8 || sum.Referred != 0 {
		t.Errorf("%+v", sum)
	}
}

// A manifest that cannot be read is a finding, whichever sink is gone through.
func TestDamagedManifest(t *testing.T) {
	s := newStock(t, 3, false)
	if err := os.WriteFile(s.file(s.results[1], ""), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, problems := s.run(func(cfg *verify.Config) { cfg.Parallel = 1 })
	if want := []string{"damaged media"}; !slices.Equal(problems, want) {
		t.Errorf("%q, want %q", problems, want)
	}
	if sum.Tokens != 3 || sum.Assets != 8 {
		t.Errorf("%+v", sum)
	}
}
