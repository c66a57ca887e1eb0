package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to look at the database with
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb/dbtest"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

const (
	archiveBucket = "archive-1250000000"
	faceidBucket  = "faceid-1250000000"
	hookSecret    = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	kafkaTopic    = "faceid-results"
)

// world is a site whose daemon has every kind of remote sink.
type world struct {
	*site
	cos      *costest.Server
	postgres string
	kafka    *kfake.Cluster
	hook     *receiver
}

// receiver is a webhook's other end: it verifies signatures, and keeps bodies.
type receiver struct {
	t      *testing.T
	server *httptest.Server
	// refuse says what to answer in place of 204.
	refuse func(w http.ResponseWriter, id string, n int) bool

	mu     sync.Mutex
	calls  map[string]int
	bodies [][]byte
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, calls: map[string]int{}}
	r.server = httptest.NewTLSServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err == nil {
		err = webhook.Verify(hookSecret, q.Header, body, time.Now(), time.Minute)
	}
	if err != nil {
		r.t.Errorf("a webhook: %v", err)
	}
	id := q.Header.Get("Webhook-Id")
	r.mu.Lock()
	r.calls[id]++
	n := r.calls[id]
	r.bodies = append(r.bodies, body)
	r.mu.Unlock()
	if r.refuse == nil || !r.refuse(w, id, n) {
		w.WriteHeader(http.StatusNoContent)
	}
}

func (r *receiver) certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s := newSite(t)
	w := &world{site: s, postgres: dbtest.StartPostgres(t), hook: newReceiver(t)}
	var err error
	if w.cos, err = costest.Start(context.WithoutCancel(t.Context()), costest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.cos.Close(); err != nil {
			t.Error(err)
		}
	})
	w.cos.AddCredential(costest.Credential{SecretID: "AKID-cos", SecretKey: "cos-key"})
	w.cos.CreateBucket(archiveBucket, "ap-guangzhou", costest.BucketOptions{})
	w.cos.CreateBucket(faceidBucket, "ap-guangzhou", costest.BucketOptions{})
	if w.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, kafkaTopic)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.kafka.Close)
	s.write("hook-ca.pem", string(w.hook.certificate()))
	before, rest, _ := strings.Cut(read(t, s.config), "sinks:\n")
	_, after, _ := strings.Cut(rest, "http: {")
	text := before + fmt.Sprintf(`sinks:
  - {name: evidence, type: cos, bucket: %s, region: ap-guangzhou, secret_id: AKID-cos, secret_key: cos-key, endpoint: %q, mode: pull, seal: true}
  - {name: rows, type: postgres, url: %q}
  - {name: stream, type: nats, create_stream: RESULTS}
  - {name: topic, type: kafka, brokers: [%q], topic: %s}
  - {name: hook, type: webhook, url: %q, secret: %q, tls: {ca: %s}, allow_private: true}
`, archiveBucket, w.cos.URL(), w.postgres, w.kafka.ListenAddrs()[0], kafkaTopic, w.hook.server.URL+"/results", hookSecret, s.path("hook-ca.pem")) + "http: {" + after
	s.write("config.yaml", text)
	return w
}

// publishMarked publishes checks of persons that can be searched for, and puts the
// media that FaceID would have put into COS there. It returns what must not be
// found anywhere.
func (w *world) publishMarked(n int) (checks []faceidtest.Check, secrets []string) {
	w.t.Helper()
	checks = newChecks(n, 8<<10)
	for i := range checks {
		c := &checks[i]
		c.Person = faceidtest.Person{
			Name: fmt.Sprintf("马克测试%d", i), IDCard: fmt.Sprintf("CANARYID%010d", i),
			Address: fmt.Sprintf("CANARY-ADDRESS-%d", i), Mobile: fmt.Sprintf("CANARY-MOBILE-%d", i),
		}
		secrets = append(secrets, c.Person.Name, c.Person.IDCard, c.Person.Address, c.Person.Mobile)
		for _, m := range c.Media {
			bytes, err := io.ReadAll(m.Reader())
			if err != nil {
				w.t.Fatal(err)
			}
			if m.Form.InCOS() {
				w.cos.Put(faceidBucket, m.Key(), "application/octet-stream", bytes)
			}
			secrets = append(secrets, string(bytes[30:60])) // behind what all media of a kind share
		}
	}
	w.publish(checks)
	return checks, secrets
}

