package kafka

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

// The mechanisms of SASL.
const (
	saslPlain   = "plain"
	scramSHA256 = "scram-sha-256"
	scramSHA512 = "scram-sha-512"
)

var (
	mechanisms = []string{saslPlain, scramSHA256, scramSHA512}
	topicName  = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)
)

func init() {
	sinks.Register("kafka", func() sinks.Config { return &Config{} })
}

// Config is the configuration of a sink of type "kafka".
type Config struct {
	// Brokers are the addresses, as host:port, of some brokers, from which the
	// others are learnt.
	Brokers []string `yaml:"brokers"`
	// Topic is where records go; it must be there.
	Topic string `yaml:"topic"`
	SASL  SASL   `yaml:"sasl"`
	TLS   TLS    `yaml:"tls"`
	// Fields are the personal fields to send, none by default.
	Fields notice.Fields `yaml:"fields"`
}

// SASL is how the brokers know us.
type SASL struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512; empty means none.
	Mechanism string `yaml:"mechanism" enum:",plain,scram-sha-256,scram-sha-512"`
	// User is "<instance>#<user>" for CKafka.
	User string `yaml:"user"`
	// Password, or the content of PasswordFile, which is read again for each
	// connection.
	Password     sinks.Secret `yaml:"password"`
	PasswordFile string       `yaml:"password_file"`
}

// TLS is the encryption of connections to the brokers.
type TLS struct {
	// Enabled encrypts them; without it the other keys are of no use.
	Enabled bool `yaml:"enabled"`
	// CA holds the authorities that may have signed the brokers' certificates; empty
	// means those of the system.
	CA string `yaml:"ca"`
	// Cert and Key are the client's certificate with its chain, and its private key, for
	// brokers that ask for one: both or none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

func (t TLS) files() notice.TLS { return notice.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key} }

// Validate implements sinks.Config.
func (c *Config) Validate() error {
	problems := append(sinks.CheckLimits(c), c.validateBrokers(), c.SASL.validate(), c.TLS.files().Validate(), c.Fields.Validate())
	if !topicName.MatchString(c.Topic) || strings.Trim(c.Topic, ".") == "" {
		problems = append(problems, invalid("topic", `must be 1 to 249 of a-z, A-Z, 0-9, ".", "_" and "-"`))
	}
	if !c.TLS.Enabled && c.TLS != (TLS{}) {
		problems = append(problems, invalid("tls", "has files, but is not enabled: set tls.enabled"))
	}
	return errors.Join(problems...)
}

// InClear implements sinks.ClearSender: of a password that the brokers are told, or of
// personal fields.
func (c *Config) InClear() []string {
	if c.TLS.Enabled || c.SASL.Mechanism != saslPlain && len(c.Fields) == 0 {
		return nil
	}

	var hosts []string
	for _, address := range c.Brokers {
		if host, _, err := net.SplitHostPort(address); err == nil && !sinks.IsLocal(host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func (c *Config) validateBrokers() error {
	if len(c.Brokers) == 0 {
		return invalid("brokers", "must list at least one host:port")
	}
	for _, address := range c.Brokers {
		host, port, err := net.SplitHostPort(address)
		number, wrong := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || wrong != nil || number == 0 || strings.ContainsAny(host, "/@ ") {
			return invalid("brokers", "must each be host:port, without a scheme")
		}
	}
	return nil
}

func (s SASL) validate() error {
	if s.Mechanism == "" {
		if s != (SASL{}) {
			return invalid("sasl.mechanism", "is missing: %s", strings.Join(mechanisms, ", "))
		}
		return nil
	}
	var problems []error
	if s.User == "" {
		problems = append(problems, invalid("sasl.user", "is missing"))
	}
	if s.Password == "" && s.PasswordFile == "" {
		problems = append(problems, invalid("sasl.password", "is missing: give sasl.password or sasl.password_file"))
	}
	return errors.Join(append(problems, notice.CheckSecret("sasl.password", s.Password, s.PasswordFile))...)
}

func invalid(field, format string, args ...any) error {
	return &sinks.InvalidFieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
