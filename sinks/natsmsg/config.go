package natsmsg

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

func init() {
	sinks.Register("nats", func() sinks.Config { return &Config{Subject: "faceid.results.{account}.{product}"} })
}

// Config is the configuration of a sink of type "nats".
type Config struct {
	// URL is one or several nats:// or tls:// URLs with commas between; empty means
	// the process's own connection, where creds_file, user, password, password_file and
	// tls are not given.
	URL string `yaml:"url"`
	// CredsFile is a NATS credentials file. User and Password, or the content of
	// PasswordFile, are for servers that know users by name. Files are read again for
	// each connection.
	CredsFile    string       `yaml:"creds_file"`
	User         string       `yaml:"user"`
	Password     sinks.Secret `yaml:"password"`
	PasswordFile string       `yaml:"password_file"`
	TLS          notice.TLS   `yaml:"tls"`
	// Subject is the template of the subjects.
	Subject string `yaml:"subject"`
	// CreateStream is the name of a stream to make if none takes the subject; empty
	// means none.
	CreateStream string `yaml:"create_stream"`
	// Fields are the personal fields to send, none by default. They need a subject
	// that ends in {token_hash}.
	Fields notice.Fields `yaml:"fields"`
}

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Validate implements sinks.Config.
func (c *Config) Validate() error {
	problems := []error{c.validateConnection(), c.TLS.Validate(), c.Fields.Validate(), c.validateSubject()}
	if c.CreateStream != "" && !streamName.MatchString(c.CreateStream) {
		problems = append(problems, invalid("create_stream", `must be 1 to 64 of a-z, A-Z, 0-9, "_" and "-"`))
	}
	return errors.Join(problems...)
}

func (c *Config) validateConnection() error {
	if c.URL == "" {
		if c.CredsFile != "" || c.User != "" || c.Password != "" || c.PasswordFile != "" || c.TLS != (notice.TLS{}) {
			return invalid("url", "is missing: without it, the process's own connection is used, which needs no credentials here")
		}
		return nil
	}
	var problems []error
	for one := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			problems = append(problems, invalid("url", "must be nats:// or tls:// URLs with commas between"))
		} else if u.User != nil {
			problems = append(problems, invalid("url", "must not hold a password: give user and password_file"))
		}
	}
	switch password := c.Password != "" || c.PasswordFile != ""; {
	case c.User != "" && c.CredsFile != "":
		problems = append(problems, invalid("user", "is of no use with creds_file"))
	case (c.User != "") != password:
		problems = append(problems, invalid("user", "needs password or password_file, and they need user"))
	}
	return errors.Join(append(problems, notice.CheckSecret("password", c.Password, c.PasswordFile))...)
}

// InClear implements sinks.ClearSender: of a password, or of personal fields.
func (c *Config) InClear() []string {
	if c.User == "" && len(c.Fields) == 0 || c.TLS != (notice.TLS{}) {
		return nil
	}
	return sinks.NATSInClear(c.URL)
}

func (c *Config) validateSubject() error {
	subject, problem := parseTemplate(c.Subject)
	if problem != "" {
		return invalid("subject", "%s", problem)
	}
	if len(c.Fields) > 0 && !subject.tellsToken() {
		return invalid("fields", "need a subject that ends in .{token_hash}, so that erasing a person takes the messages out of the stream")
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &sinks.InvalidFieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// options are those of the sink's own connection.
func (c *Config) options(log *slog.Logger) ([]nats.Option, error) {
	options := []nats.Option{
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
		// Credentials that are rotated a moment late are no reason to stop trying.
		nats.IgnoreAuthErrorAbort(),
		// Without this, what is published while the server is away is kept in memory.
		nats.ReconnectBufSize(-1),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected to NATS again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug("NATS reported an error", "error", wire.Closed(err))
		}),
	}
	if c.CredsFile != "" {
		options = append(options, nats.UserCredentials(c.CredsFile))
	}
	if c.User != "" {
		if _, err := c.password(); err != nil {
			return nil, fmt.Errorf("natsmsg: %w", err)
		}
		options = append(options, nats.UserInfoHandler(func() (string, string) {
			password, err := c.password()
			if err != nil {
				log.Warn("cannot log in to NATS", "error", err)
			}
			return c.User, password
		}))
	}
	if c.TLS != (notice.TLS{}) {
		settings, err := c.TLS.Client()
		if err != nil {
			return nil, fmt.Errorf("natsmsg: %w", err)
		}
		options = append(options, nats.Secure(settings))
	}
	return options, nil
}

func (c *Config) password() (string, error) {
	return notice.ReadSecret("password", c.Password, c.PasswordFile)
}
