package natsmsg_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

const (
	// patience is how long sinks wait for answers that never come, and plenty how
	// long for those that do.
	patience = time.Second
	plenty   = time.Minute
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The messages as they are in the stream.
func TestSuite(t *testing.T) {
	b := start(t, server.Options{})
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return newStream(t, b) },
		Troubles: troubles(),
	})
}

// The messages as they were sent, those that Erase purges too; with personal
// fields, over the process's own connection.
func TestSuiteOfPurgedStream(t *testing.T) {
	b := start(t, server.Options{MaxPayload: 64 << 20})
	sinktest.Run(t, sinktest.Factory{
		New:      func(t testing.TB) sinktest.Destination { return newTap(t, b) },
		Troubles: troubles()[:1], // TestSuite has them all
	})
}

// bus is a NATS server in this process, and a connection to it.
type bus struct {
	url  string
	nats *nats.Conn
	js   jetstream.JetStream
	stop func()
	// reload changes the users of the server.
	reload func(testing.TB, []*server.User)
}

// start runs a server on the port that o names, or a free one.
func start(t testing.TB, o server.Options) *bus {
	t.Helper()
	o.Host, o.NoSigs, o.NoLog, o.JetStream = "127.0.0.1", true, true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := server.NewServer(&o)
	must(t, err)
	s.Start()
	b := &bus{stop: func() { s.Shutdown(); s.WaitForShutdown() }}
	b.reload = func(t testing.TB, users []*server.User) {
		t.Helper()
		changed := o.Clone()
		changed.Users = users
		must(t, s.ReloadOptions(changed))
	}
	t.Cleanup(b.stop)
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	b.url = "nats://" + s.Addr().String()
	b.connect(t, nats.UserInfo("admin", "admin"))
	return b
}

// connect opens the connection of the test itself.
func (b *bus) connect(t testing.TB, options ...nats.Option) {
	t.Helper()
	closed := make(chan struct{})
	nc, err := nats.Connect(b.url, append(options, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))...)
	must(t, err)
	t.Cleanup(func() { nc.Close(); <-closed })
	b.nats = nc
	b.js, err = jetstream.New(nc)
	must(t, err)
}

// destinations numbers the subjects of tests.
var destinations atomic.Int64

// stream is a stream of its own on the server.
type stream struct {
	*bus
	name string
}

func newStream(t testing.TB, b *bus) stream {
	t.Helper()
	s := stream{b, fmt.Sprintf("R%d", destinations.Add(1))}
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: s.name, Subjects: []string{s.name + ".>"}})
	must(t, err)
	return s
}

func (s stream) config() *natsmsg.Config {
	c := defaults()
	c.URL, c.Subject = s.url, s.name+".{account}.{product}"
	return c
}

func defaults() *natsmsg.Config {
	c, _ := sinks.NewConfig("nats")
	return c.(*natsmsg.Config)
}

func (s stream) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	return openFaulty(t, s.config(), env, faults)
}

func openFaulty(t testing.TB, c *natsmsg.Config, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	return openWith(t, c, env, plenty, func(next natsmsg.Publish) natsmsg.Publish {
		return func(ctx context.Context, msg *nats.Msg) error {
			if err := faults.Step(); err != nil {
				return err
			}
			err := next(ctx, msg)
			if fault := faults.Step(); fault != nil {
				return fault // it is sent, but the answer is lost
			}
			return err
		}
	})
}

func (s stream) Stored(t testing.TB, p result.Product, token string) sinktest.Stored {
	t.Helper()
	return stored(t, s.messages(t), p, token)
}

// messages are all that the stream holds.
func (s stream) messages(t testing.TB) []*nats.Msg {
	t.Helper()
	handle, err := s.js.Stream(t.Context(), s.name)
	must(t, err)
	var all []*nats.Msg
	info := handle.CachedInfo().State
	for seq := info.FirstSeq; seq <= info.LastSeq && info.Msgs > 0; seq++ {
		msg, err := handle.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // purged
		}
		must(t, err)
		all = append(all, &nats.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data})
	}
	return all
}

