package export_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/export"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stock is two sealed archives and a record sink with one result in them.
type stock struct {
	t      *testing.T
	folder string
	result *result.Result
	key    sinks.Key
	cfg    export.Config
}

func newStock(t *testing.T, change ...func(*result.Result)) *stock {
	t.Helper()
	s := &stock{t: t, folder: t.TempDir(), result: sinktest.Result(0)}
	s.result.Assets = slices.DeleteFunc(s.result.Assets, func(a result.Asset) bool { return a.COS != nil })
	for _, c := range change {
		c(s.result)
	}
	s.key = sinks.KeyOf(s.result.Product, s.result.Token)

	policy := newPolicy(t, s.path("keyring.json"))
	records := open[sinks.RecordKeeper](t, "records", policy, &sqldb.SQLite{Path: s.path("faceid.db")})
	for _, name := range []string{"media", "second"} {
		archive := open[sinks.ArchiveKeeper](t, name, policy, &dir.Config{Path: s.path(name), Seal: true})
		receipts, err := archive.Archive(t.Context(), s.result)
		must(t, err)
		for i := range s.result.Assets {
			s.result.Assets[i].Stored = append(s.result.Assets[i].Stored, receipts[i])
		}
		s.cfg.Archives = append(s.cfg.Archives, archive)
	}
	must(t, records.Record(t.Context(), s.result))

	s.cfg.Policy, s.cfg.Records, s.cfg.Dir = policy, []sinks.RecordKeeper{records}, s.path("out")
	s.cfg.Audit = privacy.OpenAudit(s.path("audit.log"))
	s.cfg.Entry = privacy.AuditEntry{Action: "export", User: "tester", Host: "bench", Reason: "case 9"}
	return s
}

func newPolicy(t *testing.T, keyring string) *privacy.Policy {
	t.Helper()
	keys, err := privacy.OpenOrCreateKeyring(keyring)
	must(t, err)
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	must(t, err)
	return policy
}

func open[S sinks.Sink](t *testing.T, name string, policy *privacy.Policy, cfg sinks.Config) S {
	t.Helper()
	sink, err := cfg.Open(t.Context(), sinks.Env{Name: name, Policy: policy, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, sink.Close(context.WithoutCancel(t.Context()))) })
	keeper, ok := sink.(S)
	if !ok {
		t.Fatalf("%T", sink)
	}
	return keeper
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stock) path(name string) string { return filepath.Join(s.folder, name) }

// export looks the result up and exports it.
func (s *stock) export(ctx context.Context) (export.Report, error) {
	s.t.Helper()
	e := export.New(s.cfg)
	found, err := e.Find(s.t.Context(), s.key, s.result.Token)
	must(s.t, err)
	return e.Export(ctx, found)
}

// stored returns the file of an asset in an archive.
func (s *stock) stored(archive, field string) string {
	s.t.Helper()
	i := slices.IndexFunc(s.cfg.Archives, func(a sinks.ArchiveKeeper) bool { return a.Name() == archive })
	receipts, err := s.cfg.Archives[i].Manifest(s.t.Context(), s.key)
	must(s.t, err)
	for _, r := range receipts {
		if r.Field == field {
			return filepath.Join(s.path(archive), filepath.FromSlash(r.Location))
		}
	}
	s.t.Fatalf("%s has no %s", archive, field)
	return ""
}

func (s *stock) damage(archive, field string) {
	s.t.Helper()
	name := s.stored(archive, field)
	text, err := os.ReadFile(name)
	must(s.t, err)
	text[len(text)-20] ^= 1
	must(s.t, os.WriteFile(name, text, 0o600))
}

// content returns the bytes of an asset.
func content(t *testing.T, a result.Asset) []byte {
	t.Helper()
	r, err := a.Content.Open()
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	return b
}

// leftovers are the files in the folder for exports.
func (s *stock) leftovers() (names []string) {
	s.t.Helper()
	err := filepath.WalkDir(s.cfg.Dir, func(path string, _ fs.DirEntry, err error) error {
		if path != s.cfg.Dir && err == nil {
			names = append(names, path)
		}
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		must(s.t, err)
	}
	return names
}

// unpack returns the files of an export in a folder.
func unpack(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(folder)
	must(t, err)
	for _, entry := range entries {
		info, err := entry.Info()
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", entry.Name(), info.Mode())
		}
		files[entry.Name()], err = os.ReadFile(filepath.Join(folder, entry.Name()))
		must(t, err)
	}
	return files
}

