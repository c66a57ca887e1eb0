package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

// keyList is what keys list says.
func (s *site) keyList() []privacy.KeyInfo {
	s.t.Helper()
	stdout, _ := s.command(exitDone, "keys", "list", "--json")
	var list []privacy.KeyInfo
	for line := range strings.Lines(stdout) {
		var key privacy.KeyInfo
		if err := json.Unmarshal([]byte(line), &key); err != nil {
			s.t.Fatal(err)
		}
		list = append(list, key)
	}
	return list
}

func TestKeys(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	keyring := s.path("data/keyring.json")
	for _, args := range []string{"list", "rotate", "remove 00000000"} {
		if _, stderr := s.command(exitUsage, append([]string{"keys"}, strings.Fields(args)...)...); !strings.Contains(stderr, keyring) || !strings.Contains(stderr, "keys new") {
			t.Errorf("%s without a keyring: %s", args, stderr)
		}
	}
	if stdout, _ := s.command(exitDone, "keys", "new"); !strings.Contains(stdout, keyring+", in clear") || !strings.Contains(stdout, "keep a copy") {
		t.Error(stdout)
	}
	before := read(t, keyring)
	if _, stderr := s.command(exitFailed, "keys", "new"); !strings.Contains(stderr, "is there already") || read(t, keyring) != before {
		t.Error(stderr)
	}
	if info, err := os.Stat(keyring); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	first := s.keyList()[0]

	stdout, _ := s.command(exitDone, "keys", "rotate", "--json")
	var fresh privacy.KeyInfo
	if err := json.Unmarshal([]byte(stdout), &fresh); err != nil || fresh.State != privacy.Active {
		t.Errorf("%s: %v", stdout, err)
	}
	list := s.keyList()
	if len(list) != 2 || list[0].ID != first.ID || list[0].State != privacy.Retired || list[1] != fresh {
		t.Errorf("%v", list)
	}
	table, _ := s.command(exitDone, "keys", "list")
	if !strings.Contains(table, first.ID) || !strings.Contains(table, "retired") || !strings.Contains(table, "active") {
		t.Error(table)
	}
	for args, want := range map[string]string{
		"remove " + fresh.ID: "is the active one", "remove " + first.ID: "run keys reseal", "remove 00000000 --yes": "there is no key",
		"new --kms": "set privacy.kms.key_id",
	} {
		if _, stderr := s.command(exitFailed, append([]string{"keys"}, strings.Fields(args)...)...); !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	s.command(exitDone, "keys", "remove", first.ID, "--yes")
	if list := s.keyList(); len(list) != 1 || list[0] != fresh {
		t.Errorf("%v", list)
	}
	if stdout, _ := s.command(exitDone, "keys", "rotate"); !strings.Contains(stdout, "keys reseal") {
		t.Error(stdout)
	}
	s.audited("keys new", "keys rotate", "keys remove "+first.ID, "keys rotate")
}

// audited ends the test unless the audit log holds these actions, and no key.
func (s *site) audited(actions ...string) {
	s.t.Helper()
	text := read(s.t, s.path("data/audit.log"))
	if n, err := privacy.CheckAudit(strings.NewReader(text)); n != len(actions) || err != nil {
		s.t.Errorf("%d entries, %v", n, err)
	}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if i < len(actions) && !strings.Contains(line, `"action":"`+actions[i]+`"`) {
			s.t.Errorf("entry %d is %s, want %s", i, line, actions[i])
		}
	}
}

// noKeys ends the test if text shows a key of a keyring in clear.
func (s *site) noKeys(keyring string, texts ...string) {
	s.t.Helper()
	var file struct {
		Keys []struct{ Key string }
	}
	if err := json.Unmarshal([]byte(keyring), &file); err != nil || len(file.Keys) == 0 {
		s.t.Fatalf("%d keys, %v", len(file.Keys), err)
	}
	for _, key := range file.Keys {
		for _, text := range texts {
			if strings.Contains(text, key.Key) {
				s.t.Error("a key is printed")
			}
		}
	}
}

