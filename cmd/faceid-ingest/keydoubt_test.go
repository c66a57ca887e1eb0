package main

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

// What is damaged says nothing of the keyring: an installation that noted none yet goes on
// with its own, and says what could not be looked at.
func TestDamageIsNoOtherKeyring(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.stocked(1)
	s.forgetMarks()
	undo := s.damageMedia()

	p := s.start()
	p.says("whether this keyring seals what is there could not be looked at or noted")
	p.stop()
	if stdout, stderr := s.command(exitPartial, "keys", "status"); !strings.Contains(stderr, "sink media: whether this keyring seals") {
		t.Errorf("%s%s", stdout, stderr)
	}

	undo()
	s.start().stop()
	if _, err := os.Stat(s.path("media/" + markFile)); err != nil {
		t.Errorf("the archive does not note the keyring when it can be read: %v", err)
	}
}

// damageMedia leaves the header and a byte of each sealed file; undo brings the rest back.
func (s *site) damageMedia() (undo func()) {
	s.t.Helper()
	whole := map[string][]byte{}
	err := filepath.WalkDir(s.path("media"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".sealed") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		whole[path] = text
		return os.WriteFile(path, text[:privacy.MediaHeaderSize+1], 0o600)
	})
	if err != nil || len(whole) == 0 {
		s.t.Fatal(len(whole), err)
	}

	return func() {
		for path, text := range whole {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				s.t.Error(err)
			}
		}
	}
}

// Where something else stands in the place of a mark, the daemon says what to do, and that
// helps.
func TestSpoiltMarks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.stocked(1)
	s.withJS(func(js jetstream.JetStream) error {
		kv, err := js.KeyValue(t.Context(), keymark.Bucket)
		if err == nil {
			_, err = kv.Put(t.Context(), "mark", []byte("{}"))
		}
		return err
	})
	s.write("media/"+markFile, "{}")
	db, err := sql.Open("sqlite", s.path("records/faceid.db"))
	if err == nil {
		_, err = db.ExecContext(t.Context(), "UPDATE keyring SET fingerprint = 'nobody'")
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}

	p := s.launch()
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(p.log.String(), "keys adopt") {
		t.Errorf("run ends with exit code %d: %s", code, p.log)
	}
	_, stderr := s.command(exitFailed, "keys", "adopt")
	for _, place := range []string{"NATS: ", "sink media: ", "sink records: ", "--yes"} {
		if !strings.Contains(stderr, place) {
			t.Errorf("keys adopt does not say %q: %s", place, stderr)
		}
	}
	s.command(exitDone, "keys", "adopt", "--yes")
	s.command(exitDone, "keys", "status")
	s.start().stop()
}

// Of what could not be looked at, erase does not say that nothing is there.
func TestEraseKnowsWhatItHasNotSeen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.command(exitDone, "keys", "new")
	if err := os.Remove(s.path("media")); err != nil {
		t.Fatal(err)
	}
	s.write("media", "")
	for range 2 {
		stdout, _ := s.command(exitPartial, "erase", "T-1", "--yes")
		if strings.Contains(stdout, "nothing is there") || strings.Contains(stdout, "nothing was there") || !strings.Contains(stdout, "media: failed") {
			t.Error(stdout)
		}
	}
}

// Who only reads needs no secret of a sink that has nothing to read.
func TestReadersNeedNoSecretsOfNotifiers(t *testing.T) {
	t.Parallel()
	s := newSite(t, "http: {", `  - {name: hook, type: webhook, url: "https://hook.invalid/", secret: "${NO_SUCH_SECRET_OF_THE_HOOK}"}`+"\nhttp: {")
	s.command(exitDone, "keys", "new")
	if _, stderr := s.command(exitFailed, "where", "T-1"); strings.Contains(stderr, "hook") {
		t.Error(stderr)
	}
}
