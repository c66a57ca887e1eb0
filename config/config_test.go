package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// environment is what the tests' files may name.
func environment(name string) (string, bool) {
	v, ok := map[string]string{
		"TENCENTCLOUD_SECRET_ID": "AKID-example", "TENCENTCLOUD_SECRET_KEY": "SECRET: #{[\n",
		"LIMIT": "7", "EMPTY": "", "FLAG": "true",
	}[name]
	return v, ok
}

const account = "accounts: [{name: main, secret_id: a, secret_key: b}]\n"

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(text), environment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "comments": "# nothing\n", "null values": "nats:\nworker:\n"} {
		c := parse(t, text)
		if c.NATS.URL != "embedded" || c.Worker.Slots != 32 || c.Worker.AckWait.Duration() != time.Minute ||
			c.Spool.Quota != 4<<30 || c.HTTP.Admin != "127.0.0.1:9464" || len(c.Accounts) != 0 {
			t.Errorf("%s: %+v", name, c)
		}
		if len(c.Sinks) != 2 || c.Sinks[0].Type != "dir" || c.Sinks[1].Type != "sqlite" {
			t.Errorf("%s: sinks %+v", name, c.Sinks)
		}
	}
	a := parse(t, account).Accounts[0]
	if a.Endpoint != "https://faceid.tencentcloudapi.com" || a.Region != "ap-guangzhou" || a.RateLimit != 100 || a.Request.InfoType != "0" || a.Encryption.Mode != "none" {
		t.Errorf("account: %+v", a)
	}
}

// The file of the project's design, without what this version does not do.
func TestTheContract(t *testing.T) {
	c := parse(t, `
data_dir: ./data
nats:
  url: tls://one:4222,tls://two:4222
  replicas: 3
accounts:
  - name: main
    secret_id: ${TENCENTCLOUD_SECRET_ID}
    secret_key_file: /run/secrets/tencent
    endpoint: https://faceid.tencentcloudapi.com
    region: ap-guangzhou
    rate_limit: 100
    rule_id: "1"
    request: {info_type: "0", best_frames: 0, crop_id_card: false, avatar: false, all_videos: false}
    storage: {bucket: faceid-1250000000, region: ap-guangzhou}
worker: {slots: 32, ack_wait: 60s, max_response: 256MiB}
privacy: {keyring_file: keyring.json, fields: {name: seal, id_card: seal}}
sinks:
  - {name: media, type: dir, path: ./data/media}
  - {name: records, type: sqlite, path: ./data/faceid.db}
http: {admin: "0.0.0.0:9464", admin_token_file: /run/secrets/admin, tls: {cert: c, key: k, client_ca: a}, pprof: true}
tracing: {endpoint: "http://localhost/otlp", headers_file: /run/secrets/collector, sample: 0.25}
log: {level: info, format: auto}
`)
	if !c.HTTP.Pprof || c.HTTP.AdminTokenFile != "/run/secrets/admin" || c.HTTP.TLS.ClientCA != "a" || c.Tracing.Sample != 0.25 {
		t.Errorf("%+v %+v", c.HTTP, c.Tracing)
	}
	if c.Accounts[0].RuleID != "1" || c.Accounts[0].Storage.Bucket != "faceid-1250000000" || c.Worker.MaxResponse != 256<<20 ||
		c.Privacy.Fields["name"] != "seal" || c.Privacy.Fields["mobile"] != "seal+hash" || c.Sinks[1].Name != "records" {
		t.Errorf("%+v", c)
	}
}

