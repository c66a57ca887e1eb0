//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire/wiretest"
)

// markedPerson is somebody who is not.
var markedPerson = faceidtest.Person{Name: "马克测试", IDCard: "999999190001019999", Address: "不存在省不存在市1号", Mobile: "19900009999"}

// markedGBK is the name in GBK.
const markedGBK = "\xc2\xed\xbf\xcb\xb2\xe2\xca\xd4"

// roleOf tells what a request to the hostile server is for.
func roleOf(r *http.Request) string {
	switch {
	case r.URL.Path == "/.index/keyring":
		return "" // without an answer about it the daemon does not start
	case r.URL.Path == "/hook":
		return "webhook"
	case strings.HasPrefix(r.URL.Path, "/v1/traces"):
		return "OTLP"
	case r.Header.Get("X-TC-Version") == "2019-01-18":
		return "KMS"
	case r.Header.Get("X-TC-Action") != "":
		return "API"
	}
	return "COS"
}

// leakSite is a site of which all but one account's API is hostile.
type leakSite struct {
	*site
	hostile *wiretest.Server
	checks  []faceidtest.Check
	// secrets are what must not be found.
	secrets []string
}

func newLeakSite(t *testing.T, level, format, sinks string) *leakSite {
	t.Helper()
	checks := newChecks(60, 4<<10)
	media := make([]byte, 60)
	if _, err := io.ReadFull(checks[0].Media[0].Reader(), media); err != nil {
		t.Fatal(err)
	}
	loot := []string{markedPerson.Name, markedPerson.IDCard, markedPerson.Address, markedPerson.Mobile}
	l := &leakSite{checks: checks}
	for _, value := range append(loot, string(media[30:])) {
		l.secrets = append(l.secrets, wiretest.Forms(value)...)
	}
	l.secrets = append(l.secrets, markedGBK)
	sent := []string{markedGBK}
	for _, secret := range l.secrets {
		if !strings.ContainsAny(secret, "\r\n\x00") {
			sent = append(sent, secret)
		}
	}
	l.hostile = wiretest.Start(t, sent, roleOf)
	for i := range l.checks {
		l.checks[i].Person = markedPerson
	}
	url := l.hostile.URL()
	l.site = newSite(t,
		"accounts:\n", fmt.Sprintf(`tracing: {endpoint: %[1]q, sample: 1}
accounts:
  - {name: evil, secret_id: AKID-test, secret_key: right-key, endpoint: %[1]q, rate_limit: 10000, rule_id: "1"}
  - name: sealed
    secret_id: AKID-test
    secret_key: right-key
    endpoint: %[1]q
    rate_limit: 10000
    rule_id: "1"
    encryption: {mode: fields, algorithm: %[2]s, kms_key_id: key, kms_endpoint: %[1]q}
`, url, envelope.AES256CBC),
		"  - {name: media, type: dir", strings.NewReplacer("HOSTILE", url).Replace(sinks)+"  - {name: media, type: dir",
		"level: debug, format: json", "level: "+level+", format: "+format,
		"http: {", "privacy: {fields: {name: plain, id_card: plain, ocr_address: plain, mobile: plain}}\nhttp: {",
	)
	return l
}

// publishTo publishes events of all checks for an account.
func (l *leakSite) publishTo(account string) {
	l.t.Helper()
	var lines strings.Builder
	for _, c := range l.checks {
		if c.Product == "enhanced" {
			fmt.Fprintf(&lines, "%s-%s\n", account, c.Token)
		}
	}
	command(l.t, exitDone, lines.String(), "--config", l.config, "publish", "--account", account, "--product", "enhanced", "--file", "-")
}

// try runs a command of the binary. What it comes to depends on the tricks.
func (l *leakSite) try(args ...string) {
	l.t.Helper()
	out, _ := exec.CommandContext(l.t.Context(), binary, append([]string{"--config", l.config}, args...)...).CombinedOutput()
	l.holdsNone(strings.Join(args, " "), string(out))
}

func (l *leakSite) holdsNone(place, text string) {
	l.t.Helper()
	for _, secret := range l.secrets {
		if i := strings.Index(text, secret); i >= 0 {
			l.t.Errorf("%s holds %q: …%s…", place, secret, text[max(0, i-200):min(len(text), i+200)])
		}
	}
}