// stored picks the messages of a token.
func stored(t testing.TB, messages []*nats.Msg, p result.Product, token string) sinktest.Stored {
	t.Helper()
	var s sinktest.Stored
	for _, msg := range messages {
		var event notice.Event
		must(t, json.Unmarshal(msg.Data, &event))
		if event.Subject == result.TokenHash(p, token) {
			s.Messages = append(s.Messages, sinktest.Message{ID: event.ID, Body: msg.Data})
		}
	}
	return s
}

// tap is a stream whose messages are heard as they are sent.
type tap struct {
	stream
	sub *nats.Subscription
	// heard is what was read of sub.
	heard *[]*nats.Msg
}

func newTap(t testing.TB, b *bus) tap {
	t.Helper()
	p := tap{stream: newStream(t, b), heard: new([]*nats.Msg)}
	sub, err := b.nats.SubscribeSync(p.name + ".>")
	must(t, err)
	must(t, sub.SetPendingLimits(-1, -1))
	must(t, b.nats.Flush())
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	p.sub = sub
	return p
}

func (p tap) Open(t testing.TB, env sinks.Env, faults *sinktest.Faults) sinks.Sink {
	t.Helper()
	c := p.config()
	c.URL, c.Subject = "", p.name+".{account}.{product}.{token_hash}"
	c.Fields = notice.Fields{privacy.Name, privacy.Answer, privacy.AttemptIDCard}
	env.NATS = p.nats
	return openFaulty(t, c, env, faults)
}

func (p tap) Stored(t testing.TB, product result.Product, token string) sinktest.Stored {
	t.Helper()
	must(t, p.nats.Flush()) // whose answer comes behind all that was sent before
	for {
		if n, _, err := p.sub.Pending(); err != nil || n == 0 {
			must(t, err)
			return stored(t, *p.heard, product, token)
		}
		msg, err := p.sub.NextMsg(plenty)
		must(t, err)
		*p.heard = append(*p.heard, msg)
	}
}

// troubles are what servers and their owners have.
func troubles() []sinktest.Trouble {
	return []sinktest.Trouble{
		{
			Name: "no stream", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"no stream takes subject", "create one"},
			Provoke: withServer(server.Options{}, func(t testing.TB, s stream) func() {
				must(t, s.js.DeleteStream(t.Context(), s.name))
				return func() {
					_, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: s.name, Subjects: []string{s.name + ".>"}})
					must(t, err)
				}
			}),
		},
		{
			Name: "a stream that is full", Class: sinks.ClassTransient,
			Words: []string{"the stream cannot store it", "raise its limits"},
			Provoke: withServer(server.Options{}, func(t testing.TB, s stream) func() {
				s.update(t, jetstream.StreamConfig{MaxBytes: 10, Discard: jetstream.DiscardNew})
				return func() { s.update(t, jetstream.StreamConfig{MaxBytes: -1}) }
			}),
		},
		{
			Name: "a message too large for the stream", Class: sinks.ClassPermanent,
			Words: []string{"larger than the stream", "max_msg_size"},
			Provoke: withServer(server.Options{}, func(t testing.TB, s stream) func() {
				s.update(t, jetstream.StreamConfig{MaxMsgSize: 100})
				return nil
			}),
		},
		{
			Name: "a message too large for the server", Class: sinks.ClassPermanent,
			Words:   []string{"larger than the server takes, 1000 bytes", "max_payload"},
			Provoke: withServer(server.Options{MaxPayload: 1000}, nil),
		},
		{
			Name: "somebody else answers", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"stream"},
			Provoke: withServer(server.Options{}, func(t testing.TB, s stream) func() {
				must(t, s.js.DeleteStream(t.Context(), s.name))
				sub, err := s.nats.Subscribe(s.name+".>", func(msg *nats.Msg) { _ = msg.Respond([]byte("hello")) })
				must(t, err)
				must(t, s.nats.Flush())
				return func() {
					must(t, sub.Unsubscribe())
					must(t, s.nats.Flush())
					_, err := s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: s.name, Subjects: []string{s.name + ".>"}})
					must(t, err)
				}
			}),
		},
		{
			Name: "the server is gone", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"not connected", "check that the server runs"}, Provoke: gone,
		},
		{
			Name: "no right to publish", Class: sinks.ClassTransient,
			Words: []string{"give the user the right to publish on "}, Provoke: without("*.main.>"),
		},
		{
			Name: "no right to publish anything", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"give the user the right to publish on "}, Provoke: without(">"),
		},
		{
			Name: "a wrong password", Class: sinks.ClassTransient, CheckFails: true,
			Words: []string{"not connected", "check user, password_file or creds_file"}, Provoke: wrongPassword,
		},
	}
}

