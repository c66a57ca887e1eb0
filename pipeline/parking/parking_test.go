package parking_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

const quota = 256 << 20

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// yard is a parking with all it needs.
type yard struct {
	*parking.Store
	t      *testing.T
	js     jetstream.JetStream
	dir    string
	keys   *privacy.Keyring
	policy *privacy.Policy
	spool  *spool.Spool
}

func newYard(t *testing.T) *yard {
	t.Helper()
	dir := t.TempDir()
	conn, err := broker.Connect(t.Context(), broker.Config{URL: broker.Embedded, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	y := newYardOn(t, conn.JS)
	y.dir = dir
	return y
}

func newYardOn(t *testing.T, js jetstream.JetStream) *yard {
	t.Helper()
	y := &yard{t: t, js: js}
	var err error
	y.keys, err = privacy.CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	must(t, err)
	y.policy, err = privacy.NewPolicy(privacy.DefaultConfig(), y.keys)
	must(t, err)
	y.Store, err = parking.Open(t.Context(), js, parking.Config{Replicas: 1, Quota: quota}, y.policy)
	must(t, err)
	y.spool = newSpool(t, quota)
	return y
}

func newSpool(t *testing.T, quota int64) *spool.Spool {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), MemoryLimit: 64 << 10, Quota: quota})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// batch is closed with the test.
func (y *yard) batch() *spool.Batch {
	y.t.Helper()
	b, err := y.spool.Begin(y.t.Context())
	must(y.t, err)
	y.t.Cleanup(func() { must(y.t, b.Close()) })
	return b
}

// bucket is the state of the stream behind the store.
func (y *yard) bucket() jetstream.StreamState {
	y.t.Helper()
	stream, err := y.js.Stream(y.t.Context(), "OBJ_FACEID_PARKED")
	must(y.t, err)
	info, err := stream.Info(y.t.Context(), jetstream.WithSubjectFilter(">"))
	must(y.t, err)
	return info.State
}

// subject is the one subject of the bucket that begins so.
func (y *yard) subject(prefix string) string {
	y.t.Helper()
	found := ""
	for subject := range y.bucket().Subjects {
		if strings.HasPrefix(subject, "$O.FACEID_PARKED."+prefix) {
			if found != "" {
				y.t.Fatalf("%s and %s", found, subject)
			}
			found = subject
		}
	}
	if found == "" {
		y.t.Fatalf("there is no %s", prefix)
	}
	return found
}

func (y *yard) purge(subject string) {
	y.t.Helper()
	stream, err := y.js.Stream(y.t.Context(), "OBJ_FACEID_PARKED")
	must(y.t, err)
	must(y.t, stream.Purge(y.t.Context(), jetstream.WithPurgeSubject(subject)))
}

// content is media of any size without memory.
type content struct {
	size int64
	seed byte
}

func (c content) Open() (io.ReadSeekCloser, error) {
	return struct {
		io.ReadSeeker
		io.Closer
	}{io.NewSectionReader(c, 0, c.size), io.NopCloser(nil)}, nil
}

