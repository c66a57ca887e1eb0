package faceid

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
)

// KMSConfig says how to use one key of KMS: that of an account which enabled the
// encryption of answers before March 2023 and so has it instead of the console's
// public key (FACTS §8), or one that wraps the keyring.
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

// KMS gets data keys, and wraps keys of others. Any number of goroutines may use it.
type KMS struct {
	keyID  string
	caller *caller
}

var _ envelope.DataKeySource = (*KMS)(nil)

// maxKMSResponse bounds an answer of KMS, in bytes: a key and its wrapped form are
// some hundred.
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
	members, err := k.call(ctx, "GenerateDataKey", map[string]any{"KeyId": k.keyID, "KeySpec": "AES_256"})
	if err != nil {
		return nil, err
	}
	key, err := decodePlaintext(members)
	defer clear(key)
	var blob string
	if err != nil || json.Unmarshal(members["CiphertextBlob"], &blob) != nil {
		return nil, failure(Transient, "KMS GenerateDataKey: %w", errUnexpected)
	}
	dataKey, err := envelope.NewDataKey(key, blob)
	if err != nil {
		return nil, failure(RequestTrouble, "KMS GenerateDataKey: %w", err)
	}
	return dataKey, nil
}

// Wrap has KMS encrypt a key (Encrypt, at most 4 KiB). It is privacy.Wrapper's;
// the error is an *Error and holds nothing of the key.
func (k *KMS) Wrap(ctx context.Context, key []byte) (blob string, err error) {
	members, err := k.call(ctx, "Encrypt", map[string]any{
		"KeyId": k.keyID, "Plaintext": base64.StdEncoding.EncodeToString(key),
	})
	if err != nil {
		return "", err
	}
	if json.Unmarshal(members["CiphertextBlob"], &blob) != nil || blob == "" {
		return "", failure(Transient, "KMS Encrypt: %w", errUnexpected)
	}
	return blob, nil
}

// Unwrap has KMS decrypt what Wrap returned (Decrypt); the blob itself names the
// key that KMS needs. The error is an *Error and holds nothing of the key.
func (k *KMS) Unwrap(ctx context.Context, blob string) ([]byte, error) {
	members, err := k.call(ctx, "Decrypt", map[string]any{"CiphertextBlob": blob})
	if err != nil {
		return nil, err
	}
	key, err := decodePlaintext(members)
	if err != nil {
		return nil, failure(Transient, "KMS Decrypt: %w", errUnexpected)
	}
	return key, nil
}

// call sends one request and returns the members of its answer.
func (k *KMS) call(ctx context.Context, action string, params map[string]any) (map[string]json.RawMessage, error) {
	doc, err := k.caller.send(ctx, action, params, nil)
	if err != nil {
		return nil, err
	}
	defer clear(doc.JSON)
	members, err := splitResponse(doc.JSON)
	if err != nil {
		return nil, err
	}
	var refusal *Error
	if err := namePermission(apiError(members), "kms:"+action); errors.As(err, &refusal) {
		refusal.Class, refusal.Err = kmsTrouble(refusal)
		refusal.Err = fmt.Errorf("KMS %s: %w", action, refusal.Err)
		return nil, refusal
	}
	return members, nil
}

// kmsTrouble classes what KMS refuses. The table of codes is the FaceID API's: what
// there is about a token or an answer is here about the key, which its owner can
// mend.
func kmsTrouble(refusal *Error) (Class, error) {
	switch {
	case refusal.Class == Throttled, strings.HasPrefix(refusal.Code, "AuthFailure"):
		return refusal.Class, refusal.Err
	case strings.HasPrefix(refusal.Code, "UnauthorizedOperation"):
		// What needs no key goes on.
		return RequestTrouble, refusal.Err
	case refusal.Class == Transient && !strings.HasPrefix(refusal.Code, "ResourceUnavailable."):
		return Transient, refusal.Err
	}
	return RequestTrouble, errors.New("the key cannot be used: check its id, that it is enabled, and the region and endpoint of KMS")
}

// decodePlaintext returns the key in an answer. Its error says nothing of it.
func decodePlaintext(members map[string]json.RawMessage) ([]byte, error) {
	var plaintext string
	if json.Unmarshal(members["Plaintext"], &plaintext) != nil {
		return nil, errUnexpected
	}
	key, err := base64.StdEncoding.DecodeString(plaintext)
	if err != nil || len(key) == 0 {
		return nil, errUnexpected
	}
	return key, nil
}
