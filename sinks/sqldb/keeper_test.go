package sqldb_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

// Many replicas that start at once make one schema, and all can use it.
func TestManyOpenAnEmptyDatabase(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		cfg, _ := s.fresh(t)
		const replicas = 8
		start := make(chan struct{})
		errs := make([]error, replicas)
		e := env(t)
		var wg sync.WaitGroup
		for i := range replicas {
			wg.Go(func() {
				<-start
				sink, err := cfg.Open(t.Context(), e)
				if err == nil {
					err = errors.Join(sink.(*sqldb.Sink).Record(t.Context(), sinktest.Result(i)), sink.Check(t.Context()), sink.Close(t.Context()))
				}
				errs[i] = err
			})
		}
		close(start)
		wg.Wait()
		must(t, errors.Join(errs...))
		sink, err := cfg.Open(t.Context(), e)
		must(t, err)
		defer func() { must(t, sink.Close(t.Context())) }()
		if n, err := sink.(*sqldb.Sink).Count(t.Context()); n != replicas || err != nil {
			t.Errorf("%d results, %v", n, err)
		}
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		d.exec(t, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, TRUE)")
		_, err := d.cfg.Open(t.Context(), env(t))
		if err == nil || !strings.Contains(err.Error(), "written by a newer version of faceid-ingest") {
			t.Errorf("%v", err)
		}
	})
}

// A dump by the database's own program holds no personal value that was recorded
// under the default policy, and neither do SQLite's files.
func TestDumpHoldsNoSecrets(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		sink := d.open(t, env(t))
		var secrets []string
		for seed := range 10 {
			r := sinktest.Archived(sinktest.Result(seed))
			must(t, sink.Record(t.Context(), r))
			secrets = append(secrets, sinktest.Secrets(seed)...)
			if seed%3 == 0 {
				must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
			}
		}
		dump := programDump(t, d)
		if !strings.Contains(dump, "TOKEN-00000001-ABCD") {
			t.Fatal("the dump is not one")
		}
		for _, secret := range secrets {
			if strings.Contains(dump, secret) {
				t.Errorf("the dump holds %q", secret)
			}
		}
	})
}

func programDump(t *testing.T, d *database) string {
	t.Helper()
	var cmd *exec.Cmd
	switch cfg := d.cfg.(type) {
	case *sqldb.SQLite:
		return string(dumpFiles(t, cfg.Path))
	case *sqldb.Postgres:
		cmd = exec.CommandContext(t.Context(), "pg_dump", "--inserts", string(cfg.URL))
	case *sqldb.MySQL:
		dsn, err := mysql.ParseDSN(string(cfg.DSN))
		must(t, err)
		host, port, _ := strings.Cut(dsn.Addr, ":")
		cmd = exec.CommandContext(t.Context(), "mariadb-dump", "--no-defaults", "--host="+host, "--port="+port, "--user="+dsn.User, "--password="+dsn.Passwd, dsn.DBName)
	}
	out, err := cmd.Output()
	must(t, err)
	return string(out)
}

// What SQLite erased is not in its files any more.
func TestErasedIsOverwritten(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	e := env(t)
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	var err error
	e.Policy, err = privacy.NewPolicy(cfg, nil)
	must(t, err)
	sink := d.open(t, e)
	r := sinktest.Archived(sinktest.Result(1))
	must(t, sink.Record(t.Context(), r))
	if path := d.cfg.(*sqldb.SQLite).Path; !strings.Contains(string(dumpFiles(t, path)), sinktest.Secrets(1)[0]) {
		t.Fatal("the value is not found while it is there")
	}
	must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
	dump := string(dumpFiles(t, d.cfg.(*sqldb.SQLite).Path))
	for _, secret := range sinktest.Secrets(1) {
		if strings.Contains(dump, secret) {
			t.Errorf("the files hold %q", secret)
		}
	}
}

// list collects what List yields.
func list(t *testing.T, sink *sqldb.Sink, f sinks.Filter) (tokens []string) {
	t.Helper()
	for s, err := range sink.List(t.Context(), f) {
		must(t, err)
		tokens = append(tokens, s.Token)
	}
	return tokens
}

