package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/replica"
)

type keysCmd struct {
	New    keysNewCmd    `cmd:"" help:"Make a keyring file where there is none."`
	Rotate keysRotateCmd `cmd:"" help:"Add a sealing key and use it from now on."`
	List   keysListCmd   `cmd:"" help:"List the sealing keys, without the keys themselves."`
	Status keysStatusCmd `cmd:"" help:"Show the keyring's fingerprint, where it is noted, which daemons use it, and how many values each key seals."`
	Reseal keysResealCmd `cmd:"" help:"Seal what is stored under older keys anew, under the active one."`
	Remove keysRemoveCmd `cmd:"" help:"Remove a key under which nothing is sealed any more."`
	Adopt  keysAdoptCmd  `cmd:"" help:"Make this keyring the one of the installation, in place of one that is lost."`
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
	if err := k.cfg.Need("privacy.kms"); err != nil {
		return nil, err
	}
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
	keys, err := openKeyringFile(ctx, cfg)
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
	KMS       bool `help:"Fail unless privacy.kms is configured, so that the keyring is not kept in clear by mistake."`
	StartOver bool `help:"Make one although results are stored that need another. What is sealed can never be opened again unless that one is found."`
}

func (c *keysNewCmd) Run(ctx context.Context, a *app) (err error) {
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

	keys := privacy.NewKeyring(ctx, path, keyringWrapper(cfg))
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	if err != nil {
		return err
	}
	s, places := a.openPlaces(ctx, cfg, policy)
	defer func() { err = errors.Join(err, s.close()) }()
	findings := keymark.Examine(ctx, keys, places)
	if refused := refusal(cfg, keys, findings); refused != nil && !c.StartOver {
		return refused
	}
	if err := unseen(findings); err != nil && c.StartOver {
		return fmt.Errorf("nothing was made: the new keyring has to be noted everywhere, and this cannot be reached: %w", err)
	}

	action := "keys new"
	if c.StartOver {
		action += " --start-over"
	}
	if err := record(cfg, action); err != nil {
		return err
	}
	made, err := keys.Create()
	switch {
	case err != nil:
		return err
	case !made:
		return fmt.Errorf("%s was made by somebody else meanwhile, and is not replaced", path)
	case c.StartOver:
		if err := keymark.Adopt(ctx, keys, findings); err != nil {
			return fmt.Errorf("%s was made, but not noted everywhere; repeat it with keys adopt: %w", path, err)
		}
	}
	if _, err := fmt.Fprintf(a.stdout, "made %s, %s, with key %s and fingerprint %s\nkeep a copy of it apart from the data: without it, nothing that is sealed can be read\n",
		path, protection(keys), activeKey(keys).ID, keys.Fingerprint()); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Unseen != nil {
			_, _ = fmt.Fprintf(a.stderr, "%s could not be asked whether it needs another keyring; the daemon asks when it starts: %v\n", f.Place.Name(), f.Unseen)
		}
	}
	return nil
}

type keysAdoptCmd struct {
	Yes bool `help:"Do it without asking again. What another keyring has sealed can never be opened then."`
}

