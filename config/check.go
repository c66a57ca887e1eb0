package config

import (
	"errors"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// report takes one problem of the value at path.
type report func(path, format string, args ...any)

var (
	label    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	bucket   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*-[0-9]+$`)
	region   = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
	infoType = regexp.MustCompile(`^[0-6]+$`)
)

const labelRule = `must be 1 to 32 of a-z, 0-9 and "-", and not begin with "-"`

// check looks at values and how they fit together; files and servers are left to
// whoever opens them.
func (c *Config) check(wrong report) {
	if c.DataDir == "" {
		wrong("data_dir", "must be a folder")
	}
	checkLimits(c, "", wrong)
	c.NATS.check(wrong)
	names := map[string]bool{}
	for i, a := range c.Accounts {
		a.check(at("accounts", i), wrong, names)
	}
	checkPrivacy(c.Privacy.Config, wrong)
	c.Privacy.KMS.check("privacy.kms", wrong)
	c.checkSinks(wrong)
	c.HTTP.check(wrong)
	c.Tracing.check(wrong)
}

// checkLimits reports what the tags of a struct's fields do not allow.
func checkLimits(v any, path string, wrong report) {
	for _, p := range setting.Check(v) {
		wrong(under(path, p.Path), "%s", p.Problem)
	}
}

func (h HTTP) check(wrong report) {
	_, _, err := net.SplitHostPort(h.Admin)
	switch open := h.AdminTokenFile == "" && h.TLS.ClientCA == ""; {
	case h.Admin == "":
	case err != nil:
		wrong("http.admin", "must be an address and port such as 127.0.0.1:9464")
	case open && !loopback(h.Admin):
		wrong("http.admin", "is not loopback: everybody who reaches it could read it; set http.admin_token_file or http.tls.client_ca, or use 127.0.0.1")
	}
	if (h.TLS.Cert == "") != (h.TLS.Key == "") {
		wrong("http.tls", "needs both cert and key, or none")
	}
	if h.TLS.ClientCA != "" && h.TLS.Cert == "" {
		wrong("http.tls.client_ca", "is of no use without cert and key")
	}
}

func (t Tracing) check(wrong report) {
	if t.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "":
		wrong("tracing.endpoint", "must be a URL such as http://127.0.0.1:4318")
	case u.User != nil:
		wrong("tracing.endpoint", "must not hold a password: give tracing.headers_file")
	case u.Scheme == "http" && t.HeadersFile != "" && !loopback(net.JoinHostPort(u.Hostname(), "0")):
		wrong("tracing.endpoint", "must be https with headers_file: the headers would travel in clear")
	}
}

func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

func (n NATS) check(wrong report) {
	if n.URL != "embedded" {
		for one := range strings.SplitSeq(n.URL, ",") {
			u, err := url.Parse(strings.TrimSpace(one))
			if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
				wrong("nats.url", `must be "embedded", or nats:// or tls:// URLs with commas between`)
			} else if u.User != nil {
				wrong("nats.url", "must not hold a password: give nats.user and nats.password_file")
			}
		}
	}
	for _, one := range n.Monitors() {
		if u, err := url.Parse(one); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			wrong("nats.monitor", "must be http:// or https:// URLs with commas between, such as http://nats-0:8222")
		}
	}
	oneSecret("nats", "password", n.Password, n.PasswordFile, n.User != "", wrong)
	oneSecret("nats", "token", n.Token, n.TokenFile, false, wrong)
	n.checkLogin(wrong)
	n.checkNames(wrong)
	if n.URL == "embedded" && n.Replicas > 1 {
		wrong("nats.replicas", "must be 1 with the embedded server")
	}
	if (n.TLS.Cert == "") != (n.TLS.Key == "") {
		wrong("nats.tls", "needs both cert and key, or none")
	}
}

