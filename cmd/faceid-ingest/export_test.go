package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/faceid-ingest/faceid-ingest/pipeline/export"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// exportOf returns the manifest of an export in clear, and its files by field.
func exportOf(t *testing.T, path string) (export.Manifest, map[string][]byte) {
	t.Helper()
	var m export.Manifest
	if err := json.Unmarshal([]byte(read(t, filepath.Join(path, "manifest.json"))), &m); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range m.Files {
		text := []byte(read(t, filepath.Join(path, f.Name)))
		if sum := sha256.Sum256(text); f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(text)) {
			t.Errorf("%s is not what the manifest says", f.Name)
		}
		files[f.Field] = text
	}
	return m, files
}

// holdsCheck compares exported files with what FaceID had.
func holdsCheck(t *testing.T, c faceidtest.Check, files map[string][]byte) {
	t.Helper()
	for _, m := range c.Media {
		if m.Form.InCOS() {
			continue
		}
		want, err := io.ReadAll(m.Reader())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(files[m.Field], want) {
			t.Errorf("%s: %d bytes, want %d", m.Field, len(files[m.Field]), len(want))
		}
	}
	if !bytes.Contains(files[""], []byte(c.Person.Name)) || !bytes.Contains(files[""], []byte(c.Person.IDCard)) {
		t.Error("the record does not show the person")
	}
}

// exportLines are the lines of --json.
func exportLines(t *testing.T, stdout string) (lines []exported) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		var one exported
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, one)
	}
	return lines
}

// What was stored comes out again, opened, for tokens, a file and a person, with a
// reason in the audit log.
func TestExport(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t, "type: dir,", "type: dir, seal: true,")
	c, log := checks[0], s.path("data/audit.log")
	to := func(name string) []string { return []string{"--to", s.path(name), "--reason", "case 9"} }

	for args, want := range map[string]string{
		"":                                  "nothing to export",
		c.Token:                             "an export needs a reason",
		c.Token + " --find name --reason x": "--find does not go with tokens",
		c.Token + " --reason x --product y": "--product",
	} {
		if _, stderr := s.command(exitUsage, append([]string{"export"}, strings.Fields(args)...)...); !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
	for args, want := range map[string]string{
		"--field nose":              `there is no "nose"; known are name, id_card, `,
		"--field ../x":              "BestFrame.BestFrame",
		"--recipient age1nobody":    "--recipient: line 1 is not a recipient",
		"--recipients-file /nobody": "--recipients-file /nobody: ",
	} {
		stdout, stderr := s.command(exitUsage, append(append([]string{"export", c.Token}, to("none")...), strings.Fields(args)...)...)
		if !strings.Contains(stderr, want) {
			t.Errorf("%s: %s%s", args, stdout, stderr)
		}
	}
	stdout, _ := s.command(exitDone, "export", c.Token, "--dry-run", "--to", s.path("none"))
	if !strings.Contains(stdout, c.Token+" would be exported to "+s.path("none")) {
		t.Error(stdout)
	}
	for _, path := range []string{log, s.path("none")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("nothing was exported, and there is %s", path)
		}
	}

	stdout, stderr := s.command(exitDone, append([]string{"export", c.Token}, to("out")...)...)
	path := s.path("out/enhanced-" + result.TokenHash(result.Enhanced, c.Token))
	if !strings.Contains(stdout, c.Token+" exported to "+path+": ") || strings.Contains(stdout+stderr, c.Person.Name) {
		t.Errorf("%s%s", stdout, stderr)
	}
	m, files := exportOf(t, path)
	if holdsCheck(t, c, files); !m.Complete || m.Reason != "case 9" || m.Account != "main" {
		t.Errorf("%+v", m)
	}
	text := read(t, log)
	if n, err := privacy.CheckAudit(strings.NewReader(text)); n != 1 || err != nil || !strings.Contains(text, `"action":"export"`) || !strings.Contains(text, "case 9") || !strings.Contains(text, `"assets":[`) {
		t.Errorf("%d, %v\n%s", n, err, text)
	}
	if stdout, _ := s.command(exitDone, append([]string{"export", c.Token}, to("out")...)...); !strings.Contains(stdout, c.Token+" was exported before, and the same, to "+path) {
		t.Error(stdout)
	}

	found, _ := command(t, exitDone, c.Person.IDCard, append([]string{"--config", s.config, "export", "--find", "id_card", "--json"}, to("person")...)...)
	if lines := exportLines(t, found); len(lines) != 1 || lines[0].Token != c.Token || lines[0].Product != result.Enhanced || lines[0].ManifestSHA256 == "" {
		t.Errorf("%s", found)
	}
	if _, stderr := command(t, exitFailed, "000000190001019998", append([]string{"--config", s.config, "export", "--find", "id_card"}, to("person")...)...); !strings.Contains(stderr, "--find id_card found nothing") {
		t.Error(stderr)
	}
	all, _ := s.command(exitDone, "list", "--json")
	stdout, stderr = command(t, exitPartial, all, append([]string{"--config", s.config, "export", "--file", "-"}, to("all")...)...)
	if !strings.Contains(stdout, "exported 2 tokens whole, 1 in part, 0 not") || !strings.Contains(stderr, "only refers to it: it lies at cos://"+faceidBucket+"/") {
		t.Errorf("%s%s", stdout, stderr)
	}

	s.command(exitDone, append([]string{"export", c.Token, "--field", "id_card", "--field", c.Media[0].Field}, to("some")...)...)
	m, files = exportOf(t, s.path("some/"+filepath.Base(path)))
	if len(files) != 2 || bytes.Contains(files[""], []byte(c.Person.Name)) || !bytes.Contains(files[""], []byte(c.Person.IDCard)) {
		t.Errorf("%+v\n%s", m, files[""])
	}
}

