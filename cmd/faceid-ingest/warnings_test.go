package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// secure is a configuration with nothing to warn of; FOLDER is replaced.
const secure = `data_dir: FOLDER/data
nats: {url: "tls://nats.example:4222", user: ingest, password_file: FOLDER/secret}
accounts:
  - {name: main, secret_id: AKID-invented, secret_key_file: FOLDER/secret}
privacy: {keyring_file: FOLDER/keys/keyring.json}
sinks:
  - {name: media, type: dir, path: FOLDER/media}
  - {name: evidence, type: cos, bucket: evidence-1250000000, region: ap-guangzhou, secret_id_file: FOLDER/secret, secret_key_file: FOLDER/secret}
  - {name: records, type: sqlite, path: FOLDER/faceid.db}
  - {name: rows, type: postgres, url: "postgres://faceid@db.example:5432/faceid", password_file: FOLDER/secret}
  - {name: lines, type: mysql, dsn: "faceid@tcp(db.example:3306)/faceid", password_file: FOLDER/secret}
  - {name: stream, type: nats, url: "tls://nats.example:4222", user: faceid, password_file: FOLDER/secret}
  - {name: topic, type: kafka, brokers: ["kafka.example:9093"], topic: faceid, sasl: {mechanism: plain, user: faceid, password_file: FOLDER/secret}, tls: {enabled: true}}
  - {name: hook, type: webhook, url: "https://kyc.example/faceid", secret_file: FOLDER/secret}
`

