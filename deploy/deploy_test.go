// Package deploy_test checks what this folder holds, as far as that can be done
// without a container engine and without installing anything.
package deploy_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/faceid-ingest/faceid-ingest/config"

	// The kinds of sink that config.yaml names.
	_ "github.com/faceid-ingest/faceid-ingest/sinks/dir"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parse reads config.yaml with the given environment.
func parse(t *testing.T, env map[string]string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(read(t, "config.yaml")), func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfiguration(t *testing.T) {
	alone := parse(t, nil)
	if alone.NATS.URL != "nats://127.0.0.1:4222" || alone.HTTP.Admin != "127.0.0.1:9464" || alone.NATS.PasswordFile != "/run/secrets/nats-password" {
		t.Errorf("%+v", alone)
	}
	secrets := t.TempDir()
	for name, value := range map[string]string{"nats-password": "p", "tencent-id": "AKID", "tencent-key": "key"} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unit := parse(t, map[string]string{"CREDENTIALS_DIRECTORY": secrets})
	id, key, token, err := unit.Accounts[0].Credential()
	if err != nil || id != "AKID" || key != "key" || token != "" {
		t.Errorf("%v", err)
	}
	if password, err := unit.NATS.ReadPassword(); err != nil || password != "p" {
		t.Errorf("%v", err)
	}
}

// TestUnit has systemd read the unit, with a program where the unit has one.
func TestUnit(t *testing.T) {
	const program = "/usr/local/bin/faceid-ingest"
	text := read(t, "faceid-ingest.service")
	folder := t.TempDir()
	unit := filepath.Join(folder, "faceid-ingest.service")
	stand := filepath.Join(folder, "faceid-ingest")
	if err := os.WriteFile(stand, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(text, program, stand)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte(filepath.Base(unit))) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// 10 is a service without any hardening.
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=20", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}

	values := func(key string) []string {
		var list []string
		for _, m := range regexp.MustCompile(`(?m)^`+key+`=(.*)$`).FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
		return list
	}
	stop, err := time.ParseDuration(values("TimeoutStopSec")[0])
	if err != nil || stop <= parse(t, nil).Worker.ShutdownGrace.Duration() {
		t.Errorf("systemd waits %s (%v), which is not longer than shutdown_grace", stop, err)
	}
	var credentials []string
	for _, c := range values("LoadCredential") {
		name, _, _ := strings.Cut(c, ":")
		credentials = append(credentials, "/run/secrets/"+name)
	}
	if slices.Sort(credentials); !slices.Equal(credentials, secretFiles(t)) {
		t.Errorf("the unit loads %v, config.yaml reads %v", credentials, secretFiles(t))
	}
}

// secretFiles are the files of secrets that config.yaml names, sorted.
func secretFiles(t *testing.T) []string {
	t.Helper()
	c := parse(t, nil)
	files := []string{c.NATS.PasswordFile, c.Accounts[0].SecretIDFile, c.Accounts[0].SecretKeyFile}
	slices.Sort(files)
	return files
}

// compose is what of compose.yaml is checked. Keys that are not here may be
// anything.
type compose struct {
	Services map[string]struct {
		Image, Entrypoint any
		Build             struct{ Context, Dockerfile string }
		Environment       map[string]string
		Volumes, Secrets  []string
		Ports             []string
		ReadOnly          bool     `yaml:"read_only"`
		CapDrop           []string `yaml:"cap_drop"`
		SecurityOpt       []string `yaml:"security_opt"`
		StopGracePeriod   string   `yaml:"stop_grace_period"`
	}
	Volumes, Networks map[string]any
	Secrets           map[string]struct{ File string }
}

func TestCompose(t *testing.T) {
	text := read(t, "compose.yaml")
	var c compose
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	for name, s := range c.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not hardened", name)
		}
		if strings.HasSuffix(fmt.Sprint(s.Image), ":latest") {
			t.Errorf("%s has no version", name)
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, isVolume := c.Volumes[source]; isVolume {
				continue
			}
			if _, err := os.Stat(source); err != nil || !strings.HasSuffix(v, ":ro") {
				t.Errorf("%s mounts %s: %v", name, v, err)
			}
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s is open to the outside: %s", name, p)
			}
		}
	}
	daemon := c.Services["faceid-ingest"]
	for _, file := range []string{filepath.Join(daemon.Build.Context, "go.mod"), filepath.Join(daemon.Build.Context, daemon.Build.Dockerfile)} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	env := maps.Clone(daemon.Environment)
	env["FACEID_RULE_ID"] = "1"
	cfg := parse(t, env)
	if cfg.NATS.URL != "nats://nats:4222" || cfg.HTTP.Admin != "0.0.0.0:9464" {
		t.Errorf("%+v", cfg)
	}
	grace, err := time.ParseDuration(daemon.StopGracePeriod)
	if err != nil || grace <= cfg.Worker.ShutdownGrace.Duration() {
		t.Errorf("compose waits %s (%v), which is not longer than shutdown_grace", grace, err)
	}
	for _, file := range secretFiles(t) {
		name := filepath.Base(file)
		if !slices.Contains(daemon.Secrets, name) || c.Secrets[name].File == "" {
			t.Errorf("the daemon has no secret %s", name)
		}
	}
	if exec.CommandContext(t.Context(), "docker", "compose", "version").Run() != nil {
		return // the rest needs compose itself
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "compose", "-f", "compose.yaml", "config", "--quiet").CombinedOutput(); err != nil {
		t.Errorf("docker compose config: %v\n%s", err, out)
	}
}

// TestNATSServer has nats-server read its configuration, with the password as
// compose.yaml quotes it.
func TestNATSServer(t *testing.T) {
	t.Setenv("NATS_PASSWORD", `"12345"`)
	o, err := server.ProcessConfigFile("nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways || o.StoreDir != "/data" || o.HTTPHost != "127.0.0.1" {
		t.Errorf("%+v", o)
	}
	if len(o.Users) != 1 || o.Users[0].Username != parse(t, nil).NATS.User || o.Users[0].Password != "12345" || o.NoAuthUser != "" {
		t.Errorf("users: %+v", o.Users)
	}
}

func TestContainerfile(t *testing.T) {
	text := read(t, "Containerfile")
	stages := strings.Split(text, "\nFROM ")
	last := stages[len(stages)-1]
	if !strings.HasPrefix(last, "scratch\n") || !strings.Contains(last, "\nUSER 65532:65532\n") {
		t.Error("the image holds more than the binary, or runs as root")
	}
	if strings.Contains(text, ":latest") || !strings.Contains(text, "CGO_ENABLED=0 go build -trimpath") {
		t.Error("the build is not reproducible, or not static")
	}
	module := read(t, "../go.mod")
	if version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(module)[1]; !strings.Contains(text, "FROM golang:"+version+"-") {
		t.Errorf("the module needs Go %s", version)
	}
	program := read(t, "../cmd/faceid-ingest/version.go")
	for _, m := range regexp.MustCompile(`-X main\.(\w+)=\$\{(\w+)\}`).FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`(?m)^\t`+m[1]+`\s+= "`).MatchString(program) || !strings.Contains(text, "\nARG "+m[2]) {
			t.Errorf("%s is set in vain", m[0])
		}
	}
}
