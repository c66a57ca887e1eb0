// Package replica lets the daemons that share one NATS know of each other.
//
// Each of them, a replica, puts a line about itself into a key-value bucket every two
// seconds and watches the lines of the others: so it knows how many share the rate of
// an account, and the status command what each of them sees. Nothing else depends on
// it. A replica that cannot reach NATS cannot hear of others either: it keeps the
// shares it had.
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

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// Bucket is the key-value bucket of what is only true now. It is in memory.
	Bucket = "FACEID_STATE"
	// bucketTTL is how long an entry lasts that nobody renews.
	bucketTTL = time.Minute

	// beatEvery is how often a replica writes its line, deadAfter how long it is taken
	// to live without one. Both are by the clock of who looks: no clocks are compared.
	beatEvery = 2 * time.Second
	deadAfter = 6 * time.Second
	// requestWait bounds one request.
	requestWait = 2 * time.Second

	replicaPrefix = "replica."
	notePrefix    = "paused."

	// maxEntry bounds an entry, in bytes; maxList its lists.
	maxEntry = 64 << 10
	maxList  = 1024
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
	// mute says that the last line could not be written: then nobody is taken for
	// dead.
	mute bool
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
	watcher, err := kv.Watch(running, replicaPrefix+">")
	if err != nil {
		stop()
		return nil, fmt.Errorf("watch the replicas: %w", err)
	}
	if err := m.readFirst(ctx, watcher); err != nil {
		stop()
		return nil, errors.Join(err, watcher.Stop())
	}
	m.stop = stop
	m.tell()
	go m.run(running, watcher)
	return m, nil
}

func openBucket(ctx context.Context, js jetstream.JetStream, replicas int) (jetstream.KeyValue, error) {
	kv, err := js.KeyValue(ctx, Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket:       Bucket,
			Description:  "The daemons that run, and what they see",
			TTL:          bucketTTL,
			MaxValueSize: maxEntry,
			Storage:      jetstream.MemoryStorage,
			Replicas:     replicas,
		})
	}
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

// Leads tells whether this replica is the first of those that live, by their ids: the
// one to do what one alone should do. For moments there may be two of them, or none.
func (m *Member) Leads() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range m.others {
		if id < m.id && time.Since(o.heard) < deadAfter {
			return false
		}
	}
	return true
}

func (m *Member) bucket() jetstream.KeyValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kv
}

// readFirst takes in the lines that are there already.
func (m *Member) readFirst(ctx context.Context, watcher jetstream.KeyWatcher) error {
	for {
		select {
		case entry, ok := <-watcher.Updates():
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
func (m *Member) run(ctx context.Context, watcher jetstream.KeyWatcher) {
	defer close(m.done)
	defer func() { _ = watcher.Stop() }() // its connection may be gone
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	updates := watcher.Updates()
	for {
		select {
		case <-ctx.Done():
			return
		case entry, ok := <-updates:
			switch {
			case !ok:
				// Only trying again finds out why.
				updates = nil
			case entry != nil:
				m.hear(entry)
				m.tell()
			}
		case <-tick.C:
			gone := m.beatAndBury(ctx)
			if !gone && updates != nil {
				continue
			}
			if again, err := m.bucket().Watch(ctx, replicaPrefix+">"); err == nil {
				_ = watcher.Stop()
				watcher, updates = again, again.Updates()
			}
		}
	}
}

// beatAndBury writes this replica's line and forgets replicas that are silent. It
// tells whether the bucket was gone, and made anew.
func (m *Member) beatAndBury(ctx context.Context) (gone bool) {
	err := m.beat(ctx)
	if err != nil && ctx.Err() == nil {
		// In memory, the bucket ends with its server.
		if kv, openErr := openBucket(ctx, m.js, m.cfg.Replicas); openErr == nil {
			m.mu.Lock()
			m.kv = kv
			m.mu.Unlock()
			gone, err = true, m.beat(ctx)
		}
	}
	m.mu.Lock()
	muted := m.mute
	m.mute = err != nil
	for id, o := range m.others {
		switch {
		case m.mute, muted, gone:
			// Who could not be heard is not dead.
			o.heard = time.Now()
			m.others[id] = o
		case time.Since(o.heard) >= deadAfter:
			delete(m.others, id)
		}
	}
	m.mu.Unlock()
	if err != nil && !muted && ctx.Err() == nil {
		m.cfg.Log.Debug("cannot tell the other replicas of this one", "error", err)
	}
	m.tell()
	return gone
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
	if id == m.id {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(m.others, id)
		return
	}
	report, err := parseReport(entry.Value())
	if err != nil || len(m.others) >= maxList {
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
	maps.DeleteFunc(counts, func(account string, n int) bool { return m.told[account] == n })
	maps.Copy(m.told, counts)
	m.mu.Unlock()
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
	r.Accounts = slices.Compact(slices.Sorted(slices.Values(r.Accounts[:min(len(r.Accounts), maxList)])))
	if len(r.Sinks) > maxList {
		r.Sinks = nil
	}
	return r, nil
}
