// Package config is the configuration file: its structs with their defaults,
// reading it, and saying what is wrong with it.
//
// A YAML file goes in; a Config comes out, or one error for each problem, with
// line, column and what was expected. The file is strict: a key that is not
// known is an error, so that a typing mistake never turns a protection off.
// "${VAR}" and "${VAR:default}" in a value stand for environment variables. Every
// secret may be given by a file, named by the same key with "_file" behind it.
// No error holds a value of the file.
package config

//go:generate go run ./gen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/pipeline/streams"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Config is the whole configuration.
type Config struct {
	// DataDir holds what has no path of its own: the embedded NATS server, the
	// spool, the keyring. One daemon works in it at a time. Default ./data.
	DataDir string `yaml:"data_dir"`
	NATS    NATS   `yaml:"nats"`
	// Accounts are the Tencent accounts to pull results of.
	Accounts []Account `yaml:"accounts"`
	Worker   Worker    `yaml:"worker"`
	Spool    Spool     `yaml:"spool"`
	Parking  Parking   `yaml:"parking"`
	// Privacy says how personal fields are stored.
	Privacy Privacy `yaml:"privacy"`
	// Sinks are the destinations, called in this order. Default a folder and a SQLite
	// database in data_dir.
	Sinks []Sink `yaml:"sinks"`
	HTTP  HTTP   `yaml:"http"`
	// Tracing says where traces go.
	Tracing Tracing `yaml:"tracing"`
	Log     Log     `yaml:"log"`

	// unset are the values that need an environment variable which is not set, and have
	// no default.
	unset []*Error
}

// Need returns an error for each value of the named parts ("nats", "sinks[1]",
// "privacy.kms"), or of all if none is named, that needs an environment variable which is
// not set. Whoever uses a part asks first; the others may be without their secrets, as in
// the shell of somebody who only wants to read.
func (c *Config) Need(parts ...string) error {
	var missing []*Error
	for _, problem := range c.unset {
		if len(parts) == 0 || slices.ContainsFunc(parts, func(part string) bool { return within(problem.Path, part) }) {
			missing = append(missing, problem)
		}
	}
	return join(missing)
}

// NATS is the connection to JetStream.
type NATS struct {
	// URL is "embedded" for a server in this process, or one or more nats:// or
	// tls:// URLs with commas between. Default embedded.
	URL string `yaml:"url"`
	// CredsFile is a NATS credentials file, NkeyFile holds an NKey seed. User and
	// Password are for servers that know users by name, Token is for those that want
	// one. At most one of these ways is used, and none where the certificate is
	// enough. Files are read whenever the daemon connects, and again at SIGHUP.
	CredsFile    string `yaml:"creds_file"`
	NkeyFile     string `yaml:"nkey_file"`
	User         string `yaml:"user"`
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	Token        Secret `yaml:"token"`
	TokenFile    string `yaml:"token_file"`
	TLS          TLS    `yaml:"tls"`
	// Domain is the JetStream domain, for a server that is a leaf of it. APIPrefix is
	// where the API of JetStream is found if an account imports it elsewhere than at
	// $JS.API. At most one is set.
	Domain    string `yaml:"domain"`
	APIPrefix string `yaml:"api_prefix"`
	// Streams are how the streams are called. One that exists is taken if it suffices;
	// what is missing is made.
	Streams NATSStreams `yaml:"streams"`
	// Buckets are how the key-value buckets are called, and the object store of parked
	// results.
	Buckets NATSBuckets `yaml:"buckets"`
	// MaxBytes bounds each of the streams that grow with the number of events, when it
	// is made: it keeps a flood of events from filling the server. A full one refuses
	// new events, and their publishers see it. Where the server or the account has not
	// so much left, less is taken. The default holds some ten million events, which stay
	// for a week.
	MaxBytes Size `yaml:"max_bytes" min:"1MiB"`
	// Monitor are the servers' monitoring endpoints, such as http://nats-0:8222, with
	// commas between: "config check" asks them whether the servers sync to disk before
	// they acknowledge. Nothing else uses them; may be empty.
	Monitor string `yaml:"monitor"`
	// Replicas is how many servers of a cluster keep each stream, 1 to 5; with 3
	// a server may be lost. Default 1.
	Replicas int `yaml:"replicas" min:"1" max:"5"`
}

