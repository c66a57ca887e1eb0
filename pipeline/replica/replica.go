// Package replica lets the daemons that share one NATS know of each other.
//
// Each of them, a replica, puts a line about itself into a key-value bucket every two
// seconds and watches the lines of the others: so it knows how many share the rate of
// an account, and the status command what each of them sees. Nothing else depends on
// it. A replica that is cut off, which it knows from not hearing its own line, cannot
// hear of others either: it keeps the shares it had.
package replica

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

const (
	// Bucket is the key-value bucket of what is only true now. It is in memory.
	Bucket = streams.StateBucket
	// beatEvery is how often a replica writes its line, deadAfter how long it is taken
	// to live without one. Both are by the clock of who looks: no clocks are compared.
	beatEvery = 2 * time.Second
	deadAfter = 6 * time.Second
	// deafAfter is how long a replica that hears nothing of itself trusts its ears.
	deafAfter = beatEvery * 3 / 2
	// requestWait bounds one request.
	requestWait = 2 * time.Second

	replicaPrefix = "replica."
	notePrefix    = "paused."

	// maxEntry bounds an entry, in bytes; maxList its lists; maxText its texts, in bytes.
	maxEntry = 64 << 10
	maxList  = 1024
	maxText  = 512
)

// Sink is what a replica sees of a sink.
type Sink struct {
	Up bool `json:"up"`
	// Since is when it went down; zero while it is up.
	Since time.Time `json:"since,omitzero"`
	// Class is that of its last error; empty while it is up.
	Class string `json:"class,omitempty"`
}

