package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/keymark"
	"github.com/faceid-ingest/faceid-ingest/pipeline/parking"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// keyringError says that the keyring is not one to work with. It is found before
// anything is sealed or opened, so that nothing has been changed.
type keyringError struct{ err error }

func (e *keyringError) Error() string { return e.err.Error() }
func (e *keyringError) Unwrap() error { return e.err }

// openKeyringFile opens the keyring that is there. The error says what is missing or
// wrong, and what to do.
func openKeyringFile(ctx context.Context, cfg *config.Config) (*privacy.Keyring, error) {
	path := keyringFile(cfg)
	keys, err := privacy.OpenWrappedKeyring(ctx, path, keyringWrapper(cfg))
	switch {
	case err == nil:
		return keys, nil
	case errors.Is(err, privacy.ErrNotUnwrapped):
		// KMS may be back when the daemon is started again.
		return nil, fmt.Errorf("open the keyring (privacy.keyring_file): %w", err)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("there is no keyring: %w. If results are stored already, restore it from a copy, or from another daemon of this installation; "+
			"in a new installation, the first \"faceid-ingest run\" makes one if privacy.keyring_file is not set, or make one with: faceid-ingest keys new", err)
	case errors.Is(err, privacy.ErrKeyringDamaged):
		err = fmt.Errorf("%w: restore %s from a copy; nothing that is sealed can be opened without it", err, path)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: run this as the user the file belongs to, who alone may read it", err)
	}
	return nil, &keyringError{fmt.Errorf("open the keyring (privacy.keyring_file): %w", err)}
}

// prepareKeyring is openKeyringFile that returns a keyring in memory where there is no
// file: nothing is sealed or opened with it before its file is made.
func prepareKeyring(ctx context.Context, cfg *config.Config) (*privacy.Keyring, error) {
	keys, err := openKeyringFile(ctx, cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return privacy.NewKeyring(ctx, keyringFile(cfg), keyringWrapper(cfg)), nil
	}
	return keys, err
}