func TestKeyringInKMS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.api.AddKMSKey("cmk")
	s.command(exitDone, "keys", "new")
	inClear := read(t, s.path("data/keyring.json"))
	s.write("config.yaml", read(t, s.config)+"privacy: {kms: {key_id: cmk, endpoint: \""+s.api.URL()+"\", secret_id: AKID-test, secret_key_file: "+s.path("secret_key")+"}}\n")

	// A keyring in clear still opens, and is wrapped by the next change.
	if table, _ := s.command(exitDone, "keys", "list"); !strings.Contains(table, "in clear") {
		t.Error(table)
	}
	out, errs := s.command(exitDone, "keys", "rotate")
	table, _ := s.command(exitDone, "keys", "list")
	if !strings.Contains(table, "wrapped by KMS") || len(s.keyList()) != 2 {
		t.Error(table)
	}
	wrapped := read(t, s.path("data/keyring.json"))
	s.noKeys(inClear, out, errs, table, wrapped, read(t, s.path("data/audit.log")))

	checks := newChecks(3, 1<<10)
	s.publish(checks)
	p := s.start()
	until(t, "the events are settled", func() bool { return s.open() == 0 })
	p.stop()
	s.command(exitDone, "verify")
	s.command(exitDone, "show", checks[0].Token, "--reveal", "--reason", "ticket 7")

	if err := os.Remove(s.path("data/keyring.json")); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.command(exitDone, "keys", "new", "--kms", "--start-over"); !strings.Contains(out, "wrapped by KMS") {
		t.Error(out)
	}
	s.api.RemoveKMSKey("cmk")
	if _, stderr := s.command(exitFailed, "keys", "list"); !strings.Contains(stderr, "keyring.json: unwrap it: ") || !strings.Contains(stderr, "CmkDisabled: KMS Decrypt") {
		t.Error(stderr)
	}
	s.write("secret_key", "wrong-key")
	if _, stderr := s.command(exitFailed, "keys", "list"); !strings.Contains(stderr, "AuthFailure.SignatureFailure") {
		t.Error(stderr)
	}
	config, _, _ := strings.Cut(read(t, s.config), "privacy:")
	s.write("config.yaml", config)
	if _, stderr := s.command(exitUsage, "keys", "list"); !strings.Contains(stderr, "set privacy.kms") {
		t.Error(stderr)
	}
}

// TestReseal: ingest into a sealed archive and a database, rotate, reseal, remove
// the old key; everything opens.
func TestReseal(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t, "type: dir,", "type: dir, seal: true,")
	old := s.keyList()[0].ID
	person := checks[0].Person
	reseal := func(want int, args ...string) (stdout, stderr string) {
		t.Helper()
		return s.command(want, append([]string{"keys", "reseal"}, args...)...)
	}
	sums := func(stdout string) map[string]resealSum {
		t.Helper()
		var answer struct{ Sinks []resealSum }
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil {
			t.Fatal(err)
		}
		found := map[string]resealSum{}
		for _, sum := range answer.Sinks {
			found[sum.Sink] = sum
		}
		return found
	}
	expect := func(stdout string, resealed int) {
		t.Helper()
		if got := sums(stdout)["parked"]; !reflect.DeepEqual(got, resealSum{Sink: "parked"}) {
			t.Errorf("%+v", got)
		}
		for _, sink := range []string{"media", "records"} {
			if got, want := sums(stdout)[sink], (resealSum{Sink: sink, Tokens: 3, Resealed: resealed}); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, want %+v", got, want)
			}
		}
	}
	stdout, _ := reseal(exitDone, "--json")
	expect(stdout, 0)
	s.command(exitDone, "keys", "rotate")
	dry, _ := reseal(exitDone, "--dry-run", "--json")
	for sink, tokens := range map[string]int{"media": 3, "records": 3} {
		if got := sums(dry)[sink]; got.Tokens != tokens || len(got.Outdated) != 1 || got.Outdated[old] < 1 || got.Resealed != 0 {
			t.Errorf("%+v", got)
		}
	}
	if dry, _ := reseal(exitDone, "--dry-run"); !strings.Contains(dry, "sink parked: 0 tokens, nothing under older keys\nsink media: 3 tokens, ") ||
		!strings.Contains(dry, " under key "+old+"\nsink records: 3 tokens, ") {
		t.Error(dry)
	}

	// One file is damaged: the others are resealed, and the exit code tells. (All
	// media of one token are in COS.)
	file := sealedFile(t, s.path("media"))
	good := read(t, file)
	spoilt := []byte(good)
	spoilt[len(spoilt)-1] ^= 1
	if err := os.WriteFile(file, spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := reseal(exitPartial, "--json", "--sink", "media")
	if got := sums(stdout)["media"]; got.Failed != 1 || got.Resealed != 1 || !strings.Contains(stderr, filepath.Base(file)) {
		t.Errorf("%+v\n%s", got, stderr)
	}
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, _ := reseal(exitDone, "--parallel", "2"); stdout != "sink parked: 0 tokens, 0 resealed, 0 failed\nsink media: 3 tokens, 1 resealed, 0 failed\nsink records: 3 tokens, 3 resealed, 0 failed\n" {
		t.Error(stdout)
	}
	stdout, _ = reseal(exitDone, "--json")
	expect(stdout, 0)
	s.command(exitDone, "keys", "remove", old, "--yes")

	if stdout, _ := s.command(exitDone, "show", checks[0].Token, "--reveal", "--reason", "ticket 7"); !strings.Contains(stdout, person.Name) || !strings.Contains(stdout, person.IDCard) {
		t.Error("a sealed value does not open")
	}
	s.command(exitDone, "verify")
	// Redelivered tokens find their files, and new ones are sealed.
	s.publish(newChecks(2, 1<<10))
	p := s.start()
	until(t, "the events are settled", func() bool { return s.open() == 0 })
	p.stop()
	s.command(exitDone, "verify")
	if _, stderr := reseal(exitUsage, "--sink", "nowhere"); !strings.Contains(stderr, "not the name of a sink") {
		t.Error(stderr)
	}
}

