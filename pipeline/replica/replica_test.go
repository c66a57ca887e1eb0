package replica_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a server on a port, 0 for a free one.
func start(t *testing.T, folder string, port int) *server.Server {
	t.Helper()
	if port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: folder, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s
}

// connect opens a connection that the test may cut.
func connect(t *testing.T, s *server.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func serve(t *testing.T) *server.Server {
	t.Helper()
	s := start(t, t.TempDir(), 0)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// shares remembers what a member was told.
type shares struct {
	mu  sync.Mutex
	now map[string]int
	// least is the lowest number so far.
	least map[string]int
}

func newShares() *shares { return &shares{now: map[string]int{}, least: map[string]int{}} }

func (s *shares) set(account string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now[account] = n
	if least, ok := s.least[account]; !ok || n < least {
		s.least[account] = n
	}
}

// forget begins anew with the lowest number, which lowest returns.
func (s *shares) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.least = maps.Clone(s.now)
}

func (s *shares) lowest(account string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.least[account]
}

func (s *shares) get(account string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now[account]
}

// join joins; the accounts are those that the member serves.
func join(t *testing.T, js jetstream.JetStream, changed func(string, int), accounts ...string) *replica.Member {
	t.Helper()
	m, err := replica.Join(t.Context(), js, replica.Config{
		Replicas: 1, Changed: changed, Log: slog.New(slog.DiscardHandler),
		Report: func() replica.Report {
			return replica.Report{Host: "host", PID: 7, Version: "v1", Accounts: accounts, Sinks: map[string]replica.Sink{
				"media": {Up: true}, "records": {Since: time.Unix(1_800_000_000, 0).UTC(), Class: "transient"},
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func leave(t *testing.T, m *replica.Member) {
	t.Helper()
	if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(5 * time.Minute)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestShares(t *testing.T) {
	s := serve(t)
	_, js := connect(t, s)
	one, two, three := newShares(), newShares(), newShares()
	first := join(t, js, one.set, "main", "other")
	if one.get("main") != 1 || !first.Leads(t.Context(), "main") {
		t.Errorf("alone: %v", one.now)
	}
	second := join(t, js, two.set, "main")
	if two.get("main") != 2 {
		t.Error("a newcomer starts with more than its share")
	}
	until(t, "the first knows", func() bool { return one.get("main") == 2 })
	third := join(t, js, three.set, "other")
	until(t, "shares are by account", func() bool { return one.get("main") == 2 && one.get("other") == 2 && three.get("other") == 2 })
	leaders := 0
	for _, m := range []*replica.Member{first, second, third} {
		if m.Leads(t.Context(), "") {
			leaders++
		}
	}
	if leaders != 3 {
		t.Errorf("%d lead where nobody else serves", leaders)
	}
	if first.Leads(t.Context(), "main") == second.Leads(t.Context(), "main") || first.Leads(t.Context(), "other") == third.Leads(t.Context(), "other") {
		t.Error("two lead, or none")
	}
	leader, other := first, second
	if second.Leads(t.Context(), "main") {
		leader, other = second, first
	}
	for _, test := range []struct {
		noted        *replica.Member
		leads, takes bool
	}{{leader, false, true}, {other, true, false}} {
		if err := test.noted.SetNote(t.Context(), "main", replica.Note{Code: "AuthFailure"}); err != nil {
			t.Fatal(err)
		}
		if leader.Leads(t.Context(), "main") != test.leads || other.Leads(t.Context(), "main") != test.takes {
			t.Errorf("who has paused the account leads, or nobody does: %t, %t", leader.Leads(t.Context(), "main"), other.Leads(t.Context(), "main"))
		}
	}
	list, err := replica.List(t.Context(), js)
	if err != nil || len(list) != 3 || list[0].Host != "host" || list[0].Sinks["records"].Class != "transient" || list[0].Sinks["records"].Since.Unix() != 1_800_000_000 {
		t.Errorf("the list is %+v, %v", list, err)
	}
	leave(t, second)
	leave(t, third)
	until(t, "who leaves is missed at once", func() bool { return one.get("main") == 1 && one.get("other") == 1 })
	leave(t, first)
	if list, err = replica.List(t.Context(), js); err != nil || len(list) != 0 {
		t.Errorf("after all have left: %+v, %v", list, err)
	}
}

// What somebody else writes into the bucket changes nothing.
func TestHostileLines(t *testing.T) {
	s := serve(t)
	_, js := connect(t, s)
	mine := newShares()
	m := join(t, js, mine.set, "main")
	kv, err := js.KeyValue(t.Context(), replica.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range []string{"", "null", "[]", "{", `{"accounts":7}`, strings.Repeat("x", 60_000)} {
		if _, err := kv.PutString(t.Context(), fmt.Sprintf("replica.hostile%d", i), line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.PutString(t.Context(), "replica.real", `{"accounts":["main","main","main"],"new":true}`); err != nil {
		t.Fatal(err)
	}
	until(t, "a line with more in it counts, once", func() bool { return mine.get("main") == 2 })
	leave(t, m)
}

func TestNotes(t *testing.T) {
	s := serve(t)
	_, js := connect(t, s)
	if notes, err := replica.Notes(t.Context(), js); err != nil || len(notes) != 0 {
		t.Errorf("before there is a bucket: %v, %v", notes, err)
	}
	m := join(t, js, newShares().set, "main")
	want := replica.Note{Account: "main", Replica: m.ID(), Code: "UnauthorizedOperation.Arrears", Text: "arrears", Since: time.Now().UTC(), Until: time.Now().Add(time.Minute).UTC()}
	if err := m.SetNote(t.Context(), "main", want); err != nil {
		t.Fatal(err)
	}
	if notes, err := replica.Notes(t.Context(), js); err != nil || len(notes) != 1 || notes[0] != want {
		t.Errorf("%v, %v", notes, err)
	}
	if !m.AllNoted(t.Context(), "main") || m.AllNoted(t.Context(), "other") {
		t.Error("one alone, and its note")
	}
	second := join(t, js, newShares().set, "main")
	third := join(t, js, newShares().set, "other")
	until(t, "another serves the account", func() bool { return !m.AllNoted(t.Context(), "main") })
	if err := second.SetNote(t.Context(), "main", want); err != nil {
		t.Fatal(err)
	}
	if !m.AllNoted(t.Context(), "main") || !second.AllNoted(t.Context(), "main") || third.AllNoted(t.Context(), "main") {
		t.Error("all who serve it have their notes")
	}
	if err := second.ClearNote(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	leave(t, second)
	leave(t, third)
	if err := m.ClearNote(t.Context(), "main"); err != nil {
		t.Fatal(err)
	}
	if notes, err := replica.Notes(t.Context(), js); err != nil || len(notes) != 0 {
		t.Errorf("after it was taken back: %v, %v", notes, err)
	}
	leave(t, m)
}

// Who is cut off keeps the share it had: the others may be alive. When the server
// comes back without what it had in memory, all is as before.
func TestServerAway(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := start(t, folder, 0)
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("the server listens on no TCP port")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	_, js1 := connect(t, s)
	_, js2 := connect(t, s)
	one, two := newShares(), newShares()
	first, second := join(t, js1, one.set, "main"), join(t, js2, two.set, "main")
	until(t, "both know", func() bool { return one.get("main") == 2 && two.get("main") == 2 })
	one.forget()
	s.Shutdown()
	s.WaitForShutdown()
	pass(9 * time.Second) // a replica would be taken for dead
	s = start(t, folder, address.Port)
	until(t, "both are in the new bucket", func() bool {
		list, err := replica.List(t.Context(), js1)
		return err == nil && len(list) == 2
	})
	if least := one.lowest("main"); least < 2 {
		t.Errorf("while the server was away, a share grew: %d replicas", least)
	}
	leave(t, second)
	until(t, "they hear of each other again", func() bool { return one.get("main") == 1 })
	leave(t, first)
}

// pass lets so much of real time go by.
func pass(d time.Duration) time.Time {
	timer := time.NewTimer(d)
	defer timer.Stop()
	return <-timer.C
}

// A bucket that is made anew by somebody else counts from the beginning, and a watcher
// that waits for what follows the old one's last entry hears nothing: who does not
// hear itself listens again, and takes nobody for dead meanwhile.
func TestDeaf(t *testing.T) {
	t.Parallel()
	s := serve(t)
	_, js := connect(t, s)
	one, two := newShares(), newShares()
	first, second := join(t, js, one.set, "main"), join(t, js, two.set, "main")
	kv, err := js.KeyValue(t.Context(), replica.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := kv.PutString(t.Context(), "paused.main", "{}"); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "both know", func() bool { return one.get("main") == 2 && two.get("main") == 2 })
	one.forget()
	two.forget()
	if err := js.DeleteKeyValue(t.Context(), replica.Bucket); err != nil {
		t.Fatal(err)
	}
	if _, err := replica.OpenBucket(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	pass(11 * time.Second) // the deaf would take everybody for dead
	if one.lowest("main") < 2 || two.lowest("main") < 2 {
		t.Errorf("a share grew: %d and %d replicas", one.lowest("main"), two.lowest("main"))
	}
	leave(t, second)
	until(t, "it hears again", func() bool { return one.get("main") == 1 })
	leave(t, first)
}

// loads are the calls that reach the API, by the time they leave.
type loads struct {
	mu    sync.Mutex
	calls []time.Time
}

func (l *loads) add() {
	l.mu.Lock()
	l.calls = append(l.calls, time.Now())
	l.mu.Unlock()
}

// between returns the calls in a window: the most in any second of it, and how many
// there were per second.
func (l *loads) between(from, to time.Time) (peak int, rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := slices.DeleteFunc(slices.Clone(l.calls), func(at time.Time) bool { return at.Before(from) || !at.Before(to) })
	slices.SortFunc(calls, time.Time.Compare)
	first := 0
	for i, at := range calls {
		for at.Sub(calls[first]) >= time.Second {
			first++
		}
		peak = max(peak, i-first+1)
	}
	return peak, float64(len(calls)) / to.Sub(from).Seconds()
}

// client is a replica that calls the API as often as it may. There is one caller in
// each: whatever the machine's load, no more than one call per replica can be under
// way from the moment that its turn came to the one that it is counted in.
type client struct {
	nc     *nats.Conn
	member *replica.Member
	limit  *limit.Limiter
	shares *shares
	cancel context.CancelFunc
	done   chan struct{}
}

// perSecond is how many requests an account may send.
const perSecond = 100

// startClient starts a client of an account that may send perSecond requests per second.
func startClient(t *testing.T, s *server.Server, api *loads) *client {
	t.Helper()
	c := &client{limit: limit.New(perSecond), shares: newShares(), done: make(chan struct{})}
	var js jetstream.JetStream
	c.nc, js = connect(t, s)
	c.member = join(t, js, func(account string, n int) { c.limit.Share(n); c.shares.set(account, n) }, "main")
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(t.Context())
	go func() {
		defer close(c.done)
		for c.limit.Wait(ctx, limit.Live) == nil {
			api.add()
		}
	}()
	return c
}

func (c *client) stop() {
	c.cancel()
	<-c.done
	c.limit.Close()
}

// Four replicas keep within the account's 100 requests per second together, and may use
// all of them; when one dies, the others take its share. Neither joining nor leaving
// exceeds the rate.
func TestFourReplicasOneLimit(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var api loads
	var all []*client
	know := func(n int) {
		until(t, fmt.Sprintf("%d share", n), func() bool {
			return !slices.ContainsFunc(all, func(c *client) bool { return c.shares.get("main") != n })
		})
	}
	alone := limit.New(perSecond)
	full := alone.State().Rate
	alone.Close()
	may := func(n int) {
		t.Helper()
		sum := 0.0
		for _, c := range all {
			sum += c.limit.State().Rate
		}
		if len(all) != n || math.Abs(sum-full) > 0.001 {
			t.Errorf("%d replicas may send %.1f requests per second, want %d and %.1f", len(all), sum, n, full)
		}
	}
	began := time.Now()
	for range 4 {
		all = append(all, startClient(t, s, &api))
	}
	know(4)
	may(4)
	joined := time.Now()
	killed := pass(4 * time.Second)
	dead := all[0]
	all = all[1:]
	dead.nc.Close() // it neither works nor leaves
	dead.stop()
	know(3)
	may(3)
	taken := time.Now()
	end := pass(3 * time.Second)
	for len(all) > 0 {
		all[0].stop()
		leave(t, all[0].member)
		all = all[1:]
		know(len(all))
	}
	left := time.Now()
	_ = dead.member.Close(context.WithoutCancel(t.Context())) // it cannot tell anybody
	peak4, steady := api.between(joined, killed)
	peak3, after := api.between(taken, end)
	peak, _ := api.between(began, left)
	t.Logf("four replicas: %.1f requests/s, at most %d in a second; one died, its share was taken after %s; then %.1f, at most %d; at most %d in any second with joining and leaving",
		steady, peak4, taken.Sub(killed).Round(10*time.Millisecond), after, peak3, peak)
	if peak > 105 {
		t.Errorf("%d requests in one second", peak)
	}
	if steady == 0 || after == 0 {
		t.Errorf("%.1f requests per second of four, %.1f of the three that were left", steady, after)
	}
	if taken.Sub(killed) > 30*time.Second { // the bucket would forget it after a minute
		t.Errorf("the share of the dead was taken after %s", taken.Sub(killed))
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"host":"h","pid":1,"accounts":["main"],"sinks":{"media":{"up":true}}}`))
	f.Add([]byte(`{"started":"2026-11-24T08:30:00Z","sinks":{"a":{"since":"x"}}}`))
	f.Add([]byte(`{"host":"\u001b[2J","version":"\u0000","sinks":{"\n":{"class":"\u009b"}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := replica.ParseReport(line)
		if err != nil {
			return
		}
		if len(r.Accounts) > 1024 || len(r.Sinks) > 1024 || !slices.IsSorted(r.Accounts) {
			t.Errorf("took %d accounts and %d sinks", len(r.Accounts), len(r.Sinks))
		}
		texts := append([]string{r.Host, r.Version}, r.Accounts...)
		for name, sink := range r.Sinks {
			texts = append(texts, name, sink.Class)
		}
		clean(t, texts...)
	})
}

func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"code":"UnauthorizedOperation.Arrears","text":"in arrears: pay","since":"2026-11-24T08:30:00Z"}`))
	f.Add([]byte(`{"code":"\u001b]0;x\u0007","text":"a\r\nb"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if n, err := replica.ParseNote(line); err == nil {
			clean(t, n.Code, n.Text)
		}
	})
}

// clean fails a test if a text is long or could steer a terminal.
func clean(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if len(text) > 512 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("took the text %q", text)
		}
	}
}
