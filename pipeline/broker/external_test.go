package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/faceid-ingest/faceid-ingest/pipeline/broker"
)

// startServer runs a server as an operator would have one elsewhere.
func startServer(t *testing.T, o *server.Options) string {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	o.JetStream, o.StoreDir = true, t.TempDir()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	return s.Addr().String()
}

// works checks that JetStream answers over a connection.
func works(t *testing.T, cfg broker.Config) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	conn, err := broker.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, conn)
	if _, err := conn.JS.AccountInfo(t.Context()); err != nil || conn.Embedded() {
		t.Errorf("%v", err)
	}
}

// refused checks that no connection comes about, and what is said of it.
func refused(t *testing.T, cfg broker.Config, want string) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	conn, err := broker.Connect(t.Context(), cfg)
	if err == nil {
		closed(t, conn)
		t.Fatal("connected")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestUserAndPassword(t *testing.T) {
	address := startServer(t, &server.Options{Username: "ingest", Password: "right"})
	works(t, broker.Config{URL: "nats://" + address, User: "ingest", Password: "right"})
	refused(t, broker.Config{URL: "nats://" + address, User: "ingest", Password: "wrong"}, "Authorization Violation")
	refused(t, broker.Config{URL: "nats://" + address, User: "ingest", Password: "wrong"}, "check nats.user and nats.password_file")
}

func TestMutualTLS(t *testing.T) {
	folder := t.TempDir()
	authority := newCertificate(t, folder, "ca", nil)
	serverCert := newCertificate(t, folder, "server", authority)
	newCertificate(t, folder, "client", authority)
	stranger := newCertificate(t, folder, "stranger-ca", nil)
	newCertificate(t, folder, "stranger", stranger)
	roots := x509.NewCertPool()
	roots.AddCert(authority.leaf)
	address := startServer(t, &server.Options{TLS: true, TLSVerify: true, TLSTimeout: 5, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.leaf.Raw}, PrivateKey: serverCert.key}},
	}})
	file := func(name string) string { return filepath.Join(folder, name) }
	right := broker.Config{URL: "tls://" + address, CAFile: file("ca.pem"), CertFile: file("client.pem"), KeyFile: file("client.key")}
	works(t, right)

	without := right
	without.CAFile = ""
	refused(t, without, "check nats.tls.ca")
	without = right
	without.URL = strings.Replace(right.URL, "127.0.0.1", "localhost", 1)
	refused(t, without, "the server's certificate is for another name")
	without = right
	without.CertFile, without.KeyFile = "", ""
	refused(t, without, "check nats.tls.cert and nats.tls.key")
	without = right
	without.CertFile, without.KeyFile = file("stranger.pem"), file("stranger.key")
	refused(t, without, "check nats.tls.cert and nats.tls.key")
	without = right
	without.CAFile = file("nothing.pem")
	refused(t, without, "nothing.pem")
}

type certificate struct {
	leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newCertificate writes <name>.pem and <name>.key, signed by issuer or itself.
func newCertificate(t *testing.T, folder, name string, issuer *certificate) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: issuer == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	template.Subject.CommonName = name
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.leaf, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return &certificate{leaf, key}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCredentialsFile(t *testing.T) {
	operator, err := nkeys.CreateOperator()
	must(t, err)
	operatorID, err := operator.PublicKey()
	must(t, err)
	accounts := &server.MemAccResolver{}
	newAccount := func(storage bool) (nkeys.KeyPair, string) {
		keys, err := nkeys.CreateAccount()
		must(t, err)
		id, err := keys.PublicKey()
		must(t, err)
		claims := jwt.NewAccountClaims(id)
		if storage {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := claims.Encode(operator)
		must(t, err)
		must(t, accounts.Store(id, token))
		return keys, id
	}
	_, system := newAccount(false)
	account, _ := newAccount(true)
	address := startServer(t, &server.Options{TrustedKeys: []string{operatorID}, AccountResolver: accounts, SystemAccount: system})

	user, err := nkeys.CreateUser()
	must(t, err)
	userID, err := user.PublicKey()
	must(t, err)
	token, err := jwt.NewUserClaims(userID).Encode(account)
	must(t, err)
	seed, err := user.Seed()
	must(t, err)
	creds, err := jwt.FormatUserConfig(token, seed)
	must(t, err)
	file := filepath.Join(t.TempDir(), "ingest.creds")
	must(t, os.WriteFile(file, creds, 0o600))
	works(t, broker.Config{URL: "nats://" + address, CredsFile: file})
	refused(t, broker.Config{URL: "nats://" + address}, "Authorization Violation")
}