// holds compares an export with the result, but for the assets named in without.
func (s *stock) holds(files map[string][]byte, without ...string) export.Manifest {
	s.t.Helper()
	var m export.Manifest
	must(s.t, json.Unmarshal(files["manifest.json"], &m))
	if len(m.Files) != len(files)-1 || m.Token != s.result.Token || m.User != "tester" || m.Host != "bench" || m.Reason != "case 9" || m.ExportedAt.IsZero() {
		s.t.Errorf("%s", files["manifest.json"])
	}

	fields := map[string][]byte{}
	for _, f := range m.Files {
		sum := sha256.Sum256(files[f.Name])
		if f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(files[f.Name])) || f.Sink == "" {
			s.t.Errorf("%s is not what the manifest says: %+v", f.Name, f)
		}
		fields[f.Field] = files[f.Name]
	}
	for _, a := range s.result.Assets {
		b, there := fields[a.Field]
		if there == slices.Contains(without, a.Field) || there && !bytes.Equal(b, content(s.t, a)) {
			s.t.Errorf("%s: there %v, %d bytes", a.Field, there, len(b))
		}
	}
	return m
}

func (s *stock) audit() string {
	s.t.Helper()
	text, err := os.ReadFile(s.path("audit.log"))
	must(s.t, err)
	if _, err := privacy.CheckAudit(bytes.NewReader(text)); err != nil {
		s.t.Error(err)
	}
	return string(text)
}

// An export has every value and every byte, and says so with digests.
func TestFolder(t *testing.T) {
	s := newStock(t)
	report, err := s.export(t.Context())
	must(t, err)
	if report.Path != filepath.Join(s.cfg.Dir, "enhanced-"+s.key.Hash) || report.Files != 1+len(s.result.Assets) || len(report.Missing) > 0 {
		t.Errorf("%+v", report)
	}
	if info, err := os.Stat(report.Path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	files := unpack(t, report.Path)
	if m := s.holds(files); !m.Complete {
		t.Errorf("%+v", m)
	}
	if sum := sha256.Sum256(files["manifest.json"]); report.ManifestSHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("the manifest has another digest than %s", report.ManifestSHA256)
	}
	for _, secret := range sinktest.Secrets(0) {
		if !bytes.Contains(files["record.json"], []byte(secret)) && !strings.Contains(secret, "eid") {
			t.Errorf("the record lacks %q", secret)
		}
		if strings.Contains(s.audit(), secret) {
			t.Errorf("the audit log holds %q", secret)
		}
	}
	if files["IdCardData.OcrFront.jpg"] == nil {
		t.Errorf("%v", report)
	}
	for _, want := range []string{`"action":"export"`, "case 9", s.key.Hash, `"id_card"`, `"assets":["IdCardData.OcrFront"`} {
		if !strings.Contains(s.audit(), want) {
			t.Errorf("the audit log lacks %s:\n%s", want, s.audit())
		}
	}
	if n := len(s.leftovers()); n != 1+len(files) {
		t.Errorf("%q", s.leftovers())
	}
}

// What is encrypted is the same, opens for each recipient and nobody else, and is
// nowhere in clear.
func TestEncrypted(t *testing.T) {
	s := newStock(t)
	identities := make([]*age.X25519Identity, 3)
	var lines strings.Builder
	for i := range identities {
		var err error
		identities[i], err = age.GenerateX25519Identity()
		must(t, err)
		if i < 2 {
			fmt.Fprintf(&lines, "# recipient %d\n%s\n\n", i, identities[i].Recipient())
		}
	}
	var err error
	s.cfg.Recipients, err = export.ParseRecipients(strings.NewReader(lines.String()))
	must(t, err)
	must(t, export.CheckRecipients(s.cfg.Recipients))

	report, err := s.export(t.Context())
	must(t, err)
	if report.Path != filepath.Join(s.cfg.Dir, "enhanced-"+s.key.Hash+".tar.age") || len(s.leftovers()) != 1 {
		t.Errorf("%+v, %q", report, s.leftovers())
	}
	info, err := os.Stat(report.Path)
	if must(t, err); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	text, err := os.ReadFile(report.Path)
	must(t, err)
	for _, identity := range identities[:2] {
		files := untar(t, text, "enhanced-"+s.key.Hash+"/", identity)
		if m := s.holds(files); !m.Complete {
			t.Errorf("%+v", m)
		}
	}
	if _, err := age.Decrypt(bytes.NewReader(text), identities[2]); err == nil {
		t.Error("a stranger can open it")
	}
	if _, err := s.export(t.Context()); !errors.Is(err, export.ErrExists) {
		t.Errorf("again: %v", err)
	}
	if again, err := os.ReadFile(report.Path); err != nil || !bytes.Equal(text, again) {
		t.Errorf("the first one was touched: %v", err)
	}
}