func (c content) ReadAt(b []byte, at int64) (int, error) {
	n := int(min(int64(len(b)), c.size-at))
	for i := range n {
		at := at + int64(i)
		b[i] = byte(at) ^ byte(at>>8)*3 ^ byte(at>>16)*5 ^ c.seed
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func digestOf(t testing.TB, c result.Content) result.Digest {
	t.Helper()
	r, err := c.Open()
	must(t, err)
	sha, crc := sha256.New(), crc64.New(crc64.MakeTable(crc64.ECMA))
	n, err := io.Copy(io.MultiWriter(sha, crc), r)
	must(t, errors.Join(err, r.Close()))
	return result.Digest{Size: n, SHA256: [32]byte(sha.Sum(nil)), CRC64: crc.Sum64()}
}

const marker = "标记·0000001900"

// parkable is a result of an invented person with some media.
func parkable(t testing.TB, token string, seed byte, sizes ...int64) *result.Result {
	t.Helper()
	code := int64(seed)
	r := &result.Result{
		Product: result.Enhanced, Account: "main", Token: token, RuleID: "1", RequestID: "shown-request",
		FetchedAt: time.Date(2026, 11, 26, 1, 2, 3, 4, time.UTC),
		Verdict:   result.Verdict{Passed: true, Liveness: &code, LivenessTags: []string{"01"}},
		Person:    result.Person{Name: result.NewSensitive(marker + "name"), IDCard: result.NewSensitive(marker + "id")},
		Attempts:  []result.Attempt{{Name: result.NewSensitive(marker + "attempt"), Code: &code}},
		Warnings:  []result.Warning{{Side: "front", Code: -9100}},
		Assets: []result.Asset{{
			Field: "VideoData.LivenessVideo", Kind: result.Video, ContentType: "video/mp4",
			COS: &result.COSObject{Bucket: "faceid-1250000000", Region: "ap-guangzhou", Key: "shown-key.mp4"},
		}},
		Raw: result.NewSensitive(`{"Name":"` + marker + `raw"}`),
	}
	for i, size := range sizes {
		c := content{size, seed}
		r.Assets = append(r.Assets, result.Asset{
			Field: fmt.Sprintf("BestFrame.BestFrames[%d]", i), Kind: result.Image, ContentType: "image/jpeg",
			Content: c, Digest: digestOf(t, c),
		})
	}
	return r
}

// same ends the test unless got is want with its media.
func same(t testing.TB, want, got *result.Result) {
	t.Helper()
	if len(want.Assets) != len(got.Assets) {
		t.Fatalf("%d assets, want %d", len(got.Assets), len(want.Assets))
	}
	a, b := *want, *got
	a.Assets, b.Assets = nil, nil
	a.Person, b.Person, a.Attempts, b.Attempts, a.Raw, b.Raw = result.Person{}, result.Person{}, nil, nil, result.Sensitive{}, result.Sensitive{}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v, want %+v", b, a)
	}
	for _, pair := range [][2]result.Sensitive{
		{want.Person.Name, got.Person.Name}, {want.Person.IDCard, got.Person.IDCard}, {want.Raw, got.Raw}, {want.Attempts[0].Name, got.Attempts[0].Name},
	} {
		if pair[0].Reveal() != pair[1].Reveal() {
			t.Error("a personal value is another")
		}
	}
	for i, w := range want.Assets {
		g := got.Assets[i]
		if w.Content != nil && digestOf(t, g.Content) != w.Digest {
			t.Errorf("the bytes of %s are others", w.Field)
		}
		w.Content, g.Content = nil, nil
		if !reflect.DeepEqual(w, g) {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
}

func TestParkTakeDrop(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	r := parkable(t, "T-1", 1, 0, 100, 300_000, 1<<20)
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Fatalf("nothing is parked: %v", err)
	}
	for range 2 {
		must(t, y.Park(ctx, r))
		got, err := y.Take(ctx, r.Product, r.Token, y.batch())
		must(t, err)
		same(t, r, got)
	}
	// Nothing is left of what is replaced.
	r = parkable(t, "T-1", 2, 10)
	must(t, y.Park(ctx, r))
	if state := y.bucket(); state.Msgs != 2 {
		t.Errorf("%d messages: %v", state.Msgs, state.Subjects)
	}
	got, err := y.Take(ctx, r.Product, r.Token, y.batch())
	must(t, err)
	same(t, r, got)
	if _, err := y.Take(ctx, result.EID, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("of another product: %v", err)
	}
	for range 2 {
		must(t, y.Drop(ctx, r.Product, r.Token))
	}
	if state := y.bucket(); state.Msgs != 0 {
		t.Errorf("after Drop: %v", state.Subjects)
	}
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("after Drop: %v", err)
	}
}

// TestObjectStoreReadsIt: what is parked is an object for the tools of NATS, and shows
// nothing but its size and key.
func TestObjectStoreReadsIt(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	r := parkable(t, "T-1", 1, 700_000)
	must(t, y.Park(ctx, r))
	store, err := y.js.ObjectStore(ctx, parking.Bucket)
	must(t, err)
	name := "enhanced." + r.TokenHash()
	sealed, err := store.GetBytes(ctx, name) // compares the digest
	must(t, err)
	got, err := y.policy.OpenParcel(r.Product, r.TokenHash(), bytes.NewReader(sealed), func(medium io.Reader) (result.Content, result.Digest, error) {
		_, err := io.Copy(io.Discard, medium)
		return content{700_000, 1}, r.Assets[1].Digest, err
	})
	must(t, err)
	same(t, r, got)
	info, err := store.GetInfo(ctx, name)
	must(t, err)
	if len(info.Metadata) != 2 || info.Metadata["cipher"] != "AES-256-GCM" || len(info.Headers) != 0 || info.Description != "" {
		t.Errorf("%+v", info)
	}
	// What another tool deletes is gone, and can be parked again.
	must(t, store.Delete(ctx, name))
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("deleted: %v", err)
	}
	if use, err := y.KeyUse(ctx); err != nil || len(use) != 0 {
		t.Errorf("deleted: %v, %v", use, err)
	}
	must(t, y.Park(ctx, r))
	if got, err = y.Take(ctx, r.Product, r.Token, y.batch()); err != nil {
		t.Fatal(err)
	}
	same(t, r, got)
}