// NATSStreams are the names of streams.
type NATSStreams struct {
	// Events holds completion events, Dead those that were given up, Parked those of
	// results that wait for a sink, Advisories what the server says of events that no
	// worker survives.
	Events     string `yaml:"events"`
	Dead       string `yaml:"dead"`
	Parked     string `yaml:"parked"`
	Advisories string `yaml:"advisories"`
}

// NATSBuckets are the names of key-value buckets, and of the object store of parked
// results.
type NATSBuckets struct {
	// Ledger says which sinks have which result, State which daemons run, Keyring which
	// keyring seals the results. Parked is the object store.
	Ledger  string `yaml:"ledger"`
	State   string `yaml:"state"`
	Keyring string `yaml:"keyring"`
	Parked  string `yaml:"parked"`
}

// TLS are certificate files in PEM, which are read whenever the daemon connects.
type TLS struct {
	// CA signed the server's certificate; empty means the system's authorities.
	CA string `yaml:"ca"`
	// Cert and Key are this client's certificate; both or none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// HandshakeFirst is for servers that want TLS before they say anything
	// (handshake_first).
	HandshakeFirst bool `yaml:"handshake_first"`
}

// Account is one set of Tencent credentials with its limits, keys and rules.
type Account struct {
	// Name is used in subjects, consumer names and metrics: a-z, 0-9 and "-".
	Name string `yaml:"name"`
	// SecretID and SecretKey sign requests.
	SecretID      Secret `yaml:"secret_id"`
	SecretIDFile  string `yaml:"secret_id_file"`
	SecretKey     Secret `yaml:"secret_key"`
	SecretKeyFile string `yaml:"secret_key_file"`
	// SessionToken belongs to temporary (STS) credentials.
	SessionToken     Secret `yaml:"session_token"`
	SessionTokenFile string `yaml:"session_token_file"`
	// Endpoint is the URL of the API. Default https://faceid.tencentcloudapi.com.
	Endpoint string `yaml:"endpoint"`
	// Region is the public parameter of the same name. Default ap-guangzhou.
	Region string `yaml:"region"`
	// RateLimit is how many requests per second the account may send, 1 to
	// 10000. Default 100, the API's own default.
	RateLimit int `yaml:"rate_limit" min:"1" max:"10000"`
	// RuleID is for events of enhanced tokens that name none.
	RuleID  string  `yaml:"rule_id"`
	Request Request `yaml:"request"`
	// Encryption says how the API is to encrypt personal fields on the way.
	Encryption Encryption `yaml:"encryption"`
	EID        EID        `yaml:"eid"`
	// Storage is the bucket FaceID puts media into when data storage is on.
	Storage Storage `yaml:"storage"`
}

// Request says which parts of a result to ask for.
type Request struct {
	// InfoType are the parts, digits put together: 0 all, 1 text, 2 card, 3 best
	// frame, 4 video, 5 read-aloud, 6 questions and nod. Default 0.
	InfoType string `yaml:"info_type"`
	// BestFrames is how many extra frames to get, 0 to 10 (eid: 3). Default 0.
	BestFrames int `yaml:"best_frames" min:"0" max:"10"`
	// CropIDCard asks for a cropped photo of the card.
	CropIDCard bool `yaml:"crop_id_card"`
	// Avatar asks for the portrait on the card.
	Avatar bool `yaml:"avatar"`
	// AllVideos asks for the videos of failed attempts (data storage only).
	AllVideos bool `yaml:"all_videos"`
}