func untar(t *testing.T, text []byte, prefix string, identity age.Identity) map[string][]byte {
	t.Helper()
	opened, err := age.Decrypt(bytes.NewReader(text), identity)
	must(t, err)
	files := map[string][]byte{}
	for archive := tar.NewReader(opened); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		name, ours := strings.CutPrefix(header.Name, prefix)
		if !ours || !filepath.IsLocal(header.Name) || strings.ContainsRune(name, '/') || header.Mode != 0o600 || header.Typeflag != tar.TypeReg {
			t.Errorf("%+v", header)
		}
		files[name], err = io.ReadAll(archive)
		must(t, err)
	}
}

func TestRecipients(t *testing.T) {
	secret, err := age.GenerateX25519Identity()
	must(t, err)
	for text, want := range map[string]string{
		"":                     "there is no recipient",
		"# none\n":             "there is no recipient",
		"\n" + secret.String(): "line 2 is a secret key",
		"age1typo":             "line 1 is not a recipient",
		"ssh-ed25519 AAAA":     "line 1 is not a recipient",
	} {
		if _, err := export.ParseRecipients(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret.String()) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A copy that is damaged, gone or sealed with a lost key is never exported as if it
// were right. Another archive steps in; where there is none, the rest is exported, and
// the manifest says what is not and why.
func TestDamaged(t *testing.T) {
	const field = "IdCardData.OcrFront"
	for name, test := range map[string]struct {
		breaks func(s *stock)
		// missing and passedOver are the fields that the manifest must name.
		missing, passedOver []string
		reason              string
	}{
		"one of two is damaged": {func(s *stock) { s.damage("media", field) }, nil, []string{field}, "sink media"},
		"one of two is gone":    {func(s *stock) { must(s.t, os.Remove(s.stored("media", field))) }, nil, []string{field}, "sink media"},
		"both are damaged": {func(s *stock) {
			s.damage("media", field)
			s.damage("second", field)
		}, []string{field}, nil, "sink second"},
		"one archive is gone": {func(s *stock) {
			must(s.t, os.RemoveAll(s.path("media")))
		}, nil, nil, ""},
		"both archives are gone": {func(s *stock) {
			must(s.t, os.RemoveAll(s.path("media")))
			must(s.t, os.RemoveAll(s.path("second")))
		}, []string{field}, nil, "sink media"},
		"the manifest is of another answer": {func(s *stock) {
			s.cfg.Archives = []sinks.ArchiveKeeper{altered{s.cfg.Archives[0], func(r *sinks.Receipt) { r.SHA256 = strings.Repeat("0", 64) }}}
		}, []string{field}, nil, "another answer"},
		"the asset is not in the record": {func(s *stock) {
			s.cfg.Archives = []sinks.ArchiveKeeper{s.cfg.Archives[1]}
			s.cfg.Records = []sinks.RecordKeeper{forgetful{s.cfg.Records[0]}}
		}, []string{field}, nil, "the record does not tell of it"},
		"no archive is configured": {func(s *stock) { s.cfg.Archives = nil }, []string{field}, nil, "sink media, where the record says it is ("},
		"an archive does not open": {func(s *stock) {
			s.cfg.Archives, s.cfg.Closed = nil, map[string]error{"media": errors.New("no such volume")}
		}, []string{field}, nil, "no such volume"},
		"the record is gone": {func(s *stock) {
			_, err := s.cfg.Records[0].Erase(s.t.Context(), s.key, "")
			must(s.t, err)
		}, []string{"record"}, nil, "no record sink has a record"},
		"the record is another's": {func(s *stock) {
			s.cfg.Records = []sinks.RecordKeeper{renamed{s.cfg.Records[0]}}
		}, []string{"record"}, nil, "of another token"},
		"the key is lost": {func(s *stock) { s.cfg.Policy = newPolicy(s.t, s.path("other.json")) }, []string{"name", "id_card", "answer", "raw"}, nil, "sealed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t)
			test.breaks(s)
			report, err := s.export(t.Context())
			must(t, err)

			files := unpack(t, report.Path)
			var m export.Manifest
			must(t, json.Unmarshal(files["manifest.json"], &m))
			if m.Complete != (len(test.missing) == 0) || !slices.EqualFunc(m.Missing, report.Missing, func(a, b export.Missing) bool { return a == b }) {
				t.Errorf("%s", files["manifest.json"])
			}
			names(t, "missing", m.Missing, test.missing, test.reason)
			names(t, "passed over", m.PassedOver, test.passedOver, test.reason)
			for _, f := range m.Files {
				a, known := s.result.Asset(f.Field)
				if known && !bytes.Equal(files[f.Name], content(t, a)) {
					t.Errorf("%s is not what was archived", f.Name)
				}
			}
			if len(m.Files) != len(files)-1 {
				t.Errorf("%d files, %d in the manifest", len(files), len(m.Files))
			}
		})
	}
}

func names(t *testing.T, what string, list []export.Missing, want []string, reason string) {
	t.Helper()
	if len(want) == 0 && len(list) > 0 {
		t.Errorf("%s: %+v", what, list)
	}
	for _, field := range want {
		if !slices.ContainsFunc(list, func(m export.Missing) bool { return m.Field == field && strings.Contains(m.Reason, reason) }) {
			t.Errorf("%s: no %s because of %q in %+v", what, field, reason, list)
		}
	}
}

// altered is an archive whose manifest somebody changed.
type altered struct {
	sinks.ArchiveKeeper
	change func(*sinks.Receipt)
}

func (a altered) Manifest(ctx context.Context, key sinks.Key) ([]sinks.Receipt, error) {
	receipts, err := a.ArchiveKeeper.Manifest(ctx, key)
	for i := range receipts {
		a.change(&receipts[i])
	}
	return receipts, err
}

// renamed is a record sink whose rows somebody gave another token.
type renamed struct{ sinks.RecordKeeper }

func (r renamed) Get(ctx context.Context, key sinks.Key) (*privacy.Record, error) {
	record, err := r.RecordKeeper.Get(ctx, key)
	if err == nil {
		record.Token = "another"
	}
	return record, err
}

// forgetful is a record sink whose rows lost their assets.
type forgetful struct{ sinks.RecordKeeper }

func (r forgetful) Get(ctx context.Context, key sinks.Key) (*privacy.Record, error) {
	record, err := r.RecordKeeper.Get(ctx, key)
	if err == nil {
		record.Assets = nil
	}
	return record, err
}

// Without a record sink there are the assets, with extensions by their bytes.
func TestArchiveAlone(t *testing.T) {
	s := newStock(t, func(r *result.Result) {
		r.Assets = append(r.Assets, sinktest.Inline("BestFrame.Photo", result.Image, "image/png", []byte("\x89PNG\r\n\x1a\n and so on")))
	})
	s.cfg.Records = nil
	report, err := s.export(t.Context())
	must(t, err)
	files := unpack(t, report.Path)
	if m := s.holds(files); !m.Complete || files["BestFrame.Photo.png"] == nil || files["record.json"] != nil {
		t.Errorf("%s", files["manifest.json"])
	}
}

// idCard is that of the result.
const idCard = "000000190001010000"

// Only what was asked for leaves.
func TestOnly(t *testing.T) {
	for name, test := range map[string]struct {
		only  []string
		files []string
		audit string
	}{
		"a value":              {[]string{"id_card"}, []string{"manifest.json", "record.json"}, `"fields":["id_card"],"previous"`},
		"an asset":             {[]string{"IdCardData.OcrFront"}, []string{"IdCardData.OcrFront.jpg", "manifest.json"}, `"assets":["IdCardData.OcrFront"],"previous"`},
		"a value and an asset": {[]string{"id_card", "IdCardData.OcrFront"}, []string{"IdCardData.OcrFront.jpg", "manifest.json", "record.json"}, `"fields":["id_card"],"assets":["IdCardData.OcrFront"]`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t)
			s.cfg.Only = test.only
			report, err := s.export(t.Context())
			must(t, err)

			files := unpack(t, report.Path)
			var got []string
			for name, text := range files {
				got = append(got, name)
				for _, secret := range sinktest.Secrets(0) {
					if bytes.Contains(text, []byte(secret)) && secret != idCard {
						t.Errorf("%s holds %q", name, secret)
					}
				}
			}
			if record := files["record.json"]; record != nil && !bytes.Contains(record, []byte(idCard)) {
				t.Errorf("%s", record)
			}
			if slices.Sort(got); !slices.Equal(got, test.files) {
				t.Errorf("%q", got)
			}
			if !strings.Contains(s.audit(), test.audit) {
				t.Errorf("%s", s.audit())
			}
		})
	}

	s := newStock(t)
	s.cfg.Only = []string{"VideoData.Nothing"}
	if _, err := s.export(t.Context()); !errors.Is(err, export.ErrNothing) || len(s.leftovers()) > 0 {
		t.Errorf("%v, %q", err, s.leftovers())
	}
}

