// Package parking keeps pulled results whose sinks are down, so that the API is not
// needed again.
//
// In goes a *result.Result with its media, out comes the same; in between it lies in
// a JetStream object store, sealed with the keyring (privacy.SealParcel). The name of
// an object is "<product>.<token hash>", and what else NATS shows of it are its size
// and the id of the key: neither a token nor anything of a person.
//
// What may go wrong: the store is full (ErrFull), a parcel is not what was parked
// (ErrDamaged) or its key is gone (*privacy.UnknownKeyError); any other error is
// NATS, the keyring or the spool, and passes.
//
// The objects have the form of nats.go's object store (ADR-20), and its tools read
// them. They are written and read by own code, because nats.go announces an object
// before it knows that all of its chunks are stored, so that a store which fills up
// loses the old object with the new one; leaves chunks for ever when two write the
// same name; and reads through a subscription which a reader that stops early leaks.
package parking

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Bucket is the name of the object store.
const Bucket = streams.ParkedBucket

const (
	streamName = "OBJ_" + Bucket
	// keyName and cipherName are in an object's metadata: what it is sealed with.
	keyName    = "sealing-key"
	cipherName = "cipher"
	// requestWait bounds one request to NATS.
	requestWait = 15 * time.Second
)

var (
	// ErrFull means that a result does not fit into what is left of the quota.
	ErrFull = errors.New("no room to park the result (parking.quota)")
	// ErrNotParked means that there is no result of the token.
	ErrNotParked = errors.New("no result of this token is parked")
	// ErrDamaged means that what is parked is not what Park was given. It will not
	// get better: Drop it.
	ErrDamaged = errors.New("the parked result is damaged")
)

// Config says how much is kept, and how safely.
type Config struct {
	// Replicas is on how many servers the results are kept, 1 to 5.
	Replicas int
	// Quota bounds all parked results of all processes together, sealed and with
	// what the server adds, in bytes.
	Quota int64
}

// Store is where results are parked. It is safe for use by several goroutines, and
// the bucket by several processes.
type Store struct {
	stream jetstream.Stream
	js     jetstream.JetStream
	policy *privacy.Policy
	quota  int64
	// chunk is how many bytes of a parcel go into a message.
	chunk int

	mu sync.Mutex
	// swept is when this store began to look for abandoned chunks last.
	swept time.Time
}

// Open makes the bucket where it is missing. Of one that exists, the quota becomes
// that of cfg, which drops nothing where it is lower than what is in use; replicas
// are raised, never lowered. A server that cannot set the quota aside, because it has
// not so much, gets a bucket without a limit: the store minds the quota all the same.
func Open(ctx context.Context, js jetstream.JetStream, cfg Config, policy *privacy.Policy) (*Store, error) {
	switch {
	case cfg.Quota < 1:
		return nil, errors.New("open the parking: the quota must be positive")
	case !policy.HasKeyring():
		return nil, errors.New("open the parking: the privacy policy has no keyring: set privacy.keyring_file")
	}
	stream, err := streams.Ensure(ctx, js, streams.ParkedResultsNeed(cfg.Quota), cfg.Replicas)
	if err != nil {
		return nil, fmt.Errorf("open the parking: %w", err)
	}
	s := &Store{
		stream: stream, js: js, policy: policy, quota: cfg.Quota,
		// Half of what a message may have leaves room for its headers, and for the
		// base64 in which the server sends it back.
		chunk: int(min(maxChunk, js.Conn().MaxPayload()/2)),
	}
	return s, nil
}

// Usage is how much is parked.
type Usage struct {
	// Results is how many there are.
	Results int
	// Bytes are in use, of Quota.
	Bytes, Quota int64
	// Reserved says that the server has set the quota aside.
	Reserved bool
}

// Usage asks one question of the server. A result that is just being parked counts
// with its bytes already.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	info, err := s.stream.Info(ctx)
	if err != nil {
		return Usage{}, fmt.Errorf("look at the parking: %w", err)
	}
	return usageOf(info, s.quota), nil
}

// ReadUsage is Store.Usage for who has no store; Quota is 0 if no store has noted it. A bucket that is not there is empty.
func ReadUsage(ctx context.Context, js jetstream.JetStream) (Usage, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	stream, err := js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return Usage{}, nil
	}
	if err != nil {
		return Usage{}, fmt.Errorf("look at the parking: %w", err)
	}
	info := stream.CachedInfo()
	return usageOf(info, streams.QuotaOf(info.Config)), nil
}

