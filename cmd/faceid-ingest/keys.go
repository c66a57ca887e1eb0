package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
)

// openEncryption reads what an account's answers are encrypted with. The returned
// function wipes and closes what it holds.
func openEncryption(cfg *config.Config, account config.Account) (faceid.Encryption, func(), error) {
	e := account.Encryption
	if e.Mode == "none" {
		return faceid.Encryption{}, func() {}, nil
	}
	mode := faceid.EncryptionMode(e.Mode)
	if e.KMSKeyID == "" {
		session, err := consoleSession(e)
		return faceid.Encryption{Mode: mode, Session: session}, func() {}, err
	}
	kms, err := faceid.NewKMS(faceid.KMSConfig{
		Endpoint: e.KMSEndpoint, Region: account.Region, KeyID: e.KMSKeyID,
		Credentials: credentials(account), Timeout: cfg.Worker.Timeout.Duration(),
	})
	if err != nil {
		return faceid.Encryption{}, nil, err
	}
	source, closeAll := envelope.DataKeySource(kms), kms.Close
	if life := e.DataKeyLife.Duration(); life > 0 {
		cache := envelope.NewDataKeyCache(kms, life)
		source, closeAll = cache, func() { cache.Forget(); kms.Close() }
	}
	return faceid.Encryption{Mode: mode, Session: kmsSession(source)}, closeAll, nil
}

// consoleSession makes keys that are wrapped with the console's public key.
func consoleSession(e config.Encryption) (func(context.Context) (*envelope.Session, error), error) {
	text, err := os.ReadFile(e.PublicKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read encryption.public_key_file: %w", err)
	}
	key, err := envelope.ParsePublicKey(envelope.Algorithm(e.Algorithm), text)
	if err != nil {
		return nil, fmt.Errorf("read encryption.public_key_file %s: %w", e.PublicKeyFile, err)
	}
	return func(context.Context) (*envelope.Session, error) { return envelope.NewSession(key) }, nil
}

// kmsSession makes keys from data keys of KMS.
func kmsSession(source envelope.DataKeySource) func(context.Context) (*envelope.Session, error) {
	return func(ctx context.Context) (*envelope.Session, error) {
		key, err := source.DataKey(ctx)
		if err != nil {
			return nil, err
		}
		defer key.Wipe()
		return envelope.NewDataKeySession(key), nil
	}
}

// openEIDKey reads the merchant's private key; nil if there is none.
func openEIDKey(e config.EID) (*envelope.PrivateKey, error) {
	if e.PrivateKeyFile == "" {
		return nil, nil //nolint:nilnil // a merchant may have none.
	}
	text, err := os.ReadFile(e.PrivateKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read eid.private_key_file: %w", err)
	}
	defer clear(text)
	var passphrase []byte
	if e.PassphraseFile != "" {
		content, err := os.ReadFile(e.PassphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read eid.passphrase_file: %w", err)
		}
		defer clear(content)
		passphrase = bytes.TrimRight(content, "\r\n")
	}
	key, err := envelope.ParsePrivateKey(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("read eid.private_key_file %s: %w", e.PrivateKeyFile, err)
	}
	return key, nil
}
