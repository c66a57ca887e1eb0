package natsmsg_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

// opened opens a sink that is closed when the test is over.
func opened(t *testing.T, c *natsmsg.Config, e sinks.Env) sinks.Sink {
	t.Helper()
	sink := open(t, c, e, plenty)
	t.Cleanup(func() { must(t, sink.Close(context.WithoutCancel(t.Context()))) })
	return sink
}

func notify(t *testing.T, sink sinks.Sink, r *result.Result) {
	t.Helper()
	must(t, sink.(sinks.Notifier).Notify(t.Context(), r))
}

func erase(t *testing.T, sink sinks.Sink, r *result.Result) {
	t.Helper()
	must(t, sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token)))
}

func TestMessage(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	c := s.config()
	c.Subject, c.Fields = s.name+".{product}.{account}.{token_hash}", notice.Fields{privacy.Mobile}
	sink := opened(t, c, env(t))
	r := sinktest.Archived(sinktest.Result(0))
	for range 3 {
		notify(t, sink, r)
	}
	messages := s.messages(t)
	if len(messages) != 1 {
		t.Fatalf("the stream holds %d messages, want the repetitions dropped", len(messages))
	}
	msg := messages[0]
	if msg.Subject != s.name+".enhanced.main."+r.TokenHash() || msg.Header.Get("Nats-Msg-Id") != "bus:"+r.TokenHash() ||
		msg.Header.Get("Content-Type") != "application/cloudevents+json" {
		t.Errorf("got %s, %v", msg.Subject, msg.Header)
	}
	var event notice.Event
	must(t, json.Unmarshal(msg.Data, &event))
	var data notice.Result
	must(t, json.Unmarshal(event.Data, &data))
	if event.Type != notice.TypeStored || data.Token != r.Token || data.Personal[privacy.Mobile][0].Value == "" {
		t.Errorf("got %s, %+v", event.Type, data)
	}
}

// Sinks that share a stream do not drop each other's messages.
func TestTwoSinksOnOneStream(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	for _, name := range []string{"risk", "crm"} {
		e, c := env(t), s.config()
		e.Name, c.Subject = name, s.name+"."+name
		notify(t, opened(t, c, e), sinktest.Result(0))
	}
	if n := len(s.messages(t)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// With the token hash in the subject, Erase leaves nothing of the token but that it
// was erased, however often it is called, and other tokens alone.
func TestErasePurges(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	// A second stream takes the same messages' like under another account.
	_, err := s.js.UpdateStream(t.Context(), jetstream.StreamConfig{Name: s.name, Subjects: []string{s.name + ".main.>", s.name + "._.>"}})
	must(t, err)
	other := stream{s.bus, "OTHER"}
	_, err = s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: other.name, Subjects: []string{s.name + ".second.>"}})
	must(t, err)

	c := s.config()
	c.Subject, c.Fields = s.name+".{account}.{token_hash}", notice.Fields{privacy.Name}
	sink := opened(t, c, env(t))
	r, neighbour := sinktest.Archived(sinktest.Result(0)), sinktest.Archived(sinktest.Result(2))
	elsewhere := *r
	elsewhere.Account = "second"
	notify(t, sink, r)
	notify(t, sink, neighbour)
	notify(t, sink, &elsewhere)
	if len(other.messages(t)) != 1 {
		t.Fatal("the second stream took nothing")
	}
	for range 2 {
		erase(t, sink, r)
		if n := len(other.messages(t)); n != 0 {
			t.Errorf("%d messages are left in the second stream", n)
		}
		var left []string
		for _, msg := range s.messages(t) {
			left = append(left, msg.Subject)
			if strings.HasSuffix(msg.Subject, r.TokenHash()) && strings.Contains(string(msg.Data), r.Token) {
				t.Error("a message about the token is left")
			}
		}
		want := []string{s.name + ".main." + neighbour.TokenHash(), s.name + "._." + r.TokenHash()}
		if strings.Join(left, " ") != strings.Join(want, " ") {
			t.Errorf("left are %v, want %v", left, want)
		}
	}
}

