package faceid

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
)

// KMSConfig says how to get data keys for one account: those that enabled the
// encryption of answers before March 2023 have a key in KMS instead of the
// console's public key (FACTS §8).
type KMSConfig struct {
	// Endpoint is a URL without a path, such as https://kms.tencentcloudapi.com.
	Endpoint, Region string
	// KeyID is the id of the customer master key.
	KeyID       string
	Credentials func(ctx context.Context) (Credential, error)
	// Timeout bounds one call.
	Timeout time.Duration
	// Transport sends the requests; nil means one made by NewTransport.
	Transport http.RoundTripper
}

// KMS gets data keys. Any number of goroutines may use it.
type KMS struct {
	keyID  string
	caller *caller
}

var _ envelope.DataKeySource = (*KMS)(nil)

// maxKMSResponse bounds an answer of KMS, in bytes: a data key and its wrapped
// form are some hundred.
const maxKMSResponse = 64 << 10

// NewKMS returns a client; it calls nothing yet.
func NewKMS(cfg KMSConfig) (*KMS, error) {
	if cfg.KeyID == "" {
		return nil, errors.New("a KMS client needs the id of a key")
	}
	limits := extract.DefaultConfig()
	// Nothing of an answer goes to the spool.
	limits.MaxBody, limits.UnknownLimit = maxKMSResponse, maxKMSResponse
	caller, err := newCaller("kms", "2019-01-18", cfg.Endpoint, cfg.Region, cfg.Credentials, cfg.Timeout, cfg.Transport, limits)
	if err != nil {
		return nil, err
	}
	return &KMS{cfg.KeyID, caller}, nil
}

// Close ends idle connections.
func (k *KMS) Close() { k.caller.close() }

// DataKey has KMS make a key for AES-256. The error is an *Error and holds
// nothing of the answer.
func (k *KMS) DataKey(ctx context.Context) (*envelope.DataKey, error) {
	doc, err := k.caller.send(ctx, "GenerateDataKey", map[string]any{"KeyId": k.keyID, "KeySpec": "AES_256"}, nil)
	if err != nil {
		return nil, err
	}
	defer clear(doc.JSON)
	members, err := splitResponse(doc.JSON)
	if err != nil {
		return nil, err
	}
	var refusal *Error
	if err := apiError(members); errors.As(err, &refusal) {
		refusal.Err = fmt.Errorf("KMS GenerateDataKey: %w", refusal.Err)
		return nil, refusal
	}
	var plaintext, blob string
	if json.Unmarshal(members["Plaintext"], &plaintext) != nil || json.Unmarshal(members["CiphertextBlob"], &blob) != nil {
		return nil, failure(Transient, "KMS GenerateDataKey: %w", errUnexpected)
	}
	key, err := base64.StdEncoding.DecodeString(plaintext)
	defer clear(key)
	if err != nil {
		return nil, failure(Transient, "KMS GenerateDataKey: %w", errUnexpected)
	}
	dataKey, err := envelope.NewDataKey(key, blob)
	if err != nil {
		return nil, failure(AccountTrouble, "KMS GenerateDataKey: %w", err)
	}
	return dataKey, nil
}
