//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if code, done := ownNamespace(); done {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// TestChaosInShort is the whole, in small, with one server and with a cluster of three.
func TestChaosInShort(t *testing.T) {
	readSources(t)
	binary := filepath.Join(t.TempDir(), "faceid-ingest")
	if err := build(t.Context(), "github.com/faceid-ingest/faceid-ingest/cmd/faceid-ingest", binary); err != nil {
		t.Fatal(err)
	}
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		r := testRun(t, options{Tokens: shortTokens, Binary: binary})
		if r.Kills < 4 || len(r.Faults) < 30 || r.Cuts == 0 || r.Redeliveries == 0 {
			t.Errorf("that was no chaos: %+v", r)
		}
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		r := testRun(t, options{Tokens: 48, Cluster: true, Binary: binary})
		if r.Faults["stream leader killed"] == 0 {
			t.Errorf("no leader was killed: %+v", r)
		}
	})
}

// testRun is a short run, which must find nothing wrong and leave nothing behind.
func testRun(t *testing.T, o options) *report {
	t.Helper()
	o.Workers, o.Kill, o.Seed, o.Short, o.Limit = 3, 2*time.Second, 1, true, 10*time.Minute
	// Who interrupts the test leaves nothing behind either.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var progress, table bytes.Buffer
	r, err := run(ctx, o, &progress)
	if r != nil {
		err = errors.Join(err, r.print(&table, false))
	}
	t.Logf("%s%s", &progress, &table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.site.folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if r.Scanned == 0 || r.Planted == 0 || r.WebhookIDs != o.Tokens || r.NATSMessages != o.Tokens {
		t.Errorf("%+v", r)
	}
	return r
}

// readSources reads the sources of the program, which is built here and not linked: so
// go test knows that a change of any of them makes the last result worth nothing.
func readSources(t *testing.T) {
	t.Helper()
	read := 0
	for _, folder := range []string{"../../cmd", "../../config", "../../pipeline", "../../sinks"} {
		err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" {
				return err
			}
			read++
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if read < 100 {
		t.Fatalf("only %d sources found", read)
	}
}

// TestScheduleIsRepeatable: one seed gives one schedule and one set of tokens,
// another seed others, and no target has two faults at once.
func TestScheduleIsRepeatable(t *testing.T) {
	draw := func(seed int64) ([]string, []*issued) {
		random := rand.New(rand.NewSource(seed))
		s := &site{options: options{Kill: 2 * time.Second, Tokens: 2000}, nats: &natsServers{nodes: make([]*natsNode, 1)}}
		s.nats.nodes[0] = &natsNode{name: "nats-0", process: &process{name: "nats-0"}}
		s.workers = []*worker{{process: &process{name: "a"}}, {process: &process{name: "b"}}}
		tokens, _ := issue(random, 50)
		for _, token := range tokens {
			token.Made = time.Time{}
		}
		s.plan = s.makePlan()
		var lines []string
		over := map[string]time.Duration{}
		for _, f := range schedule(random, s.plan, s.kinds()) {
			lines = append(lines, f.String())
			if f.at < over[f.target] {
				t.Errorf("%s begins before the one before it is over", f)
			}
			over[f.target] = f.at + f.length
		}
		return lines, tokens
	}
	one, tokens := draw(1)
	again, sameTokens := draw(1)
	other, _ := draw(2)
	if !reflect.DeepEqual(one, again) || !reflect.DeepEqual(tokens, sameTokens) {
		t.Error("one seed gave two schedules")
	}
	if reflect.DeepEqual(one, other) || len(one) < 100 {
		t.Errorf("two seeds gave one schedule, or a short one: %d faults", len(one))
	}
}

// TestAuditFinds: the comparison sees what is missing, doubled and foreign.
func TestAuditFinds(t *testing.T) {
	tokens, _ := issue(rand.New(rand.NewSource(1)), 3)
	a := &auditor{byHash: map[string]*issued{}}
	for _, token := range tokens {
		a.byHash[token.hash()] = token
	}
	a.compare("a sink", map[string]int{tokens[0].hash(): 1, tokens[1].hash(): 2, "foreign": 1})
	if len(a.lost) != 1 || len(a.doubled) != 2 {
		t.Errorf("lost %v, doubled %v", a.lost, a.doubled)
	}
}

// TestScan finds texts wherever they lie, also across two reads, and in the forms
// in which they may be stored.
func TestScan(t *testing.T) {
	search := newScanner()
	search.addText("a name", markName)
	search.add("bytes", []byte("0123456789abcdef"))
	for _, test := range []struct {
		text string
		want int
	}{
		{"", 0}, {"0123456", 0}, {"0123456789abcdex", 0}, {"0123456789abcdef", 1},
		{"x" + markName + "x" + markName, 2}, {`"\u9a6c\u514b\u6d4b\u8bd5"`, 1},
		{"6aas5YWL5rWL6K+V", 0}, // of another text
	} {
		for _, before := range []int{0, 1, scanBuffer - 5, scanBuffer, scanBuffer + longestNeedle - 3, 3*scanBuffer - 7} {
			found := 0
			text := io.MultiReader(bytes.NewReader(make([]byte, before)), bytes.NewReader([]byte(test.text)))
			if err := search.scan(text, func(needle) { found++ }); err != nil {
				t.Fatal(err)
			}
			if found != test.want {
				t.Errorf("found %d of %d in %q behind %d bytes", found, test.want, test.text, before)
			}
		}
	}
}
