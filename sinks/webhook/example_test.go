package webhook_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
	"github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// A receiver of webhooks: it verifies a request before it believes it.
func ExampleVerify() {
	const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" // of this example alone
	receive := func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 1<<20))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if err := webhook.Verify(secret, req.Header, body, time.Now(), 5*time.Minute); err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var event notice.Event
		if err := json.Unmarshal(body, &event); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		// Drop the event here if an earlier one had its id.
		fmt.Println("received", event.Type)
		w.WriteHeader(http.StatusNoContent)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(receive))
	defer server.Close()

	if err := send(server, secret); err != nil {
		panic(err)
	}
	err := send(server, "whsec_Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=")
	class, _ := sinks.ClassOf(err)
	fmt.Println("with another secret:", class)
	// Output:
	// received faceid-ingest.result.stored
	// with another secret: transient
}

// send sends one notification to a server of this machine.
func send(server *httptest.Server, secret sinks.Secret) error {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "webhook")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	ca := filepath.Join(folder, "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		return err
	}
	cfg := &webhook.Config{
		URL: sinks.Secret(server.URL + "/faceid"), Secret: secret, Timeout: sinks.Duration(10 * time.Second),
		TLS: notice.TLS{CA: ca}, AllowPrivate: true,
	}
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(folder, "keyring.json"))
	if err != nil {
		return err
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		return err
	}
	sink, err := cfg.Open(ctx, sinks.Env{Name: "crm", Policy: policy, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer sink.Close(ctx)
	return sink.(sinks.Notifier).Notify(ctx, sinktest.Archived(sinktest.Result(0)))
}