// Report is what a replica says of itself.
type Report struct {
	// ID is random.
	ID      string    `json:"-"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Accounts are those it serves.
	Accounts []string        `json:"accounts"`
	Sinks    map[string]Sink `json:"sinks"`
	// Keyring is what it seals with; zero of a version that did not say it.
	Keyring privacy.Mark `json:"keyring,omitzero"`
	// Work is what it works on, the longest first; MaxWork at most.
	Work []Work `json:"work,omitempty"`
}

// MaxWork bounds what a replica says of its work, so that its line stays short.
const MaxWork = 256

// Work is a token that a replica works on.
type Work struct {
	// TokenHash is result.TokenHash.
	TokenHash string    `json:"token_hash"`
	Since     time.Time `json:"since"`
}

// Config says what a replica tells and is told.
type Config struct {
	// Replicas is on how many servers of a cluster the bucket is kept, 1 to 5.
	Replicas int
	// Report returns what is said next; its ID is set here. It is called from one
	// goroutine.
	Report func() Report
	// Changed is told how many replicas serve an account, this one included, at the
	// start and whenever that changes. It is called from one goroutine.
	Changed func(account string, replicas int)
	// Log hears of trouble. Never nil.
	Log *slog.Logger
}

// Member is this process among the replicas. Its methods may be called concurrently.
type Member struct {
	cfg  Config
	js   jetstream.JetStream
	id   string
	stop context.CancelFunc
	done chan struct{}

	mu sync.Mutex
	kv jetstream.KeyValue
	// others are the replicas that were heard of, by id, without this one.
	others map[string]other
	told   map[string]int
	// echo is when this replica last heard its own line. cut says that it could not
	// write it or did not hear it: then nobody is taken for dead.
	echo time.Time
	cut  bool
}

type other struct {
	accounts []string
	heard    time.Time
}

// Join tells the others of this process, looks who they are, calls cfg.Changed for
// every account and returns. Both go on until Close. ctx bounds the joining.
func Join(ctx context.Context, js jetstream.JetStream, cfg Config) (*Member, error) {
	m := &Member{cfg: cfg, js: js, id: strings.ToLower(rand.Text()[:12]), done: make(chan struct{}), others: map[string]other{}, told: map[string]int{}}
	kv, err := openBucket(ctx, js, cfg.Replicas)
	if err != nil {
		return nil, err
	}
	m.kv = kv
	// First the others hear of us and leave us our share, then we take it.
	if err := m.beat(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	ears, err := m.listen(running)
	if err != nil {
		stop()
		return nil, err
	}
	if err := m.readFirst(ctx, ears); err != nil {
		stop()
		ears.close()
		return nil, err
	}
	m.tell()
	go m.run(running, ears)
	return m, nil
}

// ears is a watcher of all lines.
type ears struct {
	watcher jetstream.KeyWatcher
	cancel  context.CancelFunc
}

// listen watches the lines of all replicas, this one's among them. The context of a
// watcher is for its whole life, so that the request is bounded beside it.
func (m *Member) listen(ctx context.Context) (*ears, error) {
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(requestWait, cancel)
	watcher, err := m.bucket().Watch(ctx, replicaPrefix+">")
	late.Stop()
	if err == nil {
		// If it came too late after all, it ends, and is not heard.
		return &ears{watcher, cancel}, nil
	}
	cancel()
	return nil, fmt.Errorf("watch the replicas: %w", err)
}

func (e *ears) close() {
	_ = e.watcher.Stop() // its connection may be gone
	e.cancel()
}

func openBucket(ctx context.Context, js jetstream.JetStream, replicas int) (jetstream.KeyValue, error) {
	kv, err := streams.OpenKeyValue(ctx, js, streams.StateNeed(), replicas)
	if err != nil {
		return nil, fmt.Errorf("open the key-value bucket %s: %w", Bucket, err)
	}
	return kv, nil
}

// Close leaves: the others take this replica's share at once.
func (m *Member) Close(ctx context.Context) error {
	m.stop()
	<-m.done
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	if err := m.bucket().Delete(ctx, replicaPrefix+m.id); err != nil {
		return fmt.Errorf("leave the replicas: %w", err)
	}
	return nil
}

// ID returns the name of this replica.
func (m *Member) ID() string { return m.id }

// Leads tells whether this replica, which serves the account, is the first of those
// that do and live, by their ids: the one to do what one alone should do. Those that have
// paused the account do not count, unless all have. For moments there may be two of them,
// or none.
func (m *Member) Leads(ctx context.Context, account string) bool {
	noted, err := m.noted(ctx, account)
	if err != nil || m.all(account, noted) {
		noted = nil
	}
	if noted[m.id] {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range m.others {
		if id < m.id && !noted[id] && time.Since(o.heard) < deadAfter && slices.Contains(o.accounts, account) {
			return false
		}
	}
	return true
}

// Count returns how many replicas live, this one included.
func (m *Member) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return 1 + len(m.others)
}

func (m *Member) bucket() jetstream.KeyValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kv
}

// readFirst takes in the lines that are there already.
func (m *Member) readFirst(ctx context.Context, e *ears) error {
	for {
		select {
		case entry, ok := <-e.watcher.Updates():
			if !ok {
				return errors.New("watch the replicas: the watcher ended")
			}
			if entry == nil {
				return nil
			}
			m.hear(entry)
		case <-ctx.Done():
			return fmt.Errorf("look for other replicas: %w", context.Cause(ctx))
		}
	}
}

// run writes this replica's line and reads those of the others.
func (m *Member) run(ctx context.Context, e *ears) {
	defer close(m.done)
	defer func() { e.close() }()
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	updates := e.watcher.Updates()
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-updates:
			switch {
			case !ok:
				// Its silence will be noticed.
				updates = nil
			case entry != nil:
				m.hear(entry)
				m.tell()
			}
		case <-tick.C:
			if m.beatAndBury(ctx) {
				continue
			}
			if again, err := m.listen(ctx); err == nil {
				e.close()
				e, updates = again, again.watcher.Updates()
			}
		}
	}
}

// beatAndBury writes this replica's line and forgets replicas that are silent. It
// returns false if this one does not hear what it writes: a watcher does not survive
// every end of a server, nor that of the bucket.
func (m *Member) beatAndBury(ctx context.Context) (hears bool) {
	err := m.beatOrReopen(ctx)
	m.mu.Lock()
	was := m.cut
	hears = time.Since(m.echo) < deafAfter
	m.cut = err != nil || !hears
	for id, o := range m.others {
		switch {
		case m.cut, was:
			// Who could not be heard is not dead.
			o.heard = time.Now()
			m.others[id] = o
		case time.Since(o.heard) >= deadAfter:
			delete(m.others, id)
		}
	}
	m.mu.Unlock()
	if err != nil && !was && ctx.Err() == nil {
		m.cfg.Log.Debug("cannot tell the other replicas of this one", "error", err)
	}
	m.tell()
	return hears || err != nil
}

// beatOrReopen writes this replica's line, into a new bucket if need be: in memory,
// the bucket ends with its server.
func (m *Member) beatOrReopen(ctx context.Context) error {
	err := m.beat(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	kv, openErr := openBucket(bounded, m.js, m.cfg.Replicas)
	if openErr != nil {
		return err
	}
	m.mu.Lock()
	m.kv = kv
	m.mu.Unlock()
	return m.beat(ctx)
}

// beat writes this replica's line.
func (m *Member) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	line, err := json.Marshal(m.cfg.Report())
	if err == nil {
		_, err = m.bucket().Put(ctx, replicaPrefix+m.id, line)
	}
	if err != nil {
		return fmt.Errorf("tell the other replicas of this one: %w", err)
	}
	return nil
}

// hear takes in one line.
func (m *Member) hear(entry jetstream.KeyValueEntry) {
	id := strings.TrimPrefix(entry.Key(), replicaPrefix)
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == m.id {
		m.echo = time.Now()
		return
	}
	if entry.Operation() != jetstream.KeyValuePut {
		delete(m.others, id)
		return
	}
	report, err := parseReport(entry.Value())
	if _, known := m.others[id]; err != nil || !known && len(m.others) >= maxList {
		return
	}
	m.others[id] = other{accounts: report.Accounts, heard: time.Now()}
}

// tell calls Changed for the accounts whose number of replicas changed.
func (m *Member) tell() {
	counts := map[string]int{}
	for _, account := range m.cfg.Report().Accounts {
		counts[account] = 1
	}
	m.mu.Lock()
	for _, o := range m.others {
		for _, account := range o.accounts {
			if counts[account] > 0 {
				counts[account]++
			}
		}
	}
	told := m.told
	m.told = maps.Clone(counts)
	m.mu.Unlock()
	maps.DeleteFunc(counts, func(account string, n int) bool { return told[account] == n })
	for _, account := range slices.Sorted(maps.Keys(counts)) {
		m.cfg.Changed(account, counts[account])
	}
}

// parseReport reads a line; whoever may write to the bucket can forge one.
func parseReport(line []byte) (Report, error) {
	var r Report
	if len(line) > maxEntry {
		return r, errors.New("a replica's line is too long")
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return Report{}, errors.New("a replica's line is not one of this program's")
	}
	r.Host, r.Version = plain(r.Host), plain(r.Version)
	if !r.Keyring.Valid() {
		r.Keyring = privacy.Mark{}
	}
	accounts := map[string]bool{}
	for _, account := range r.Accounts[:min(len(r.Accounts), maxList)] {
		accounts[plain(account)] = true
	}
	r.Accounts = slices.Sorted(maps.Keys(accounts))
	sinks := map[string]Sink{}
	if len(r.Sinks) <= maxList {
		for name, sink := range r.Sinks {
			sink.Class = plain(sink.Class)
			sinks[plain(name)] = sink
		}
	}
	r.Sinks = sinks
	r.Work = r.Work[:min(len(r.Work), MaxWork)]
	for i := range r.Work {
		r.Work[i].TokenHash = plain(r.Work[i].TokenHash)
	}
	return r, nil
}

// plain takes from a text what could steer a terminal, and what is over maxText.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}
