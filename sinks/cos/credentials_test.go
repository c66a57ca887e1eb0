package cos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

// Secrets in files are rotated under a running sink.
func TestRotatedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		return path
	}
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) {
		c.SecretID, c.SecretKey = "", ""
		c.SecretIDFile, c.SecretKeyFile, c.SessionTokenFile = write("id", "one"), write("key", "key one"), write("token", "token one")
	})
	c.server.AddCredential(costest.Credential{SecretID: "one", SecretKey: "key one", Token: "token one"})
	c.server.AddCredential(costest.Credential{SecretID: "two", SecretKey: "key two", Token: "token two"})
	sink := c.open(t, cos.Edges{})
	must(t, sink.Check(t.Context()))
	c.server.AddCredential(costest.Credential{SecretID: "one", SecretKey: "gone"})
	if err := sink.Check(t.Context()); err == nil {
		t.Error("the old key still works")
	}
	write("id", "two")
	write("key", "key two")
	write("token", "token two")
	must(t, sink.Check(t.Context()))

	must(t, os.Remove(filepath.Join(dir, "key")))
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "secret_key_file", "no such file")
	write("key", " ")
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "secret_key is empty")
}

// metadata is the metadata service of a machine with a role.
type metadata struct {
	mu    sync.Mutex
	calls int
	life  time.Duration
	fail  bool
	add   func(costest.Credential)
	now   func() time.Time
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path != "/latest/meta-data/cam/security-credentials/ingest" || m.fail {
		http.NotFound(w, r)
		return
	}
	m.calls++
	c := costest.Credential{
		SecretID: fmt.Sprint("id", m.calls), SecretKey: fmt.Sprint("key", m.calls), Token: fmt.Sprint("token", m.calls),
	}
	m.add(c)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"TmpSecretId": c.SecretID, "TmpSecretKey": c.SecretKey, "Token": c.Token,
		"ExpiredTime": m.now().Add(m.life).Unix(), "Code": "Success",
	})
}

func (m *metadata) set(fail bool) (calls int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
	return m.calls
}

// clock is a clock that tests move. Its zero is now.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func TestCVMRole(t *testing.T) {
	t.Parallel()
	var time0 clock
	c := newCloudWith(t, costest.Options{Now: time0.now}, costest.BucketOptions{}, func(c *cos.Config) {
		c.Credentials, c.Role, c.SecretID, c.SecretKey = "cvm_role", "ingest", "", ""
	})
	m := &metadata{life: time.Hour, add: c.server.AddCredential, now: time0.now}
	service := httptest.NewServer(m)
	defer service.Close()
	sink := c.open(t, cos.Edges{Metadata: service.URL, Now: time0.now})
	for range 3 {
		must(t, sink.Check(t.Context()))
	}
	if n := m.set(false); n != 1 {
		t.Errorf("asked for keys %d times", n)
	}
	// Ten minutes before their end they are renewed; while that fails, the old serve.
	time0.advance(51 * time.Minute)
	m.set(true)
	must(t, sink.Check(t.Context()))
	m.set(false)
	time0.advance(time.Minute)
	must(t, sink.Check(t.Context()))
	if n := m.set(true); n != 2 {
		t.Errorf("asked for keys %d times", n)
	}
	time0.advance(2 * time.Hour)
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "is the CAM role ingest bound to this machine?")
	m.set(false)
	archive(t, sink, onlyInline(0, 3))
}

// federation is STS.
type federation struct {
	mu     sync.Mutex
	calls  int
	policy string
	code   string
	add    func(costest.Credential)
	now    func() time.Time
}

func (f *federation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var asked struct{ Policy string }
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &asked)
	f.policy, _ = url.QueryUnescape(asked.Policy)
	f.calls++
	response := map[string]any{"RequestId": "r"}
	signed := strings.Contains(r.Header.Get("Authorization"), "Credential="+secretID+"/")
	switch {
	case f.code != "":
		response["Error"] = map[string]any{"Code": f.code, "Message": "a secret " + secretKey}
	case !signed || r.Header.Get("X-TC-Action") != "GetFederationToken":
		response["Error"] = map[string]any{"Code": "InvalidParameter"}
	default:
		c := costest.Credential{SecretID: fmt.Sprint("sts", f.calls), SecretKey: "temporary", Token: "token"}
		f.add(c)
		response["ExpiredTime"] = f.now().Add(30 * time.Minute).Unix()
		response["Credentials"] = map[string]any{"TmpSecretId": c.SecretID, "TmpSecretKey": c.SecretKey, "Token": c.Token}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Response": response})
}

func (f *federation) set(code string) (calls int, policy string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.code = code
	return f.calls, f.policy
}

func TestSTS(t *testing.T) {
	t.Parallel()
	var time0 clock
	c := newCloudWith(t, costest.Options{Now: time0.now}, costest.BucketOptions{}, func(c *cos.Config) { c.Credentials = "sts" })
	c.server.AddCredential(costest.Credential{SecretID: secretID, SecretKey: "only STS takes the long-lived ones"})
	f := &federation{add: c.server.AddCredential, now: time0.now}
	service := httptest.NewServer(f)
	defer service.Close()
	sink := c.open(t, cos.Edges{STS: service.URL, Now: time0.now})
	f.set("AuthFailure.SecretIdNotFound")
	if err := fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, archiveBucket, "check secret_id and secret_key", "AuthFailure.SecretIdNotFound"); strings.Contains(err.Error(), secretKey) {
		t.Error("the error holds what STS said")
	}
	f.set("UnauthorizedOperation")
	fails(t, sink, onlyInline(0, 3), sinks.ClassTransient, "name/sts:GetFederationToken")
	f.set("")
	archive(t, sink, onlyInline(0, 3))
	must(t, sink.Check(t.Context()))
	calls, policy := f.set("")
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
	var parsed map[string]any
	must(t, json.Unmarshal([]byte(policy), &parsed))
	for _, r := range c.server.Requests() {
		action := strings.Replace(r.Action, "PutObjectCopy", "PutObject", 1)
		if !strings.Contains(policy, `"name/cos:`+action+`"`) {
			t.Errorf("the policy does not allow %s", r.Action)
		}
	}
	time0.advance(21 * time.Minute)
	must(t, sink.Check(t.Context()))
	if calls, _ := f.set(""); calls != 4 {
		t.Errorf("%d calls after the keys were nearly over", calls)
	}
	service.Close()
	time0.advance(time.Hour)
	fails(t, sink, onlyInline(1, 3), sinks.ClassTransient, "STS cannot be reached")
}

// Keys that nobody can wait for do not hold a caller that gives up.
func TestWaitingForKeys(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 16)
	release := make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer service.Close()
	defer close(release)
	c := newCloud(t, costest.BucketOptions{}, func(c *cos.Config) {
		c.Credentials, c.Role, c.SecretID, c.SecretKey = "cvm_role", "ingest", "", ""
	})
	sink := c.open(t, cos.Edges{Metadata: service.URL})
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- sink.Check(ctx) }()
	}
	<-reached
	cancel()
	for range 2 {
		if class, _ := sinks.ClassOf(<-errs); class != sinks.ClassCanceled {
			t.Errorf("the class is %s", class)
		}
	}
}