// Without it the messages stay, as the package comment says.
func TestEraseWithoutTokenInSubject(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	sink := opened(t, s.config(), env(t))
	r := sinktest.Archived(sinktest.Result(1))
	notify(t, sink, r)
	erase(t, sink, r)
	messages := s.messages(t)
	if len(messages) != 2 || messages[1].Subject != s.name+"._.eid" || !strings.Contains(string(messages[1].Data), notice.TypeErased) {
		t.Errorf("%d messages", len(messages))
	}
}

func TestEraseWhereItIsForbidden(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	must(t, s.js.DeleteStream(t.Context(), s.name))
	_, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: s.name, Subjects: []string{s.name + ".>"}, DenyPurge: true})
	must(t, err)
	c := s.config()
	c.Subject += ".{token_hash}"
	sink := opened(t, c, env(t))
	r := sinktest.Archived(sinktest.Result(0))
	notify(t, sink, r)
	err = sinktest.Erase(t.Context(), sink, sinks.KeyOf(r.Product, r.Token))
	if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || !strings.Contains(err.Error(), "cannot be purged") {
		t.Errorf("%s: %v", class, err)
	}
	if n := len(s.messages(t)); n != 1 {
		t.Errorf("consumers were told of an erasure that did not happen: %d messages", n)
	}
}

// The sink makes its stream when there is none, from many goroutines and replicas
// at once, and leaves one that is there as it is.
func TestCreateStream(t *testing.T) {
	b := start(t, server.Options{})
	c := defaults()
	c.URL, c.CreateStream = b.url, "FACEID_RESULTS"
	first, second := opened(t, c, env(t)), opened(t, c, env(t))
	must(t, first.Check(t.Context()))
	if _, err := b.js.Stream(t.Context(), c.CreateStream); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("Check made the stream: %v", err)
	}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			sink := []sinks.Sink{first, second}[i%2]
			if err := sink.(sinks.Notifier).Notify(t.Context(), sinktest.Archived(sinktest.Result(i))); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	handle, err := b.js.Stream(t.Context(), c.CreateStream)
	must(t, err)
	info := handle.CachedInfo()
	if info.State.Msgs != 16 || info.Config.Subjects[0] != "faceid.results.*.*" || info.Config.MaxAge != 7*24*time.Hour ||
		info.Config.Storage != jetstream.FileStorage || info.Config.Duplicates != time.Hour {
		t.Errorf("got %+v", info)
	}
	// The name is another stream's.
	taken := *c
	taken.Subject = "elsewhere.{account}"
	err = opened(t, &taken, env(t)).(sinks.Notifier).Notify(t.Context(), sinktest.Result(0))
	if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || !strings.Contains(err.Error(), "choose another create_stream") {
		t.Errorf("%s: %v", class, err)
	}
}

func TestWithoutConnection(t *testing.T) {
	sink := opened(t, defaults(), env(t))
	key := sinks.KeyOf(result.EID, "TOKEN-1")
	for _, err := range []error{
		sink.Check(t.Context()), sink.(sinks.Notifier).Notify(t.Context(), sinktest.Result(0)), sinktest.Erase(t.Context(), sink, key),
	} {
		if class, _ := sinks.ClassOf(err); class != sinks.ClassTransient || !strings.Contains(err.Error(), "no connection to the daemon's NATS") {
			t.Errorf("%s: %v", class, err)
		}
	}
}

// The process's own connection is not the sink's to close.
func TestProcessConnectionStaysOpen(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	e := env(t)
	e.NATS = s.nats
	c := s.config()
	c.URL = ""
	sink := open(t, c, e, plenty)
	must(t, sink.Check(t.Context()))
	must(t, sink.Close(t.Context()))
	if !s.nats.IsConnected() {
		t.Error("the connection was closed")
	}
}

