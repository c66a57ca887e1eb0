package broker

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
)

// login returns the options with which a connection logs in. Files are read anew for each
// attempt to connect, so that what replaces them is used.
func (c *Conn) login(cfg Config) ([]nats.Option, error) {
	var options []nats.Option
	if cfg.CredsFile != "" {
		options = append(options, nats.UserJWT(
			func() (string, error) { return userJWT(cfg.CredsFile) },
			func(nonce []byte) ([]byte, error) { return sign("nats.creds_file", cfg.CredsFile, nonce) },
		))
	}
	if cfg.NkeyFile != "" {
		id, err := nkeyOf(cfg.NkeyFile)
		if err != nil {
			return nil, err
		}
		options = append(options,
			nats.Nkey(id, func(nonce []byte) ([]byte, error) { return sign("nats.nkey_file", cfg.NkeyFile, nonce) }),
			nats.SetCustomDialer(&nkeyDialer{c, cfg}),
		)
	}
	if cfg.User != "" {
		if _, err := secret("nats.password_file", cfg.Password, cfg.PasswordFile); err != nil {
			return nil, err
		}
		options = append(options, nats.UserInfoHandler(func() (string, string) {
			return cfg.User, c.secret("nats.password_file", cfg.Password, cfg.PasswordFile)
		}))
	}
	if cfg.Token != "" || cfg.TokenFile != "" {
		if _, err := secret("nats.token_file", cfg.Token, cfg.TokenFile); err != nil {
			return nil, err
		}
		options = append(options, nats.TokenHandler(func() string { return c.secret("nats.token_file", cfg.Token, cfg.TokenFile) }))
	}
	return append(options, transport(cfg)...), nil
}

// transport returns the options of TLS.
func transport(cfg Config) []nats.Option {
	var options []nats.Option
	var certificate nats.TLSCertHandler
	var authorities nats.RootCAsHandler
	if cfg.CertFile != "" {
		certificate = func() (tls.Certificate, error) { return setting.KeyPair(cfg.CertFile, cfg.KeyFile) }
	}
	if cfg.CAFile != "" {
		authorities = func() (*x509.CertPool, error) { return readAuthorities(cfg.CAFile) }
	}
	if certificate != nil || authorities != nil {
		options = append(options, nats.ClientTLSConfig(certificate, authorities))
	}
	if cfg.TLSFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	return options
}

func readAuthorities(file string) (*x509.CertPool, error) {
	text, err := setting.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read nats.tls.ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read nats.tls.ca: %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// secret returns a secret from the configuration or its file.
func secret(name, value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	content, err := setting.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("read %s: %w: give it to the user that runs this, uid %d", name, err, os.Geteuid())
	case err != nil:
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("read %s: %s is empty: write the secret into it", name, file)
	}
	return text, nil
}

// secret is for an attempt to connect again: what cannot be read is said in the log, and
// the server refuses the login.
func (c *Conn) secret(name, value, file string) string {
	text, err := secret(name, value, file)
	if err != nil {
		c.trouble(err)
	}
	return text
}

func userJWT(file string) (string, error) {
	text, err := setting.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read nats.creds_file: %w", err)
	}
	jwt, err := nkeys.ParseDecoratedJWT(text)
	if err != nil || jwt == "" {
		return "", fmt.Errorf("read nats.creds_file: %s is no NATS credentials file: it has no user JWT", file)
	}
	return jwt, nil
}

// keyOf reads the seed in a file: bare, or with the frame that a credentials file has.
func keyOf(name, file string) (nkeys.KeyPair, error) {
	text, err := setting.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer clear(text)
	keys, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %s holds no NKey seed (SU...)", name, file)
	}
	return keys, nil
}

func sign(name, file string, nonce []byte) ([]byte, error) {
	keys, err := keyOf(name, file)
	if err != nil {
		return nil, err
	}
	defer keys.Wipe()
	return keys.Sign(nonce)
}

func nkeyOf(file string) (string, error) {
	keys, err := keyOf("nats.nkey_file", file)
	if err != nil {
		return "", err
	}
	defer keys.Wipe()
	return keys.PublicKey()
}

// secretsOf returns a digest of what the files of cfg hold now.
func secretsOf(cfg Config) [sha256.Size]byte {
	sum := sha256.New()
	for _, file := range []string{cfg.PasswordFile, cfg.TokenFile, cfg.CredsFile, cfg.NkeyFile, cfg.CAFile, cfg.CertFile, cfg.KeyFile} {
		text, err := setting.ReadFile(file)
		_, _ = fmt.Fprintf(sum, "%d %v\n", len(text), err != nil)
		_, _ = sum.Write(text)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// Renew logs in again if files with credentials were replaced since the last time; it
// reports whether. What the server refuses is an error, and the connection stays as it is.
func (c *Conn) Renew(_ context.Context) (renewed bool, err error) {
	now := secretsOf(c.cfg)
	if c.Embedded() || c.joined || now == *c.secrets.Load() {
		return false, nil
	}

	try := &Conn{cfg: c.cfg, at: c.at, closed: make(chan struct{})}
	nc, err := try.connect(c.cfg.URL)
	if err != nil {
		return false, err
	}
	nc.Close()
	<-try.closed
	c.secrets.Store(&now)
	return true, c.NATS.ForceReconnect()
}

// refusals are the answers of a server that does not let somebody in.
var refusals = []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(target error) bool { return errors.Is(err, target) })
}

// trouble notes why the connection cannot be made again. A refused login is logged once.
func (c *Conn) trouble(err error) {
	err = wire.Closed(err)
	known := c.away.Swap(&err)
	if known != nil && (*known).Error() == err.Error() {
		return
	}
	if isRefusal(err) {
		c.cfg.Log.Error("NATS refuses the login"+loginHint, "nats", c.at, "error", err)
		return
	}
	c.cfg.Log.Warn("cannot connect to NATS again, still trying", "nats", c.at, "error", err)
}

// Trouble says why there is no connection now; it is nil while there is one.
func (c *Conn) Trouble() error {
	status := c.NATS.Status()
	if status == nats.CONNECTED {
		return nil
	}
	err := c.away.Load()
	switch {
	case err == nil:
		return fmt.Errorf("connection is %s", status)
	case isRefusal(*err):
		return fmt.Errorf("the server refuses the login, connection is %s: %w%s", status, *err, loginHint)
	}
	return fmt.Errorf("connection is %s: %w", status, *err)
}