// messages returns what a consumer of the NATS stream and one of the Kafka topic
// get.
func (w *world) messages() (fromNATS, fromKafka [][]byte) {
	w.t.Helper()
	cfg, err := config.Load(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	settings, err := brokerConfig(cfg, newLogger(cfg.Log, new(slog.LevelVar), io.Discard))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := broker.Connect(w.t.Context(), settings)
	if err != nil {
		w.t.Fatal(err)
	}
	defer closeQuietly(conn)
	stream, err := conn.JS.Stream(w.t.Context(), "RESULTS")
	if err != nil {
		w.t.Fatal(err)
	}
	last := stream.CachedInfo().State.LastSeq
	for seq := uint64(1); seq <= last; seq++ {
		m, err := stream.GetMsg(w.t.Context(), seq)
		if err != nil {
			w.t.Fatal(err)
		}
		fromNATS = append(fromNATS, append([]byte(m.Subject+fmt.Sprint(m.Header)), m.Data...))
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.ConsumeTopics(kafkaTopic))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	for len(fromKafka) < len(fromNATS) {
		fetches := client.PollFetches(w.t.Context())
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			fromKafka = append(fromKafka, append(slices.Clone(r.Key), r.Value...))
		}
	}
	return fromNATS, fromKafka
}

// dump returns everything that left the daemon, by where it is.
func (w *world) dump(p *process) map[string][]byte {
	w.t.Helper()
	fromNATS, fromKafka := w.messages()
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	places := map[string][]byte{
		"the log": []byte(p.log.String()), "PostgreSQL": w.dumpPostgres(), "COS": w.dumpArchive(),
		"NATS": bytes.Join(fromNATS, nil), "Kafka": bytes.Join(fromKafka, nil), "webhooks": bytes.Join(w.hook.bodies, nil),
	}
	for _, file := range filesIn(w.t, w.path("data")) {
		places[file] = []byte(read(w.t, file))
	}
	return places
}

// dumpArchive returns the archive bucket: keys, headers and bodies.
func (w *world) dumpArchive() []byte {
	var out bytes.Buffer
	for _, o := range w.cos.Objects(archiveBucket) {
		body, _ := w.cos.Body(archiveBucket, o.Key)
		fmt.Fprintf(&out, "%s %v ", o.Key, o.Header)
		out.Write(body)
	}
	return out.Bytes()
}

// dumpPostgres returns every row of every table as text.
func (w *world) dumpPostgres() []byte {
	w.t.Helper()
	db, err := sql.Open("pgx", w.postgres)
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	var out bytes.Buffer
	for _, table := range []string{"results", "attempts", "assets", "warnings", "erased"} {
		var rows string
		query := "SELECT coalesce(string_agg('" + table + " ' || t::text, E'\\n'), '') FROM " + table + " t"
		if err := db.QueryRowContext(w.t.Context(), query).Scan(&rows); err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintln(&out, rows)
	}
	return out.Bytes()
}

func (w *world) holdsNone(places map[string][]byte, secrets []string) {
	w.t.Helper()
	for place, text := range places {
		for _, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				w.t.Errorf("%s holds %q", place, secret)
			}
		}
	}
}