func TestFull(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	old := parkable(t, "T-1", 1, 200_000)
	must(t, y.Park(ctx, old))
	kept := func() {
		t.Helper()
		if state := y.bucket(); state.NumSubjects != 2 {
			t.Errorf("%v", state.Subjects)
		}
		got, err := y.Take(ctx, old.Product, old.Token, y.batch())
		must(t, err)
		same(t, old, got)
	}
	small, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: 1 << 20}, y.policy)
	must(t, err)
	big := parkable(t, "T-1", 2, 900_000)
	if err := small.Park(ctx, big); !errors.Is(err, parking.ErrFull) {
		t.Errorf("the quota is exceeded: %v", err)
	}
	kept()
	// y still thinks that there is room: the server says that there is none.
	if err := y.Park(ctx, big); !errors.Is(err, parking.ErrFull) {
		t.Errorf("the server's limit is exceeded: %v", err)
	}
	kept()
	if usage, err := small.Usage(ctx); err != nil || usage.Results != 1 || usage.Quota != 1<<20 || usage.Bytes < 200_000 || usage.Bytes > 210_000 {
		t.Errorf("%+v, %v", usage, err)
	}
	// A quota below what is in use drops nothing; a higher one makes room.
	_, err = parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: 1}, y.policy)
	must(t, err)
	kept()
	more, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: 4 << 20}, y.policy)
	must(t, err)
	must(t, more.Park(ctx, big))
	must(t, more.Drop(ctx, big.Product, big.Token))
}

