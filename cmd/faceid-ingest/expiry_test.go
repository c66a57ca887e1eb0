package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/sinks/kafka"
	"github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// certificate returns a certificate that ends at the given time, in PEM.
func certificate(t *testing.T, end time.Time) string {
	t.Helper()
	cert, _ := certificateAndKey(t, end)
	return cert
}

func certificateAndKey(t *testing.T, end time.Time) (certificate, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// natsCredentials returns a NATS credentials file of a user until end; zero means
// without one.
func natsCredentials(t *testing.T, end time.Time) string {
	t.Helper()
	pair := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		key, err := create()
		if err != nil {
			t.Fatal(err)
		}
		public, err := key.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return key, public
	}
	account, _ := pair(nkeys.CreateAccount)
	user, public := pair(nkeys.CreateUser)
	claims := jwt.NewUserClaims(public)
	if !end.IsZero() {
		claims.Expires = end.Unix()
	}
	token, err := claims.Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	file, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	return string(file)
}

// whats are the labels of a list, sorted.
func whats(list []expiring) []string {
	var names []string
	for _, e := range list {
		names = append(names, e.what)
	}
	slices.Sort(names)
	return names
}

var expiryLine = regexp.MustCompile(`(?m)^faceid_ingest_expiry_timestamp_seconds\{what="(.*)"\} `)

// showsExpiry are the labels that /metrics shows, sorted.
func showsExpiry(t *testing.T, m *telemetry.Metrics) []string {
	t.Helper()
	admin, err := telemetry.Listen(t.Context(), telemetry.AdminConfig{Address: "127.0.0.1:0", Metrics: m, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(admin.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, found := range expiryLine.FindAllSubmatch(page, -1) {
		names = append(names, string(found[1]))
	}
	slices.Sort(names)
	return names
}

// What ends is told in time: certificates and credentials, by their files.
func TestExpiry(t *testing.T) {
	t.Parallel()
	end := time.Unix(1_900_000_000, 0)
	chain := certificate(t, end) + certificate(t, end.Add(time.Hour))
	file := filepath.Join(t.TempDir(), "file")
	var cfg config.Config
	if list := expiringOf(&cfg); len(list) != 0 {
		t.Errorf("without files: %v", list)
	}
	cfg.HTTP.TLS.Cert, cfg.NATS.TLS.Cert, cfg.NATS.CredsFile = file, file, file
	cfg.Sinks = []config.Sink{
		{Name: "k", Config: &kafka.Config{TLS: kafka.TLS{Cert: file}}},
		{Name: "n", Config: &natsmsg.Config{CredsFile: file, TLS: notice.TLS{Cert: file}}},
		{Name: "w", Config: &webhook.Config{TLS: notice.TLS{Cert: file}}},
		{Name: "p", Config: &sqldb.Postgres{TLS: sqldb.TLS{Cert: file}}},
		{Name: "m", Config: &sqldb.MySQL{TLS: sqldb.TLS{Cert: file}}},
		{Name: "none", Config: &sqldb.MySQL{}},
	}
	list := expiringOf(&cfg)
	// Each is a value of the metric's label.
	metrics := telemetry.New()
	for _, s := range cfg.Sinks {
		metrics.ServeSink(s.Name)
	}
	for _, e := range list {
		metrics.Expires(e.what, end)
	}
	if shown := showsExpiry(t, metrics); len(shown) != 9 || !slices.Equal(shown, whats(list)) {
		t.Errorf("%v are shown of %v", shown, whats(list))
	}
	for _, tt := range []struct {
		name, what, text string
		end              time.Time
		problem          string
	}{
		{"a chain", "http.tls", chain, end, ""},
		{"a key before it", "nats.tls", "-----BEGIN X-----\nAAAA\n-----END X-----\n" + chain, end, ""},
		{"no certificate", "http.tls", "nothing", time.Time{}, "no certificate in PEM"},
		{"a broken one", "http.tls", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", time.Time{}, "x509"},
		{"credentials", "nats.credentials", natsCredentials(t, end), end, ""},
		{"a sink's certificate", "sinks.w.tls", chain, end, ""},
		{"a sink's credentials", "sinks.n.credentials", natsCredentials(t, end), end, ""},
		{"credentials without an end", "nats.credentials", natsCredentials(t, time.Time{}), time.Time{}, ""},
		{"no credentials", "nats.credentials", "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n", time.Time{}, "cannot be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			looked := false
			for _, e := range list {
				if e.what != tt.what {
					continue
				}
				looked = true
				at, err := e.end()
				if !at.Equal(tt.end) || (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("got %v, %v", at, err)
				}
			}
			if !looked {
				t.Error("nobody looks at it")
			}
		})
	}
}
