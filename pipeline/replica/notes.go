package replica

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Note says why a replica has paused an account.
type Note struct {
	// Account and Replica are whose it is.
	Account string `json:"-"`
	Replica string `json:"-"`
	// Code is the API's, Text this program's words for it.
	Code string `json:"code"`
	Text string `json:"text"`
	// Since is when it began, Until when the consumers go on unless the pause is
	// renewed.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// SetNote tells everybody why this replica has paused an account. It lasts for a minute.
func (m *Member) SetNote(ctx context.Context, account string, note Note) error {
	line, err := json.Marshal(note)
	if err == nil {
		_, err = m.bucket().Put(ctx, notePrefix+account+"."+m.id, line)
	}
	if err != nil {
		return fmt.Errorf("note that an account is paused: %w", err)
	}
	return nil
}

// ClearNote takes this replica's note back.
func (m *Member) ClearNote(ctx context.Context, account string) error {
	if err := m.bucket().Purge(ctx, notePrefix+account+"."+m.id); err != nil {
		return fmt.Errorf("take back the note of a paused account: %w", err)
	}
	return nil
}

// AllNoted tells whether all live replicas that serve an account, this one included, have
// a note on it; false if that cannot be told.
func (m *Member) AllNoted(ctx context.Context, account string) bool {
	noted, err := m.noted(ctx, account)
	return err == nil && m.all(account, noted)
}

// noted returns the replicas that have a note on an account.
func (m *Member) noted(ctx context.Context, account string) (map[string]bool, error) {
	// A watcher does not survive every end of a server, and would then be waited for.
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	notes, err := Notes(ctx, m.js)
	noted := map[string]bool{}
	for _, n := range notes {
		if n.Account == account {
			noted[n.Replica] = true
		}
	}
	return noted, err
}

// all tells whether all live replicas that serve an account are among those given.
func (m *Member) all(account string, noted map[string]bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, o := range m.others {
		if !noted[id] && slices.Contains(o.accounts, account) {
			return false
		}
	}
	return noted[m.id]
}

// Notes returns the notes of all replicas, in the order of accounts and replicas. A
// bucket that is not there is empty.
func Notes(ctx context.Context, js jetstream.JetStream) ([]Note, error) {
	var notes []Note
	err := each(ctx, js, notePrefix, func(name string, value []byte) {
		if n, err := parseNote(value); err == nil && len(notes) < maxList {
			n.Account, n.Replica, _ = strings.Cut(plain(name), ".")
			notes = append(notes, n)
		}
	})
	slices.SortFunc(notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Replica, b.Replica))
	})
	return notes, err
}

// parseNote reads a note; whoever may write to the bucket can forge one.
func parseNote(line []byte) (Note, error) {
	var n Note
	if len(line) > maxEntry {
		return n, errors.New("a note is too long")
	}
	if err := json.Unmarshal(line, &n); err != nil {
		return Note{}, errors.New("a note is not one of this program's")
	}
	n.Code, n.Text = plain(n.Code), plain(n.Text)
	return n, nil
}

// List returns the replicas that have written their line within the bucket's time, in
// the order of their ids.
func List(ctx context.Context, js jetstream.JetStream) ([]Report, error) {
	var list []Report
	err := each(ctx, js, replicaPrefix, func(id string, value []byte) {
		if r, err := parseReport(value); err == nil {
			r.ID = id
			list = append(list, r)
		}
	})
	slices.SortFunc(list, func(a, b Report) int { return strings.Compare(a.ID, b.ID) })
	return list, err
}

// each visits the entries of a prefix. Those of replicas that are silent for too long
// by the server's clock are left out.
func each(ctx context.Context, js jetstream.JetStream, prefix string, visit func(name string, value []byte)) error {
	kv, err := js.KeyValue(ctx, Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the key-value bucket %s: %w", Bucket, err)
	}
	stream, err := js.Stream(ctx, "KV_"+Bucket)
	if err != nil {
		return fmt.Errorf("open the key-value bucket %s: %w", Bucket, err)
	}
	now := stream.CachedInfo().TimeStamp
	watcher, err := kv.Watch(ctx, prefix+">", jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("read the key-value bucket %s: %w", Bucket, err)
	}
	defer func() { _ = watcher.Stop() }() // read to its end
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok || entry == nil {
				return nil
			}
			if prefix != replicaPrefix || now.Sub(entry.Created()) < deadAfter {
				visit(strings.TrimPrefix(entry.Key(), prefix), entry.Value())
			}
		case <-ctx.Done():
			return fmt.Errorf("read the key-value bucket %s: %w", Bucket, context.Cause(ctx))
		}
	}
}
