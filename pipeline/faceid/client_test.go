package faceid_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/limit"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a client, the API it calls, and a spool.
type rig struct {
	api    *faceidtest.Server
	client *faceid.Client
	spool  *spool.Spool
}

func newRig(t testing.TB, change func(*faceid.Config)) *rig {
	t.Helper()
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	api.AddCredential("AKID", "secret-key", "")
	cfg := faceid.Config{
		Account: "main", Endpoint: api.URL(), Region: "ap-guangzhou",
		Credentials: func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: "AKID", SecretKey: "secret-key"}, nil
		},
		Timeout: 10 * time.Minute, MaxResponse: 1 << 30,
		Storage: faceid.Storage{Bucket: "faceid-1250000000", Region: "ap-guangzhou"},
	}
	if change != nil {
		change(&cfg)
	}
	client, err := faceid.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	media, err := spool.Open(spool.Config{Dir: t.TempDir(), MemoryLimit: 64 << 10, Quota: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		if err := errors.Join(api.Close(), media.Close()); err != nil {
			t.Error(err)
		}
	})
	return &rig{api, client, media}
}

func query(c faceidtest.Check) faceid.Query {
	return faceid.Query{Product: c.Product, Token: c.Token, RuleID: c.RuleID, BestFrames: 10, CropIDCard: true, Avatar: true}
}

// get pulls a check, and releases its media at the end of the test.
func (r *rig) get(t testing.TB, q faceid.Query) (*result.Result, error) {
	t.Helper()
	batch, err := r.spool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := batch.Close(); err != nil {
			t.Error(err)
		}
	})
	return r.client.Get(t.Context(), q, batch)
}

// same checks that every medium of a check is in its result, byte for byte.
func same(t testing.TB, c faceidtest.Check, r *result.Result) {
	t.Helper()
	if len(r.Assets) != len(c.Media) {
		t.Errorf("%s: %d assets for %d media", c.Token, len(r.Assets), len(c.Media))
	}
	for _, m := range c.Media {
		a, ok := r.Asset(m.Field)
		switch {
		case !ok:
			t.Errorf("%s: no asset %s (%s)", c.Token, m.Field, m.Form)
		case a.Kind != m.Kind:
			t.Errorf("%s: %s is a %s", c.Token, m.Field, a.Kind)
		case m.Form.InCOS():
			want := result.COSObject{Bucket: c.Bucket, Region: c.Region, Key: m.Key()}
			if a.COS == nil || *a.COS != want || a.Content != nil {
				t.Errorf("%s: %s (%s) lies in %+v, want %+v", c.Token, m.Field, m.Form, a.COS, want)
			}
		default:
			want := sha256.New()
			n, err := io.Copy(want, m.Reader())
			if err != nil {
				t.Fatal(err)
			}
			if a.Digest.Size != n || !bytes.Equal(a.Digest.SHA256[:], want.Sum(nil)) || a.Content == nil || a.COS != nil {
				t.Errorf("%s: %s (%s) has other bytes", c.Token, m.Field, m.Form)
			}
		}
	}
}

func TestEveryForm(t *testing.T) {
	rig := newRig(t, nil)
	for number := range 84 { // all products, forms, intention modes and outcomes
		c := faceidtest.NewCheck(number, 200<<10)
		rig.api.Put(c)
		r, err := rig.get(t, query(c))
		if err != nil {
			t.Fatalf("check %d: %v", number, err)
		}
		same(t, c, r)
		if r.Product != c.Product || r.Token != c.Token || r.RuleID != c.RuleID || r.Account != "main" || r.RequestID == "" || r.FetchedAt.IsZero() {
			t.Errorf("check %d: %+v", number, r)
		}
		if want := c.Code == 0 && c.IntentionCode == 0; r.Verdict.Passed != want || r.Verdict.Code != c.Code {
			t.Errorf("check %d: verdict %+v", number, r.Verdict)
		}
		if len(r.Attempts) != c.FailedAttempts+1 || !r.Attempts[c.FailedAttempts].Charged {
			t.Errorf("check %d: attempts %+v", number, r.Attempts)
		}
		name := c.Person.Name
		if c.Product == result.EID {
			name = ""
		}
		if r.Person.Name.Reveal() != name || r.Document.IDCard.IsEmpty() != (name == "") || r.Person.Extra.Reveal() != "order-"+c.Token {
			t.Errorf("check %d: person %q", number, r.Person.Name.Reveal())
		}
		raw := r.Raw.Reveal()
		if !strings.Contains(raw, c.Token) || len(raw) > 10_000 || strings.Contains(raw, "spool:") {
			t.Errorf("check %d: raw answer of %d bytes", number, len(raw))
		}
	}
}

