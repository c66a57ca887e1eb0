package notice_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

func remove(t testing.TB, path string) {
	t.Helper()
	must(t, os.Remove(path))
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestSecretIsNeverPrinted(t *testing.T) {
	var out bytes.Buffer
	s := sinks.Secret("hunter2")
	for _, v := range []any{s, &s, struct{ S sinks.Secret }{s}, []sinks.Secret{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		must(t, json.NewEncoder(&out).Encode(v))
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "68756e") {
		t.Error("the secret was printed")
	}
	if !strings.Contains(out.String(), "[redacted]") || sinks.Secret("").String() != "" {
		t.Error("a secret that is there cannot be told from none")
	}
}

func TestReadSecret(t *testing.T) {
	file := write(t, " from a file\n")
	for _, tt := range []struct {
		value      sinks.Secret
		file       string
		want, word string
	}{
		{"given", "", "given", ""},
		{"", "", "", ""},
		{"", file, "from a file", ""},
		{"", write(t, "\n"), "", "is empty"},
		{"", filepath.Join(t.TempDir(), "none"), "", "read password_file: open"},
		{"", write(t, strings.Repeat("x", 2<<20)), "", "larger than"},
	} {
		got, err := notice.ReadSecret("password", tt.value, tt.file)
		if got != tt.want || (err != nil) != (tt.word != "") || err != nil && !strings.Contains(err.Error(), tt.word) {
			t.Errorf("%q, %v; want %q, %q", got, err, tt.want, tt.word)
		}
	}
	must(t, os.WriteFile(file, []byte("rotated"), 0o600))
	if got, err := notice.ReadSecret("password", "", file); got != "rotated" || err != nil {
		t.Errorf("after a rotation: %q, %v", got, err)
	}
	var invalid *sinks.InvalidFieldError
	if err := notice.CheckSecret("password", "x", "y"); !errors.As(err, &invalid) || invalid.Field != "password" {
		t.Errorf("both: %v", err)
	}
	if err := errors.Join(notice.CheckSecret("p", "x", ""), notice.CheckSecret("p", "", "y"), notice.CheckSecret("p", "", "")); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	text := write(t, "not PEM")
	for _, tt := range []struct {
		settings notice.TLS
		want     string
	}{
		{notice.TLS{}, ""},
		{notice.TLS{CA: text}, "holds no certificate"},
		{notice.TLS{CA: text + "?"}, "read tls.ca: open"},
		{notice.TLS{Cert: text, Key: text}, "read tls.cert and tls.key"},
	} {
		_, err := tt.settings.Client()
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.settings, err)
		}
	}
	if (notice.TLS{Cert: "x"}).Validate() == nil || (notice.TLS{Key: "x"}).Validate() == nil ||
		(notice.TLS{CA: "x", Cert: "x", Key: "x"}).Validate() != nil {
		t.Error("a certificate without its key passes, or one with it does not")
	}
}

func TestTLSHint(t *testing.T) {
	for err, want := range map[error]string{
		x509.UnknownAuthorityError{}:                                  "check tls.ca",
		x509.HostnameError{Certificate: &x509.Certificate{}}:          "another name",
		x509.CertificateInvalidError{Reason: x509.Expired}:            "renew it",
		tls.AlertError(42):                                            "check tls.cert",
		errors.New("remote error: tls: certificate required"):         "check tls.cert",
		tls.RecordHeaderError{Msg: "first record does not look like"}: "check the port",
		errors.New("something else"):                                  "",
	} {
		if got := notice.TLSHint(fmt.Errorf("wrapped: %w", err)); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v: %q", err, got)
		}
	}
	if notice.TLSHint(nil) != "" {
		t.Error("a hint for no error")
	}
}