// A daemon starts while the NATS of its sink is down, and goes on when that is up.
func TestServerThatComesLater(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	must(t, listener.Close())
	c := defaults()
	c.URL, c.CreateStream = "nats://"+listener.Addr().String(), "LATE"
	sink := opened(t, c, env(t))
	if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("got %v", err)
	}
	start(t, server.Options{Port: port})
	until(t, natsmsg.Conn(sink).IsConnected)
	notify(t, sink, sinktest.Result(0))
}

func TestJetStreamIsOff(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(plenty) {
		t.Fatal("the server does not start")
	}
	c := defaults()
	c.URL = "nats://" + s.Addr().String()
	sink := opened(t, c, env(t))
	if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "JetStream is not enabled") {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	certificate := selfSigned(t, file("server.pem"), file("server.key"))
	own := selfSigned(t, file("client.pem"), file("client.key"))
	clients := x509.NewCertPool()
	clients.AddCert(own.Leaf)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), TLS: true, TLSVerify: true, TLSTimeout: 10,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate},
			ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		},
	})
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(plenty) {
		t.Fatal("the server does not start")
	}
	c := defaults()
	c.URL, c.CreateStream = "tls://"+s.Addr().String(), "R"
	c.TLS = notice.TLS{CA: file("server.pem"), Cert: file("client.pem"), Key: file("client.key")}
	notify(t, opened(t, c, env(t)), sinktest.Result(0))

	stranger, anonymous := *c, *c
	stranger.TLS.CA = file("client.pem")
	anonymous.TLS.Cert, anonymous.TLS.Key = "", ""
	for words, wrong := range map[string]*natsmsg.Config{"check tls.ca": &stranger, "check tls.cert": &anonymous} {
		sink := opened(t, wrong, env(t))
		until(t, func() bool { return strings.Contains(sink.Check(t.Context()).Error(), words) })
	}
}

