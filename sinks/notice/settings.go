package notice

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// CheckSecret says what is wrong with a secret that may be given by value or by
// file. key is its yaml key, the file's is the same with "_file" behind it.
func CheckSecret(key string, value sinks.Secret, file string) error {
	if value != "" && file != "" {
		return &sinks.InvalidFieldError{Field: key, Problem: "give either " + key + " or " + key + "_file, not both"}
	}
	return nil
}

// ReadSecret returns value, or else what file holds without the white space
// around it. The file is read on every call, so that a rotated secret is used.
// The error names key and the file.
func ReadSecret(key string, value sinks.Secret, file string) (string, error) {
	if file == "" {
		return string(value), nil
	}
	content, err := setting.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read %s_file: %w", key, err)
	}
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("read %s_file: %s is empty", key, file)
	}
	return text, nil
}

// TLS are the files of a client's TLS, in PEM.
type TLS struct {
	// CA holds the authorities that may have signed the server's certificate;
	// empty means those of the system.
	CA string `yaml:"ca"`
	// Cert and Key are the client's certificate with its chain, and its private
	// key, for servers that ask for one: both or none. They are read again for
	// each connection, so that renewed ones are used.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Validate says what is wrong with the values, which are under the yaml key "tls".
func (t TLS) Validate() error {
	if (t.Cert == "") != (t.Key == "") {
		return &sinks.InvalidFieldError{Field: "tls", Problem: "needs both cert and key, or none"}
	}
	return nil
}

// Client returns the settings of a client: TLS 1.2 at least. It reads the files
// once, so that what is wrong with them is known early.
func (t TLS) Client() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		content, err := setting.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("read tls.ca: %s holds no certificate in PEM", t.CA)
		}
	}
	if t.Cert == "" {
		return cfg, nil
	}
	if _, err := t.certificate(); err != nil {
		return nil, err
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate() }
	return cfg, nil
}

func (t TLS) certificate() (*tls.Certificate, error) {
	cert, err := setting.KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read tls.cert and tls.key: %w", err)
	}
	return &cert, nil
}

// TLSHint says what to look at when two sides do not trust each other; "" if err
// is about something else. With TLS 1.3 a server refuses a client's certificate
// when the client thinks the handshake is over, so that all it may see is a
// closed connection.
func TLSHint(err error) string {
	var stranger x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &stranger):
		return "its certificate is signed by an authority that is not trusted here: check tls.ca"
	case errors.As(err, &name):
		return "its certificate is of another name: check the address, or have the certificate name it"
	case errors.As(err, &invalid):
		return "its certificate is not valid: renew it, and check the clocks"
	case errors.As(err, &alert), err != nil && strings.Contains(err.Error(), "remote error: tls: "):
		return "it refuses the TLS handshake; it may want a client certificate that it trusts: check tls.cert and tls.key"
	case errors.As(err, &plain):
		return "what listens there does not speak TLS: check the port"
	}
	return ""
}
