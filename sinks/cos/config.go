package cos

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// Config is the configuration of a sink of type "cos".
type Config struct {
	// Bucket is the archive bucket with its APPID, such as "media-1250000000", and
	// Region where it is, such as "ap-guangzhou".
	Bucket string `yaml:"bucket"`
	Region string `yaml:"region"`

	// Credentials says where the keys come from: "static" are those below, "sts"
	// exchanges those below for temporary ones (GetFederationToken), "cvm_role" asks
	// the machine for those of the CAM role in Role. Temporary keys are renewed ten
	// minutes before they end. Default static.
	Credentials string `yaml:"credentials" enum:",static,sts,cvm_role"`
	// A secret may be in a file instead, which is read anew for each request.
	SecretID         sinks.Secret `yaml:"secret_id"`
	SecretIDFile     string       `yaml:"secret_id_file"`
	SecretKey        sinks.Secret `yaml:"secret_key"`
	SecretKeyFile    string       `yaml:"secret_key_file"`
	SessionToken     sinks.Secret `yaml:"session_token"`
	SessionTokenFile string       `yaml:"session_token_file"`
	// Role is the name of the CAM role that is bound to the machine.
	Role string `yaml:"role"`
	// Source are the credentials for the bucket that FaceID writes to, if they are
	// others; empty means the same. A server-side copy is always made with the
	// archive's own, which must be allowed to read the source.
	Source Access `yaml:"source"`

	// Endpoint is where requests go instead of the bucket's own host, such as
	// "https://cos-gateway.internal:8443"; they stay addressed to and signed for the
	// bucket's host. Plain http goes to the loopback interface only. Default: the
	// bucket's host, over https.
	Endpoint string `yaml:"endpoint"`

	// Mode says what is done with assets that FaceID put into COS: "copy" copies
	// them server side, "reference" leaves them where they are, "pull" takes them
	// through this process. Default copy.
	Mode string `yaml:"mode" enum:"copy,reference,pull"`
	// MissingAfter is how long an asset that FaceID put into COS is waited for that is not
	// there, from when the token's first result was fetched, up to 2d. The others are
	// stored without it then; the manifest and the record list it as not_found, and an
	// event published with --again looks for it once more. Default 1h.
	MissingAfter sinks.Duration `yaml:"missing_after" min:"0s" max:"2d"`
	// Key is the template of object keys, of letters, digits, "/_.=-" and {date} (the
	// UTC day on which the token's first result was fetched), {year}, {month}, {day},
	// {product}, {account}, {token_hash}, {field} and {ext}. What is behind the last
	// slash names an asset and needs {field}; the folder before it is the token's own
	// and needs {token_hash}. A token that is archived stays where it is when the
	// template changes. Default "{date}/{product}/{token_hash}/{field}.{ext}".
	Key string `yaml:"key"`
	// StorageClass is COS's name of a storage class; empty is STANDARD. Index and
	// manifest are STANDARD in any case.
	StorageClass string `yaml:"storage_class" enum:",STANDARD,STANDARD_IA,INTELLIGENT_TIERING,MAZ_STANDARD,MAZ_STANDARD_IA,MAZ_INTELLIGENT_TIERING,ARCHIVE,DEEP_ARCHIVE"`
	// SSE is the server-side encryption: "none" (what the bucket does by default),
	// "cos" (keys of COS) or "kms" (a key of KMS). Default none.
	SSE string `yaml:"sse" enum:"none,cos,kms"`
	// KMSKeyID is the key for SSE by KMS; empty is the one COS made for the account.
	KMSKeyID string `yaml:"kms_key_id"`
	// Tags are set on each asset, at most ten.
	Tags map[string]string `yaml:"tags"`
	// Retention locks assets and manifests; the bucket must have object lock. A manifest
	// that lists a missing asset is locked once that is found.
	Retention Retention `yaml:"retention"`

	// SinglePutLimit is the size up to which an asset is uploaded by one request, at
	// most 5GiB. Default 16MiB.
	SinglePutLimit sinks.Size `yaml:"single_put_limit" min:"0B" max:"5GiB"`
	// PartSize is the size of the parts of larger ones, 1MiB to 5GiB. It grows where
	// there would be more than 10000 parts. Default 16MiB.
	PartSize sinks.Size `yaml:"part_size" min:"1MiB" max:"5GiB"`
	// PartWorkers is how many parts of one asset are uploaded at once, 1 to 64.
	// Default 4.
	PartWorkers int `yaml:"part_workers" min:"1" max:"64"`
	// Seal encrypts what passes through this process before it is uploaded, under the
	// keyring's active key. What FaceID put into COS passes through it with mode pull
	// only. Redelivered tokens change to the form that is configured, unless retention
	// keeps them as they are; both can be read. Default true.
	Seal bool `yaml:"seal"`
}

// Access says who asks COS.
type Access struct {
	// The keys below mean what those of the archive mean.
	Credentials      string       `yaml:"credentials" enum:",static,sts,cvm_role"`
	SecretID         sinks.Secret `yaml:"secret_id"`
	SecretIDFile     string       `yaml:"secret_id_file"`
	SecretKey        sinks.Secret `yaml:"secret_key"`
	SecretKeyFile    string       `yaml:"secret_key_file"`
	SessionToken     sinks.Secret `yaml:"session_token"`
	SessionTokenFile string       `yaml:"session_token_file"`
	Role             string       `yaml:"role"`
}