// checkLogin makes sure that there is no doubt how to log in.
func (n NATS) checkLogin(wrong report) {
	if n.User == "" && (n.Password != "" || n.PasswordFile != "") {
		wrong("nats", "has a password, but no user")
	}
	ways := []struct {
		key string
		set bool
	}{{"creds_file", n.CredsFile != ""}, {"nkey_file", n.NkeyFile != ""}, {"user", n.User != ""}, {"token", n.Token != "" || n.TokenFile != ""}}
	first := ""
	for _, way := range ways {
		switch {
		case way.set && n.URL == "embedded":
			wrong("nats."+way.key, "is of no use with the embedded server")
		case way.set && first != "":
			wrong("nats."+way.key, "is of no use with "+first)
		case way.set:
			first = way.key
		}
	}
	if n.TLS.HandshakeFirst && n.URL == "embedded" {
		wrong("nats.tls.handshake_first", "is of no use with the embedded server")
	}
}

// streamName is what NATS takes for streams and buckets alike.
var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,200}$`)

// checkNames makes sure that no two streams are taken for each other.
func (n NATS) checkNames(wrong report) {
	switch {
	case n.Domain != "" && n.APIPrefix != "":
		wrong("nats.domain", "is of no use with api_prefix")
	case n.URL == "embedded" && (n.Domain != "" || n.APIPrefix != ""):
		wrong("nats", "domain and api_prefix are of no use with the embedded server")
	case strings.ContainsAny(n.Domain, "*>. \t"):
		wrong("nats.domain", "must be one word, such as hub")
	case strings.ContainsAny(n.APIPrefix, "*> \t") || strings.HasPrefix(n.APIPrefix, ".") || strings.Contains(n.APIPrefix, ".."):
		wrong("nats.api_prefix", "must be a subject without wildcards, such as JS.hub.API")
	}

	own, standard := n, defaults().NATS
	for _, group := range []struct {
		path      string
		names, is map[string]string
	}{
		{"nats.streams", own.Layout().Streams, standard.Layout().Streams}, {"nats.buckets", own.Layout().Buckets, standard.Layout().Buckets},
	} {
		taken := map[string]string{}
		for _, key := range slices.Sorted(maps.Keys(group.names)) {
			name := group.names[key]
			_, another := group.is[name]
			switch {
			case !streamName.MatchString(name):
				wrong(group.path, "%q must be 1 to 200 of A-Z, a-z, 0-9, \"-\" and \"_\"", name)
			case taken[name] != "" || another && name != key:
				wrong(group.path, "%s is the name of two of them, or the usual one of another", name)
			}
			taken[name] = key
		}
	}
}

func (a Account) check(path string, wrong report, names map[string]bool) {
	switch {
	case !label.MatchString(a.Name):
		wrong(path+".name", labelRule)
	case names[a.Name]:
		wrong(path+".name", "is the name of another account, too")
	}
	names[a.Name] = true
	checkLimits(a, path, wrong)
	oneSecret(path, "secret_id", a.SecretID, a.SecretIDFile, true, wrong)
	oneSecret(path, "secret_key", a.SecretKey, a.SecretKeyFile, true, wrong)
	oneSecret(path, "session_token", a.SessionToken, a.SessionTokenFile, false, wrong)
	checkEndpoint(path+".endpoint", a.Endpoint, "https://faceid.tencentcloudapi.com", wrong)
	if a.Region != "" && !region.MatchString(a.Region) {
		wrong(path+".region", "must be a region such as ap-guangzhou")
	}
	if !infoType.MatchString(a.Request.InfoType) {
		wrong(path+".request.info_type", `must be digits 0 to 6 put together, such as "0" or "1356"`)
	} else if !strings.ContainsAny(a.Request.InfoType, "01") {
		wrong(path+".request.info_type", "must have 0 or 1: without the text nobody knows whether the check is finished")
	}
	a.Encryption.check(path+".encryption", wrong)
	if a.EID.PassphraseFile != "" && a.EID.PrivateKeyFile == "" {
		wrong(path+".eid", "has a passphrase_file, but no private_key_file")
	}
	if a.Storage != (Storage{}) {
		if !bucket.MatchString(a.Storage.Bucket) {
			wrong(path+".storage.bucket", "must be a bucket name with its APPID, such as faceid-1250000000")
		}
		if !region.MatchString(a.Storage.Region) {
			wrong(path+".storage.region", "must be a region such as ap-guangzhou")
		}
	}
}

func (e Encryption) check(path string, wrong report) {
	sm4 := e.Algorithm == "SM4-GCM"
	checkEndpoint(path+".kms_endpoint", e.KMSEndpoint, "https://kms.tencentcloudapi.com", wrong)
	switch {
	case e.Mode == "none" && (e.PublicKeyFile != "" || e.KMSKeyID != ""):
		wrong(path+".mode", "is none, and there is a key: must be fields or body for the key to be used")
	case e.Mode != "none" && e.PublicKeyFile == "" && e.KMSKeyID == "":
		wrong(path, "needs public_key_file (the key that the FaceID console shows) or kms_key_id")
	case e.PublicKeyFile != "" && e.KMSKeyID != "":
		wrong(path, "has public_key_file and kms_key_id: give one of them")
	case e.KMSKeyID != "" && sm4:
		wrong(path+".algorithm", "must be AES-256-CBC with kms_key_id")
	}
}

// checkEndpoint checks the URL of an API.
func checkEndpoint(path, endpoint, example string, wrong report) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.Scheme != "https" && u.Scheme != "http":
		wrong(path, "must be a URL without a path, such as %s", example)
	case u.Scheme == "http" && !loopback(u.Host):
		wrong(path, "must be https: results would travel in clear")
	}
}

func oneSecret(path, name string, value Secret, file string, needed bool, wrong report) {
	switch {
	case value != "" && file != "":
		wrong(path+"."+name, "give either %s or %s_file, not both", name, name)
	case value == "" && file == "" && needed:
		wrong(path, "%s or %s_file is missing", name, name)
	}
}

func checkPrivacy(c privacy.Config, wrong report) {
	for _, err := range each(c.Validate()) {
		var field *privacy.InvalidFieldError
		if errors.As(err, &field) {
			wrong("privacy."+field.Field, "%s", field.Problem)
			continue
		}
		wrong("privacy", "%s", err)
	}
}

func (k KeyringKMS) check(path string, wrong report) {
	checkEndpoint(path+".endpoint", k.Endpoint, "https://kms.tencentcloudapi.com", wrong)
	if !region.MatchString(k.Region) {
		wrong(path+".region", "must be a region such as ap-guangzhou")
	}
	used := k.KeyID != ""
	oneSecret(path, "secret_id", k.SecretID, k.SecretIDFile, used, wrong)
	oneSecret(path, "secret_key", k.SecretKey, k.SecretKeyFile, used, wrong)
	if !used && (k.SecretID != "" || k.SecretIDFile != "" || k.SecretKey != "" || k.SecretKeyFile != "") {
		wrong(path, "has credentials, but no key_id")
	}
}

func (c *Config) checkSinks(wrong report) {
	if len(c.Sinks) == 0 {
		wrong("sinks", "needs at least one sink, or results have nowhere to go")
	}
	names := map[string]bool{}
	for i, s := range c.Sinks {
		path := at("sinks", i)
		switch {
		case !label.MatchString(s.Name):
			wrong(path+".name", labelRule)
		case names[s.Name]:
			wrong(path+".name", "is the name of another sink, too")
		}
		names[s.Name] = true
		for _, err := range each(s.Config.Validate()) {
			var field *sinks.InvalidFieldError
			if errors.As(err, &field) {
				wrong(path+"."+field.Field, "%s", field.Problem)
				continue
			}
			wrong(path, "%s", err)
		}
	}
}

// each returns the errors that errors.Join put together.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// loopback reports whether an address with port is on this machine only.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
