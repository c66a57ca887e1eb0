package faceid_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
)

func newKMS(t testing.TB, endpoint, secret, key string) *faceid.KMS {
	t.Helper()
	kms, err := faceid.NewKMS(faceid.KMSConfig{
		Endpoint: endpoint, Region: "ap-guangzhou", KeyID: key, Timeout: 10 * time.Second,
		Credentials: func(context.Context) (faceid.Credential, error) {
			return faceid.Credential{SecretID: "AKID", SecretKey: secret}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kms.Close)
	return kms
}

func newKMSServer(t testing.TB) *faceidtest.Server {
	t.Helper()
	api, err := faceidtest.Start(t.Context(), faceidtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	api.AddCredential("AKID", "secret-key", "")
	api.AddKMSKey("cmk")
	return api
}

func TestKMSWraps(t *testing.T) {
	api := newKMSServer(t)
	kms := newKMS(t, api.URL(), "secret-key", "cmk")
	key := bytes.Repeat([]byte{0x5a}, 32)
	blob, err := kms.Wrap(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kms.Unwrap(t.Context(), blob); err != nil || !bytes.Equal(got, key) {
		t.Errorf("unwrapped to another key, or %v", err)
	}
	// The blob names its key: a client of another one reads it, too.
	if got, err := newKMS(t, api.URL(), "secret-key", "other").Unwrap(t.Context(), blob); err != nil || !bytes.Equal(got, key) {
		t.Errorf("unwrapped to another key, or %v", err)
	}
}

func TestKMSRefuses(t *testing.T) {
	api := newKMSServer(t)
	good := newKMS(t, api.URL(), "secret-key", "cmk")
	blob, err := good.Wrap(t.Context(), make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 4097)
	for name, test := range map[string]struct {
		call func() error
		want string
	}{
		"unknown key": {func() error {
			_, err := newKMS(t, api.URL(), "secret-key", "other").Wrap(t.Context(), large[:32])
			return err
		}, "KMS Encrypt: "},
		"too large":    {func() error { _, err := good.Wrap(t.Context(), large); return err }, "KMS Encrypt: "},
		"another blob": {func() error { _, err := good.Unwrap(t.Context(), "AAAA"); return err }, "KMS Decrypt: "},
		"another secret": {func() error {
			_, err := newKMS(t, api.URL(), "wrong", "cmk").Unwrap(t.Context(), blob)
			return err
		}, "AuthFailure.SignatureFailure"},
		"disabled": {func() error {
			api.RemoveKMSKey("cmk")
			_, err := good.Unwrap(t.Context(), blob)
			return err
		}, "CmkDisabled"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.call()
			var failed *faceid.Error
			if !errors.As(err, &failed) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("the error is %v, want one with %q", err, test.want)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, err), blob) {
				t.Error("the error holds the blob")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := good.Unwrap(ctx, blob); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What is no answer of KMS gives an error that repeats nothing of it.
func TestKMSAnswersNonsense(t *testing.T) {
	for _, answer := range []string{
		"", "null", `{"Response":{}}`, `{"Response":{"Plaintext":7,"CiphertextBlob":7}}`,
		`{"Response":{"Plaintext":"c2VjcmV0","CiphertextBlob":""}}`[:50], `{"Response":{"Plaintext":"~secret~"}}`,
		`{"Response":{"Plaintext":"","CiphertextBlob":""}}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
		kms := newKMS(t, server.URL, "secret-key", "cmk")
		_, wrapped := kms.Wrap(t.Context(), make([]byte, 32))
		_, unwrapped := kms.Unwrap(t.Context(), "AAAA")
		for _, err := range []error{wrapped, unwrapped} {
			if err == nil || strings.Contains(err.Error(), "secret~") || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("%q: %v", answer, err)
			}
		}
		kms.Close()
		server.Close()
	}
}