// usageOf reads the state of the bucket's stream: each result has one subject for its
// chunks and one for its description.
func usageOf(info *jetstream.StreamInfo, quota int64) Usage {
	return Usage{Results: int(info.State.NumSubjects / 2), Bytes: int64(info.State.Bytes), Quota: quota, Reserved: info.Config.MaxBytes > 0}
}

// Held is what is parked of one token.
type Held struct {
	// Since is when it was parked, or sealed anew, by the server's clock.
	Since time.Time
	// Bytes is how large it is, sealed.
	Bytes int64
}

// Find returns what is parked of a token, for who has no store; nil if nothing is. A
// bucket that is not there is empty.
func Find(ctx context.Context, js jetstream.JetStream, key sinks.Key) (*Held, error) {
	stream, err := js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at the parking: %w", err)
	}

	s := &Store{stream: stream, js: js}
	o, err := s.look(ctx, nameOf(key.Product, key.Hash))
	if err != nil {
		return nil, fmt.Errorf("look at the parking: %w", err)
	}
	if !o.exists() {
		return nil, nil
	}
	return &Held{Since: o.at.UTC(), Bytes: int64(o.info.Size)}, nil
}

// object is what is known of a name.
type object struct {
	name string
	// at is when the description was stored.
	at time.Time
	// seq is the sequence of the description; 0 if there is none.
	seq uint64
	// info describes the object. It is zero if there is none and if its description
	// cannot be read; another tool may have marked it as deleted.
	info jetstream.ObjectInfo
}

// exists tells whether there is an object; it may be damaged.
func (o object) exists() bool { return o.seq > 0 && !o.info.Deleted }

func nameOf(p result.Product, hash string) string { return string(p) + "." + hash }

// prefix is of the subjects of the bucket: C for chunks, M for descriptions.
func (s *Store) prefix(kind string) string {
	bucket := strings.TrimPrefix(streams.NameIn(s.js, streamName), "OBJ_")
	return "$O." + bucket + "." + kind + "."
}

func (s *Store) infoSubject(name string) string {
	return s.prefix("M") + base64.URLEncoding.EncodeToString([]byte(name))
}

// validID keeps what is read from the bucket from being taken for a wildcard.
var validID = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)

// look reads what is known of a name.
func (s *Store) look(ctx context.Context, name string) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	msg, err := s.stream.GetLastMsgForSubject(ctx, s.infoSubject(name))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return object{name: name}, nil
	case err != nil:
		return object{}, err
	}
	return parseObject(name, msg), nil
}

func parseObject(name string, msg *jetstream.RawStreamMsg) object {
	o := object{name: name, at: msg.Time, seq: msg.Sequence}
	if json.Unmarshal(msg.Data, &o.info) != nil || !validID.MatchString(o.info.NUID) {
		o.info = jetstream.ObjectInfo{}
	}
	return o
}

// Drop removes the parked result of a token; that there is none is no error. It
// returns when nothing of it is left. After an error it may be gone in part, which is
// then no result any more: call it again.
func (s *Store) Drop(ctx context.Context, p result.Product, token string) error {
	return s.DropKey(ctx, sinks.KeyOf(p, token))
}

// DropKey is Drop for who has the token's key.
func (s *Store) DropKey(ctx context.Context, key sinks.Key) error {
	o, err := s.look(ctx, nameOf(key.Product, key.Hash))
	if err == nil {
		err = s.remove(ctx, o)
	}
	if err != nil {
		return fmt.Errorf("drop a parked result: %w", err)
	}
	return nil
}

// remove takes an object away, and not one that has replaced it meanwhile. The
// description goes last, so that a removal which was cut off can be ended.
func (s *Store) remove(ctx context.Context, o object) error {
	if o.seq == 0 {
		return nil
	}
	if err := s.removeChunks(ctx, o.info.NUID); err != nil {
		return err
	}
	return s.purge(ctx, s.infoSubject(o.name), jetstream.WithPurgeSequence(o.seq+1))
}

// removeChunks takes all chunks of an upload away at once; "" is none.
func (s *Store) removeChunks(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	return s.purge(ctx, s.prefix("C")+id)
}

func (s *Store) purge(ctx context.Context, subject string, options ...jetstream.StreamPurgeOpt) error {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	return s.stream.Purge(ctx, append(options, jetstream.WithPurgeSubject(subject))...)
}
