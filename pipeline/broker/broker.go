// Package broker opens the connection to NATS JetStream: to a server elsewhere,
// or to a nats-server inside this process that keeps its files in a folder.
//
// The embedded server exists so that one machine needs nothing else. It writes
// synchronously, listens on a free loopback port behind a random password, and
// leaves both in its folder, so that the other commands of the same user reach
// the server of a running daemon.
package broker

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// Embedded is the URL that asks for a server inside the process.
const Embedded = "embedded"

// Config says which server to use.
type Config struct {
	// URL is Embedded, or one or more nats:// or tls:// URLs with commas between.
	URL string
	// Dir is where the embedded server keeps its files.
	Dir string
	// What follows are ways to log in, of which at most one is set. Files are read
	// whenever the connection is made, so that they may be replaced.
	//
	// CredsFile is a NATS credentials file (user JWT and seed), NkeyFile holds an NKey
	// seed.
	CredsFile, NkeyFile string
	// User and Password are for servers that know users by name, Token for those that
	// want one; the secrets may lie in files.
	User, Password, PasswordFile string
	Token, TokenFile             string
	// CAFile is the certificate authority that signed the server's certificate;
	// empty means those of the system.
	CAFile string
	// CertFile and KeyFile are this client's certificate for mutual TLS; both or
	// none.
	CertFile, KeyFile string
	// TLSFirst has TLS begin before the server says anything (handshake_first).
	TLSFirst bool
	// Domain is that of JetStream, and APIPrefix where its API is found; at most one is
	// set.
	Domain, APIPrefix string
	// Layout is how the streams are called, and how large they are made.
	Layout streams.Layout
	// Name is what the server's monitoring shows for this connection.
	Name string
	// Log hears of lost and restored connections. Never nil.
	Log *slog.Logger
}

// Conn is a connection to JetStream, and the embedded server if this process
// runs it.
type Conn struct {
	NATS *nats.Conn
	JS   jetstream.JetStream

	cfg Config
	// at is where the server is, for messages.
	at       string
	closed   chan struct{}
	embedded *embedded
	// joined says that another process runs the embedded server.
	joined bool
	// away is why the connection could not be made again at last; nil while there is one.
	away atomic.Pointer[error]
	// secrets is a digest of what the login's files held when the connection was made.
	secrets atomic.Pointer[[sha256.Size]byte]
	// dialled is NATS once it is there.
	dialled  atomic.Pointer[nats.Conn]
	violated chan struct{}

	mu sync.Mutex
	// lacks are the rights whose want the server has told since the connection was made.
	lacks map[string]bool
	// waiting are the calls of Do.
	waiting  map[int]context.CancelCauseFunc
	lastCall int
}

// connectWait bounds one attempt to connect.
const connectWait = 5 * time.Second

// Connect opens the connection, and starts the embedded server where the
// configuration asks for one and no other process runs it. A connection that is
// lost later is restored by itself, for as long as it takes. ctx bounds the wait
// for another process that is just starting or stopping the embedded server.
//
// Connect is for work that is soon over: it joins the embedded server of another
// process, and is cut off for good when that process ends. What runs for long
// uses Serve.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.URL != Embedded {
		return dial(cfg, cfg.URL, nil)
	}
	server, err := startEmbedded(ctx, cfg.Dir, joinAnother)
	var busy *busyError
	switch {
	case errors.As(err, &busy):
		conn, err := dial(cfg, busy.address.URL, nil, nats.Token(busy.address.Password))
		if err != nil {
			return nil, err
		}
		conn.joined = true
		return conn, nil
	case err != nil:
		return nil, err
	}
	return dialEmbedded(cfg, server)
}

// Serve is Connect for a daemon: it runs the embedded server itself. It waits for
// a command that holds the server to end, and returns an error if that takes
// longer than half a minute, as with a second daemon on the same folder.
func Serve(ctx context.Context, cfg Config) (*Conn, error) {
	if cfg.URL != Embedded {
		return dial(cfg, cfg.URL, nil)
	}
	server, err := startEmbedded(ctx, cfg.Dir, waitForAnother(cfg.Log))
	if err != nil {
		return nil, err
	}
	return dialEmbedded(cfg, server)
}

func dialEmbedded(cfg Config, server *embedded) (*Conn, error) {
	conn, err := dial(cfg, server.address.URL, server, nats.InProcessServer(server.server), nats.Token(server.address.Password))
	if err != nil {
		server.stop()
		return nil, err
	}
	return conn, nil
}

