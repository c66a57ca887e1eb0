package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/jwt/v2"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// expiryEvery is how often files are looked at that hold a certificate or a credential:
// they are replaced while the daemon runs.
const expiryEvery = time.Minute

// expiring is a file whose content ends at a time.
type expiring struct {
	// what is the label of the metric.
	what, file string
	read       func(text []byte) (time.Time, error)
}

// expiringOf returns the files of a configuration that hold something with an end.
func expiringOf(cfg *config.Config) []expiring {
	var list []expiring
	for _, e := range []expiring{
		{"http.tls", cfg.HTTP.TLS.Cert, certificateEnd},
		{"nats.tls", cfg.NATS.TLS.Cert, certificateEnd},
		{"nats.credentials", cfg.NATS.CredsFile, credentialsEnd},
	} {
		if e.file != "" {
			list = append(list, e)
		}
	}
	for _, s := range cfg.Sinks {
		cert, creds := sinkFiles(s.Config)
		if cert != "" {
			list = append(list, expiring{"sinks." + s.Name + ".tls", cert, certificateEnd})
		}
		if creds != "" {
			list = append(list, expiring{"sinks." + s.Name + ".credentials", creds, credentialsEnd})
		}
	}
	return list
}

// sinkFiles returns the files of a sink's client certificate and NATS credentials; either
// may be empty.
func sinkFiles(c sinks.Config) (cert, creds string) {
	switch c := c.(type) {
	case *kafka.Config:
		return c.TLS.Cert, ""
	case *natsmsg.Config:
		return c.TLS.Cert, c.CredsFile
	case *webhook.Config:
		return c.TLS.Cert, ""
	case *sqldb.Postgres:
		return c.TLS.Cert, ""
	case *sqldb.MySQL:
		return c.TLS.Cert, ""
	}
	return "", ""
}

// watchExpiry shows when certificates and credentials end, until ctx is done.
func (d *daemon) watchExpiry(ctx context.Context, list []expiring) error {
	said := map[string]bool{}
	tick := time.NewTicker(expiryEvery)
	defer tick.Stop()
	for {
		for _, e := range list {
			at, err := e.end()
			if err == nil {
				d.metrics.Expires(e.what, at)
			} else if !said[e.what] {
				d.log.Warn("cannot tell when a certificate or credential ends", "what", e.what, "error", err)
			}
			said[e.what] = err != nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// end returns when the file's content ends; a zero time if it does not.
func (e expiring) end() (time.Time, error) {
	text, err := os.ReadFile(e.file)
	if err != nil {
		return time.Time{}, err
	}
	defer clear(text)
	at, err := e.read(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", e.file, err)
	}
	return at, nil
}

// certificateEnd reads the first certificate in PEM, which is the process's own.
func certificateEnd(text []byte) (time.Time, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return time.Time{}, errors.New("no certificate in PEM")
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return time.Time{}, err
			}
			return c.NotAfter, nil
		}
		text = rest
	}
}

// credentialsEnd reads the user's JWT of a NATS credentials file.
func credentialsEnd(text []byte) (time.Time, error) {
	token, err := jwt.ParseDecoratedJWT(text)
	if err != nil {
		return time.Time{}, errors.New("no NATS credentials")
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return time.Time{}, errors.New("the JWT of the NATS credentials cannot be read")
	}
	if claims.Expires == 0 {
		return time.Time{}, nil
	}
	return time.Unix(claims.Expires, 0), nil
}