// Nothing is opened or left without an entry in the audit log.
func TestNoAudit(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		s := newStock(t)
		if encrypt {
			identity, err := age.GenerateX25519Identity()
			must(t, err)
			s.cfg.Recipients = []age.Recipient{identity.Recipient()}
		}
		s.cfg.Audit = privacy.OpenAudit(s.path("no/audit.log"))
		if _, err := s.export(t.Context()); !errors.Is(err, export.ErrNoAudit) || len(s.leftovers()) > 0 {
			t.Errorf("%v, %q", err, s.leftovers())
		}
	}
}

// An export that is there already is left as it is: if it is whole and equal, that
// is well, and else an error.
func TestThereAlready(t *testing.T) {
	for name, test := range map[string]struct {
		change    func(s *stock, path string)
		unchanged bool
	}{
		"equal":          {func(*stock, string) {}, true},
		"empty":          {func(s *stock, path string) { must(s.t, os.RemoveAll(path)); must(s.t, os.Mkdir(path, 0o700)) }, false},
		"a file is gone": {func(s *stock, path string) { must(s.t, os.Remove(filepath.Join(path, "record.json"))) }, false},
		"a file differs": {func(s *stock, path string) {
			must(s.t, os.WriteFile(filepath.Join(path, "record.json"), []byte("{}"), 0o600))
		}, false},
		"a file is more":    {func(s *stock, path string) { must(s.t, os.WriteFile(filepath.Join(path, "x"), nil, 0o600)) }, false},
		"no manifest":       {func(s *stock, path string) { must(s.t, os.Remove(filepath.Join(path, "manifest.json"))) }, false},
		"less is asked for": {func(s *stock, _ string) { s.cfg.Only = []string{"name"} }, false},
		"it became damaged": {func(s *stock, _ string) {
			s.damage("media", "IdCardData.OcrFront")
			s.damage("second", "IdCardData.OcrFront")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStock(t)
			first, err := s.export(t.Context())
			must(t, err)
			test.change(s, first.Path)
			before := fmt.Sprint(unpack(t, first.Path))

			again, err := s.export(t.Context())
			switch {
			case name == "empty":
				must(t, err)
				s.holds(unpack(t, first.Path))
				return
			case test.unchanged:
				if err != nil || !again.Unchanged || again.Path != first.Path {
					t.Errorf("%+v, %v", again, err)
				}
			case !errors.Is(err, export.ErrExists) || !strings.Contains(err.Error(), "--to"):
				t.Errorf("%+v, %v", again, err)
			}
			if fmt.Sprint(unpack(t, first.Path)) != before || len(s.leftovers()) != 1+len(unpack(t, first.Path)) {
				t.Errorf("it was touched: %q", s.leftovers())
			}
		})
	}
}