// TestEverywhere: results go into COS, PostgreSQL, NATS, Kafka and a webhook at
// once. Nothing of a person can be found in any of them; who may opens it again,
// also after the keys were rotated and the old one is gone; and who is erased is
// gone from everywhere.
func TestEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if stdout, _ := w.command(exitDone, "config", "check"); strings.Count(stdout, " ok\n") != 16 {
		t.Fatalf("%s", stdout)
	}
	checks, secrets := w.publishMarked(24)
	p := w.start()
	until(t, "all events are settled", func() bool { return w.open() == 0 })
	if _, ready := p.admin("/readyz"); !strings.Contains(ready, `"ready":true`) {
		t.Errorf("%s", ready)
	}
	places := w.dump(p)
	p.stop()
	w.holdsNone(places, secrets)
	for _, place := range []string{"PostgreSQL", "NATS", "Kafka", "webhooks"} {
		for _, c := range checks {
			if !bytes.Contains(places[place], []byte(c.Token)) {
				t.Errorf("%s does not know %s", place, c.Token)
			}
		}
	}
	for place, n := range map[string]int{"NATS": bytes.Count(places["NATS"], []byte(`"specversion"`)), "Kafka": bytes.Count(places["Kafka"], []byte(`"specversion"`)), "webhooks": len(w.hook.bodies)} {
		if n != len(checks) {
			t.Errorf("%s had %d messages of %d results", place, n, len(checks))
		}
	}
	if stdout, _ := w.command(exitDone, "verify"); !strings.Contains(stdout, "looked at 24 tokens") || !strings.Contains(stdout, " 0 only referred to, 0 known to be missing: 0 problems") {
		t.Errorf("%s", stdout)
	}

	reveal := func(c faceidtest.Check) {
		t.Helper()
		stdout, _ := w.command(exitDone, "show", c.Token, "--reveal", "--reason", "ticket 7")
		for _, value := range []string{c.Person.Name, c.Person.IDCard, c.Person.Address} {
			if !strings.Contains(stdout, value) && c.Product == result.Enhanced {
				t.Errorf("%s: %s is not shown", c.Token, value)
			}
		}
	}
	reveal(checks[0])
	old := w.activeKey()
	w.command(exitDone, "keys", "rotate")
	if w.activeKey() == old {
		t.Fatal("the keys were not rotated")
	}
	w.command(exitDone, "keys", "reseal")
	for place, text := range map[string][]byte{"PostgreSQL": w.dumpPostgres(), "COS": w.dumpArchive()} {
		if bytes.Contains(text, []byte(old)) {
			t.Errorf("%s still holds what the old key has sealed", place)
		}
	}
	w.command(exitDone, "keys", "remove", old, "--yes")
	for _, c := range checks {
		reveal(c)
	}
	w.command(exitDone, "verify")

	gone := checks[2]
	w.command(exitDone, "erase", gone.Token, "--yes")
	hash := result.TokenHash(gone.Product, gone.Token)
	rows := w.dumpPostgres()
	if bytes.Contains(append(rows, w.dumpArchive()...), []byte(gone.Token)) || bytes.Count(rows, []byte(hash)) != 1 || !bytes.Contains(rows, []byte("erased ("+hash)) {
		t.Errorf("more than a tombstone is left of %s", gone.Token)
	}
	for _, o := range w.cos.Objects(archiveBucket) {
		if strings.Contains(o.Key, hash) && !strings.HasPrefix(o.Key, ".index/") {
			t.Errorf("%s is left", o.Key)
		}
	}
	if n := len(w.hook.bodies); n != len(checks)+2 || !bytes.Contains(w.hook.bodies[n-1], []byte("result.erased")) {
		t.Errorf("the receiver was not told: %d calls", n)
	}
	w.command(exitDone, "verify")
}

var keyID = regexp.MustCompile(`"id":"([0-9a-f]{8})"[^}]*"state":"active"`)

func (w *world) activeKey() string {
	w.t.Helper()
	stdout, _ := w.command(exitDone, "keys", "list", "--json")
	found := keyID.FindStringSubmatch(stdout)
	if found == nil {
		w.t.Fatalf("%s", stdout)
	}
	return found[1]
}

// TestOneSinkDown: while the webhook's receiver asks to wait, the work of the other
// sinks is done once, whatever number of deliveries it takes.
func TestOneSinkDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hook.refuse = func(rw http.ResponseWriter, _ string, n int) bool {
		if n == 1 {
			rw.Header().Set("Retry-After", "6") // longer than what is waited for in place
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		return n == 1
	}
	checks, _ := w.publishMarked(6)
	p := w.start()
	until(t, "the receiver was asked for each result", func() bool { w.hook.mu.Lock(); defer w.hook.mu.Unlock(); return len(w.hook.calls) == len(checks) })
	work := func() map[string]int {
		n := map[string]int{"rows": bytes.Count(w.dumpPostgres(), []byte("results "))}
		for _, r := range w.cos.Requests() {
			// Whether the bucket is there and which keyring seals it is looked at all the time.
			if r.Action != "HeadBucket" && r.Bucket == archiveBucket && r.Key != ".index/keyring" {
				n["requests to COS"]++
			}
		}
		fromNATS, fromKafka := w.messages()
		n["NATS"], n["Kafka"] = len(fromNATS), len(fromKafka)
		return n
	}
	before := work()
	until(t, "all events are settled", func() bool { return w.open() == 0 })
	after := work()
	if fmt.Sprint(before) != fmt.Sprint(after) || before["Kafka"] != len(checks) {
		t.Errorf("before the receiver took them: %v, after: %v", before, after)
	}
	for id, n := range w.hook.calls {
		if n != 2 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
	if _, metrics := p.admin("/metrics"); !strings.Contains(metrics, `faceid_ingest_sink_up{sink="evidence"} 1`) {
		t.Errorf("%s", metrics)
	}
	p.stop()
}