// TestParts gets results that the API does not send at once.
func TestParts(t *testing.T) {
	waits := &counter{}
	rig := newRig(t, func(cfg *faceid.Config) { cfg.Limit = waits })
	for number := range 16 { // both products, all intention modes
		c := faceidtest.NewCheck(number, 50<<10)
		c.TooLarge = true
		rig.api.Put(c)
		r, err := rig.get(t, query(c))
		if err != nil {
			t.Fatalf("check %d: %v", number, err)
		}
		same(t, c, r)
		if want := c.Code == 0 && c.IntentionCode == 0; r.Verdict.Passed != want || (c.Intention != "") != (r.Verdict.Intention != result.IntentionOff) && c.Code == 0 {
			t.Errorf("check %d: verdict %+v", number, r.Verdict)
		}
		if n := rig.api.Calls(c.Token); n != 7 {
			t.Errorf("check %d: %d calls, not the whole and six parts", number, n)
		}
	}
	if n := waits.calls.Load(); n != int64(rig.api.Stats().Requests) {
		t.Errorf("the limiter was asked %d times for %d requests", n, rig.api.Stats().Requests)
	}

	t.Run("one part is too large", func(t *testing.T) {
		c := faceidtest.NewCheck(0, 50<<10)
		rig.api.Put(c)
		rig.api.Fail(faceidtest.Fault{Token: c.Token, Code: "ResponseSizeLimitExceeded"})
		if _, err := rig.get(t, query(c)); faceid.ClassOf(err) != faceid.TooLarge {
			t.Errorf("%v", err)
		}
	})
	t.Run("only asked for one part", func(t *testing.T) {
		c := faceidtest.NewCheck(100, 50<<10)
		rig.api.Put(c)
		rig.api.Fail(faceidtest.Fault{Token: c.Token, Code: "ResponseSizeLimitExceeded"})
		q := query(c)
		q.InfoType = "1"
		if _, err := rig.get(t, q); faceid.ClassOf(err) != faceid.TooLarge || rig.api.Calls(c.Token) != 1 {
			t.Errorf("%v", err)
		}
	})
	t.Run("the limiter gives up", func(t *testing.T) {
		waits.err = context.Canceled
		if _, err := rig.get(t, query(faceidtest.NewCheck(0, 1))); faceid.ClassOf(err) != faceid.Canceled {
			t.Errorf("%v", err)
		}
	})
}

// counter is a limiter that only counts.
type counter struct {
	calls, throttles atomic.Int64
	priority         limit.Priority
	after            time.Duration
	err              error
}

func (c *counter) Wait(_ context.Context, p limit.Priority) error {
	c.calls.Add(1)
	c.priority = p
	return c.err
}

func (c *counter) Throttled(after time.Duration) {
	c.throttles.Add(1)
	c.after = after
}