type provoke = func(testing.TB, sinks.Env, *result.Result) sinktest.Troubled

// withServer gets a server of its own, or the stream on it, into trouble.
func withServer(o server.Options, trouble func(testing.TB, stream) (heal func())) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		s := newStream(t, start(t, o))
		sink := open(t, s.config(), env, plenty)
		if trouble == nil {
			return sinktest.Troubled{Sink: sink}
		}
		return sinktest.Troubled{Sink: sink, Heal: trouble(t, s)}
	}
}

// update changes the limits of the stream.
func (s stream) update(t testing.TB, limits jetstream.StreamConfig) {
	t.Helper()
	limits.Name, limits.Subjects = s.name, []string{s.name + ".>"}
	_, err := s.js.UpdateStream(t.Context(), limits)
	must(t, err)
}

// gone stops the server.
func gone(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
	t.Helper()
	folder := t.TempDir()
	s := newStream(t, start(t, server.Options{StoreDir: folder}))
	sink := open(t, s.config(), env, plenty)
	port := portOf(t, s.url)
	s.stop()
	until(t, func() bool { return !natsmsg.Conn(sink).IsConnected() })
	return sinktest.Troubled{Sink: sink, Heal: func() {
		start(t, server.Options{StoreDir: folder, Port: port})
		until(t, natsmsg.Conn(sink).IsConnected)
	}}
}

func portOf(t testing.TB, url string) int {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", url[len("nats://"):])
	must(t, err)
	return address.Port
}

// without denies a user some subjects.
func without(subjects string) provoke {
	return func(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
		t.Helper()
		users := func(allowed *server.Permissions) []*server.User {
			return []*server.User{{Username: "admin", Password: "admin"}, {Username: "ingest", Password: "right", Permissions: allowed}}
		}
		b := start(t, server.Options{Users: users(&server.Permissions{Publish: &server.SubjectPermission{Deny: []string{subjects}}})})
		s := newStream(t, b)
		c := s.config()
		c.User, c.Password = "ingest", "right"
		sink := open(t, c, env, patience)
		return sinktest.Troubled{Sink: sink, Heal: func() { b.reload(t, users(nil)) }}
	}
}

func wrongPassword(t testing.TB, env sinks.Env, _ *result.Result) sinktest.Troubled {
	t.Helper()
	s := newStream(t, start(t, server.Options{Username: "admin", Password: "admin"}))
	c := s.config()
	c.User, c.PasswordFile = "admin", filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(c.PasswordFile, []byte("wrong"), 0o600))
	sink := open(t, c, env, plenty)
	return sinktest.Troubled{Sink: sink, Heal: func() {
		must(t, os.WriteFile(c.PasswordFile, []byte("admin\n"), 0o600))
		until(t, natsmsg.Conn(sink).IsConnected)
	}}
}

// until waits for a condition.
func until(t testing.TB, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(plenty)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it never comes to be")
		}
	}
}

func open(t testing.TB, c *natsmsg.Config, env sinks.Env, wait time.Duration) sinks.Sink {
	t.Helper()
	return openWith(t, c, env, wait, func(p natsmsg.Publish) natsmsg.Publish { return p })
}

func openWith(t testing.TB, c *natsmsg.Config, env sinks.Env, wait time.Duration, wrap func(natsmsg.Publish) natsmsg.Publish) sinks.Sink {
	t.Helper()
	must(t, c.Validate())
	sink, err := natsmsg.OpenWith(c, env, wait, wrap)
	must(t, err)
	return sink
}

// env is that of a sink under a policy that stores every value plainly.
func env(t testing.TB) sinks.Env {
	t.Helper()
	cfg := privacy.DefaultConfig()
	for _, f := range privacy.Fields() {
		cfg.Fields[f] = privacy.Plain
	}
	policy, err := privacy.NewPolicy(cfg, nil)
	must(t, err)
	return sinks.Env{Name: "bus", Policy: policy, Log: slog.New(slog.DiscardHandler)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
