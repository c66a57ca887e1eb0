package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/envelope"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
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
	life := e.DataKeyLife.Duration()
	if life == 0 {
		return faceid.Encryption{Mode: mode, Session: kmsSession(kms)}, kms.Close, nil
	}
	cache := envelope.NewDataKeyCache(kms, life)
	closeAll := func() { cache.Forget(); kms.Close() }
	return faceid.Encryption{Mode: mode, Session: kmsSession(cache), Forget: cache.Forget}, closeAll, nil
}

// consoleSession makes keys that are wrapped with the console's public key. Its file
// is read for each of them, so that a key which the console has replaced is used at
// once.
func consoleSession(e config.Encryption) (func(context.Context) (*envelope.Session, error), error) {
	read := func() (*envelope.PublicKey, error) {
		text, err := setting.ReadFile(e.PublicKeyFile)
		if err != nil {
			return nil, fmt.Errorf("read encryption.public_key_file: %w", err)
		}
		key, err := envelope.ParsePublicKey(envelope.Algorithm(e.Algorithm), text)
		if err != nil {
			return nil, fmt.Errorf("read encryption.public_key_file %s: %w", e.PublicKeyFile, err)
		}
		return key, nil
	}
	if _, err := read(); err != nil {
		return nil, err
	}
	return func(context.Context) (*envelope.Session, error) {
		key, err := read()
		if err != nil {
			return nil, err
		}
		return envelope.NewSession(key)
	}, nil
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

// openEIDKey returns what reads the merchant's private key; nil if there is none. It
// is asked for each eid result, and parses the files anew when they have changed.
func openEIDKey(e config.EID) (func() (*envelope.PrivateKey, error), error) {
	if e.PrivateKeyFile == "" {
		return nil, nil //nolint:nilnil // a merchant may have none.
	}
	file := &eidKeyFile{config: e}
	_, err := file.key()
	return file.key, err
}

// eidKeyFile keeps the key of a file as long as the file stays the same: opening one
// with a passphrase is slow on purpose.
type eidKeyFile struct {
	config config.EID

	mu     sync.Mutex
	digest [sha256.Size]byte
	parsed *envelope.PrivateKey
}

func (f *eidKeyFile) key() (*envelope.PrivateKey, error) {
	text, err := setting.ReadFile(f.config.PrivateKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read eid.private_key_file: %w", err)
	}
	defer clear(text)
	var passphrase []byte
	if f.config.PassphraseFile != "" {
		content, err := setting.ReadFile(f.config.PassphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read eid.passphrase_file: %w", err)
		}
		defer clear(content)
		passphrase = bytes.TrimRight(content, "\r\n")
	}
	hash := sha256.New()
	_, _ = hash.Write(text) // a hash takes everything
	_, _ = hash.Write(passphrase)
	digest := [sha256.Size]byte(hash.Sum(nil))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parsed != nil && digest == f.digest {
		return f.parsed, nil
	}
	key, err := envelope.ParsePrivateKey(text, passphrase)
	if err != nil {
		return nil, fmt.Errorf("read eid.private_key_file %s: %w", f.config.PrivateKeyFile, err)
	}
	f.parsed, f.digest = key, digest
	return key, nil
}

// tryEncryption makes one key as a request would, where KMS makes them.
func tryEncryption(ctx context.Context, cfg *config.Config, account config.Account) error {
	if account.Encryption.KMSKeyID == "" {
		return nil
	}
	encryption, closeEncryption, err := openEncryption(cfg, account)
	if err != nil {
		return err
	}
	defer closeEncryption()
	_, err = encryption.Session(ctx)
	return err
}