// Encryption of what the API sends for enhanced tokens.
type Encryption struct {
	// Mode is none, fields or body. Default none.
	Mode string `yaml:"mode" enum:"none,fields,body"`
	// Algorithm is AES-256-CBC or SM4-GCM. Default AES-256-CBC.
	Algorithm string `yaml:"algorithm" enum:"AES-256-CBC,SM4-GCM"`
	// PublicKeyFile holds the public key that the FaceID console shows.
	PublicKeyFile string `yaml:"public_key_file"`
	// KMSKeyID is the key in KMS that accounts have which enabled encryption
	// before March 2023, in place of a public key; AES-256-CBC only.
	KMSKeyID string `yaml:"kms_key_id"`
	// KMSEndpoint is the URL of KMS. Default https://kms.tencentcloudapi.com.
	KMSEndpoint string `yaml:"kms_endpoint"`
	// DataKeyLife is how long one data key of KMS serves requests, 0 for one
	// request only. Default 10m.
	DataKeyLife Duration `yaml:"data_key_life" min:"0s" max:"24h"`
}

// EID opens what eid results hold of a person.
type EID struct {
	// PrivateKeyFile is the merchant's SM2 private key.
	PrivateKeyFile string `yaml:"private_key_file"`
	// PassphraseFile opens the key file, if it is encrypted.
	PassphraseFile string `yaml:"passphrase_file"`
}

// Storage is a COS bucket.
type Storage struct {
	// Bucket is the full name with the APPID, such as faceid-1250000000.
	Bucket string `yaml:"bucket"`
	// Region is such as ap-guangzhou.
	Region string `yaml:"region"`
}

// Worker says how events are worked on.
type Worker struct {
	// Slots is how many events of one account are worked on at once, 1 to 4096;
	// backfill takes three quarters of them at most. Default 32.
	Slots int `yaml:"slots" min:"1" max:"4096"`
	// AckWait is how long JetStream waits for a sign of life of an event's worker
	// before it gives the event to another, 1s or more. Default 60s.
	AckWait Duration `yaml:"ack_wait" min:"1s"`
	// MaxResponse bounds one answer of the API. Default 256MiB.
	MaxResponse Size `yaml:"max_response" min:"1MiB"`
	// Timeout bounds one call of the API, with its whole answer. Default 60s.
	Timeout Duration `yaml:"timeout" min:"1s"`
	// ShutdownGrace is how long events in work may finish when the daemon is told
	// to stop. Default 30s.
	ShutdownGrace Duration `yaml:"shutdown_grace" min:"0s"`
}

// Spool is where media lies while a result is in flight.
type Spool struct {
	// Dir is the folder of sealed files. Default <data_dir>/spool.
	Dir string `yaml:"dir"`
	// Memory is the size up to which an item stays in memory. Default 256KiB.
	Memory Size `yaml:"memory"`
	// Quota bounds all media in flight; at the quota, pulling waits. Default 4GiB.
	Quota Size `yaml:"quota" min:"1B"`
}

// Parking is where pulled results wait, sealed, while a sink is down.
type Parking struct {
	// Quota bounds all parked results of all workers together; they lie in NATS. From
	// half of it on, results that have time are not pulled while a sink is down.
	// Default 20GiB.
	Quota Size `yaml:"quota" min:"1B"`
}

// Privacy is the policy of personal fields and media, and what wraps its keyring.
type Privacy struct {
	privacy.Config `yaml:",inline"`
	// KMS wraps the keyring file; without a key_id the file is in clear.
	KMS KeyringKMS `yaml:"kms"`
}

// KeyringKMS is a key of Tencent KMS, without which a copy of the keyring file is
// of no use.
type KeyringKMS struct {
	// KeyID is the id of a symmetric customer master key.
	KeyID string `yaml:"key_id"`
	// Endpoint is the URL of KMS. Default https://kms.tencentcloudapi.com.
	Endpoint string `yaml:"endpoint"`
	// Region is the key's. Default ap-guangzhou.
	Region string `yaml:"region"`
	// SecretID and SecretKey are of a CAM user that may call kms:Encrypt and
	// kms:Decrypt with the key.
	SecretID      Secret `yaml:"secret_id"`
	SecretIDFile  string `yaml:"secret_id_file"`
	SecretKey     Secret `yaml:"secret_key"`
	SecretKeyFile string `yaml:"secret_key_file"`
}

