package streams_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

// connect runs a server with a configuration, and connects to it.
func connect(t *testing.T, config string) jetstream.JetStream {
	t.Helper()
	folder := t.TempDir()
	file := filepath.Join(folder, "nats.conf")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:-1\n"+strings.ReplaceAll(config, "STORE", fmt.Sprintf("store_dir: %q", folder))), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

const quota = 20 << 30

// What is missing is made within the limits of accounts and servers.
func TestWithinLimits(t *testing.T) {
	t.Parallel()
	account := func(limits string) string {
		return "jetstream {STORE}\naccounts {A {jetstream: {" + limits + "}, users: [{user: u, password: p}]}}\nno_auth_user: u\n"
	}
	for name, tt := range map[string]struct {
		config, says string
		// bytes bounds the events' stream.
		bytes int64
	}{
		"none":                  {"jetstream {STORE}", "", streams.DefaultMaxBytes},
		"bytes required":        {account("max_bytes_required: true"), "", streams.DefaultMaxBytes},
		"little disk":           {account("max_file: 100MB, max_bytes_required: true"), "", 100 << 20},
		"bytes per stream":      {account("disk_max_stream_bytes: 8MB"), "", 8 << 20},
		"no memory":             {account("max_mem: 1KB, max_file: 1GB"), "", 1 << 30},
		"a small window":        {"jetstream {STORE, limits: {duplicate_window: \"2m\"}}", "", streams.DefaultMaxBytes},
		"a server without room": {"jetstream {STORE, max_file_store: 64MB}", "", 64 << 20},
		"few streams":           {account("max_streams: 5"), "stream FACEID_PARKED (nats.streams.parked) cannot be made, for the account may have no more streams: the daemon needs 8", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := connect(t, tt.config)
			err := streams.EnsureAll(t.Context(), js, streams.Table(quota), 1)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("got %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), streams.Events)
			if err != nil {
				t.Fatal(err)
			}
			if got := stream.CachedInfo().Config.MaxBytes; got < 1<<20 || got > tt.bytes {
				t.Errorf("the events may have %d bytes, want %d at most", got, tt.bytes)
			}
			// Nothing is changed by another look.
			if err := streams.EnsureAll(t.Context(), js, streams.Table(quota), 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// What an operator has made is taken, or refused with what is wrong.
func TestMadeByAnother(t *testing.T) {
	t.Parallel()
	js := connect(t, "jetstream {STORE}")
	events := streams.EventsNeed().Config
	with := func(change func(c *jetstream.StreamConfig)) jetstream.StreamConfig {
		c := events
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name, says string
		have       jetstream.StreamConfig
	}{
		{"wider subjects", "", with(func(c *jetstream.StreamConfig) { c.Subjects = []string{"faceid.completed.>", "faceid.backfill.>"} })},
		{"all subjects", "", with(func(c *jetstream.StreamConfig) { c.Subjects = []string{"faceid.>"} })},
		{"limits", "", with(func(c *jetstream.StreamConfig) { c.MaxBytes, c.MaxMsgs, c.MaxAge, c.MaxMsgSize = 1<<20, 100, 0, -1 })},
		{"interest", "it has Interest retention, and must have limits", with(func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy })},
		{"work queue", "it has WorkQueue retention", with(func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy })},
		{"memory", "it has Memory storage", with(func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage })},
		{"age", "its max_age keeps them for 1h0m0s, and must for 72h0m0s", with(func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour })},
		{"drops old ones", "discards old ones", with(func(c *jetstream.StreamConfig) { c.Discard, c.MaxMsgs = jetstream.DiscardOld, 5 })},
		{"drops old ones of a subject", "discards old ones", with(func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 })},
		{"deny_delete", "nothing can be deleted in it (deny_delete)", with(func(c *jetstream.StreamConfig) { c.DenyDelete = true })},
		{"small messages", "it takes messages of 100 bytes (max_msg_size), and must of 4096", with(func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 })},
		{"no_ack", "it does not confirm what it stores (no_ack)", with(func(c *jetstream.StreamConfig) { c.NoAck = true })},
		{"another name", "cannot have its subjects, faceid.completed.*.*, faceid.backfill.*.*, for kyc takes them: if that is the stream for them, set nats.streams.events to its name",
			with(func(c *jetstream.StreamConfig) { c.Name, c.Subjects = "kyc", []string{"faceid.>"} })},
	} {
		if _, err := js.CreateStream(t.Context(), tt.have); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		_, err := streams.Ensure(t.Context(), js, streams.EventsNeed(), 1)
		var unfit *streams.UnfitError
		switch {
		case tt.says == "" && err != nil, tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || !errors.As(err, &unfit)):
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.says)
		}
		for name := range js.StreamNames(t.Context()).Name() {
			if err := js.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Everything may have another name.
func TestLayout(t *testing.T) {
	t.Parallel()
	js := connect(t, "jetstream {STORE}")
	layout := streams.Layout{Streams: map[string]string{}, Buckets: map[string]string{}, MaxBytes: 5 << 20}
	for _, name := range []string{streams.Events, streams.Dead, streams.Parked, streams.Advisories} {
		layout.Streams[name] = "own_" + name
	}
	for _, name := range []string{streams.LedgerBucket, streams.StateBucket, streams.KeyringBucket, streams.ParkedBucket} {
		layout.Buckets[name] = "own-" + name
	}
	own := layout.Of(js)
	if err := streams.EnsureAll(t.Context(), own, streams.Table(quota), 1); err != nil {
		t.Fatal(err)
	}

	for name, subject := range map[string]string{
		"own_FACEID": "faceid.completed.*.*", "own_FACEID_ADVISORIES": "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.own_FACEID.*",
		"KV_own-FACEID_LEDGER": "$KV.own-FACEID_LEDGER.>", "OBJ_own-FACEID_PARKED": "$O.own-FACEID_PARKED.C.>",
	} {
		stream, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := stream.CachedInfo().Config.Subjects[0]; got != subject {
			t.Errorf("%s has %s, want %s", name, got, subject)
		}
	}
	count := 0
	for range js.StreamNames(t.Context()).Name() {
		count++
	}
	if count != 8 {
		t.Errorf("%d streams", count)
	}
	kv, err := own.KeyValue(t.Context(), streams.LedgerBucket)
	if err != nil || kv.Bucket() != "own-FACEID_LEDGER" {
		t.Errorf("%v, %v", kv, err)
	}
	if _, err := own.Stream(t.Context(), "FACEID_NONE"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Error(err)
	}
}