// Retention is an object lock.
type Retention struct {
	// Mode is empty for none, or "compliance", COS's only one: nobody can remove or
	// change the object, nor shorten the lock.
	Mode string `yaml:"mode" enum:",compliance"`
	// Days is how long objects are locked from when they are stored, 1 to 36500.
	Days int `yaml:"days" min:"0" max:"36500"`
}

const (
	static  = "static"
	sts     = "sts"
	cvmRole = "cvm_role"

	modeCopy      = "copy"
	modeReference = "reference"
	modePull      = "pull"

	sseNone = "none"
	sseCOS  = "cos"
	sseKMS  = "kms"

	compliance = "compliance"

	// minPart and maxPut are COS's bounds of a part and of one request, in bytes;
	// maxParts is how many parts an upload may have.
	minPart  = 1 << 20
	maxPut   = 5 << 30
	maxParts = 10_000
)

func defaultConfig() *Config {
	return &Config{
		Credentials: static, Mode: modeCopy, SSE: sseNone,
		Key:            "{date}/{product}/{token_hash}/{field}.{ext}",
		MissingAfter:   sinks.Duration(time.Hour),
		SinglePutLimit: 16 << 20, PartSize: 16 << 20, PartWorkers: 4, Seal: true,
	}
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,48}-[0-9]{1,20}$`)
	regionName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	roleName   = regexp.MustCompile(`^[A-Za-z0-9+=,.@_-]{1,128}$`)
	// tagText is what COS allows in tags.
	tagText = regexp.MustCompile(`^[\pL\pN +\-=._:/@]*$`)
)

// problems collects what is wrong with a configuration.
type problems []error

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, &sinks.InvalidFieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// Validate implements sinks.Config.
func (c *Config) Validate() error {
	p := problems(sinks.CheckLimits(c))
	if !bucketName.MatchString(c.Bucket) {
		p.add("bucket", "must be a bucket's full name with its APPID, such as media-1250000000")
	}
	if !regionName.MatchString(c.Region) {
		p.add("region", "must be a region, such as ap-guangzhou")
	}
	c.access().validate("", &p)
	if c.Source != (Access{}) {
		c.Source.validate("source.", &p)
	}
	if problem := endpointProblem(c.Endpoint); problem != "" {
		p.add("endpoint", "%s", problem)
	}
	if _, err := parseTemplate(c.Key); err != nil {
		p.add("key", "%s", err)
	}
	c.validateStorage(&p)
	return errors.Join(p...)
}

func (c *Config) access() Access {
	return Access{
		c.Credentials, c.SecretID, c.SecretIDFile, c.SecretKey, c.SecretKeyFile,
		c.SessionToken, c.SessionTokenFile, c.Role,
	}
}

func (a Access) validate(prefix string, p *problems) {
	switch a.Credentials {
	case "", static, sts:
		needs(prefix+"secret_id", a.SecretID, a.SecretIDFile, p)
		needs(prefix+"secret_key", a.SecretKey, a.SecretKeyFile, p)
		if a.Role != "" {
			p.add(prefix+"role", "is only for credentials: cvm_role")
		}
		if a.Credentials == sts && (a.SessionToken != "" || a.SessionTokenFile != "") {
			p.add(prefix+"session_token", "cannot be exchanged: credentials: sts needs long-lived keys")
		}
	case cvmRole:
		if !roleName.MatchString(a.Role) {
			p.add(prefix+"role", "must name the CAM role of this machine")
		}
		if a.SecretID != "" || a.SecretKey != "" || a.SecretIDFile != "" || a.SecretKeyFile != "" {
			p.add(prefix+"secret_id", "has no use with credentials: cvm_role: leave out the keys")
		}
	}
	if a.SessionToken != "" && a.SessionTokenFile != "" {
		p.add(prefix+"session_token", "give either the value or its file, not both")
	}
}

func needs(field string, value sinks.Secret, file string, p *problems) {
	switch {
	case value == "" && file == "":
		p.add(field, "must be given, or %s_file", field)
	case value != "" && file != "":
		p.add(field, "give either the value or its file, not both")
	}
}

func endpointProblem(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "must be a URL without a path, such as https://gateway.internal:8443"
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return "must be https, as it carries personal data; http is for the loopback interface"
	}
	return ""
}

func (c *Config) validateStorage(p *problems) {
	if c.KMSKeyID != "" && (c.SSE != sseKMS || !roleName.MatchString(c.KMSKeyID)) {
		p.add("kms_key_id", "must be the id of a KMS key, with sse: kms")
	}
	if len(c.Tags) > 10 {
		p.add("tags", "must be ten at most")
	}
	for key, value := range c.Tags {
		if key == "" || len(key) > 127 || len(value) > 255 || !tagText.MatchString(key) || !tagText.MatchString(value) {
			p.add("tags", "must be of letters, digits and +-=._:/@, keys to 127 bytes, values to 255")
			break
		}
	}
	switch r := c.Retention; {
	case r == Retention{}:
	case r.Mode != compliance:
		p.add("retention.mode", "must be compliance, the only mode of COS")
	case r.Days < 1 || r.Days > 36500:
		p.add("retention.days", "must be 1 to 36500")
	}
}