// Nothing of an encrypted export is on disk in clear, and its recipient gets all of it.
func TestExportEncrypted(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t, "type: dir,", "type: dir, seal: true,")
	c := checks[0]
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s.write("recipients", "# the court\n"+identity.Recipient().String()+"\n")

	stdout, _ := s.command(exitDone, "export", c.Token, "--to", s.path("out"), "--reason", "case 9", "--recipients-file", s.path("recipients"), "--json")
	path := exportLines(t, stdout)[0].Path
	if entries, err := os.ReadDir(s.path("out")); err != nil || len(entries) != 1 || filepath.Join(s.path("out"), entries[0].Name()) != path || !strings.HasSuffix(path, ".tar.age") {
		t.Errorf("%v, %v", entries, err)
	}

	opened, err := age.Decrypt(strings.NewReader(read(t, path)), identity)
	if err != nil {
		t.Fatal(err)
	}
	into := s.path("opened")
	for archive := tar.NewReader(opened); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err = errors.Join(err, os.MkdirAll(filepath.Join(into, filepath.Dir(header.Name)), 0o700), os.WriteFile(filepath.Join(into, header.Name), text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	m, files := exportOf(t, filepath.Join(into, strings.TrimSuffix(filepath.Base(path), ".tar.age")))
	if holdsCheck(t, c, files); !m.Complete {
		t.Errorf("%+v", m)
	}
}

// What cannot be exported is said in words, and the rest is exported.
func TestExportInPart(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t, "type: dir,", "type: dir, seal: true,")
	whole, damaged, erased := checks[0], checks[1], checks[2]
	s.park("PARKED-1")
	s.command(exitDone, "erase", erased.Token, "--yes", "--reason", "request 12")
	file, err := filepath.Glob(s.path("media/enhanced/*/" + result.TokenHash(result.Enhanced, damaged.Token) + "/*.jpg.sealed"))
	if err != nil || len(file) == 0 {
		t.Fatalf("%v, %v", file, err)
	}
	text := []byte(read(t, file[0]))
	text[len(text)-20] ^= 1
	if err := os.WriteFile(file[0], text, 0o600); err != nil {
		t.Fatal(err)
	}

	tokens := []string{whole.Token, damaged.Token, erased.Token, "PARKED-1", "NOBODY"}
	stdout, stderr := s.command(exitPartial, append([]string{"export", "--json", "--to", s.path("out"), "--reason", "case 9"}, tokens...)...)
	lines := exportLines(t, stdout)
	if len(lines) != len(tokens) {
		t.Fatalf("%s%s", stdout, stderr)
	}
	for i, want := range []string{"", "", "it was erased on 20", "it is only parked", "no sink has a result of this token, and none is parked"} {
		if lines[i].Token != tokens[i] || want == "" && lines[i].Error != "" || !strings.Contains(lines[i].Error, want) || !strings.Contains(stderr, want) {
			t.Errorf("%+v\n%s", lines[i], stderr)
		}
	}
	if !strings.Contains(lines[2].Error, "request 12") {
		t.Errorf("%s", lines[2].Error)
	}
	m, files := exportOf(t, lines[1].Path)
	if m.Complete || len(m.Missing) != 1 || !strings.Contains(m.Missing[0].Reason, "sink media") || files[m.Missing[0].Field] != nil || files[""] == nil {
		t.Errorf("%+v", m)
	}
	if m, _ := exportOf(t, lines[0].Path); !m.Complete {
		t.Errorf("%+v", m)
	}
	s.command(exitFailed, "export", "NOBODY", "--to", s.path("out"), "--reason", "case 9")
	if _, stderr := s.command(exitFailed, "export", damaged.Token, "--to", s.path("out"), "--reason", "case 9"); !strings.Contains(stderr, "is there already, and is no complete export") {
		t.Error(stderr)
	}
}