// sealedFile returns one of the sealed files of an archive.
func sealedFile(t *testing.T, root string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "*", "*", "*", "*.sealed"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sealed file: %v", err)
	}
	return files[0]
}

// park parks a result of an invented person for each token, as a daemon whose sinks
// are down does, and returns what looks at the parking.
func (s *site) park(tokens ...string) (parked func(token string) error) {
	s.t.Helper()
	with := func(do func(ctx context.Context, store *parking.Store, media *spool.Spool) error) error {
		ctx := s.t.Context()
		cfg, err := config.Load(s.config)
		if err != nil {
			return err
		}
		conn, err := (&app{configFile: s.config}).connect(ctx)
		if err != nil {
			return err
		}
		defer closeQuietly(conn)
		policy, _, err := preparePolicy(ctx, cfg)
		if err != nil {
			return err
		}
		store, err := openParking(ctx, cfg, conn.JS, policy)
		if err != nil {
			return err
		}
		media, err := openSpool(cfg)
		if err != nil {
			return err
		}
		return errors.Join(do(ctx, store, media), media.Close())
	}
	err := with(func(ctx context.Context, store *parking.Store, _ *spool.Spool) error {
		for _, token := range tokens {
			r := &result.Result{Product: result.Enhanced, Token: token, Person: result.Person{Name: result.NewSensitive("测试人")}}
			if err := store.Park(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return func(token string) error {
		return with(func(ctx context.Context, store *parking.Store, media *spool.Spool) error {
			batch, err := media.Begin(ctx)
			if err != nil {
				return err
			}
			_, err = store.Take(ctx, result.Enhanced, token, batch)
			return errors.Join(err, batch.Close())
		})
	}
}

// TestKeyOfParkedResults: a key that parked results need is not removed, and they are
// sealed anew while their sink is still down.
func TestKeyOfParkedResults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	old := s.keyList()[0].ID
	parked := s.park("T-1", "T-2")
	s.command(exitDone, "keys", "rotate")
	_, stderr := s.command(exitFailed, "keys", "remove", old, "--yes")
	if !strings.Contains(stderr, "key "+old+" is needed for 2 parked results, which will be delivered") || !strings.Contains(stderr, "keys reseal --sink parked") {
		t.Error(stderr)
	}
	if err := os.RemoveAll(s.path("media")); err != nil {
		t.Fatal(err)
	}
	s.write("media", "") // in the way of a folder
	if _, stderr := s.command(exitFailed, "keys", "reseal"); !strings.Contains(stderr, "open sink media: ") {
		t.Error(stderr)
	}
	for _, want := range []string{"2 resealed", "0 resealed"} {
		if stdout, _ := s.command(exitDone, "keys", "reseal", "--sink", "parked"); stdout != "sink parked: 2 tokens, "+want+", 0 failed\n" {
			t.Error(stdout)
		}
	}
	if _, stderr := s.command(exitFailed, "keys", "remove", old, "--yes"); !strings.Contains(stderr, "cannot be seen: sink media: ") {
		t.Error(stderr)
	}
	if err := os.Remove(s.path("media")); err != nil {
		t.Fatal(err)
	}
	s.command(exitDone, "keys", "remove", old, "--yes")
	for _, token := range []string{"T-1", "T-2"} {
		if err := parked(token); err != nil {
			t.Errorf("%s: %v", token, err)
		}
	}
}

// TestEraseParked: who is erased does not come back from the parking.
func TestEraseParked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	parked := s.park("T-1", "T-2")
	stdout, _ := s.command(exitDone, "erase", "T-1", "--yes", "--json")
	if !strings.Contains(stdout, `{"token":"T-1","sink":"parked","records":1,`) {
		t.Error(stdout)
	}
	if err := parked("T-1"); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("T-1: %v", err)
	}
	if err := parked("T-2"); err != nil {
		t.Errorf("T-2: %v", err)
	}
}