// selfSigned writes a certificate and its key.
func selfSigned(t *testing.T, certFile, keyFile string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// An account or product that cannot be in a subject is not in it, and two of them
// have two subjects.
func TestHostileAccountsInSubjects(t *testing.T) {
	s := newStream(t, start(t, server.Options{}))
	sink := opened(t, s.config(), env(t))
	seen := map[string]bool{}
	names := []string{"", "a.b", "*", ">", "a b", "a\r\nPUB x 0", "很", strings.Repeat("x", 65), strings.Repeat("很长", 20_000), "\x00"}
	for i, name := range names {
		r := sinktest.Result(2 * i)
		r.Account = name
		notify(t, sink, r)
	}
	for _, msg := range s.messages(t) {
		seen[msg.Subject] = true
		if parts := strings.Split(msg.Subject, "."); len(parts) != 3 || parts[2] != "enhanced" || len(parts[1]) != 17 {
			t.Errorf("subject %q", msg.Subject)
		}
	}
	if len(seen) != len(names) {
		t.Errorf("%d subjects of %d accounts", len(seen), len(names))
	}
}

func TestValidate(t *testing.T) {
	must(t, defaults().Validate())
	valid := func() *natsmsg.Config {
		c := defaults()
		c.URL = "nats://a:4222, tls://b"
		return c
	}
	must(t, valid().Validate())
	full := valid()
	full.User, full.PasswordFile, full.CreateStream = "u", "f", "FACEID_RESULTS"
	full.Subject, full.Fields = "a-b.c_D.{product}.{token_hash}", notice.Fields{privacy.Name}
	must(t, full.Validate())
	for _, tt := range []struct {
		name  string
		edit  func(*natsmsg.Config)
		field string
		words string
	}{
		{"scheme", func(c *natsmsg.Config) { c.URL = "http://a" }, "url", "nats:// or tls://"},
		{"no host", func(c *natsmsg.Config) { c.URL = "nats://" }, "url", "nats:// or tls://"},
		{"an empty one", func(c *natsmsg.Config) { c.URL = "nats://a,," }, "url", "with commas between"},
		{"a password in it", func(c *natsmsg.Config) { c.URL = "nats://u:hunter2@a" }, "url", "must not hold a password"},
		{"credentials for nobody", func(c *natsmsg.Config) { c.URL, c.CredsFile = "", "f" }, "url", "is missing"},
		{"TLS for nobody", func(c *natsmsg.Config) { c.URL, c.TLS.CA = "", "f" }, "url", "is missing"},
		{"user without password", func(c *natsmsg.Config) { c.User = "u" }, "user", "needs password"},
		{"password without user", func(c *natsmsg.Config) { c.Password = "hunter2" }, "user", "they need user"},
		{"user and creds", func(c *natsmsg.Config) { c.User, c.Password, c.CredsFile = "u", "p", "f" }, "user", "of no use"},
		{"two passwords", func(c *natsmsg.Config) { c.User, c.Password, c.PasswordFile = "u", "hunter2", "f" }, "password", "not both"},
		{"half a certificate", func(c *natsmsg.Config) { c.TLS.Cert = "f" }, "tls", "both cert and key"},
		{"no subject", func(c *natsmsg.Config) { c.Subject = "" }, "subject", "begin with a word"},
		{"a subject of its own making", func(c *natsmsg.Config) { c.Subject = "{account}.x" }, "subject", "begin with a word"},
		{"an inbox", func(c *natsmsg.Config) { c.Subject = "$JS.API.x" }, "subject", "begin with a word"},
		{"a wildcard", func(c *natsmsg.Config) { c.Subject = "a.*" }, "subject", "must be words"},
		{"an empty part", func(c *natsmsg.Config) { c.Subject = "a..b" }, "subject", "must be words"},
		{"an unknown placeholder", func(c *natsmsg.Config) { c.Subject = "a.{token}" }, "subject", "must be words"},
		{"half a part", func(c *natsmsg.Config) { c.Subject = "a.x{account}" }, "subject", "must be words"},
		{"a space", func(c *natsmsg.Config) { c.Subject = "a.b c" }, "subject", "must be words"},
		{"too long", func(c *natsmsg.Config) { c.Subject = strings.Repeat("abc.", 100) + "x" }, "subject", "begin with a word"},
		{"where events are", func(c *natsmsg.Config) { c.Subject = "faceid.completed.{account}.{product}" }, "subject", "faceid.completed."},
		{"where dead letters are", func(c *natsmsg.Config) { c.Subject = "faceid.dead" }, "subject", "faceid.dead."},
		{"a stream's name", func(c *natsmsg.Config) { c.CreateStream = "a.b" }, "create_stream", "1 to 64"},
		{"raw", func(c *natsmsg.Config) { c.Fields = notice.Fields{privacy.Raw} }, "fields", "raw is never sent"},
		{"fields that cannot be purged", func(c *natsmsg.Config) { c.Fields = notice.Fields{privacy.Name} }, "fields", "ends in .{token_hash}"},
		{"fields that cannot be purged either", func(c *natsmsg.Config) {
			c.Fields, c.Subject = notice.Fields{privacy.Name}, "a.{token_hash}.b"
		}, "fields", "ends in .{token_hash}"},
	} {
		c := valid()
		tt.edit(c)
		err := c.Validate()
		var invalid *sinks.InvalidFieldError
		if !errors.As(err, &invalid) || invalid.Field != tt.field || !strings.Contains(invalid.Problem, tt.words) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		edit  func(*natsmsg.Config)
		words string
	}{
		{func(c *natsmsg.Config) { c.TLS.CA = "/nonexistent/ca.pem" }, "read tls.ca: open /nonexistent/ca.pem"},
		{func(c *natsmsg.Config) { c.User, c.PasswordFile = "u", "/nonexistent/password" }, "read password_file: open /nonexistent/password"},
	} {
		c := defaults()
		c.URL = "nats://127.0.0.1:1"
		tt.edit(c)
		must(t, c.Validate())
		if _, err := c.Open(t.Context(), env(t)); err == nil || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("got %v", err)
		}
	}
}