// Sink is one destination.
type Sink struct {
	// Name is used in metrics and receipts: a-z, 0-9 and "-".
	Name string
	// Type is the kind of sink; the other keys depend on it.
	Type   string
	Config sinks.Config
}

// NeedAccount is Need for the account of a name.
func (c *Config) NeedAccount(name string) error {
	for i, a := range c.Accounts {
		if a.Name == name {
			return c.Need(at("accounts", i))
		}
	}
	return nil
}

// NeedSink is Need for the sink of a name.
func (c *Config) NeedSink(name string) error {
	for i, s := range c.Sinks {
		if s.Name == name {
			return c.Need(at("sinks", i))
		}
	}
	return nil
}

// HTTP are the endpoints that the daemon serves.
type HTTP struct {
	// Admin is the address of /healthz, /readyz, /metrics and /api/v1/status; empty
	// means none. They show nothing of a person, but tokens. An address that is not
	// loopback needs admin_token_file or tls.client_ca. Default 127.0.0.1:9464.
	Admin string `yaml:"admin"`
	// AdminTokenFile holds what requests must bring as "Authorization: Bearer …": 16
	// characters or more; one a line while a new one replaces an old one. It is read
	// for each request. /healthz and /readyz need none, and give no reasons without.
	AdminTokenFile string `yaml:"admin_token_file"`
	// TLS has the endpoint speak HTTPS.
	TLS ServerTLS `yaml:"tls"`
	// Pprof also serves Go's profiles at /debug/pprof.
	Pprof bool `yaml:"pprof"`
}

// ServerTLS are certificate files in PEM, which are read again when they change.
type ServerTLS struct {
	// Cert and Key are the server's certificate; both or none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// ClientCA signed the certificates of clients, which do in place of a token.
	ClientCA string `yaml:"client_ca"`
}

// Tracing says where spans go: one trace for each event, from its publisher to the
// acknowledgement, with nothing of a person but the token.
type Tracing struct {
	// Endpoint is the URL of a collector that speaks OTLP over HTTP, such as
	// http://127.0.0.1:4318; spans go to v1/traces below it. Empty means that nothing is
	// traced.
	Endpoint string `yaml:"endpoint"`
	// HeadersFile holds headers for the collector, "Name: value" in each line, and is
	// read for each request.
	HeadersFile string `yaml:"headers_file"`
	// Sample is the share of traces that are kept, 0 to 1, of those that no publisher
	// began. Default 0.1.
	Sample float64 `yaml:"sample" min:"0" max:"1"`
}

// Log says what is logged and how.
type Log struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level" enum:"debug,info,warn,error"`
	// Format is json, text, or auto: text on a terminal. Default auto.
	Format string `yaml:"format" enum:"auto,json,text"`
}

// Default returns the configuration that is used without a file: NATS in the
// process, a folder and a SQLite database below ./data. It has no account.
func Default() *Config {
	c := defaults()
	c.resolve()

	return c
}

// resolve gives what the file left out the defaults that depend on what it holds.
func (c *Config) resolve() {
	if c.Sinks != nil {
		return
	}
	for _, s := range []struct{ name, typ, path string }{{"media", "dir", "media"}, {"records", "sqlite", "faceid.db"}} {
		sink, ok := sinks.NewConfig(s.typ)
		if !ok {
			continue
		}
		byKey, _ := fields(reflect.ValueOf(sink).Elem())
		byKey["path"].SetString(filepath.Join(c.DataDir, s.path))
		c.Sinks = append(c.Sinks, Sink{Name: s.name, Type: s.typ, Config: sink})
	}
}