func dial(cfg Config, url string, server *embedded, options ...nats.Option) (*Conn, error) {
	c := &Conn{cfg: cfg, at: redactURL(url), closed: make(chan struct{}), embedded: server}
	nc, err := c.connect(url, options...)
	if err != nil {
		return nil, err
	}

	js, err := c.openJetStream(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	c.NATS, c.JS = nc, cfg.Layout.Of(js)
	c.dialled.Store(nc)
	return c, nil
}

func (c *Conn) openJetStream(nc *nats.Conn) (jetstream.JetStream, error) {
	switch {
	case c.cfg.Domain != "":
		return jetstream.NewWithDomain(nc, c.cfg.Domain)
	case c.cfg.APIPrefix != "":
		return jetstream.NewWithAPIPrefix(nc, c.cfg.APIPrefix)
	}
	return jetstream.New(nc)
}

// connect makes a connection that says what becomes of it.
func (c *Conn) connect(url string, options ...nats.Option) (*nats.Conn, error) {
	c.lacks, c.waiting, c.violated = map[string]bool{}, map[int]context.CancelCauseFunc{}, make(chan struct{}, 1)
	now := secretsOf(c.cfg)
	c.secrets.Store(&now)
	options = append(options,
		nats.Name(c.cfg.Name),
		nats.Timeout(connectWait),
		nats.MaxReconnects(-1),
		// Credentials that are rotated a moment late are no reason to stop trying.
		nats.IgnoreAuthErrorAbort(),
		// Without this, what is published while the server is away is kept in
		// memory and reported as sent.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.cfg.Log.Warn("lost the connection to NATS, reconnecting", "error", wire.Closed(err))
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.trouble(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.again() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.hear(err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	)
	login, err := c.login(c.cfg)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(url, append(options, login...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w%s", redactURL(url), err, connectHint(err))
	}
	return nc, nil
}

// again is called when a connection that was lost is there again.
func (c *Conn) again() {
	now := secretsOf(c.cfg)
	c.secrets.Store(&now)
	c.away.Store(nil)
	c.forgive()
	c.cfg.Log.Info("connected to NATS again")
	// Another login may have other rights.
	select {
	case c.violated <- struct{}{}:
	default:
	}
}

// hear takes in what the server, or nats.go, says beside everything else.
func (c *Conn) hear(err error) {
	if lack, ok := lackOf(err); ok {
		c.refused(lack)
		return
	}
	if isRefusal(err) {
		c.trouble(err)
		return
	}
	c.cfg.Log.Debug("NATS reported an error", "error", wire.Closed(err))
}

// loginHint says what to do about a login that the server refuses.
const loginHint = ": check nats.user and nats.password_file, nats.token_file, nats.nkey_file or nats.creds_file against the server's users"

// connectHint says what to do about a connection that could not be made; "" if nothing
// better is known than the error.
func connectHint(err error) string {
	if hint := tlsHint(err); hint != "" {
		return hint
	}
	var network net.Error
	switch {
	case isRefusal(err):
		return ": the server refuses the login" + loginHint
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return ": make the file readable, or name another"
	case errors.Is(err, nats.ErrNoServers):
		return ": nobody answers there: check nats.url, that the server runs, and the firewall"
	case errors.Is(err, nats.ErrTimeout), errors.As(err, &network) && network.Timeout():
		return ": what listens there says nothing: check that nats.url leads to a NATS server, and its port"
	}
	return ""
}

// Explain says what to do about an error of JetStream, beside what it says itself. A
// missing right is told by the server apart from the request, which is just not answered.
func (c *Conn) Explain(err error) error {
	var api *jetstream.APIError
	last := c.NATS.LastError()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("NATS at %s: %w: enable JetStream there, for the account of this user, too", c.at, err)
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout):
		if lack, ok := lackOf(last); ok {
			return fmt.Errorf("%w: %w", errors.New(err.Error()), &RightsError{[]string{lack}, c.at})
		}
		return fmt.Errorf("NATS at %s: %w: JetStream does not answer: look at the server and its disks; the user may lack the right to publish on $JS.API.> or to subscribe to _INBOX.>", c.at, err)
	case errors.As(err, &api):
		return fmt.Errorf("NATS at %s: %w", c.at, err)
	}
	return err
}

// tlsHint says what to look at when the two sides do not trust each other. With
// TLS 1.3 a server refuses a client's certificate when the client thinks the
// handshake is over, so that all it may see is a closed connection.
func tlsHint(err error) string {
	var stranger x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert *net.OpError
	switch {
	case errors.As(err, &stranger):
		return ": check nats.tls.ca"
	case errors.As(err, &name):
		return ": the server's certificate is for another name: connect by that one (nats.url), or have the certificate name this one"
	case errors.As(err, &invalid):
		return ": the server's certificate is not valid: have it renewed, and check the clocks"
	case errors.Is(err, nats.ErrTLS), errors.As(err, &alert) && alert.Op == "remote error": // a TLS alert
		return ": the server may want a client certificate that it trusts, check nats.tls.cert and nats.tls.key"
	}
	return ""
}

// Embedded reports whether this process runs the server.
func (c *Conn) Embedded() bool { return c.embedded != nil }

// Close flushes and closes the connection and stops the embedded server; it
// returns when both are gone.
func (c *Conn) Close() error {
	err := c.NATS.FlushTimeout(connectWait)
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = nil
	}
	c.NATS.Close()
	<-c.closed
	if c.embedded != nil {
		c.embedded.stop()
	}
	return err
}