// Run notes the keyring that is there everywhere, whatever is noted.
func (c *keysAdoptCmd) Run(ctx context.Context, a *app) (err error) {
	cfg, keys, err := a.openKeyring(ctx)
	if err != nil {
		return err
	}
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	if err != nil {
		return err
	}
	s, places := a.openPlaces(ctx, cfg, policy)
	defer func() { err = errors.Join(err, s.close()) }()
	findings := keymark.Examine(ctx, keys, places)
	spoilt, reached := noMarks(findings)
	if err := unseen(reached); err != nil {
		return fmt.Errorf("nothing was changed: the keyring has to be noted everywhere, and this cannot be reached: %w", err)
	}

	refused := errors.Join(refusal(cfg, keys, findings), unseen(spoilt))
	if refused != nil && !c.Yes {
		return fmt.Errorf("%w\nIf that is what you want, repeat this with --yes", refused)
	}
	if err := record(cfg, "keys adopt "+keys.Fingerprint()); err != nil {
		return err
	}
	if err := keymark.Adopt(ctx, keys, findings); err != nil {
		return fmt.Errorf("the keyring is not noted everywhere; repeat this: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, "%s, fingerprint %s, is the keyring of this installation; daemons with another one end\n", keys.Path(), keys.Fingerprint())
	return err
}

// noMarks separates the places where something stands that is no mark from the others.
func noMarks(findings []keymark.Finding) (spoilt, others []keymark.Finding) {
	for _, f := range findings {
		if errors.Is(f.Unseen, privacy.ErrMark) {
			spoilt = append(spoilt, f)
		} else {
			others = append(others, f)
		}
	}
	return spoilt, others
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

func (c *keysRotateCmd) Run(ctx context.Context, a *app) (err error) {
	cfg, keys, err := a.openKeyring(ctx)
	if err != nil {
		return err
	}
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	if err != nil {
		return err
	}
	s, places := a.openPlaces(ctx, cfg, policy)
	defer func() { err = errors.Join(err, s.close()) }()
	findings := keymark.Examine(ctx, keys, places)
	if err := refusal(cfg, keys, findings); err != nil {
		return err
	}

	if err := record(cfg, "keys rotate"); err != nil {
		return err
	}
	fresh, err := keys.Rotate()
	if err != nil {
		return err
	}
	if findings, err = keymark.Settle(ctx, keys, findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Unseen != nil {
			_, _ = fmt.Fprintf(a.stderr, "%s could not be told of the new key; a daemon tells it when it can: %v\n", f.Place.Name(), f.Unseen)
		}
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

func (c *keysRemoveCmd) Run(ctx context.Context, a *app) (err error) {
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
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	if err != nil {
		return err
	}
	s, places := a.openPlaces(ctx, cfg, policy)
	defer func() { err = errors.Join(err, s.close()) }()
	if err := c.unused(ctx, a, s, places); err != nil {
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

// unused returns an error unless it is certain that nothing is sealed under the key, and
// that no daemon seals with it.
func (c *keysRemoveCmd) unused(ctx context.Context, a *app, s *store, places []keymark.Place) error {
	keys := s.policy.Keyring()
	findings := keymark.Examine(ctx, keys, places)
	if err := refusal(s.cfg, keys, findings); err != nil {
		return err
	}
	if err := unseen(findings); err != nil {
		return fmt.Errorf("key %s is not removed: whether something is sealed under it cannot be seen: %w", c.ID, err)
	}
	// Whoever looks later must not miss the key that was active before.
	findings, err := keymark.Settle(ctx, keys, findings)
	if err = errors.Join(err, unseen(findings), refusal(s.cfg, keys, findings)); err != nil {
		return fmt.Errorf("key %s is not removed: %w", c.ID, err)
	}

	var needed, unsure []string
	show, done := sinkBar(a.stderr, "counting", false)
	uses := s.countAll(ctx, places, show)
	done()
	for _, use := range uses {
		if found := use.keys[c.ID]; found.Values > 0 {
			needed = append(needed, neededFor(use, found))
		}
		if use.err != nil {
			unsure = append(unsure, fmt.Sprintf("sink %s: %v", use.sink, use.err))
		}
	}
	reports, err := replica.List(ctx, s.js)
	if err != nil {
		return fmt.Errorf("key %s is not removed: whether a daemon seals with it cannot be seen: %w", c.ID, err)
	}
	for _, r := range reports {
		if r.Keyring.ActiveKey == c.ID && r.Keyring.Fingerprint == keys.Fingerprint() {
			return fmt.Errorf("key %s is not removed: daemon %s on %s seals with it, for its copy of the keyring is older: give it this one, then reseal", c.ID, r.ID, r.Host)
		}
	}

	switch {
	case len(needed) > 0:
		return fmt.Errorf("key %s is needed for %s: run keys reseal first", c.ID, strings.Join(needed, "; "))
	case len(unsure) > 0:
		return fmt.Errorf("key %s is not removed: whether something is sealed under it cannot all be seen: %s; \"faceid-ingest verify\" says what is damaged", c.ID, strings.Join(unsure, "; "))
	}
	return nil
}

// neededFor says what a key seals in a sink.
func neededFor(use *sinkUse, found keyUse) string {
	if use.sink == parkedName {
		return plural(found.Values, "parked result", "parked results") +
			", which will be delivered when their sinks are back (wait for that, or run keys reseal --sink " + parkedName + " first)"
	}
	return fmt.Sprintf("%s of %s in sink %s", plural(found.Values, "value", "values"), plural(found.Tokens, "result", "results"), use.sink)
}

func stateOf(keys *privacy.Keyring, id string) (privacy.KeyState, bool) {
	for _, key := range keys.List() {
		if key.ID == id {
			return key.State, true
		}
	}
	return "", false
}