// warned is what warningsOf says of a variant of the secure configuration, whose files
// are there with modes that suit, unless prepare changes them.
func warned(t *testing.T, prepare func(t *testing.T, folder string), changes ...string) []warning {
	t.Helper()
	folder := t.TempDir()
	for _, name := range []string{"data", "media", "keys"} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(strings.NewReplacer(changes...).Replace(secure), "FOLDER", folder)
	for name, content := range map[string]string{"secret": "x", "keys/keyring.json": "{}", "faceid.db": "", "config.yaml": text} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if prepare != nil {
		prepare(t, folder)
	}
	cfg, err := config.Parse("config.yaml", []byte(text), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	return warningsOf(cfg, filepath.Join(folder, "config.yaml"))
}

// mode gives a file a mode.
func mode(name string, perm os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, folder string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(folder, name), perm); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	const kms = "kms: {key_id: key, secret_id_file: FOLDER/secret, secret_key_file: FOLDER/secret}"
	for _, test := range []struct {
		name    string
		prepare func(*testing.T, string)
		changes []string
		// code and words are those of the only warning; no code means none.
		code, words string
	}{
		{name: "all is well"},

		{name: "keyring in data_dir", changes: []string{"{keyring_file: FOLDER/keys/keyring.json}", "{}"}, code: warnKeyring, words: "data/keyring.json is kept in clear"},
		{name: "keyring configured into data_dir", changes: []string{"keys/keyring.json", "data/keys/keyring.json"}, code: warnKeyring},
		{name: "keyring in data_dir under KMS", changes: []string{"{keyring_file: FOLDER/keys/keyring.json}", "{" + kms + "}"}},

		{name: "folder unsealed", changes: []string{"FOLDER/media}", "FOLDER/media, seal: false}"}, code: warnUnsealed, words: "sink media"},
		{name: "bucket unsealed", changes: []string{"type: cos,", "type: cos, seal: false,"}, code: warnUnsealed, words: "sink evidence"},
		{name: "copies of FaceID's bucket", changes: []string{"name: main,", "name: main, storage: {bucket: faceid-1250000000, region: ap-guangzhou},"}, code: warnUnsealed, words: "sink evidence copies"},
		{name: "FaceID's bucket pulled", changes: []string{"name: main,", "name: main, storage: {bucket: faceid-1250000000, region: ap-guangzhou},", "type: cos,", "type: cos, mode: pull,"}},

		{name: "NATS password", changes: []string{"{url: \"tls:", "{url: \"nats:"}, code: warnClear, words: "nats sends secrets or results to nats.example in clear"},
		{name: "NATS password to this machine", changes: []string{"{url: \"tls://nats.example", "{url: \"nats://127.0.0.1"}},
		{name: "NATS with an authority", changes: []string{"{url: \"tls:", "{tls: {ca: FOLDER/ca.pem}, url: \"nats:"}},
		{name: "NATS without a password", changes: []string{"nats: {url: \"tls://nats.example:4222\", user: ingest, password_file: FOLDER/secret}", "nats: {url: \"nats://nats.example:4222\"}"}},
		{name: "notices", changes: []string{"type: nats, url: \"tls:", "type: nats, url: \"nats:"}, code: warnClear, words: "sink stream"},
		{name: "Kafka", changes: []string{", tls: {enabled: true}", ""}, code: warnClear, words: "sink topic sends secrets or results to kafka.example"},
		{name: "Kafka here", changes: []string{", tls: {enabled: true}", "", "kafka.example", "[::1]"}},
		{name: "Kafka with SCRAM", changes: []string{", tls: {enabled: true}", "", "mechanism: plain", "mechanism: scram-sha-512"}},
		{name: "PostgreSQL", changes: []string{"type: postgres,", "type: postgres, tls: {mode: disable},"}, code: warnClear, words: "sink rows"},
		{name: "PostgreSQL by a socket", changes: []string{"postgres://faceid@db.example:5432/faceid", "postgres:///faceid?host=/run/postgresql&user=faceid"}},
		{name: "MySQL", changes: []string{"type: mysql,", "type: mysql, tls: {mode: disable},"}, code: warnClear, words: "sink lines"},
		{name: "MySQL here", changes: []string{"tcp(db.example:3306)", "tcp(localhost:3306)"}},

		{name: "data_dir", prepare: mode("data", 0o777), code: warnExposed, words: "everybody may change it"},
		{name: "data_dir listed", prepare: mode("data", 0o755), code: warnExposed, words: "everybody may read it"},
		{name: "data_dir of a group", prepare: mode("data", 0o750)},
		{name: "archive", prepare: mode("media", 0o777), code: warnExposed, words: "the archive of sink media"},
		{name: "archive of a product", prepare: func(t *testing.T, folder string) {
			if err := os.Mkdir(filepath.Join(folder, "media/eid"), 0o700); err != nil {
				t.Fatal(err)
			}
			mode("media/eid", 0o777)(t, folder)
		}, code: warnExposed, words: "media/eid has mode 0777"},
		{name: "database", prepare: mode("faceid.db", 0o666), code: warnExposed, words: "the database of sink records"},
		{name: "write-ahead log", prepare: func(t *testing.T, folder string) {
			if err := os.WriteFile(filepath.Join(folder, "faceid.db-wal"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			mode("faceid.db-wal", 0o644)(t, folder)
		}, code: warnExposed, words: "faceid.db-wal"},
		{name: "keyring", prepare: mode("keys/keyring.json", 0o644), code: warnExposed, words: "the keyring"},
		{name: "secret", prepare: mode("secret", 0o604), code: warnExposed, words: "the secret"},
		{name: "secret of a group as Kubernetes mounts it", prepare: mode("secret", 0o440)},
		{name: "configuration with a secret", prepare: mode("config.yaml", 0o644), code: warnExposed, words: "the configuration, which holds secrets,"},
		{name: "configuration without one", prepare: mode("config.yaml", 0o644), changes: []string{"secret_id: AKID-invented", "secret_id_file: FOLDER/secret"}},
		{name: "configuration that everybody changes", prepare: mode("config.yaml", 0o666), changes: []string{"secret_id: AKID-invented", "secret_id_file: FOLDER/secret"}, code: warnExposed, words: "everybody may change it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			list := warned(t, test.prepare, test.changes...)
			switch {
			case test.code == "" && len(list) > 0:
				t.Errorf("false warnings: %v", list)
			case test.code == "":
			case len(list) != 1 || list[0].code != test.code || !strings.Contains(list[0].detail, test.words):
				t.Errorf("warned of %v", list)
			}
		})
	}
}

// A file that another user owns is that user's to change.
func TestWarningOfAnothersFile(t *testing.T) {
	needsRoot(t)
	list := warned(t, func(t *testing.T, folder string) {
		if err := os.Chown(filepath.Join(folder, "keys/keyring.json"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	})
	if len(list) != 1 || list[0].code != warnExposed || !strings.Contains(list[0].detail, "belongs to user 65534") {
		t.Errorf("%v", list)
	}
}

// The volume of a pod is open to all, and only the pod sees it.
func TestPodVolume(t *testing.T) {
	needsRoot(t)
	s := newSite(t)
	s.giveAway()
	data := s.path("data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[int]int{nobody: 0, 0: 1} {
		if err := os.Chown(data, 0, group); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(data, 0o777|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		stdout, _ := s.command(exitDone, "config", "check", "--json")
		if n := strings.Count(stdout, `"check":"`+warnExposed+`"`); n != want {
			t.Errorf("of a folder of group %d, %d warnings:\n%s", group, n, stdout)
		}
	}
}

// Whatever kind of sink can seal does so by default, and is warned of where it is told
// not to.
func TestSealedByDefault(t *testing.T) {
	sealing := 0
	for _, typ := range sinks.Types() {
		c, _ := sinks.NewConfig(typ)
		field := reflect.ValueOf(c).Elem().FieldByName("Seal")
		if !field.IsValid() {
			continue
		}
		sealing++
		if !field.Bool() {
			t.Errorf("%s does not seal by default", typ)
		}
		field.SetBool(false)
		list := sealWarnings(&config.Config{Sinks: []config.Sink{{Name: "it", Type: typ, Config: c}}})
		if len(list) != 1 || list[0].code != warnUnsealed {
			t.Errorf("%s: %v", typ, list)
		}
	}
	if sealing == 0 {
		t.Error("no kind of sink seals")
	}
}

// The daemon logs each warning once, and "config check" shows it and is content.
func TestWarningsAreTold(t *testing.T) {
	t.Parallel()
	s := newSite(t, "/media}", "/media, seal: false}")
	p := s.start()
	for _, code := range []string{warnKeyring, warnUnsealed} {
		if n := strings.Count(p.log.String(), fmt.Sprintf(`"warning":%q`, code)); n != 1 {
			t.Errorf("%s is logged %d times", code, n)
		}
	}
	p.stop()
	found := s.found(exitDone)
	if list := found[checkWarning]; len(list) != 2 || list[0].Check != warnKeyring || list[1].Check != warnUnsealed {
		t.Errorf("%+v", list)
	}
	if _, stderr := s.command(exitDone, "config", "check"); strings.Count(stderr, "warning: ") != 2 {
		t.Errorf("%s", stderr)
	}
}