// preparePolicy returns the policy with prepareKeyring.
func preparePolicy(ctx context.Context, cfg *config.Config) (*privacy.Policy, *privacy.Keyring, error) {
	keys, err := prepareKeyring(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	policy, err := privacy.NewPolicy(cfg.Privacy.Config, keys)
	return policy, keys, err
}

// natsPlace is NATS as a place of a keyring. The parking is looked at where it is, and
// not made.
func natsPlace(ctx context.Context, cfg *config.Config, js jetstream.JetStream, policy *privacy.Policy) (keymark.NATS, error) {
	place := keymark.NATS{JS: js, Replicas: cfg.NATS.Replicas, Keys: policy.Keyring()}
	_, err := js.Stream(ctx, "OBJ_"+parking.Bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return place, nil
	}
	if err != nil {
		return place, fmt.Errorf("look for parked results: %w", err)
	}

	store, err := openParking(ctx, cfg, js, policy)
	if err != nil {
		return place, err
	}
	place.Parked = store
	return place, nil
}

// sinkPlaces are the sinks that hold something of a keyring.
func sinkPlaces(open []sinks.Sink, policy *privacy.Policy) []keymark.Place {
	var places []keymark.Place
	for _, sink := range open {
		if keeper, ok := sink.(sinks.Keeper); ok {
			places = append(places, keymark.Sink{Keeper: keeper, Policy: policy})
		}
	}
	return places
}

// places are NATS and the open sinks.
func (s *store) places(ctx context.Context) ([]keymark.Place, error) {
	places := sinkPlaces(s.sinks, s.policy)
	if s.js == nil {
		return places, nil
	}
	nats, err := natsPlace(ctx, s.cfg, s.js, s.policy)
	if err != nil {
		return nil, err
	}
	return append([]keymark.Place{nats}, places...), nil
}

// rightKeyring returns an error unless there is a keyring, and it is the one of all
// places that can be looked at.
func (s *store) rightKeyring(ctx context.Context) error {
	places, err := s.places(ctx)
	if err != nil {
		return err
	}
	keys := s.policy.Keyring()
	if err := refusal(s.cfg, keys, keymark.Examine(ctx, keys, places)); err != nil || keys.Made() {
		return err
	}
	_, err = openKeyringFile(ctx, s.cfg) // says that it is missing
	return err
}

// refusal puts into words what speaks against a keyring, and the way out. It is nil if
// nothing does.
func refusal(cfg *config.Config, keys *privacy.Keyring, findings []keymark.Finding) error {
	var lines []string
	older := true
	for _, f := range findings {
		if f.Refusal == nil {
			continue
		}
		lines = append(lines, fmt.Sprintf("\n  %s: %s", f.Place.Name(), f.Refusal))
		var old *privacy.OldKeyringError
		older = older && errors.As(f.Refusal, &old)
	}
	if len(lines) == 0 {
		return nil
	}

	path := keyringFile(cfg)
	found := strings.Join(lines, "")
	switch {
	case !keys.Made():
		return &keyringError{fmt.Errorf("there is no keyring at %s, and what is stored needs its own:%s\nNothing was changed, and no keyring was made. "+
			"Restore %s from a copy, or from another daemon of this installation. "+
			"Only if no copy is left anywhere: \"faceid-ingest keys new --start-over\" makes a new one, and what is sealed can never be opened again", path, found, path)}
	case older:
		return &keyringError{fmt.Errorf("the keyring %s is out of date:%s\nNothing was changed. Replace it by the file in which the key was made (faceid-ingest keys status there lists its keys)", path, found)}
	default:
		return &keyringError{fmt.Errorf("the keyring %s is not the one of this installation:%s\nNothing was changed. "+
			"Put the keyring with that fingerprint in its place: a copy, or the file of another daemon of this installation (\"faceid-ingest keys status\" tells fingerprints). "+
			"Only if no copy is left anywhere: \"faceid-ingest keys adopt\" makes this one the keyring of the installation, and what another has sealed can never be opened again", path, found)}
	}
}

// unseen joins what cannot be looked at.
func unseen(findings []keymark.Finding) error {
	var failed []error
	for _, f := range findings {
		if f.Unseen != nil {
			failed = append(failed, fmt.Errorf("%s: %w", f.Place.Name(), f.Unseen))
		}
	}
	return errors.Join(failed...)
}

// settleKeyring makes sure, before the daemon seals anything, that its keyring is the
// one of the installation. The first start of an installation that holds nothing makes
// the file.
func (d *daemon) settleKeyring(ctx context.Context) error {
	findings, err := d.examineKeyring(ctx)
	if err != nil {
		return err
	}
	made := false
	if !d.keys.Made() {
		if made, err = d.makeKeyring(ctx, findings); err != nil {
			return err
		}
	}
	for _, f := range findings {
		if n := f.Mixed(); n > 0 {
			d.log.Warn("the keyring does not open all of a sample, though some: the rest is sealed by another keyring, or under a key that was removed; \"faceid-ingest keys status\" counts",
				"place", f.Place.Name(), "sealed", f.Sample.Sealed, "not_opened", n, "keyring", d.keys.Path())
		}
	}

	findings, err = keymark.Settle(ctx, d.keys, findings)
	if err == nil {
		err = refusal(d.cfg, d.keys, findings)
	}
	if err != nil && made {
		// Another first start was faster, and nothing is sealed yet.
		err = errors.Join(err, d.keys.Discard())
	}
	if err == nil {
		// A sink may be told later; without NATS no other daemon would know.
		err = d.conn.Explain(findings[0].Unseen)
	}
	return err
}

// examineKeyring asks NATS and the sinks, and returns an error if one of them refuses.
func (d *daemon) examineKeyring(ctx context.Context) ([]keymark.Finding, error) {
	places := append([]keymark.Place{keymark.NATS{JS: d.conn.JS, Replicas: d.cfg.NATS.Replicas, Parked: d.parking, Keys: d.keys}},
		sinkPlaces(d.sinks, d.policy)...)
	var findings []keymark.Finding
	err := d.patiently(ctx, func() error {
		findings = keymark.Examine(ctx, d.keys, places)
		return d.conn.Explain(findings[0].Unseen)
	})
	if err != nil {
		return nil, err
	}
	return findings, refusal(d.cfg, d.keys, findings)
}

// makeKeyring makes the file of an installation that holds nothing.
func (d *daemon) makeKeyring(ctx context.Context, findings []keymark.Finding) (made bool, err error) {
	path := d.keys.Path()
	if d.cfg.Privacy.KeyringFile != "" {
		_, err := openKeyringFile(ctx, d.cfg)
		return false, err // a start makes none but its own
	}
	if err := unseen(findings); err != nil {
		return false, &laterError{fmt.Errorf("there is no keyring at %s, and whether one is needed cannot be seen, so none is made: %w; start again when it can be looked at", path, err)}
	}
	if made, err = d.keys.Create(); err != nil {
		return false, &keyringError{err}
	}
	if made {
		d.log.Info("made a keyring: keep a copy of it apart from the data, without it nothing that is sealed can be opened",
			"file", path, "fingerprint", d.keys.Fingerprint())
	}
	return made, nil
}

const (
	// keyringEvery is how often a daemon that runs compares its keyring with what is
	// noted, keyringSoon how often while a place could not be looked at.
	keyringEvery = time.Minute
	keyringSoon  = 5 * time.Second
)

// watchKeyring goes on with what settleKeyring began: it looks at sinks that were away,
// notes rotations, and ends the daemon if the installation has another keyring. It
// returns when ctx is done.
func (d *daemon) watchKeyring(ctx context.Context) error {
	places := append([]keymark.Place{keymark.NATS{JS: d.conn.JS, Replicas: d.cfg.NATS.Replicas, Parked: d.parking, Keys: d.keys}},
		sinkPlaces(d.sinks, d.policy)...)
	wait := time.NewTimer(keyringSoon)
	defer wait.Stop()
	told, unseenTold := "", map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}

		findings := keymark.Examine(ctx, d.keys, places)
		findings, err := keymark.Settle(ctx, d.keys, findings)
		if err != nil {
			d.log.Debug("the keyring cannot be read", "error", err) // whoever seals says it, too
		}
		refused := refusal(d.cfg, d.keys, findings)
		if onlyOlder(findings) {
			// What is sealed here can still be opened by all. Told once per key.
			if refused != nil && refused.Error() != told {
				d.log.Error("others seal with a key that this daemon cannot open", "error", refused)
				told = refused.Error()
			}
			refused = nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if refused != nil {
			return refused
		}
		d.tellUnseen(findings, unseenTold)
		wait.Reset(nextLook(findings))
	}
}

