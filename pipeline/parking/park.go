package parking

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
)

const (
	maxChunk = 256 << 10
	// messageCost is more than what a message takes beside its body, in bytes.
	messageCost = 512
	// infoCost is more than what a description takes.
	infoCost = 2 << 10
	// parkWait bounds one parking. What is not done by then is never announced, so
	// that chunks which are older and belong to nothing may be removed.
	parkWait = 30 * time.Minute
)

// errReplaced means that an object is no longer the one that was looked at.
var errReplaced = errors.New("it was replaced or dropped meanwhile")

// Park seals r and keeps it, in the place of what is parked of its token already.
// When it returns nil, the result is on disk. After an error, the result that was
// there before is still there, or the new one is; of half a result nothing can be
// taken. Several may park the same token: the last one stays.
//
// The error wraps ErrFull if there is no room: try later.
func (s *Store) Park(ctx context.Context, r *result.Result) error {
	parcel, err := s.policy.SealParcel(r)
	if err != nil {
		return fmt.Errorf("park a result: %w", err)
	}
	old, err := s.look(ctx, nameOf(r.Product, r.TokenHash()))
	for err == nil {
		if err = s.put(ctx, parcel, old); err == nil {
			return nil
		}
		if errors.Is(err, errReplaced) {
			old, err = s.look(ctx, old.name)
		}
	}
	return fmt.Errorf("park a result: %w", err)
}

// put uploads a parcel and lets it replace old. The error wraps errReplaced if
// another one has done so first.
func (s *Store) put(ctx context.Context, parcel *privacy.SealedParcel, old object) error {
	ctx, cancel := context.WithTimeout(ctx, parkWait)
	defer cancel()
	if err := s.makeRoom(ctx, parcel.Size()); err != nil {
		return err
	}
	info, err := s.upload(ctx, old.name, parcel)
	if err == nil {
		err = s.announce(ctx, info, old.seq)
	}
	var refused *jetstream.APIError
	if err != nil && !errors.As(err, &refused) {
		// The server may have done what it did not confirm.
		now, lookErr := s.look(context.WithoutCancel(ctx), old.name)
		if lookErr != nil {
			return errors.Join(err, lookErr) // sweep removes what is left over
		}
		if now.info.NUID == info.NUID {
			err = nil
		}
	}
	if err != nil {
		_ = s.removeChunks(context.WithoutCancel(ctx), info.NUID) // else sweep does
		return err
	}
	_ = s.removeChunks(context.WithoutCancel(ctx), old.info.NUID) // else sweep does
	return nil
}

// makeRoom returns ErrFull if a parcel of this size does not fit.
func (s *Store) makeRoom(ctx context.Context, size int64) error {
	need := size + messageCost*(size/int64(s.chunk)+1) + infoCost
	usage, err := s.Usage(ctx)
	if err == nil && usage.Bytes+need > s.quota {
		if err = s.Sweep(ctx); err == nil {
			usage, err = s.Usage(ctx)
		}
	}
	if err == nil && usage.Bytes+need > s.quota {
		return fmt.Errorf("%d bytes are more than what is left of %d: %w", need, s.quota, ErrFull)
	}
	return err
}

// upload publishes the chunks of a parcel, one after the other. Each has to follow the
// one before: the server refuses one that would be out of order. The description it
// returns always names the chunks.
func (s *Store) upload(ctx context.Context, name string, parcel *privacy.SealedParcel) (jetstream.ObjectInfo, error) {
	key, cipher := parcel.Seal()
	info := jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{
			Name:     name,
			Metadata: map[string]string{keyName: key, cipherName: string(cipher)},
			Opts:     &jetstream.ObjectMetaOptions{ChunkSize: uint32(s.chunk)},
		},
		Bucket: Bucket,
		NUID:   rand.Text(),
	}
	sealed := parcel.Open()
	defer func() { _ = sealed.Close() }() // only read
	sum := sha256.New()
	chunk := make([]byte, s.chunk)
	for last := uint64(0); ; {
		n, err := io.ReadFull(sealed, chunk)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return info, err
		}
		if last, err = s.publish(ctx, &nats.Msg{Subject: s.prefix("C") + info.NUID, Data: chunk[:n]}, last); err != nil {
			return info, err
		}
		_, _ = sum.Write(chunk[:n]) // never fails
		info.Size += uint64(n)
		info.Chunks++
	}
	info.Digest = "SHA-256=" + base64.URLEncoding.EncodeToString(sum.Sum(nil))
	return info, nil
}

// announce publishes the description of an object, which makes it one.
func (s *Store) announce(ctx context.Context, info jetstream.ObjectInfo, replaces uint64) error {
	body, err := json.Marshal(info)
	if err != nil {
		return err
	}
	_, err = s.publish(ctx, &nats.Msg{
		Subject: s.infoSubject(info.Name), Data: body, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
	}, replaces)
	return err
}

// publish stores a message if the last one of its subject has the sequence last, and
// returns the new one's.
func (s *Store) publish(ctx context.Context, msg *nats.Msg, last uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, msg, jetstream.WithExpectLastSequencePerSubject(last))
	var api *jetstream.APIError
	switch {
	case err == nil:
		return ack.Sequence, nil
	case streams.IsNoRoom(err):
		return 0, fmt.Errorf("%w: %w", ErrFull, err)
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return 0, fmt.Errorf("%w: %w", errReplaced, err)
	}
	return 0, err
}