// defaults are what a file is decoded over.
func defaults() *Config {
	return &Config{
		DataDir: "./data",
		NATS: NATS{
			URL: "embedded", Replicas: 1, MaxBytes: streams.DefaultMaxBytes,
			Streams: NATSStreams{streams.Events, streams.Dead, streams.Parked, streams.Advisories},
			Buckets: NATSBuckets{streams.LedgerBucket, streams.StateBucket, streams.KeyringBucket, streams.ParkedBucket},
		},
		Worker: Worker{
			Slots: 32, AckWait: Duration(60e9), MaxResponse: 256 << 20,
			Timeout: Duration(60e9), ShutdownGrace: Duration(30e9),
		},
		Spool:   Spool{Memory: 256 << 10, Quota: 4 << 30},
		Parking: Parking{Quota: 20 << 30},
		Privacy: Privacy{
			Config: privacy.DefaultConfig(),
			KMS:    KeyringKMS{Endpoint: "https://kms.tencentcloudapi.com", Region: "ap-guangzhou"},
		},
		HTTP:    HTTP{Admin: "127.0.0.1:9464"},
		Tracing: Tracing{Sample: 0.1},
		Log:     Log{Level: "info", Format: "auto"},
	}
}

// DefaultAccount is what an account in the file is decoded over.
func DefaultAccount() Account {
	return Account{
		Endpoint:  "https://faceid.tencentcloudapi.com",
		Region:    "ap-guangzhou",
		RateLimit: 100,
		Request:   Request{InfoType: "0"},
		Encryption: Encryption{
			Mode: "none", Algorithm: "AES-256-CBC",
			KMSEndpoint: "https://kms.tencentcloudapi.com", DataKeyLife: Duration(10 * time.Minute),
		},
	}
}

// Credential returns what signs the account's requests. Files are read on every
// call, so that rotated secrets are used; the error names the key and the file.
func (a Account) Credential() (id, key, token string, err error) {
	if id, err = secret("secret_id", a.SecretID, a.SecretIDFile); err != nil {
		return "", "", "", err
	}
	if key, err = secret("secret_key", a.SecretKey, a.SecretKeyFile); err != nil {
		return "", "", "", err
	}
	if token, err = secret("session_token", a.SessionToken, a.SessionTokenFile); err != nil {
		return "", "", "", err
	}
	return id, key, token, nil
}

// Credential returns what signs requests to KMS; files are read on every call.
func (k KeyringKMS) Credential() (id, key string, err error) {
	if id, err = secret("privacy.kms.secret_id", k.SecretID, k.SecretIDFile); err != nil {
		return "", "", err
	}
	key, err = secret("privacy.kms.secret_key", k.SecretKey, k.SecretKeyFile)
	return id, key, err
}

// Monitors returns the URLs in Monitor.
func (n NATS) Monitors() []string {
	return strings.FieldsFunc(n.Monitor, func(r rune) bool { return r == ',' || r == ' ' })
}

// Layout returns what the streams are called and how large they are made.
func (n NATS) Layout() streams.Layout {
	return streams.Layout{
		MaxBytes: int64(n.MaxBytes),
		Streams: map[string]string{
			streams.Events: n.Streams.Events, streams.Dead: n.Streams.Dead, streams.Parked: n.Streams.Parked, streams.Advisories: n.Streams.Advisories,
		},
		Buckets: map[string]string{
			streams.LedgerBucket: n.Buckets.Ledger, streams.StateBucket: n.Buckets.State, streams.KeyringBucket: n.Buckets.Keyring, streams.ParkedBucket: n.Buckets.Parked,
		},
	}
}

// secret returns a secret from the configuration or its file.
func secret(name string, value Secret, file string) (string, error) {
	if file == "" {
		return string(value), nil
	}
	content, err := setting.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read %s_file: %w: write the secret into it, for the daemon's user to read, or give another path", name, err)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("read %s_file: %w: give it to the user that runs this, uid %d", name, err, os.Geteuid())
	case err != nil:
		return "", fmt.Errorf("read %s_file: %w", name, err)
	}

	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", fmt.Errorf("read %s_file: %s is empty: write the secret into it", name, file)
	}
	return text, nil
}