// An export that is interrupted leaves nothing; what one left that was killed does not
// keep the next from working; and two do not write into one.
func TestInterrupted(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		s := newStock(t)
		suffix := ".part"
		if encrypt {
			identity, err := age.GenerateX25519Identity()
			must(t, err)
			s.cfg.Recipients = []age.Recipient{identity.Recipient()}
			suffix = ".tar.age.part"
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.cfg.Progress = func(int64) {
			part := filepath.Join(s.cfg.Dir, "enhanced-"+s.key.Hash+suffix)
			if _, err := os.Lstat(part); err != nil {
				t.Error(err)
			}
			other := *s
			other.cfg.Progress = nil
			if _, err := other.export(t.Context()); err == nil || !strings.Contains(err.Error(), "another export of this token") {
				t.Errorf("two at once: %v", err)
			}
			cancel()
		}
		if _, err := s.export(ctx); !errors.Is(err, context.Canceled) || len(s.leftovers()) > 0 {
			t.Errorf("%v, %q", err, s.leftovers())
		}

		s.cfg.Progress = nil
		part := filepath.Join(s.cfg.Dir, "enhanced-"+s.key.Hash+suffix)
		if encrypt {
			must(t, os.WriteFile(part, []byte(strings.Repeat("left", 1e6)), 0o600))
		} else {
			must(t, errors.Join(os.MkdirAll(filepath.Join(part, "sub"), 0o700), os.WriteFile(filepath.Join(part, "record.json"), []byte("left"), 0o600)))
		}
		report, err := s.export(t.Context())
		must(t, err)
		if !encrypt {
			s.holds(unpack(t, report.Path))
		} else if info, err := os.Stat(report.Path); err != nil || info.Size() > 2e6 {
			t.Errorf("%v, %v", info, err)
		}
		for _, name := range s.leftovers() {
			if strings.Contains(name, ".part") {
				t.Errorf("%s is left", name)
			}
		}
	}
}