const (
	evilHook = "  - {name: hook, type: webhook, url: HOSTILE/hook, secret: \"" + hookSecret + "\", allow_private: true, timeout: 2s, fields: [name, id_card, ocr_address, mobile]}\n"
	evilCOS  = "  - {name: evidence, type: cos, bucket: archive-1250000000, region: ap-guangzhou, secret_id: AKID, secret_key: key, endpoint: \"HOSTILE\", mode: reference}\n"
)

// Whatever a server answers, nothing of a person is in any byte that the daemon and its
// commands write, and each line of its log can be read.
func TestNothingOfAPersonIsPrinted(t *testing.T) {
	speakBy(slog.New(slog.DiscardHandler)) // of what runs in this process
	tricks := len(wiretest.Tricks())
	for _, level := range []string{"debug", "info", "warn", "error"} {
		for _, format := range []string{"json", "text"} {
			for role, sink := range map[string]string{"webhook": evilHook, "COS": evilCOS} {
				if role == "COS" && level != "debug" {
					continue // the lines of a bucket are the same at each level that has them
				}
				t.Run(level+" "+format+" "+role, func(t *testing.T) {
					t.Parallel()
					l := newLeakSite(t, level, format, sink)
					l.publish(l.checks)
					l.publishTo("evil")
					l.publishTo("sealed")
					p := l.launch()
					until(t, "the daemon works", func() bool {
						select {
						case <-p.ended:
							t.Fatal("the daemon ended")
						default:
						}
						return l.hostile.Asked("API") > 0 && l.hostile.Asked(role) > 0
					})
					l.try("status")
					l.try("status", "--json")
					l.try("dead", "list", "--json")
					l.try("verify")
					// The daemon waits longer and longer between its tries; commands do not.
					for _, one := range []string{"API", "KMS", role} {
						for asked := -1; l.hostile.Asked(one) < tricks; {
							if asked == l.hostile.Asked(one) {
								t.Fatalf("no command asks %s", one)
							}
							asked = l.hostile.Asked(one)
							l.try("config", "check", "--online")
							l.try("erase", l.checks[0].Token, "--yes")
						}
					}
					until(t, "the collector was asked", func() bool { return l.hostile.Asked("OTLP") > 0 })
					if format == "json" && level != "error" {
						p.says("a library printed something that is not shown")
					}

					if limits := read(t, fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid)); !coreless.MatchString(limits) {
						t.Errorf("the kernel may dump its memory:\n%s", limits)
					}
					if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
						t.Fatal(err)
					}
					<-p.ended
					if code := p.cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.log.String(), "ended by a signal") {
						t.Errorf("the daemon ended with code %d and does not say why", code)
					}
					l.holdsNone("the log", p.log.String())
					readsWell(t, format, p.log.String())
				})
			}
		}
	}
}

var (
	// textLine is a line of a log for people.
	textLine = regexp.MustCompile(`^time=\S+ level=(DEBUG|INFO|WARN|ERROR) msg=("(?:[^"\\]|\\.)*"|\S+)( [\w.]+=("(?:[^"\\]|\\.)*"|[^ "]*))*$`)
	coreless = regexp.MustCompile(`Max core file size +0 +0`)
	// nanoseconds is a duration that nobody can read.
	nanoseconds = regexp.MustCompile(`"(wait|grace|took|after|timeout)":\d`)
)

// readsWell checks that each line of a log is of its format, has each key once, and has
// durations as people write them.
func readsWell(t *testing.T, format, log string) {
	t.Helper()
	lines := 0
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		if lines++; format == "text" {
			if !textLine.MatchString(line) {
				t.Errorf("a line of the log is none: %s", line)
			}
			continue
		}
		keys, err := keysOf(line)
		if err != nil || nanoseconds.MatchString(line) {
			t.Errorf("a line of the log is %v: %s", err, line)
		}
		for key, n := range keys {
			if n > 1 {
				t.Errorf("%s is there %d times: %s", key, n, line)
			}
		}
	}
	if lines == 0 {
		t.Error("there is no log")
	}
}

// keysOf counts the keys of a flat JSON object.
func keysOf(line string) (map[string]int, error) {
	keys := map[string]int{}
	decoder := json.NewDecoder(bytes.NewReader([]byte(line)))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, fmt.Errorf("no object: %w", err)
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		keys[fmt.Sprint(key)]++
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	_, err := decoder.Token()
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than an object: %w", err)
	}
	return keys, nil
}
