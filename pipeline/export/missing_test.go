package export_test

import (
	"context"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// lacking is an archive that could not have one asset.
type lacking struct{ sinks.ArchiveKeeper }

const lackingField = "BestFrame.BestFrame"

func (a lacking) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	receipts, err := a.ArchiveKeeper.Manifest(ctx, key)
	for i, receipt := range receipts {
		if receipt.Field == lackingField {
			receipts[i] = sinks.Receipt{Sink: a.Name(), Field: lackingField, Size: -1, Missing: result.NotFound}
		}
	}
	return receipts, err
}

// What an archive could not have is said to be missing, and nothing looks for it.
func TestMissingSinceItWasArchived(t *testing.T) {
	for _, records := range []bool{true, false} {
		s := newStock(t)
		if !records {
			s.cfg.Records = nil
		}
		for i, a := range s.cfg.Archives {
			s.cfg.Archives[i] = lacking{a}
		}
		report, err := s.export(t.Context())
		must(t, err)
		if len(report.Missing) != 1 || report.Missing[0].Field != lackingField || !strings.Contains(report.Missing[0].Reason, "could not have it when it was archived (not_found)") {
			t.Errorf("records %t: %+v", records, report.Missing)
		}
	}
}