func TestEnvironment(t *testing.T) {
	c := parse(t, `
accounts:
  - name: main
    secret_id: ${TENCENTCLOUD_SECRET_ID}
    secret_key: ${TENCENTCLOUD_SECRET_KEY}
    rate_limit: ${LIMIT}
    rule_id: "a${EMPTY}b${NONE:c d}$${LIMIT}"
    request: {avatar: "${FLAG}", best_frames: "${NONE:3}"}
`)
	a := c.Accounts[0]
	id, key, token, err := a.Credential()
	if err != nil || id != "AKID-example" || key != "SECRET: #{[\n" || token != "" {
		t.Errorf("credential %q, %q, %q, %v", id, key, token, err)
	}
	if a.RateLimit != 7 || a.RuleID != "abc d${LIMIT}" || !a.Request.Avatar || a.Request.BestFrames != 3 {
		t.Errorf("%+v", a)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "wroker: {slots: 1}\n", `test.yaml:1:1: unknown key "wroker" at the top, did you mean "worker"? Known are: accounts, `},
		{"unknown key inside", account + "worker:\n  slot: 1\n", `test.yaml:3:3: unknown key "slot" in worker, did you mean "slots"? Known are: ack_wait, `},
		{"unknown key of an account", "accounts:\n  - name: main\n    secret: SECRET\n", `test.yaml:3:5: unknown key "secret" in accounts[0]`},
		{"unknown key of a sink", "sinks:\n  - {name: a, type: dir, pth: /x}\n", `test.yaml:2:26: unknown key "pth" in sinks[0], did you mean "path"?`},
		{"unknown sink", "sinks:\n  - name: a\n    type: sqllite\n", `test.yaml:3:5: sinks[0].type: unknown type of sink, did you mean "sqlite"? known are: dir, sqlite`},
		{"sink without type", "sinks: [{name: a}]\n", "test.yaml:1:9: sinks[0]: type is missing"},
		{"not a number", "worker:\n  slots: many\n", "test.yaml:2:10: worker.slots: must be a whole number"},
		{"a number out of range", "worker:\n  slots: 0\n", "test.yaml:2:3: worker.slots: must be 1 to 4096"},
		{"not a duration", "worker: {ack_wait: 60}\n", `test.yaml:1:20: worker.ack_wait: must be a time span such as "60s"`},
		{"not a size", "spool: {quota: 4G}\n", `test.yaml:1:16: spool.quota: must be a size such as "256MiB"`},
		{"not a bool", "accounts: [{request: {avatar: perhaps}}]\n", "accounts[0].request.avatar: must be true or false"},
		{"a list where a mapping is", "worker: [1]\n", "test.yaml:1:9: worker: must be a mapping"},
		{"a mapping where a text is", "data_dir: {a: 1}\n", "data_dir: must be a text, not a mapping"},
		{"a text where a list is", "accounts: main\n", "accounts: must be a list"},
		{"broken YAML", "worker: {slots: 1\n", "is not valid YAML"},
		{"tabs", "worker:\n\tslots: 1\n", "test.yaml:2:1: is not valid YAML"},
		{"a key twice", "log: {level: info, level: warn}\n", "is not valid YAML"},
		{"two documents", "log: {}\n---\nlog: {}\n", "must be one YAML document"},
		{"aliases", "log: &a {level: info}\n", "anchors, aliases and tags are not supported"},
		{"unset variable", "accounts: [{name: main, secret_id: \"${NOT_SET}\", secret_key: x}]\n", "accounts[0].secret_id: the environment variable NOT_SET is not set"},
		{"open variable", "data_dir: \"${oops\"\n", "data_dir: \"${\" must be followed by NAME}"},
		{"no secret", "accounts: [{name: main, secret_id: x}]\n", "accounts[0]: secret_key or secret_key_file is missing"},
		{"two secrets", "accounts: [{name: main, secret_id: x, secret_key: y, secret_key_file: z}]\n", "give either secret_key or secret_key_file, not both"},
		{"account name", "accounts: [{name: \"a.b\", secret_id: x, secret_key: y}]\n", "accounts[0].name: must be 1 to 32 of a-z"},
		{"same name", "accounts:\n  - {name: a, secret_id: x, secret_key: y}\n  - {name: a, secret_id: x, secret_key: y}\n", "test.yaml:3:6: accounts[1].name: is the name of another account"},
		{"same sink", "sinks:\n  - {name: a, type: dir, path: /x}\n  - {name: a, type: dir, path: /y}\n", "sinks[1].name: is the name of another sink"},
		{"plain http", "accounts: [{name: a, secret_id: x, secret_key: y, endpoint: \"http://example.com:80\"}]\n", "accounts[0].endpoint: must be https"},
		{"endpoint without scheme", "accounts: [{name: a, secret_id: x, secret_key: y, endpoint: faceid.tencentcloudapi.com}]\n", "accounts[0].endpoint: must be a URL"},
		{"bucket without APPID", "accounts: [{name: a, secret_id: x, secret_key: y, storage: {bucket: faceid, region: ap-guangzhou}}]\n", "storage.bucket: must be a bucket name with its APPID"},
		{"encryption without a key", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: fields}}]\n", "accounts[0].encryption: needs public_key_file"},
		{"encryption of something else", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: all}}]\n", "encryption.mode: must be none, fields or body"},
		{"a key that is not used", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {public_key_file: k}}]\n", "encryption.mode: is none, and there is a key"},
		{"two keys", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: body, public_key_file: k, kms_key_id: i}}]\n", "give one of them"},
		{"algorithm", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: body, public_key_file: k, algorithm: SM4}}]\n", "encryption.algorithm: must be AES-256-CBC or SM4-GCM"},
		{"KMS with SM4", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: body, kms_key_id: i, algorithm: SM4-GCM}}]\n", "encryption.algorithm: must be AES-256-CBC with kms_key_id"},
		{"KMS in clear", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: body, kms_key_id: i, kms_endpoint: \"http://kms.example\"}}]\n", "encryption.kms_endpoint: must be https"},
		{"keyring KMS in clear", "privacy: {kms: {key_id: i, secret_id: x, secret_key: y, endpoint: \"http://kms.example\"}}\n", "privacy.kms.endpoint: must be https"},
		{"keyring KMS without secrets", "privacy: {kms: {key_id: i, secret_id: x}}\n", "privacy.kms: secret_key or secret_key_file is missing"},
		{"keyring KMS without key", "privacy: {kms: {secret_id: x, secret_key: y}}\n", "privacy.kms: has credentials, but no key_id"},
		{"keyring KMS region", "privacy: {kms: {region: x}}\n", "privacy.kms.region: must be a region"},
		{"misspelled key inline", "privacy: {keyring_fil: x}\n", "did you mean \"keyring_file\"?"},
		{"data keys for ever", "accounts: [{name: a, secret_id: x, secret_key: y, encryption: {mode: body, kms_key_id: i, data_key_life: 48h}}]\n", "encryption.data_key_life: must be 0s to 24h"},
		{"passphrase of nothing", "accounts: [{name: a, secret_id: x, secret_key: y, eid: {passphrase_file: p}}]\n", "accounts[0].eid: has a passphrase_file, but no private_key_file"},
		{"NATS URL", "nats: {url: \"http://x\"}\n", `nats.url: must be "embedded", or nats:// or tls://`},
		{"replicas of the embedded server", "nats: {replicas: 3}\n", "nats.replicas: must be 1 with the embedded server"},
		{"half a certificate", "nats: {tls: {cert: a}}\n", "nats.tls: needs both cert and key"},
		{"password in the NATS URL", "nats: {url: \"nats://user:secret@nats:4222\"}\n", "nats.url: must not hold a password"},
		{"NATS user without password", "nats: {url: \"nats://nats\", user: u}\n", "nats: password or password_file is missing"},
		{"NATS password without user", "nats: {url: \"nats://nats\", password: p}\n", "nats: has a password, but no user"},
		{"NATS user beside a creds file", "nats: {url: \"nats://nats\", user: u, password: p, creds_file: c}\n", "nats.user: is of no use with creds_file"},
		{"no text asked for", "accounts: [{name: a, secret_id: i, secret_key: k, request: {info_type: \"34\"}}]\n", "accounts[0].request.info_type: must have 0 or 1"},
		{"admin endpoint without port", "http: {admin: localhost}\n", "http.admin: must be an address and port"},
		{"admin endpoint for everybody", "http: {admin: \"0.0.0.0:9464\"}\n", "http.admin: is not loopback: everybody who reaches it could read it; set http.admin_token_file or http.tls.client_ca"},
		{"admin endpoint on all addresses", "http: {admin: \":9464\", tls: {cert: c, key: k}}\n", "http.admin: is not loopback"},
		{"half an admin certificate", "http: {tls: {cert: c}}\n", "http.tls: needs both cert and key"},
		{"client authority without TLS", "http: {admin: \":9464\", tls: {client_ca: c}}\n", "http.tls.client_ca: is of no use without cert and key"},
		{"collector", "tracing: {endpoint: \"collector:4318\"}\n", "tracing.endpoint: must be a URL such as"},
		{"password in the collector's URL", "tracing: {endpoint: \"https://u:SECRET@collector\"}\n", "tracing.endpoint: must not hold a password"},
		{"token in clear", "tracing: {endpoint: \"http://collector:4318\", headers_file: f}\n", "tracing.endpoint: must be https with headers_file"},
		{"sample", "tracing: {sample: 2}\n", "tracing.sample: must be 0 to 1"},
		{"sample that is none", "tracing: {sample: NaN}\n", "tracing.sample: must be a number"},
		{"log level", "log: {level: loud}\n", "log.level: must be debug, info, warn or error"},
		{"log format", "log: {format: xml}\n", "log.format: must be auto, json or text"},
		{"privacy rule", "privacy: {fields: {name: encrypt}}\n", "test.yaml:1:20: privacy.fields.name: "},
		{"privacy field", "privacy: {fields: {nam: seal}}\n", "privacy.fields.nam: "},
		{"no sink", "sinks: []\n", "sinks: needs at least one sink"},
		{"too large", strings.Repeat("#", 1<<20+1), "is larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Parse("test.yaml", []byte(tt.text), environment)
			var wrong *config.Error
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Error("the error holds a value")
			}
		})
	}
}

