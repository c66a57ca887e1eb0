//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope/envelopetest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// What the stand-ins and the workers' configuration have to agree on. The secrets
// open nothing but the stand-ins.
//
//nolint:gosec // see above
const (
	archiveBucket = "archive-1250000000"
	faceidBucket  = "faceid-1250000000"
	region        = "ap-guangzhou"
	apiSecretID   = "AKID-chaos"
	apiSecretKey  = "key-of-the-api"
	cosSecretID   = "AKID-chaos-cos"
	cosSecretKey  = "key-of-cos"
	kmsKey        = "kms-key"
	hookSecret    = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

// standIns are the services of others, inside this process.
type standIns struct {
	api  *faceidtest.Server
	cos  *costest.Server
	hook *receiver
}

// startStandIns starts them, and writes the keys that an owner has into folder.
func startStandIns(ctx context.Context, folder string) (_ *standIns, err error) {
	s := &standIns{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.api, err = faceidtest.Start(ctx, faceidtest.Options{}); err != nil {
		return nil, err
	}
	if err := equip(s.api, folder); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	if s.cos, err = costest.Start(context.WithoutCancel(ctx), costest.Options{}); err != nil {
		return nil, err
	}
	s.cos.AddCredential(costest.Credential{SecretID: cosSecretID, SecretKey: cosSecretKey})
	s.cos.CreateBucket(archiveBucket, region, costest.BucketOptions{})
	s.cos.CreateBucket(faceidBucket, region, costest.BucketOptions{})
	s.hook = newReceiver()
	return s, os.WriteFile(filepath.Join(folder, "hook-ca.pem"), s.hook.certificate(), 0o600)
}

// equip gives the API its keys, and the folder those of the owner.
func equip(api *faceidtest.Server, folder string) error {
	api.AddCredential(apiSecretID, apiSecretKey, "")
	api.AddKMSKey(kmsKey)
	for algorithm, name := range map[envelope.Algorithm]string{envelope.AES256CBC: "aes.txt", envelope.SM4GCM: "sm4.txt"} {
		keys, err := envelopetest.GenerateKeys(algorithm)
		if err != nil {
			return err
		}
		api.UseKeys(algorithm, keys)
		if err := os.WriteFile(filepath.Join(folder, name), []byte(keys.Console()), 0o600); err != nil {
			return err
		}
	}
	merchant, err := envelopetest.GenerateMerchant()
	if err != nil {
		return err
	}
	api.UseMerchant(merchant, envelopetest.Form{})
	return os.WriteFile(filepath.Join(folder, "CAkey.pem"), merchant.PEM(), 0o600)
}

func (s *standIns) close() error {
	var errs []error
	if s.api != nil {
		errs = append(errs, s.api.Close())
	}
	if s.cos != nil {
		errs = append(errs, s.cos.Close())
	}
	if s.hook != nil {
		s.hook.server.Close()
	}
	return errors.Join(errs...)
}

// receiver is a webhook's other end. It verifies signatures and remembers what it
// was sent by the id that a real one would drop repetitions by.
type receiver struct {
	server *httptest.Server

	mu     sync.Mutex
	faults map[*hookFault]struct{}
	calls  map[string]*call
	forged int
}

// call is what came under one id.
type call struct {
	times int
	// body is the first one, and differs says that another was of something else.
	body    []byte
	sum     [sha256.Size]byte
	differs bool
}

// hookFault is what the receiver does in place of an answer.
type hookFault struct {
	status int
	// delay comes before the answer; lose breaks the connection in place of one,
	// when the message is remembered.
	delay time.Duration
	lose  bool
}

func newReceiver() *receiver {
	r := &receiver{faults: map[*hookFault]struct{}{}, calls: map[string]*call{}}
	r.server = httptest.NewUnstartedServer(r)
	r.server.Config.ErrorLog = discardLog() // connections are cut on purpose
	r.server.StartTLS()
	return r
}

func (r *receiver) certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
}

// fail makes all requests fail until lift is called.
func (r *receiver) fail(f hookFault) (lift func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[&f] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.faults, &f)
	}
}

// fault is what happens now.
func (r *receiver) fault() (now hookFault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f := range r.faults {
		now.status = max(now.status, f.status)
		now.delay = max(now.delay, f.delay)
		now.lose = now.lose || f.lose
	}
	return now
}

const maxMessage = 1 << 20

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxMessage))
	if err != nil {
		w.WriteHeader(http.StatusRequestTimeout) // cut off on the way
		return
	}
	if webhook.Verify(hookSecret, q.Header, body, time.Now(), time.Minute) != nil {
		r.mu.Lock()
		r.forged++
		r.mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f := r.fault()
	if f.delay > 0 {
		timer := time.NewTimer(f.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-q.Context().Done():
		}
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
		return
	}
	r.remember(q.Header.Get("Webhook-Id"), body)
	if f.lose {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) remember(id string, body []byte) {
	sum := essence(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.calls[id]
	if c == nil {
		c = &call{body: body, sum: sum}
		r.calls[id] = c
	}
	c.times++
	c.differs = c.differs || c.sum != sum
}

// essence is a digest of what a message says, without what two calls of the API
// about one token answer differently: when it was asked, and the request's id.
func essence(body []byte) [sha256.Size]byte {
	var e notice.Event
	var r notice.Result
	if json.Unmarshal(body, &e) != nil || json.Unmarshal(e.Data, &r) != nil {
		return sha256.Sum256(body)
	}
	e.Time, r.FetchedAt, r.RequestID = time.Time{}, time.Time{}, ""
	e.Data, _ = json.Marshal(r) // what was decoded can be encoded
	text, _ := json.Marshal(e)
	return sha256.Sum256(text)
}
