package cos_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
)

func valid() *cos.Config {
	c := cos.Defaults()
	c.Bucket, c.Region, c.SecretID, c.SecretKey = archiveBucket, region, secretID, secretKey
	return c
}

func TestValidate(t *testing.T) {
	t.Parallel()
	must(t, valid().Validate())
	for name, test := range map[string]struct {
		change func(*cos.Config)
		field  string
	}{
		"no APPID":            {func(c *cos.Config) { c.Bucket = "media" }, "bucket"},
		"a URL":               {func(c *cos.Config) { c.Bucket = "https://media-1250000000" }, "bucket"},
		"no region":           {func(c *cos.Config) { c.Region = "" }, "region"},
		"no id":               {func(c *cos.Config) { c.SecretID = "" }, "secret_id"},
		"key and file":        {func(c *cos.Config) { c.SecretKeyFile = "x" }, "secret_key"},
		"token and file":      {func(c *cos.Config) { c.SessionToken, c.SessionTokenFile = "x", "x" }, "session_token"},
		"unknown credentials": {func(c *cos.Config) { c.Credentials = "magic" }, "credentials"},
		"role without name":   {func(c *cos.Config) { c.Credentials, c.SecretID, c.SecretKey = "cvm_role", "", "" }, "role"},
		"role with keys":      {func(c *cos.Config) { c.Credentials, c.Role = "cvm_role", "r" }, "secret_id"},
		"role of static":      {func(c *cos.Config) { c.Role = "r" }, "role"},
		"token for STS":       {func(c *cos.Config) { c.Credentials, c.SessionToken = "sts", "x" }, "session_token"},
		"half a source":       {func(c *cos.Config) { c.Source.SecretID = "x" }, "source.secret_key"},
		"plain http":          {func(c *cos.Config) { c.Endpoint = "http://10.0.0.1" }, "endpoint"},
		"a path":              {func(c *cos.Config) { c.Endpoint = "https://gateway/path" }, "endpoint"},
		"unknown mode":        {func(c *cos.Config) { c.Mode = "move" }, "mode"},
		"a wrong template":    {func(c *cos.Config) { c.Key = "{field}" }, "key"},
		"unknown class":       {func(c *cos.Config) { c.StorageClass = "COLD" }, "storage_class"},
		"unknown SSE":         {func(c *cos.Config) { c.SSE = "c" }, "sse"},
		"a key without KMS":   {func(c *cos.Config) { c.KMSKeyID = "x" }, "kms_key_id"},
		"a tag":               {func(c *cos.Config) { c.Tags = map[string]string{"a\n": "b"} }, "tags"},
		"eleven tags":         {func(c *cos.Config) { c.Tags = many(11) }, "tags"},
		"governance":          {func(c *cos.Config) { c.Retention = cos.Retention{Mode: "governance", Days: 1} }, "retention.mode"},
		"no days":             {func(c *cos.Config) { c.Retention.Mode = "compliance" }, "retention.days"},
		"a huge put":          {func(c *cos.Config) { c.SinglePutLimit = 6 << 30 }, "single_put_limit"},
		"tiny parts":          {func(c *cos.Config) { c.PartSize = 1 }, "part_size"},
		"no workers":          {func(c *cos.Config) { c.PartWorkers = 0 }, "part_workers"},
	} {
		c := valid()
		test.change(c)
		err := c.Validate()
		var field *sinks.InvalidFieldError
		if !errors.As(err, &field) || field.Field != test.field {
			t.Errorf("%s: %v, want a problem of %s", name, err, test.field)
		}
		if err != nil && strings.Contains(err.Error(), secretKey) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
	for name, change := range map[string]func(*cos.Config){
		"role":     func(c *cos.Config) { c.Credentials, c.Role, c.SecretID, c.SecretKey = "cvm_role", "r", "", "" },
		"files":    func(c *cos.Config) { c.SecretID, c.SecretKey, c.SecretIDFile, c.SecretKeyFile = "", "", "a", "b" },
		"gateway":  func(c *cos.Config) { c.Endpoint = "https://gateway:8443/" },
		"loopback": func(c *cos.Config) { c.Endpoint = "http://localhost:1" },
		"sealed":   func(c *cos.Config) { c.Seal, c.Mode = true, "reference" },
		"locked":   func(c *cos.Config) { c.Retention = cos.Retention{Mode: "compliance", Days: 3650} },
		"tags":     func(c *cos.Config) { c.Tags = many(10) },
		"KMS":      func(c *cos.Config) { c.SSE, c.KMSKeyID = "kms", "48ba38aa-26c5-11ea-855c-525400851234" },
	} {
		c := valid()
		change(c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func many(n int) map[string]string {
	tags := map[string]string{}
	for i := range n {
		tags[fmt.Sprint("tag", i)] = "价值"
	}
	return tags
}

func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	c := valid()
	c.Source = cos.Access{SecretID: secretID, SecretKey: secretKey, SessionToken: secretKey}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if text := fmt.Sprintf(verb, *c); strings.Contains(text, secretKey) || strings.Contains(text, fmt.Sprintf("%x", secretKey)) {
			t.Errorf("%s prints a key", verb)
		}
	}
}

func TestRegistered(t *testing.T) {
	t.Parallel()
	cfg, known := sinks.NewConfig("cos")
	if !known || cfg.(*cos.Config).Mode != "copy" {
		t.Errorf("%v, %+v", known, cfg)
	}
}