// All problems are told at once, in the order of the file.
func TestAllProblems(t *testing.T) {
	_, err := config.Parse("test.yaml", []byte("log: {level: loud}\nworker: {slots: 0, timeout: 0s}\ndata_dir: \"\"\n"), environment)
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "test.yaml:1:7:") || !strings.HasPrefix(lines[3], "test.yaml:3:1:") {
		t.Errorf("got %s", err)
	}
}

func TestSecretFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := parse(t, "accounts: [{name: main, secret_id: a, secret_key_file: "+file+"}]\n").Accounts[0]
	if _, _, _, err := a.Credential(); err == nil || !strings.Contains(err.Error(), "read secret_key_file: open "+file) {
		t.Errorf("without the file: %v", err)
	}
	for _, want := range []string{"first", "rotated"} {
		write(want + "\n")
		if _, key, _, err := a.Credential(); err != nil || key != want {
			t.Errorf("got %q, %v", key, err)
		}
	}
	write(" \n")
	if _, _, _, err := a.Credential(); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("with an empty file: %v", err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c := parse(t, "accounts: [{name: main, secret_id: SECRET, secret_key: SECRET}]\n")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "account", c.Accounts[0], "key", c.Accounts[0].SecretKey)
	body, err := json.Marshal(c.Accounts)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v %q %x", c.Accounts, c.Accounts, c.Accounts[0].SecretKey, c.Accounts[0].SecretKey, c.Accounts[0].SecretKey), log.String(), string(body)} {
		if strings.Contains(printed, "SECRET") || strings.Contains(printed, "534543524554") {
			t.Errorf("printed %s", printed)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := config.Load("/nonexistent/faceid.yaml"); err == nil || err.Error() != "/nonexistent/faceid.yaml: cannot be read: no such file or directory: give another path, or begin one with \"faceid-ingest config example\"" {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "faceid.yaml")
	if err := os.WriteFile(file, []byte(account), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := config.Load(file); err != nil || c.Accounts[0].Name != "main" {
		t.Errorf("got %+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("data_dir: x\naccounts: [{name: main, secret_id: a, secret_key: b}]\nsinks: [{name: m, type: dir, path: p}]\n")
	for _, seed := range []string{"a: [", "sinks: [{type: dir, name: {}}]", "? a\n: b", "accounts: [[[[1]]]]", "data_dir: !!binary x", "log: *a", "\xff", "- a\n- b", "nats: {url: ${A:${B}}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse("fuzz.yaml", []byte(text), environment)
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		var wrong *config.Error
		if err != nil && !errors.As(err, &wrong) {
			t.Fatalf("error of another type: %T", err)
		}
	})
}

func ExampleParse() {
	_, err := config.Parse("faceid.yaml", []byte("worker:\n  slots: none\nhtpp: {}\n"), os.LookupEnv)
	fmt.Println(err)
	// Output:
	// faceid.yaml:2:10: worker.slots: must be a whole number
	// faceid.yaml:3:1: unknown key "htpp" at the top, did you mean "http"? Known are: accounts, data_dir, http, log, nats, parking, privacy, sinks, spool, tracing, worker
}
