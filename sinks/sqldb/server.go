package sqldb

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// TLS says how the connection to a database server is protected.
type TLS struct {
	// Mode is "verify-full", where the server's certificate must be one for the
	// host that is connected to; "verify-ca", where it only must be signed by an
	// authority of the file ca; or "disable". Empty is verify-full, and on the loopback
	// interface or a Unix socket disable, if there is no ca.
	Mode string `yaml:"mode" enum:",verify-full,verify-ca,disable"`
	// CA is the path of the authorities' certificates, in PEM; empty is those that
	// the system trusts.
	CA string `yaml:"ca"`
	// Cert and Key are the paths of the client's certificate and key, in PEM.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

const (
	verifyFull = "verify-full"
	verifyCA   = "verify-ca"
	disable    = "disable"
)

func (t TLS) validate() (problems []error) {
	switch {
	case t.Mode == disable && (t.CA != "" || t.Cert != "" || t.Key != ""):
		problems = append(problems, &sinks.InvalidFieldError{Field: "tls", Problem: "has certificates, but mode is disable"})
	case t.Mode == verifyCA && t.CA == "":
		problems = append(problems, &sinks.InvalidFieldError{Field: "tls.ca", Problem: "must be given with mode verify-ca: else every certificate of the world would do"})
	case (t.Cert == "") != (t.Key == ""):
		problems = append(problems, &sinks.InvalidFieldError{Field: "tls", Problem: "needs both cert and key, or none"})
	}
	return problems
}

// config returns the settings for a connection to a host, nil for one in clear. It
// reads the files anew, for certificates are renewed.
func (t TLS) config(host string) (*tls.Config, error) {
	if t.Mode == disable || t.Mode == "" && t.CA == "" && sinks.IsLocal(host) {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t.CA != "" {
		pem, err := readFile("tls.ca", t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, &knownError{fmt.Sprintf("tls.ca: %s holds no certificate in PEM", t.CA)}
		}
	}
	if t.Cert != "" {
		pair, err := setting.KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, &knownError{fmt.Sprintf("tls: %s and %s are not a certificate and its key that can be read", t.Cert, t.Key)}
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if t.Mode == verifyCA {
		c.InsecureSkipVerify = true // VerifyConnection does all but compare the name
		c.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(state, c.RootCAs) }
	}
	return c, nil
}

func verifyChain(state tls.ConnectionState, roots *x509.CertPool) error {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(options)
	return err
}

// readFile reads the file of a configuration key, without the line break at its
// end. It is read anew for each connection, for secrets are rotated.
func readFile(key, path string) (string, error) {
	b, err := setting.ReadFile(path)
	if err == nil {
		return string(bytes.TrimRight(b, "\r\n")), nil
	}
	var failed *fs.PathError
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return "", &knownError{fmt.Sprintf("%s: read %s: %v", key, path, err)}
}

// validateServer checks what configurations of servers have in common. name is the
// key of the address, which holds the password, or the name of its file does.
func validateServer(name string, address sinks.Secret, file string, t TLS) (problems []error) {
	switch {
	case address == "" && file == "":
		problems = append(problems, &sinks.InvalidFieldError{Field: name, Problem: fmt.Sprintf("must be given, or %s_file", name)})
	case address != "" && file != "":
		problems = append(problems, &sinks.InvalidFieldError{Field: name, Problem: fmt.Sprintf("give either %s or %[1]s_file, not both", name)})
	}
	return append(problems, t.validate()...)
}

// defaultConnections is few, because every replica has as many.
const defaultConnections = 8

// serverWriters is how many transactions write results at once. While one waits for
// the server's disk, the other keeps the server busy; more would only make groups
// smaller.
const serverWriters = 2

// dialTimeout bounds how long a server may take to answer a call, unless the
// address says another.
const dialTimeout = 10 * time.Second

// Connections are renewed now and then, so that they spread over servers that were
// added or came back.
const (
	connectionLife = 30 * time.Minute
	connectionIdle = 5 * time.Minute
)

// dialer is a driver.Connector that reads its configuration for each connection.
type dialer struct {
	connect func(ctx context.Context) (driver.Conn, error)
	driver  driver.Driver
}

// Connect implements driver.Connector.
func (d *dialer) Connect(ctx context.Context) (driver.Conn, error) { return d.connect(ctx) }

// Driver implements driver.Connector.
func (d *dialer) Driver() driver.Driver { return d.driver }

// openServer opens a sink on a server.
func openServer(ctx context.Context, env sinks.Env, connector driver.Connector, d *dialect, connections int) (sinks.Sink, error) {
	return asSink(openSink(ctx, env, options{
		connector: connector, dialect: d,
		connections: connections, writers: serverWriters, life: connectionLife, idle: connectionIdle,
		intact: func() error { return nil },
		room:   func() error { return nil }, // its own matter
	}))
}

// describeNetwork says what an error on the way to a server means; ok is false if
// it is none.
func describeNetwork(err error) (d diagnosis, ok bool) {
	if words := tlsWords(err); words != "" {
		return diagnosis{words, broken}, true
	}
	words := networkWords(err)
	return diagnosis{words, away}, words != ""
}

func networkWords(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "its host name is not known: check the name and DNS"
	case errors.As(err, &dns):
		return "its host name cannot be looked up: check DNS"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return "nobody listens there: check host and port, and that the server runs"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "the system forbids the connection: check the firewall and the rights on the socket"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to its host: check the network"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "it does not answer: check the network, the firewall and that the server runs"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, driver.ErrBadConn):
		return connectionLost
	}
	return ""
}

const connectionLost = "the connection was lost: check that the server runs"

func tlsWords(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &authority):
		return "its certificate is signed by nobody that is trusted: give tls.ca"
	case errors.As(err, &name):
		return "its certificate is for another name: connect by that name, or set tls.mode to verify-ca"
	case errors.As(err, &invalid):
		return "its certificate is not valid, or no longer: have it renewed"
	case errors.As(err, &alert), errors.As(err, &record):
		return "it does not agree to TLS: check tls, and that the server accepts the client's certificate"
	}
	return ""
}