// tellUnseen warns of the places where the keyring could not be compared or noted, of each
// once until that was possible. told has the names of those.
func (d *daemon) tellUnseen(findings []keymark.Finding, told map[string]bool) {
	for _, f := range findings {
		name := f.Place.Name()
		if f.Unseen != nil && !told[name] {
			d.log.Warn("whether this keyring seals what is there could not be looked at or noted; it is tried again", "place", name, "error", f.Unseen)
		}
		told[name] = f.Unseen != nil
	}
}

// nextLook is soon where a place is away. A place that was looked through, and says
// nothing or takes no note, is not looked through all the time.
func nextLook(findings []keymark.Finding) time.Duration {
	for _, f := range findings {
		if f.Unseen != nil && f.Sample.Held == 0 {
			return keyringSoon
		}
	}
	return keyringEvery
}

// onlyOlder reports whether nothing worse is found than that the file is an old copy.
func onlyOlder(findings []keymark.Finding) bool {
	for _, f := range findings {
		var old *privacy.OldKeyringError
		if f.Refusal != nil && !errors.As(f.Refusal, &old) {
			return false
		}
	}
	return true
}

// seals is what the other daemons see of the keyring.
func (d *daemon) seals() privacy.Mark {
	mark, err := d.keys.Mark()
	if err != nil {
		return privacy.Mark{} // whoever seals says it
	}
	return mark
}

// closedPlace is one that could not be opened.
type closedPlace struct {
	name string
	err  error
}

func (p closedPlace) Name() string { return p.name }

func (p closedPlace) Keyring(context.Context) (privacy.Mark, error) { return privacy.Mark{}, p.err }

func (p closedPlace) MarkKeyring(context.Context, privacy.Mark, string) error { return p.err }

func (p closedPlace) Sample(context.Context) (keymark.Sample, error) {
	return keymark.Sample{}, p.err
}

// openPlaces opens NATS and all sinks for a look at the keyring, without asking whether
// it is the right one. What does not open is among the places, with the reason; the
// store's js is nil if that is NATS.
func (a *app) openPlaces(ctx context.Context, cfg *config.Config, policy *privacy.Policy) (*store, []keymark.Place) {
	s := &store{cfg: cfg, policy: policy, close: func() error { return nil }}
	var nats keymark.Place
	env := sinks.Env{Policy: policy, Log: slog.New(slog.DiscardHandler)}
	conn, err := a.connect(ctx)
	if err == nil {
		s.js, env.NATS, s.close = conn.JS, conn.NATS, conn.Close
		nats, err = natsPlace(ctx, cfg, conn.JS, policy)
	}
	if err != nil {
		nats = closedPlace{"NATS", err}
	}

	places := []keymark.Place{nats}
	for _, one := range cfg.Sinks {
		sink, err := openSink(ctx, cfg, one, env)
		if err != nil {
			places = append(places, closedPlace{"sink " + one.Name, err})
			continue
		}
		s.sinks = append(s.sinks, sink)
		places = append(places, sinkPlaces([]sinks.Sink{sink}, policy)...)
	}
	closeConn := s.close
	s.close = func() error { return errors.Join(closeSinks(context.WithoutCancel(ctx), s.sinks), closeConn()) }
	return s, places
}
