package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

type keysCmd struct {
	New    keysNewCmd    `cmd:"" help:"Make a keyring file where there is none."`
	Rotate keysRotateCmd `cmd:"" help:"Add a sealing key and use it from now on."`
	List   keysListCmd   `cmd:"" help:"List the sealing keys, without the keys themselves."`
	Reseal keysResealCmd `cmd:"" help:"Seal what is stored under older keys anew, under the active one."`
	Remove keysRemoveCmd `cmd:"" help:"Remove a key under which nothing is sealed any more."`
}

// keyringFile is where the keyring is.
func keyringFile(cfg *config.Config) string {
	if cfg.Privacy.KeyringFile != "" {
		return cfg.Privacy.KeyringFile
	}
	return filepath.Join(cfg.DataDir, keyringName)
}

// keyringName is the name of a keyring that has no path of its own.
const keyringName = "keyring.json"

// keyringKMS wraps keyring files with the configured key of KMS. It has a client
// per call: there is one at the start, and later ones are rare.
type keyringKMS struct{ cfg *config.Config }

// keyringWrapper is nil where keyring files are kept in clear.
func keyringWrapper(cfg *config.Config) privacy.Wrapper {
	if cfg.Privacy.KMS.KeyID == "" {
		return nil
	}
	return keyringKMS{cfg}
}

func (k keyringKMS) client() (*faceid.KMS, error) {
	c := k.cfg.Privacy.KMS
	return faceid.NewKMS(faceid.KMSConfig{
		Endpoint: c.Endpoint, Region: c.Region, KeyID: c.KeyID, Timeout: k.cfg.Worker.Timeout.Duration(),
		Credentials: func(context.Context) (faceid.Credential, error) {
			id, key, err := c.Credential()
			return faceid.Credential{SecretID: id, SecretKey: key}, err
		},
	})
}

// Wrap implements privacy.Wrapper.
func (k keyringKMS) Wrap(ctx context.Context, key []byte) (string, error) {
	kms, err := k.client()
	if err != nil {
		return "", err
	}
	defer kms.Close()
	return kms.Wrap(ctx, key)
}

// Unwrap implements privacy.Wrapper.
func (k keyringKMS) Unwrap(ctx context.Context, blob string) ([]byte, error) {
	kms, err := k.client()
	if err != nil {
		return nil, err
	}
	defer kms.Close()
	return kms.Unwrap(ctx, blob)
}

// openKeyring opens the keyring that is there.
func (a *app) openKeyring(ctx context.Context) (*config.Config, *privacy.Keyring, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	keys, err := privacy.OpenWrappedKeyring(ctx, keyringFile(cfg), keyringWrapper(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; make one with: faceid-ingest keys new", err)
	}
	return cfg, keys, err
}

// record tells the audit log of a change of the keyring, before it is made.
func record(cfg *config.Config, action string) error {
	// The data folder is the program's own; any other has to be there.
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	log, entry := audit(cfg, action, "")
	if err := log.Append(entry); err != nil {
		return fmt.Errorf("the keyring is not changed without an entry in the audit log: %w", err)
	}
	return nil
}

type keysNewCmd struct {
	KMS bool `help:"Fail unless privacy.kms is configured, so that the keyring is not kept in clear by mistake."`
}

func (c *keysNewCmd) Run(ctx context.Context, a *app) error {
	cfg, err := a.loadConfig()
	if err != nil {
		return err
	}
	if c.KMS && cfg.Privacy.KMS.KeyID == "" {
		return errors.New("no key of KMS is configured to wrap the keyring: set privacy.kms.key_id")
	}
	path := keyringFile(cfg)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already: what is sealed under its keys needs it, so it is not replaced; keys rotate adds a key to it", path)
	}
	if err := record(cfg, "keys new"); err != nil {
		return err
	}
	keys, err := privacy.CreateWrappedKeyring(ctx, path, keyringWrapper(cfg))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "made %s, %s, with key %s\nkeep a copy of it apart from the data: without it, nothing that is sealed can be read\n",
		path, protection(keys), activeKey(keys).ID)
	return err
}