// Whatever an archive or a record calls an asset, its file is in the export's folder.
func TestHostileNames(t *testing.T) {
	fields := []string{"../../evil", "/etc/cron.d/evil", "a/b", "..", ".", "record", "manifest", "x\x00y", "x\ny", strings.Repeat("a", 5000), "测试", "-rf", "A.json"}
	s := newStock(t, func(r *result.Result) {
		for i, field := range fields {
			r.Assets = append(r.Assets, sinktest.Inline(field, result.Unknown, "../../sh", []byte{byte(i)}))
		}
	})
	report, err := s.export(t.Context())
	must(t, err)
	s.holds(unpack(t, report.Path))
	if n := len(s.leftovers()); n != 1+len(unpack(t, report.Path)) {
		t.Errorf("%q", s.leftovers())
	}

	identity, err := age.GenerateX25519Identity()
	must(t, err)
	s.cfg.Recipients = []age.Recipient{identity.Recipient()}
	report, err = s.export(t.Context())
	must(t, err)
	text, err := os.ReadFile(report.Path)
	must(t, err)
	s.holds(untar(t, text, "enhanced-"+s.key.Hash+"/", identity))

	for _, key := range []sinks.Key{{Product: "../..", Hash: s.key.Hash}, {Product: s.key.Product, Hash: "../" + s.key.Hash}, {}} {
		if _, err := export.New(s.cfg).Find(t.Context(), key, "T"); !errors.Is(err, sinks.ErrNotFound) {
			t.Errorf("%+v: %v", key, err)
		}
	}
}

// More assets than fit one entry of the audit log are named by several.
func TestManyAssets(t *testing.T) {
	s := newStock(t, func(r *result.Result) {
		for i := range 210 {
			r.Assets = append(r.Assets, sinktest.Inline(fmt.Sprintf("%s[%d]", strings.Repeat("Long", 30), i), result.Image, "image/png", []byte{byte(i)}))
		}
	})
	s.cfg.Archives = s.cfg.Archives[:1]
	report, err := s.export(t.Context())
	must(t, err)
	if report.Files != 1+len(s.result.Assets) {
		t.Errorf("%+v", report)
	}
	for _, a := range s.result.Assets {
		if !strings.Contains(s.audit(), `"`+result.FieldName(a.Field)+`"`) {
			t.Errorf("the audit log does not name %s", a.Field)
		}
	}
}

func TestNotFound(t *testing.T) {
	s := newStock(t)
	e := export.New(s.cfg)
	if _, err := e.Find(t.Context(), sinks.KeyOf(result.Enhanced, "nobody"), "nobody"); !errors.Is(err, sinks.ErrNotFound) {
		t.Error(err)
	}
	s.cfg.Closed = map[string]error{"rows": errors.New("connection refused")}
	if _, err := export.New(s.cfg).Find(t.Context(), sinks.KeyOf(result.Enhanced, "nobody"), "nobody"); errors.Is(err, sinks.ErrNotFound) || !strings.Contains(err.Error(), "sink rows cannot be opened: connection refused") {
		t.Error(err)
	}
}