// TestQuotaAboveTheServers: a server that has less gets a bucket without a limit.
func TestQuotaAboveTheServers(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	for _, first := range []bool{false, true} {
		if first {
			must(t, y.js.DeleteObjectStore(t.Context(), parking.Bucket))
		}
		s, err := parking.Open(t.Context(), y.js, parking.Config{Replicas: 1, Quota: 1 << 50}, y.policy)
		must(t, err)
		must(t, s.Park(t.Context(), parkable(t, "T-1", 1, 10)))
		if usage, err := s.Usage(t.Context()); err != nil || usage.Quota != 1<<50 || usage.Results != 1 {
			t.Errorf("%+v, %v", usage, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	if _, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1}, y.policy); err == nil {
		t.Error("a quota of nothing")
	}
	cfg := privacy.DefaultConfig()
	for f := range cfg.Fields {
		cfg.Fields[f] = privacy.Drop
	}
	without, err := privacy.NewPolicy(cfg, nil)
	must(t, err)
	if _, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: quota}, without); err == nil || !strings.Contains(err.Error(), "set privacy.keyring_file") {
		t.Errorf("without a keyring: %v", err)
	}
	must(t, y.js.DeleteObjectStore(ctx, parking.Bucket))
	_, err = y.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: parking.Bucket, TTL: time.Hour})
	must(t, err)
	if _, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: quota}, y.policy); err == nil || !strings.Contains(err.Error(), "would lose results") {
		t.Errorf("a bucket that forgets: %v", err)
	}
	// One that somebody has made otherwise is changed.
	must(t, y.js.DeleteObjectStore(ctx, parking.Bucket))
	_, err = y.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: parking.Bucket})
	must(t, err)
	s, err := parking.Open(ctx, y.js, parking.Config{Replicas: 1, Quota: quota}, y.policy)
	must(t, err)
	must(t, s.Park(ctx, parkable(t, "T-1", 1, 10)))
	stream, err := y.js.Stream(ctx, "OBJ_FACEID_PARKED")
	must(t, err)
	if c := stream.CachedInfo().Config; c.MaxBytes != quota || c.AllowDirect {
		t.Errorf("%+v", c)
	}
}

func TestDamaged(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*yard){
		"a chunk is lost": func(y *yard) {
			stream, err := y.js.Stream(y.t.Context(), "OBJ_FACEID_PARKED")
			must(y.t, err)
			msg, err := stream.GetLastMsgForSubject(y.t.Context(), y.subject("C"))
			must(y.t, err)
			must(y.t, stream.DeleteMsg(y.t.Context(), msg.Sequence))
		},
		"a chunk is another": func(y *yard) {
			subject := y.subject("C")
			y.purge(subject)
			for range 3 {
				_, err := y.js.Publish(y.t.Context(), subject, make([]byte, 1000))
				must(y.t, err)
			}
		},
		"the description cannot be read": func(y *yard) {
			_, err := y.js.Publish(y.t.Context(), y.subject("M"), []byte(`{"nuid":">"}`))
			must(y.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			r := parkable(t, "T-1", 1, 600_000)
			must(t, y.Park(t.Context(), r))
			spoil(y)
			if _, err := y.Take(t.Context(), r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrDamaged) {
				t.Fatalf("taken: %v", err)
			}
			must(t, y.Park(t.Context(), r))
			got, err := y.Take(t.Context(), r.Product, r.Token, y.batch())
			must(t, err)
			same(t, r, got)
			must(t, y.Drop(t.Context(), r.Product, r.Token))
			must(t, y.SweepOlder(t.Context(), 0))
			if state := y.bucket(); state.Msgs != 0 {
				t.Errorf("%v", state.Subjects)
			}
		})
	}
}

// TestCutOff leaves what processes that end in the middle leave.
func TestCutOff(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	r := parkable(t, "T-1", 1, 600_000)
	must(t, y.Park(ctx, r))
	stream, err := y.js.Stream(ctx, "OBJ_FACEID_PARKED")
	must(t, err)
	msg, err := stream.GetLastMsgForSubject(ctx, y.subject("M"))
	must(t, err)

	// A removal: nothing can be taken, and the description goes by itself.
	y.purge(y.subject("C"))
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("a removal was cut off: %v", err)
	}
	if state := y.bucket(); state.Msgs != 0 {
		t.Errorf("%v", state.Subjects)
	}
	// The same, and its end.
	_, err = y.js.PublishMsg(ctx, &nats.Msg{Subject: msg.Subject, Data: msg.Data})
	must(t, err)
	must(t, y.Drop(ctx, r.Product, r.Token))
	if state := y.bucket(); state.Msgs != 0 {
		t.Errorf("%v", state.Subjects)
	}
	// A parking: there are chunks, and no result. They go when they are old.
	must(t, y.Park(ctx, r))
	y.purge(y.subject("M"))
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("a parking was cut off: %v", err)
	}
	must(t, y.Park(ctx, parkable(t, "T-2", 2, 10)))
	must(t, y.Sweep(ctx))
	if state := y.bucket(); state.NumSubjects != 3 {
		t.Errorf("chunks of a parking that may go on are removed: %v", state.Subjects)
	}
	must(t, y.SweepOlder(ctx, 0))
	if state := y.bucket(); state.NumSubjects != 2 {
		t.Errorf("%v", state.Subjects)
	}
	got, err := y.Take(ctx, r.Product, "T-2", y.batch())
	must(t, err)
	same(t, parkable(t, "T-2", 2, 10), got)
}