// protection says how a keyring file is kept.
func protection(keys *privacy.Keyring) string {
	if keys.Wrapped() {
		return "wrapped by KMS"
	}
	return "in clear"
}

func activeKey(keys *privacy.Keyring) privacy.KeyInfo {
	list := keys.List()
	return list[len(list)-1]
}

type keysRotateCmd struct {
	JSON bool `help:"Print the new key as JSON, without the key itself."`
}

func (c *keysRotateCmd) Run(ctx context.Context, a *app) error {
	cfg, keys, err := a.openKeyring(ctx)
	if err != nil {
		return err
	}
	if err := record(cfg, "keys rotate"); err != nil {
		return err
	}
	fresh, err := keys.Rotate()
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(fresh)
	}
	_, err = fmt.Fprintf(a.stdout, "key %s is active, also in a daemon that runs; older keys stay until nothing is sealed under them:\n"+
		"  faceid-ingest keys reseal\n  faceid-ingest keys remove ID\n", fresh.ID)
	return err
}

type keysListCmd struct {
	JSON bool `help:"Print one JSON object per key."`
}

func (c *keysListCmd) Run(ctx context.Context, a *app) error {
	cfg, keys, err := a.openKeyring(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		lines := json.NewEncoder(a.stdout)
		for _, key := range keys.List() {
			if err := lines.Encode(key); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tCREATED\tSTATE")
	for _, key := range keys.List() {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\n", key.ID, key.Created.Format(time.RFC3339), key.State)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s, %s\n", keyringFile(cfg), protection(keys))
	return err
}

type keysRemoveCmd struct {
	ID  string `arg:"" help:"Id of the key."`
	Yes bool   `help:"Remove it without asking again. What is still sealed under it can never be read."`
}

func (c *keysRemoveCmd) Run(ctx context.Context, a *app) error {
	cfg, keys, err := a.openKeyring(ctx)
	if err != nil {
		return err
	}
	switch state, known := stateOf(keys, c.ID); {
	case !known:
		return fmt.Errorf("there is no key %q in %s", c.ID, keyringFile(cfg))
	case state == privacy.Active:
		return fmt.Errorf("key %s is the active one: keys rotate first, then keys reseal", c.ID)
	case !c.Yes:
		return fmt.Errorf("what is still sealed under key %s can never be read again: run keys reseal until it reseals nothing, then repeat this with --yes", c.ID)
	}
	if err := a.notParkedUnder(ctx, cfg, keys, c.ID); err != nil {
		return err
	}
	if err := record(cfg, "keys remove "+c.ID); err != nil {
		return err
	}
	if err := keys.Remove(c.ID); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "removed key %s; copies of the keyring still have it\n", c.ID)
	return err
}

// notParkedUnder returns an error if parked results are sealed under a key: without
// it, they would be lost.
func (a *app) notParkedUnder(ctx context.Context, cfg *config.Config, keys *privacy.Keyring, id string) error {
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	if err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return fmt.Errorf("no key is removed before it is known whether parked results need it: %w", err)
	}
	defer closeQuietly(conn)
	store, err := openParking(ctx, cfg, conn.JS, policy)
	if err != nil {
		return err
	}
	use, err := store.KeyUse(ctx)
	if err != nil {
		return err
	}
	if n := use[id]; n > 0 {
		return fmt.Errorf("key %s is needed for %s, which will be delivered when their sinks are back: wait for that, or run keys reseal --sink %s first",
			id, plural(n, "parked result", "parked results"), parkedName)
	}
	return nil
}

func stateOf(keys *privacy.Keyring, id string) (privacy.KeyState, bool) {
	for _, key := range keys.List() {
		if key.ID == id {
			return key.State, true
		}
	}
	return "", false
}