// Lists of many pages are whole and in order, although many results have one time.
func TestListPages(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		sink := d.open(t, env(t))
		const n = 450
		at := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
		all := make([]*result.Result, n)
		var wg sync.WaitGroup
		for i := range all {
			all[i] = sinktest.Archived(sinktest.Result(2 * i)) // of one product
			all[i].FetchedAt = at.Add(time.Duration(i/100) * time.Hour)
			wg.Go(func() {
				if err := sink.Record(t.Context(), all[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		slices.SortFunc(all, func(a, b *result.Result) int {
			if c := b.FetchedAt.Compare(a.FetchedAt); c != 0 {
				return c
			}
			return strings.Compare(b.TokenHash(), a.TokenHash())
		})
		want := make([]string, n)
		for i, r := range all {
			want[i] = r.Token
		}
		for name, test := range map[string]struct {
			filter sinks.Filter
			want   []string
		}{
			"all":      {sinks.Filter{}, want},
			"limit":    {sinks.Filter{Limit: 205}, want[:205]},
			"one page": {sinks.Filter{Limit: 200}, want[:200]},
			"from":     {sinks.Filter{From: at.Add(4 * time.Hour)}, want[:50]},
			"to":       {sinks.Filter{To: at.Add(4 * time.Hour)}, want[50:]},
			"nothing":  {sinks.Filter{RuleID: "10"}, nil},
		} {
			if got := list(t, sink, test.filter); !slices.Equal(got, test.want) {
				t.Errorf("%s: %d results %v", name, len(got), got[:min(3, len(got))])
			}
		}
		keys := 0
		for _, err := range sink.Keys(t.Context(), sinks.Key{}) {
			must(t, err)
			keys++
		}
		if keys != n {
			t.Errorf("%d keys", keys)
		}
	})
}

// A person is found by any column that holds the value.
func TestListByPerson(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		e := env(t)
		sink := d.open(t, e)
		number := result.NewSensitive("000000190001018888")
		places := map[privacy.Field]func(*result.Result){
			privacy.IDCard:        func(r *result.Result) { r.Person.IDCard = number },
			privacy.OCRIDCard:     func(r *result.Result) { r.Document.IDCard = number },
			privacy.AttemptIDCard: func(r *result.Result) { r.Attempts[2].IDCard = number },
			"everywhere": func(r *result.Result) {
				r.Person.IDCard, r.Document.IDCard, r.Attempts[0].IDCard, r.Attempts[1].IDCard = number, number, number, number
			},
			"as a phone number": func(r *result.Result) { r.Person.Mobile = number },
			"nowhere":           func(*result.Result) {},
		}
		seed := 0
		for name, place := range places {
			r := sinktest.Archived(sinktest.Result(seed))
			r.Token = string(name)
			place(r)
			must(t, sink.Record(t.Context(), r))
			seed++
		}
		for _, field := range []privacy.Field{privacy.IDCard, privacy.OCRIDCard, privacy.AttemptIDCard} {
			got := list(t, sink, sinks.Filter{IndexField: field, Index: e.Policy.Index(field, number)})
			slices.Sort(got)
			if want := []string{"attempt_id_card", "everywhere", "id_card", "ocr_id_card"}; !slices.Equal(got, want) {
				t.Errorf("by %s: %v", field, got)
			}
		}
		if got := list(t, sink, sinks.Filter{IndexField: privacy.Mobile, Index: e.Policy.Index(privacy.Mobile, number)}); !slices.Equal(got, []string{"as a phone number"}) {
			t.Errorf("by mobile: %v", got)
		}
		for _, f := range privacy.Fields() {
			for _, err := range sink.List(t.Context(), sinks.Filter{IndexField: f, Index: "h1:00000000:AAAA"}) {
				if (err != nil) != (f == privacy.Raw) {
					t.Errorf("by %s: %v", f, err)
				}
			}
		}
	})
}

// A plain value that looks sealed does not keep the others from being resealed.
func TestResealWithLookalike(t *testing.T) {
	d := newDatabase(t, sqliteDB)
	cfg := privacy.DefaultConfig()
	cfg.Fields[privacy.Extra] = privacy.Plain
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	e := env(t)
	e.Policy, err = privacy.NewPolicy(cfg, keys)
	must(t, err)
	sink := d.open(t, e)
	r := sinktest.Archived(sinktest.Result(1))
	r.Person.Extra = result.NewSensitive("seal:v1:00000000:" + strings.Repeat("AQ", 60))
	must(t, sink.Record(t.Context(), r))
	_, err = keys.Rotate()
	must(t, err)
	key := sinks.KeyOf(r.Product, r.Token)
	if changed, err := sink.Reseal(t.Context(), key); !changed || err != nil {
		t.Fatalf("%v, %v", changed, err)
	}
	// A sealed value that does not open is an error, for the key that would open it
	// must stay.
	d.exec(t, "UPDATE results SET name = mobile")
	if _, err := sink.Reseal(t.Context(), key); !errors.Is(err, privacy.ErrNotAuthentic) {
		t.Errorf("%v", err)
	}
}

// Texts that databases have their troubles with come back as they were, and are
// found; a time that no database can hold is left out.
func TestAwkwardValues(t *testing.T) {
	eachSystem(t, func(t *testing.T, s system) {
		d := newDatabase(t, s)
		sink := d.open(t, env(t))
		for i, text := range []string{"\x00", "a\x00b\uFFFF0", "\uFFFF", "\uFFFF1\x00\x00", `\u0000`, "😀"} {
			r := sinktest.Archived(sinktest.Result(i))
			r.Token, r.RuleID, r.Account = text, text, text
			r.Attempts[1].Time = time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)
			must(t, sink.Record(t.Context(), r))
			rec, err := sink.Get(t.Context(), sinks.KeyOf(r.Product, r.Token))
			must(t, err)
			if rec.Token != text || rec.RuleID != text || !rec.Attempts[1].Time.IsZero() || rec.Attempts[2].Time.IsZero() {
				t.Errorf("%q came back as %q, %q, %v", text, rec.Token, rec.RuleID, rec.Attempts[1].Time)
			}
			if got := list(t, sink, sinks.Filter{RuleID: text, Account: text}); !slices.Equal(got, []string{text}) {
				t.Errorf("%q is found as %q", text, got)
			}
		}
	})
}
