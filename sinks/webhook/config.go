package webhook

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

func init() {
	sinks.Register("webhook", func() sinks.Config { return &Config{Timeout: sinks.Duration(10 * time.Second)} })
}

// Config is the configuration of a sink of type "webhook".
type Config struct {
	// URL is where requests go, or URLFile names a file that holds it: some
	// receivers put a key into the path. It is https, without user or fragment.
	URL     sinks.Secret `yaml:"url"`
	URLFile string       `yaml:"url_file"`
	// Secret signs requests, or SecretFile names a file that holds one or several,
	// each on a line.
	Secret     sinks.Secret `yaml:"secret"`
	SecretFile string       `yaml:"secret_file"`
	// Headers are added to each request, such as Authorization.
	Headers map[string]sinks.Secret `yaml:"headers"`
	// Timeout bounds one request with its answer: at most 5m, 10s by default.
	Timeout sinks.Duration `yaml:"timeout" min:"1ms" max:"5m"`
	// TLS are the authorities of the receiver's certificate, and a certificate of
	// ours for receivers that want one.
	TLS notice.TLS `yaml:"tls"`
	// AllowPrivate allows receivers that are not on the public internet.
	AllowPrivate bool `yaml:"allow_private"`
	// Fields are the personal fields to send, none by default.
	Fields notice.Fields `yaml:"fields"`
}

// Validate implements sinks.Config.
func (c *Config) Validate() error {
	problems := []error{
		c.validateURL(), c.validateSecret(), c.TLS.Validate(), c.Fields.Validate(),
	}
	problems = append(problems, sinks.CheckLimits(c)...)
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if problem := headerProblem(name, string(c.Headers[name])); problem != "" {
			problems = append(problems, invalid("headers", "%s", problem))
		}
	}
	return errors.Join(problems...)
}

func (c *Config) validateURL() error {
	if err := notice.CheckSecret("url", c.URL, c.URLFile); err != nil {
		return err
	}
	if c.URLFile != "" {
		return nil
	}
	if _, problem := parseURL(string(c.URL), c.AllowPrivate); problem != "" {
		return invalid("url", "%s", problem)
	}
	return nil
}

func (c *Config) validateSecret() error {
	if err := notice.CheckSecret("secret", c.Secret, c.SecretFile); err != nil {
		return err
	}
	if c.SecretFile != "" {
		return nil
	}
	if _, err := parseSecrets(string(c.Secret)); err != nil {
		return invalid("secret", "%s", strings.TrimPrefix(err.Error(), "secret "))
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &sinks.InvalidFieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// parseURL returns the URL, or what is wrong with it, without quoting it.
func parseURL(text string, allowPrivate bool) (*url.URL, string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, "must be such as https://example.com/faceid"
	case u.User != nil:
		return nil, "must not hold a user or password: give an Authorization header under headers"
	case u.Fragment != "":
		return nil, "must not have a fragment (#)"
	case u.Scheme == "http" && (!allowPrivate || !thisMachine(u.Hostname())):
		return nil, "must be https: plain http is only for this machine itself (localhost), with allow_private"
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, "must be https"
	}
	return u, ""
}

func thisMachine(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// reserved are headers that are not the owner's to set.
var reserved = []string{
	"content-type", "content-length", "transfer-encoding", "connection", "host", "trailer", "upgrade", "te",
	"keep-alive", "proxy-connection", "accept-encoding", "user-agent",
}

func headerProblem(name, value string) string {
	lower := strings.ToLower(name)
	switch {
	case !isToken(name):
		return "holds a name that HTTP does not allow"
	case slices.Contains(reserved, lower) || strings.HasPrefix(lower, "webhook-"):
		return name + " is set by the sink itself"
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return name + " must be one line of printable characters"
	}
	return ""
}

// isToken reports whether name can be a header's name (RFC 9110 §5.6.2).
func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z':
			return false
		}
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