// failing is content that cannot be read to its end.
type failing struct{ content }

func (f failing) Open() (io.ReadSeekCloser, error) {
	r, err := f.content.Open()
	return struct {
		io.Reader
		io.Seeker
		io.Closer
	}{io.MultiReader(io.LimitReader(r, 400_000), iotestErr{}), r, r}, err
}

type iotestErr struct{}

var errRelease = errors.New("the media was released")

func (iotestErr) Read([]byte) (int, error) { return 0, errRelease }

// TestParkFails: what was there before stays, and nothing is left over.
func TestParkFails(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	old := parkable(t, "T-1", 1, 1000)
	must(t, y.Park(t.Context(), old))
	r := parkable(t, "T-1", 2, 600_000)
	r.Assets[1].Content = failing{r.Assets[1].Content.(content)}
	if err := y.Park(t.Context(), r); !errors.Is(err, errRelease) {
		t.Errorf("media that cannot be read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := y.Park(ctx, parkable(t, "T-1", 2, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := y.Take(ctx, old.Product, old.Token, y.batch()); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if state := y.bucket(); state.Msgs != 2 {
		t.Errorf("%v", state.Subjects)
	}
	got, err := y.Take(t.Context(), old.Product, old.Token, y.batch())
	must(t, err)
	same(t, old, got)
}

// TestConcurrently parks one token from many sides while others take and drop it:
// nobody ever sees half of one, and nothing is left over.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	y := newYardOn(t, startOutside(t).connect().JS)
	ctx := t.Context()
	var parks, others sync.WaitGroup
	done := make(chan struct{})
	var wants [4]*result.Result
	for seed := range wants {
		wants[seed] = parkable(t, "T-1", byte(seed), 300_000)
	}
	for _, r := range wants {
		parks.Go(func() {
			for range 4 {
				if err := y.Park(ctx, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := y.Drop(ctx, result.Enhanced, "T-1"); err != nil {
				t.Error(err)
			}
		}
	})
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			b, err := y.spool.Begin(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := y.Take(ctx, result.Enhanced, "T-1", b)
			switch {
			case err == nil:
				same(t, wants[*got.Verdict.Liveness], got)
			case errors.Is(err, parking.ErrDamaged):
				t.Error(err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	parks.Wait()
	close(done)
	others.Wait()
	must(t, y.Park(ctx, wants[3]))
	got, err := y.Take(ctx, result.Enhanced, "T-1", y.batch())
	must(t, err)
	same(t, wants[3], got)
	if state := y.bucket(); state.NumSubjects != 2 {
		t.Errorf("%v", state.Subjects)
	}
}

func TestThousand(t *testing.T) {
	t.Parallel()
	y := newYardOn(t, startOutside(t).connect().JS)
	ctx := t.Context()
	before := time.Now()
	var hands sync.WaitGroup
	const n, workers = 1000, 8
	each := func(do func(i int)) {
		for w := range workers {
			hands.Go(func() {
				for i := w; i < n; i += workers {
					do(i)
				}
			})
		}
		hands.Wait()
	}
	each(func(i int) {
		if err := y.Park(ctx, parkable(t, fmt.Sprint("T-", i), byte(i), 2000)); err != nil {
			t.Error(err)
		}
	})
	parked := time.Now()
	if usage, err := y.Usage(ctx); err != nil || usage.Results != n || usage.Bytes > 5<<20 {
		t.Errorf("%+v, %v", usage, err)
	}
	key := y.keys.List()[0].ID
	if use, err := y.KeyUse(ctx); err != nil || len(use) != 1 || use[key] != n {
		t.Errorf("%v, %v", use, err)
	}
	if keys, err := y.Keys(ctx); err != nil || len(keys) != n || keys[0].Compare(keys[1]) >= 0 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	listed := time.Now()
	each(func(i int) {
		b, err := y.spool.Begin(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		token := fmt.Sprint("T-", i)
		got, err := y.Take(ctx, result.Enhanced, token, b)
		if err != nil {
			t.Error(err)
		} else {
			same(t, parkable(t, token, byte(i), 2000), got)
		}
		if err := errors.Join(b.Close(), y.Drop(ctx, result.Enhanced, token)); err != nil {
			t.Error(err)
		}
	})
	t.Logf("parked in %s, listed twice in %s, taken and dropped in %s", parked.Sub(before), listed.Sub(parked), time.Since(listed))
	if state := y.bucket(); state.Msgs != 0 {
		t.Errorf("%d messages are left", state.Msgs)
	}
}

func TestReseal(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	ctx := t.Context()
	r := parkable(t, "T-1", 1, 300_000)
	must(t, y.Park(ctx, r))
	key := sinks.KeyOf(r.Product, r.Token)
	reseal := func(want bool) {
		t.Helper()
		if changed, err := y.Reseal(ctx, key, y.batch()); err != nil || changed != want {
			t.Errorf("changed: %v, %v", changed, err)
		}
	}
	reseal(false)
	old := y.keys.List()[0].ID
	fresh, err := y.keys.Rotate()
	must(t, err)
	reseal(true)
	reseal(false)
	if use, err := y.KeyUse(ctx); err != nil || len(use) != 1 || use[fresh.ID] != 1 {
		t.Errorf("%v, %v", use, err)
	}
	must(t, y.keys.Remove(old))
	got, err := y.Take(ctx, r.Product, r.Token, y.batch())
	must(t, err)
	same(t, r, got)
	if state := y.bucket(); state.NumSubjects != 2 {
		t.Errorf("%v", state.Subjects)
	}

	_, err = y.keys.Rotate()
	must(t, err)
	must(t, y.keys.Remove(fresh.ID))
	var unknown *privacy.UnknownKeyError
	if _, err := y.Reseal(ctx, key, y.batch()); !errors.As(err, &unknown) || unknown.ID != fresh.ID {
		t.Errorf("without its key: %v", err)
	}
	if _, err := y.Take(ctx, r.Product, r.Token, y.batch()); !errors.As(err, &unknown) || errors.Is(err, parking.ErrDamaged) {
		t.Errorf("without its key: %v", err)
	}
	must(t, y.Drop(ctx, r.Product, r.Token))
	if _, err := y.Reseal(ctx, key, y.batch()); !errors.Is(err, parking.ErrNotParked) {
		t.Errorf("of nothing: %v", err)
	}
}

// TestNothingShows searches the files of the server.
func TestNothingShows(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	r := parkable(t, "CANARY-TOKEN", 1, 300_000)
	must(t, y.Park(t.Context(), r))
	media := make([]byte, 32)
	_, err := content{1000, 1}.ReadAt(media, 100)
	must(t, err)
	secrets := []string{marker, "CANARY-TOKEN", "shown-", "LivenessVideo", "BestFrame", "ap-guangzhou", string(media)}
	files, found := 0, false
	must(t, filepath.WalkDir(y.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte("FIPARCL"))
		for _, secret := range secrets {
			if strings.Contains(string(b), secret) || strings.Contains(path, secret) {
				t.Errorf("%s shows in %s", secret, path)
			}
		}
		return err
	}))
	if files == 0 || !found {
		t.Errorf("the parcel is in none of %d files", files)
	}
}