// What says that there are too many calls is heard by the limiter, with the time that
// a gateway asks for.
func TestThrottling(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault faceidtest.Fault
		class faceid.Class
		after time.Duration
		told  int64
	}{
		{"by the API", faceidtest.Fault{Code: "RequestLimitExceeded"}, faceid.Throttled, 0, 1},
		{"by a gateway", faceidtest.Fault{Status: 429}, faceid.Throttled, 0, 1},
		{"by a gateway, for a time", faceidtest.Fault{Status: 429, RetryAfter: "7"}, faceid.Throttled, 7 * time.Second, 1},
		{"for ever", faceidtest.Fault{Status: 429, RetryAfter: "99999999"}, faceid.Throttled, time.Hour, 1},
		{"for more than a number holds", faceidtest.Fault{Status: 429, RetryAfter: "99999999999999999999"}, faceid.Throttled, time.Hour, 1},
		{"until a date", faceidtest.Fault{Status: 429, RetryAfter: "Fri, 31 Dec 9999 23:59:59 GMT"}, faceid.Throttled, time.Hour, 1},
		{"until a date that is past", faceidtest.Fault{Status: 429, RetryAfter: "Fri, 31 Dec 1999 23:59:59 GMT"}, faceid.Throttled, 0, 1},
		{"nonsense", faceidtest.Fault{Status: 429, RetryAfter: "-1 soon"}, faceid.Throttled, 0, 1},
		{"maintenance", faceidtest.Fault{Status: 503, RetryAfter: "60"}, faceid.Throttled, time.Minute, 1},
		{"down", faceidtest.Fault{Status: 503}, faceid.Transient, 0, 0},
		{"bad gateway", faceidtest.Fault{Status: 502, RetryAfter: "5"}, faceid.Transient, 5 * time.Second, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			waits := &counter{}
			rig := newRig(t, func(c *faceid.Config) { c.Limit = waits })
			c := marked()
			rig.api.Put(c)
			rig.api.Fail(tt.fault)
			q := query(c)
			q.Priority = limit.Backfill
			_, err := rig.get(t, q)
			var e *faceid.Error
			if !errors.As(err, &e) || e.Class != tt.class || e.After != tt.after {
				t.Errorf("%v: class %s, after %s", err, e.Class, e.After)
			}
			if waits.throttles.Load() != tt.told || tt.told > 0 && waits.after != tt.after || waits.priority != limit.Backfill {
				t.Errorf("the limiter heard %+v", waits)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	rig := newRig(t, nil)
	for _, tt := range []struct {
		name, mode          string
		code, intentionCode int64
		want                bool
		intention           result.IntentionMode
	}{
		{"passed", "", 0, 0, true, result.IntentionOff},
		{"failed", "", 1003, 0, false, result.IntentionOff},
		{"questions passed", "0", 0, 0, true, result.IntentionQuestion},
		{"questions failed", "0", 0, -301, false, result.IntentionQuestion},
		{"nod passed", "1", 0, 0, true, result.IntentionNod},
		{"nod failed", "1", 0, -301, false, result.IntentionNod},
		{"read aloud passed", "2", 0, 0, true, result.IntentionReadAloud},
		{"read aloud failed", "2", 0, -1, false, result.IntentionReadAloud},
		{"face failed, so no intention result", "1", 2016, 0, false, result.IntentionNod},
		{"unknown mode", "9", 0, 0, false, result.IntentionUnknown},
	} {
		c := faceidtest.Check{Product: result.Enhanced, Token: tt.name, RuleID: "1", Made: time.Now(), Code: tt.code, Intention: tt.mode, IntentionCode: tt.intentionCode}
		rig.api.Put(c)
		r, err := rig.get(t, query(c))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if r.Verdict.Passed != tt.want || r.Verdict.Intention != tt.intention {
			t.Errorf("%s: %+v", tt.name, r.Verdict)
		}
	}
}

func TestNotFinished(t *testing.T) {
	rig := newRig(t, nil)
	for _, c := range []faceidtest.Check{
		{Product: result.Enhanced, Token: "null", RuleID: "1", Made: time.Now(), Unfinished: true},
		{Product: result.EID, Token: "seventeen", Made: time.Now(), Code: 17},
	} {
		rig.api.Put(c)
		if _, err := rig.get(t, query(c)); !errors.Is(err, faceid.ErrNotFinished) || faceid.ClassOf(err) != faceid.NotReady {
			t.Errorf("%s: got %v", c.Token, err)
		}
	}
}

// marked is a check whose personal values and media must be in no error.
func marked() faceidtest.Check {
	c := faceidtest.NewCheck(0, 100<<10)
	c.Person = faceidtest.Person{Name: "MARKED", IDCard: "MARKED", Address: "MARKED", Mobile: "MARKED"}
	return c
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		fault faceidtest.Fault
		class faceid.Class
		want  string
	}{
		{"unknown error", faceidtest.Fault{Code: "FailedOperation.UnKnown"}, faceid.Transient, "FailedOperation.UnKnown: unknown error inside the service (request "},
		{"throttled", faceidtest.Fault{Code: "RequestLimitExceeded.UinLimitExceeded"}, faceid.Throttled, "calls too often"},
		{"throttled in a way to come", faceidtest.Fault{Code: "RequestLimitExceeded.New"}, faceid.Throttled, "calls too often"},
		{"arrears", faceidtest.Fault{Code: "UnauthorizedOperation.Arrears"}, faceid.AccountTrouble, "in arrears"},
		{"no permission", faceidtest.Fault{Code: "AuthFailure.UnauthorizedOperation"}, faceid.AccountTrouble, "must allow faceid:GetDetectInfoEnhanced"},
		{"a code nobody knows", faceidtest.Fault{Code: "Strange.Thing"}, faceid.Transient, "does not know"},
		{"a gateway's page", faceidtest.Fault{Status: 502}, faceid.Transient, "HTTP 502 with text/html"},
		{"503", faceidtest.Fault{Status: 503}, faceid.Transient, "HTTP 503"},
		{"cut off in the text", faceidtest.Fault{CutAt: 100}, faceid.Transient, "EOF"},
		{"cut off in a medium", faceidtest.Fault{CutAt: 30_000}, faceid.Transient, "EOF"},
		{"no answer", faceidtest.Fault{Drop: true}, faceid.Transient, "EOF"},
		{"too slow", faceidtest.Fault{Hang: true}, faceid.Transient, "no whole answer within 300ms"},
		{"a page labelled JSON", faceidtest.Fault{Garbage: "<html>MARKED</html>"}, faceid.Transient, "invalid JSON at byte 0"},
		{"another document", faceidtest.Fault{Garbage: `{"Other":{"Name":"MARKED"}}`}, faceid.Transient, "documented form"},
		{"another type", faceidtest.Fault{Garbage: `{"Response":["MARKED"]}`}, faceid.Transient, "documented form"},
		{"a list", faceidtest.Fault{Garbage: `["MARKED"]`}, faceid.Transient, "documented form"},
		{"wrong base64", faceidtest.Fault{Garbage: `{"Response":{"Text":{"ErrCode":0,"Name":"MARKED"},"VideoData":{"LivenessVideo":"` + strings.Repeat("MARKED", 1000) + `*"}}}`}, faceid.Transient, "VideoData.LivenessVideo: not base64"},
		{"a code with a value in it", faceidtest.Fault{Garbage: `{"Response":{"Error":{"Code":"Internal Error\n姓名","Message":"MARKED"},"RequestId":"a b\n"}}`}, faceid.Transient, "undocumented: an error this version does not know"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rig := newRig(t, func(c *faceid.Config) {
				if tt.fault.Hang {
					c.Timeout = 300 * time.Millisecond
				}
			})
			c := marked()
			rig.api.Put(c)
			tt.fault.Times = 1
			rig.api.Fail(tt.fault)
			_, err := rig.get(t, query(c))
			var e *faceid.Error
			if !errors.As(err, &e) || e.Class != tt.class || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v (%s), want %q (%s)", err, faceid.ClassOf(err), tt.want, tt.class)
			}
			if strings.Contains(err.Error(), "MARKED") || strings.Contains(err.Error(), "姓名") {
				t.Errorf("the error holds content: %v", err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	rig := newRig(t, nil)
	good := marked()
	rig.api.Put(good)
	old := good
	old.Token, old.Made = "old", time.Now().Add(-73*time.Hour)
	rig.api.Put(old)
	rule := query(good)
	rule.RuleID = "2"
	for name, tt := range map[string]struct {
		q     faceid.Query
		code  string
		class faceid.Class
	}{
		"unknown BizToken": {faceid.Query{Product: result.Enhanced, Token: "x", RuleID: "1"}, "InvalidParameter", faceid.Permanent},
		"unknown EidToken": {faceid.Query{Product: result.EID, Token: "x"}, "InvalidParameterValue.BizTokenIllegal", faceid.Permanent},
		"expired":          {query(old), "InvalidParameterValue.BizTokenExpired", faceid.Permanent},
		"unknown rule":     {rule, "InvalidParameterValue.RuleIdNotExist", faceid.RequestTrouble},
	} {
		_, err := rig.get(t, tt.q)
		var e *faceid.Error
		if !errors.As(err, &e) || e.Code != tt.code || e.Class != tt.class || e.RequestID == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAccountTrouble(t *testing.T) {
	credential := func(id, key, token string) func(context.Context) (faceid.Credential, error) {
		return func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: id, SecretKey: key, Token: token}, nil
		}
	}
	for name, tt := range map[string]struct {
		change func(*faceid.Config)
		want   string
	}{
		"wrong key":   {func(c *faceid.Config) { c.Credentials = credential("AKID", "other", "") }, "check secret_key"},
		"wrong id":    {func(c *faceid.Config) { c.Credentials = credential("other", "secret-key", "") }, "check secret_id"},
		"wrong token": {func(c *faceid.Config) { c.Credentials = credential("AKID", "secret-key", "t") }, "STS token"},
		"unreadable file": {func(c *faceid.Config) {
			c.Credentials = func(context.Context) (faceid.Credential, error) {
				return faceid.Credential{}, errors.New("open key: no such file")
			}
		}, "read the credentials: open key"},
		"unknown endpoint": {func(c *faceid.Config) { c.Endpoint = "https://faceid.invalid" }, "faceid.invalid does not exist: check endpoint"},
	} {
		rig := newRig(t, tt.change)
		c := marked()
		rig.api.Put(c)
		if _, err := rig.get(t, query(c)); err == nil || faceid.ClassOf(err) != faceid.AccountTrouble || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v (%s)", name, err, faceid.ClassOf(err))
		}
	}
}

// A clock that is off is told as such.
func TestClock(t *testing.T) {
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{Clock: func() time.Time { return time.Now().Add(6 * time.Minute) }})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	api.AddCredential("AKID", "secret-key", "")
	rig := newRig(t, func(c *faceid.Config) { c.Endpoint = api.URL() })
	if _, err := rig.get(t, query(marked())); faceid.ClassOf(err) != faceid.AccountTrouble || !strings.Contains(err.Error(), "clock is more than five minutes off") {
		t.Errorf("got %v", err)
	}
}

func TestCancel(t *testing.T) {
	rig := newRig(t, nil)
	c := marked()
	rig.api.Put(c)
	rig.api.Fail(faceidtest.Fault{Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	batch, err := rig.spool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Close()
	done := make(chan error)
	go func() {
		_, err := rig.client.Get(ctx, query(c), batch)
		done <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for rig.api.Calls(c.Token) == 0 {
		<-tick.C
	}
	cancel()
	if err := <-done; faceid.ClassOf(err) != faceid.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestResponseLimit(t *testing.T) {
	rig := newRig(t, func(c *faceid.Config) { c.MaxResponse = 100_000 })
	c := marked()
	rig.api.Put(c)
	if _, err := rig.get(t, query(c)); faceid.ClassOf(err) != faceid.RequestTrouble || !strings.Contains(err.Error(), "worker.max_response is 100000 bytes") {
		t.Errorf("got %v", err)
	}
}

// One client serves many goroutines, and keeps its connections.
func TestConcurrentCalls(t *testing.T) {
	transport := faceid.NewTransport()
	var dialed atomic.Int64
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return dial(ctx, network, address)
	}
	rig := newRig(t, func(c *faceid.Config) { c.Transport = transport })
	const goroutines, calls = 100, 5
	checks := make([]faceidtest.Check, 20)
	for i := range checks {
		checks[i] = faceidtest.NewCheck(i, 10<<10)
		rig.api.Put(checks[i])
	}
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for n := range calls {
				c := checks[(g+n)%len(checks)]
				batch, err := rig.spool.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				r, err := rig.client.Get(t.Context(), query(c), batch)
				if err != nil {
					t.Error(err)
				} else {
					same(t, c, r)
				}
				_ = batch.Close()
			}
		})
	}
	all.Wait()
	// net/http may dial while another call's connection is about to be free.
	if n := dialed.Load(); n > goroutines*calls/2 {
		t.Errorf("%d connections for %d goroutines with %d calls each", n, goroutines, calls)
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	for _, endpoint := range []string{"", "faceid.tencentcloudapi.com", "ftp://x", "https://x/path", "https://"} {
		if _, err := faceid.New(faceid.Config{Endpoint: endpoint}); err == nil || !strings.Contains(err.Error(), "the endpoint must be a URL") {
			t.Errorf("%q: got %v", endpoint, err)
		}
	}
}

func ExampleClassOf() {
	err := fmt.Errorf("pull: %w", &faceid.Error{Class: faceid.Throttled, Code: "RequestLimitExceeded", Err: errors.New("the account calls too often")})
	fmt.Println(faceid.ClassOf(err), "-", err)
	// Output: throttled - pull: RequestLimitExceeded: the account calls too often
}
