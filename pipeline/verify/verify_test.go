package verify_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/verify"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stock is an archive and a record sink with results in them.
type stock struct {
	t       *testing.T
	folder  string
	policy  *privacy.Policy
	archive sinks.ArchiveKeeper
	records sinks.RecordKeeper
	results []*result.Result
}

func newStock(t *testing.T, n int, seal bool) *stock {
	t.Helper()
	s := &stock{t: t, folder: t.TempDir()}
	s.policy = newPolicy(t, s.folder)
	s.archive = open[sinks.ArchiveKeeper](t, "media", s.policy, &dir.Config{Path: filepath.Join(s.folder, "media"), Seal: seal})
	s.records = open[sinks.RecordKeeper](t, "records", s.policy, &sqldb.SQLite{Path: filepath.Join(s.folder, "faceid.db")})
	for i := range n {
		r := sinktest.Result(i)
		receipts, err := s.archive.Archive(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for k := range r.Assets {
			r.Assets[k].Stored = receipts[k : k+1]
		}
		if err := s.records.Record(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		s.results = append(s.results, r)
	}
	return s
}

func newPolicy(t *testing.T, folder string) *privacy.Policy {
	t.Helper()
	keyring, err := privacy.OpenOrCreateKeyring(filepath.Join(folder, "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keyring)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

func open[S sinks.Sink](t *testing.T, name string, policy *privacy.Policy, cfg sinks.Config) S {
	t.Helper()
	sink, err := cfg.Open(t.Context(), sinks.Env{Name: name, Policy: policy, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sink.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	keeper, ok := sink.(S)
	if !ok {
		t.Fatalf("%T", sink)
	}
	return keeper
}

// run returns the problems as "kind sink field".
func (s *stock) run(change func(*verify.Config)) (verify.Summary, []string) {
	s.t.Helper()
	all := []sinks.Sink{s.archive, s.records}
	var problems []string
	cfg := verify.Config{
		Sample: 1, Parallel: 4, Policy: s.policy, Against: all,
		Report: func(p verify.Problem) error {
			problems = append(problems, strings.TrimSpace(string(p.Kind)+" "+p.Sink+" "+p.Field))
			return nil
		},
		Progress: func(verify.Position) error { return nil },
	}
	if change != nil {
		change(&cfg)
	}
	sum, err := verify.Run(s.t.Context(), cfg, all, verify.Position{})
	if err != nil {
		s.t.Fatal(err)
	}
	if int(sum.Problems) != len(problems) {
		s.t.Errorf("%d problems counted, %d reported", sum.Problems, len(problems))
	}
	return sum, problems
}

// file returns the path of an asset's file, or of the manifest for "".
func (s *stock) file(r *result.Result, field string) string {
	if field == "" {
		return filepath.Join(s.folder, "media", dir.Folder(r.Product, r.Token), "manifest.json")
	}
	a, _ := r.Asset(field)
	return filepath.Join(s.folder, "media", a.Stored[0].Location)
}

func TestWhatIsWrong(t *testing.T) {
	const field = "BestFrame.BestFrame"
	for name, test := range map[string]struct {
		harm func(*stock, *result.Result) error
		want []string
	}{
		"nothing": {func(*stock, *result.Result) error { return nil }, nil},
		"a byte": {func(s *stock, r *result.Result) error {
			b, err := os.ReadFile(s.file(r, field))
			b[len(b)-40] ^= 1
			return errors.Join(err, os.WriteFile(s.file(r, field), b, 0o600))
		}, []string{"damaged media " + field}},
		"cut off": {func(s *stock, r *result.Result) error {
			return os.Truncate(s.file(r, field), 100)
		}, []string{"damaged media " + field}},
		"a file gone": {func(s *stock, r *result.Result) error {
			return os.Remove(s.file(r, field))
		}, []string{"missing_object media " + field}},
		"the manifest gone": {func(s *stock, r *result.Result) error {
			return os.Remove(s.file(r, ""))
		}, []string{"missing_manifest media"}},
		"the record gone": {func(s *stock, r *result.Result) error {
			return sinktest.Erase(t.Context(), s.records, sinks.KeyOf(r.Product, r.Token))
		}, []string{"missing_record records"}},
		"another place": {func(s *stock, r *result.Result) error {
			r.Assets[1].Stored[0].Location += "x"
			return s.records.Record(t.Context(), r)
		}, []string{"differs records " + field}},
		"another digest": {func(s *stock, r *result.Result) error {
			r.Assets[1].Stored[0].SHA256 = strings.Repeat("0", 64)
			return s.records.Record(t.Context(), r)
		}, []string{"differs records " + field}},
		"an asset less in the record": {func(s *stock, r *result.Result) error {
			r.Assets = slices.Delete(r.Assets, 1, 2)
			return s.records.Record(t.Context(), r)
		}, []string{"differs records " + field}},
		"an asset less in the archive": {func(s *stock, r *result.Result) error {
			fewer := *r
			fewer.Assets = slices.Delete(slices.Clone(r.Assets), 1, 2)
			_, err := s.archive.Archive(t.Context(), &fewer)
			return err
		}, []string{"missing_object media " + field}},
		"stored nowhere": {func(s *stock, r *result.Result) error {
			r.Assets[1].Stored = nil
			return s.records.Record(t.Context(), r)
		}, []string{"differs records " + field, "missing_object records " + field}},
	} {
		for _, seal := range []bool{false, true} {
			s := newStock(t, 3, seal)
			if err := test.harm(s, s.results[1]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sum, problems := s.run(nil)
			if !slices.Equal(problems, test.want) {
				t.Errorf("%s, sealed %t: %q, want %q", name, seal, problems, test.want)
			}
			if name == "nothing" && (sum.Tokens != 3 || sum.Assets != 12 || sum.Referred != 3 || sum.Bytes != 3*(900+1200+300+2500)) {
				t.Errorf("sealed %t: %+v", seal, sum)
			}
		}
	}
}

// With another keyring every sealed value and file is told of.
func TestAnotherKeyring(t *testing.T) {
	s := newStock(t, 1, false)
	_, problems := s.run(func(cfg *verify.Config) { cfg.Policy = newPolicy(t, t.TempDir()) })
	if len(problems) < 20 || slices.ContainsFunc(problems, func(p string) bool { return !strings.HasPrefix(p, "unopenable records ") }) {
		t.Errorf("%q", problems)
	}
}

// A sample is the same part of the tokens in every sink.
func TestSample(t *testing.T) {
	s := newStock(t, 40, false)
	small, _ := s.run(func(cfg *verify.Config) { cfg.Sample = 0.3 })
	again, _ := s.run(func(cfg *verify.Config) { cfg.Sample = 0.3 })
	larger, _ := s.run(func(cfg *verify.Config) { cfg.Sample = 0.7 })
	if small != again || small.Tokens == 0 || small.Tokens >= larger.Tokens || larger.Tokens >= 40 {
		t.Errorf("%+v, %+v, %+v", small, again, larger)
	}
}

// A run that is cut off anywhere goes on where it was, and counts nothing twice.
func TestResume(t *testing.T) {
	s := newStock(t, 70, false)
	all := []sinks.Sink{s.archive, s.records}
	whole, _ := s.run(nil)
	cutOff := errors.New("cut off")
	var at verify.Position
	runs := 0
	for {
		runs++
		cfg := verify.Config{
			Sample: 1, Parallel: 3, Policy: s.policy, Against: all,
			Report:   func(p verify.Problem) error { return errors.New(p.Detail) },
			Progress: func(p verify.Position) error { at = p; return cutOff },
		}
		sum, err := verify.Run(t.Context(), cfg, all, at)
		if err == nil {
			if sum != whole {
				t.Errorf("%+v, want %+v", sum, whole)
			}
			break
		}
		if !errors.Is(err, cutOff) {
			t.Fatal(err)
		}
	}
	if runs != 5 {
		t.Errorf("cut off %d times", runs-1)
	}
	if _, err := verify.Run(t.Context(), verify.Config{Sample: 1, Parallel: 1}, all, verify.Position{Sink: "other"}); err == nil {
		t.Error("went on in a sink that is not there")
	}
	if _, err := verify.Run(t.Context(), verify.Config{Sample: 0, Parallel: 1}, all, verify.Position{}); err == nil {
		t.Error("a sample of nothing")
	}
}

// What cannot be read ends the run: it says nothing about what is stored.
func TestUnreadable(t *testing.T) {
	s := newStock(t, 1, false)
	if err := os.Chmod(filepath.Join(s.folder, "media"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadDir(filepath.Join(s.folder, "media")); errors.Is(err, fs.ErrPermission) {
		if _, err := verify.Run(t.Context(), verify.Config{Sample: 1, Parallel: 1, Policy: s.policy}, []sinks.Sink{s.archive}, verify.Position{}); err == nil {
			t.Error("no error")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.Run(ctx, verify.Config{Sample: 1, Parallel: 1, Policy: s.policy}, []sinks.Sink{s.records}, verify.Position{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := os.Chmod(filepath.Join(s.folder, "media"), 0o700); err != nil {
		t.Fatal(err)
	}
}
