// Package deploy_test checks what this folder holds, as far as that can be done
// without a container engine and without installing anything.
package deploy_test

import (
	"bytes"
	"errors"
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
	"github.com/nats-io/nats.go"

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
	if file := unit.NATS.PasswordFile; file != filepath.Join(secrets, "nats-password") {
		t.Errorf("the password is read from %s", file)
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
	out, err = exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--threshold=15", unit).CombinedOutput()
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
	// See the comment of RestartPreventExitStatus=.
	if pre := values("ExecStartPre"); len(pre) > 0 || !slices.Equal(values("RestartPreventExitStatus"), []string{"2"}) {
		t.Errorf("a wrong configuration is tried for ever: ExecStartPre=%v", pre)
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

// compose is all that compose.yaml may say.
type compose struct {
	Name              string
	Services          map[string]service
	Networks, Volumes map[string]struct{ Internal bool }
	Secrets           map[string]struct{ File string }
}

type service struct {
	Image string
	Build struct {
		Context, Dockerfile string
		Args                map[string]string
	}
	Entrypoint  []string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Environment map[string]string
	Healthcheck struct {
		Test              []string
		Interval, Timeout string
		Retries           int
	}
	Volumes, Secrets, Networks, Ports, Tmpfs []string
	ReadOnly                                 bool     `yaml:"read_only"`
	CapDrop                                  []string `yaml:"cap_drop"`
	SecurityOpt                              []string `yaml:"security_opt"`
	StopGracePeriod                          string   `yaml:"stop_grace_period"`
	Restart                                  string
	Ulimits                                  map[string]int
	MemLimit                                 string `yaml:"mem_limit"`
	MemswapLimit                             string `yaml:"memswap_limit"`
	PidsLimit                                int    `yaml:"pids_limit"`
	Logging                                  struct{ Driver string }
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "compose.yaml")), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCompose(t *testing.T) {
	c := readCompose(t)
	for name, s := range c.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not hardened", name)
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
	if image, want := c.Services["nats"].Image, "nats:"+server.VERSION+"-alpine"; image != want {
		t.Errorf("the server is %s, the tests run with %s", image, want)
	}
	daemon := c.Services["faceid-ingest"]
	if daemon.MemLimit == "" || daemon.MemLimit != daemon.MemswapLimit || daemon.Ulimits["core"] != 0 {
		t.Error("personal data may be swapped out or dumped")
	}
	if daemon.DependsOn["nats"].Condition != "service_healthy" || len(c.Services["nats"].Healthcheck.Test) == 0 {
		t.Error("the daemon does not wait for the server")
	}
	target := ""
	for _, v := range daemon.Volumes {
		if strings.HasPrefix(v, "./config.yaml:") {
			target = strings.TrimSuffix(strings.TrimPrefix(v, "./config.yaml:"), ":ro")
		}
	}
	for _, file := range []string{"Containerfile", "faceid-ingest.service"} {
		if target == "" || !strings.Contains(read(t, file), target+"\n") && !strings.Contains(read(t, file), target+" ") {
			t.Errorf("%s does not read the configuration from %q", file, target)
		}
	}
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
	if token := "admin-token"; cfg.HTTP.AdminTokenFile != "/run/secrets/"+token || !slices.Contains(daemon.Secrets, token) || c.Secrets[token].File == "" {
		t.Errorf("the daemon has no admin token: %+v", cfg.HTTP)
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

// TestNATSServer runs the server with its configuration, and with the password as
// compose.yaml quotes it.
func TestNATSServer(t *testing.T) {
	password, _, err := natsPassword(t, "12345\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NATS_PASSWORD", password)
	o, err := server.ProcessConfigFile("nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways || o.StoreDir != "/data" || o.HTTPHost != "127.0.0.1" {
		t.Errorf("%+v", o)
	}
	o.Host, o.Port, o.HTTPPort, o.StoreDir = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir()
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server did not start")
	}
	user := parse(t, nil).NATS.User
	for name, options := range map[string][]nats.Option{
		"nobody":         nil,
		"empty password": {nats.UserInfo(user, "")},
		"wrong password": {nats.UserInfo(user, "54321")},
	} {
		if conn, err := nats.Connect(s.ClientURL(), options...); !errors.Is(err, nats.ErrAuthorization) {
			conn.Close()
			t.Errorf("%s: %v", name, err)
		}
	}
	conn, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "12345"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// TestNATSPassword wants no server without a password: nats-server would accept
// an empty one.
func TestNATSPassword(t *testing.T) {
	for _, content := range []string{"", "\n"} {
		if password, out, err := natsPassword(t, content); err == nil {
			t.Errorf("the server was started with the password %s\n%s", password, out)
		}
	}
	if password, out, err := natsPassword(t, missing); err == nil {
		t.Errorf("the server was started with the password %s\n%s", password, out)
	}
}

// missing is the content of a file that is not there.
const missing = "missing"

// natsPassword runs what compose.yaml starts the server with, and returns the
// NATS_PASSWORD that the server gets if the file of the password has the content.
func natsPassword(t *testing.T, content string) (password, out string, err error) {
	t.Helper()
	entrypoint := slices.Clone(readCompose(t).Services["nats"].Entrypoint)
	folder := t.TempDir()
	secret := filepath.Join(folder, "nats-password")
	if content != missing {
		if err := os.WriteFile(secret, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const stand = "#!/bin/sh\nprintf %s \"$NATS_PASSWORD\"\n"
	if err := os.WriteFile(filepath.Join(folder, "nats-server"), []byte(stand), 0o700); err != nil {
		t.Fatal(err)
	}
	last := len(entrypoint) - 1
	script := strings.ReplaceAll(entrypoint[last], "$$", "$") // as compose does
	entrypoint[last] = strings.ReplaceAll(script, "/run/secrets/nats-password", secret)
	if entrypoint[last] == script {
		t.Fatal("compose.yaml does not read /run/secrets/nats-password")
	}
	cmd := exec.CommandContext(t.Context(), entrypoint[0], entrypoint[1:]...)
	cmd.Env = []string{"PATH=" + folder + ":" + os.Getenv("PATH")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
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
	if version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(module)[1]; !strings.Contains(text, " golang:"+version+"-") {
		t.Errorf("the module needs Go %s", version)
	}
	program := read(t, "../cmd/faceid-ingest/version.go")
	variables := regexp.MustCompile(`-X main\.(\w+)=\$\{(\w+)\}`).FindAllStringSubmatch(text, -1)
	if len(variables) != 3 {
		t.Errorf("version, commit and date are not all set: %v", variables)
	}
	for _, m := range variables {
		if !regexp.MustCompile(`(?m)^\t`+m[1]+`\s+= "`).MatchString(program) || !strings.Contains(text, "\nARG "+m[2]) {
			t.Errorf("%s is set in vain", m[0])
		}
	}
}

// TestBuildContext wants what the ignore file lets through to be all that the
// binary is built from, and nothing that may hold a secret.
func TestBuildContext(t *testing.T) {
	ignore := read(t, "Containerfile.dockerignore")
	if !strings.Contains(ignore, "\n*\n") {
		t.Error("what is not named gets to the builder")
	}
	let := map[string]bool{}
	for line := range strings.Lines(ignore) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			let[name] = true
			if info, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Error(err)
			} else if info.IsDir() && slices.Contains([]string{".git", "bin", "data", "deploy", "dist", "secrets"}, name) {
				t.Errorf("%s gets to the builder", name)
			}
		}
	}
	const files = `{{if not .Standard}}{{with .Module}}{{if .Main}}{{range $.GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range $.EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{end}}{{end}}{{end}}`
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", files, "./cmd/faceid-ingest")
	list.Dir = ".."
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sources := strings.Fields(string(out))
	if len(sources) == 0 {
		t.Fatal("go list names no source")
	}
	for _, source := range append(sources, filepath.Join(root, "go.mod"), filepath.Join(root, "go.sum")) {
		name, err := filepath.Rel(root, source)
		if err != nil {
			t.Fatal(err)
		}
		top, _, _ := strings.Cut(name, "/")
		if !let[top] || strings.HasSuffix(name, "_test.go") || slices.Contains(strings.Split(name, "/"), "testdata") {
			t.Errorf("the builder needs %s and does not get it", name)
		}
	}
}
