//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"

	// The kinds of sink that the configuration names.
	_ "github.com/faceid-ingest/faceid-ingest/sinks/cos"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/dir"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/natsmsg"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/sqldb"
	_ "github.com/faceid-ingest/faceid-ingest/sinks/webhook"
)

// auditor compares what sinks hold with what was issued.
type auditor struct {
	*site
	byHash map[string]*issued
	policy *privacy.Policy
	// opened is the log of what the audit opens.
	opened *privacy.Audit
	sinks  map[string]sinks.Sink
	// digests are those of all media, by their seed.
	digests map[uint64]result.Digest

	// lost are tokens that a sink does not have, doubled what is there twice or
	// belongs to no token, wrong what is not as it was issued.
	lost, doubled, wrong []string
	figures              messageFigures
}

// messageFigures are what was counted about messages.
type messageFigures struct {
	webhookIDs, webhookRepeats, natsMessages int
	uploadsLeft                              int
	verified                                 string
}

func (a *auditor) lose(format string, args ...any) {
	a.lost = append(a.lost, fmt.Sprintf(format, args...))
}
func (a *auditor) double(format string, args ...any) {
	a.doubled = append(a.doubled, fmt.Sprintf(format, args...))
}
func (a *auditor) differ(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

// audit looks at everything. Servers run, workers do not. The error says that
// something could not be looked at.
func (s *site) audit(ctx context.Context) (_ *auditor, err error) {
	a := &auditor{site: s, byHash: map[string]*issued{}, sinks: map[string]sinks.Sink{}}
	for _, t := range s.tokens {
		a.byHash[t.hash()] = t
	}
	if a.digests, err = digestsOf(s.tokens); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.closeSinks(ctx)) }()
	if err := a.openSinks(ctx); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"keys", a.auditKeys}, {"records", a.auditRecords}, {"archives", a.auditArchives}, {"objects", a.auditObjects},
		{"files", a.auditFiles}, {"messages", a.auditMessages}, {"dead letters", a.auditDead}, {"parked results", a.auditParked}, {"commands", a.auditCommands},
	} {
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("audit %s: %w", step.what, err)
		}
	}
	a.auditWebhooks()
	return a, nil
}

// openSinks opens sinks as a daemon does, from the first worker's configuration.
func (a *auditor) openSinks(ctx context.Context) error {
	cfg, err := config.Load(a.workers[0].config)
	if err != nil {
		return err
	}
	keys, err := privacy.OpenWrappedKeyring(ctx, filepath.Join(a.folder, keyringName), nil)
	if err != nil {
		return err
	}
	if a.policy, err = privacy.NewPolicy(cfg.Privacy.Config, keys); err != nil {
		return err
	}
	a.opened = privacy.OpenAudit(filepath.Join(a.folder, "audit.log"))
	for _, c := range cfg.Sinks {
		sink, err := c.Config.Open(ctx, sinks.Env{Name: c.Name, Policy: a.policy, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return fmt.Errorf("open sink %s: %w", c.Name, err)
		}
		a.sinks[c.Name] = sink
	}
	return nil
}

func (a *auditor) closeSinks(ctx context.Context) error {
	errs := make([]error, 0, len(a.sinks))
	for _, s := range a.sinks {
		errs = append(errs, s.Close(ctx))
	}
	return errors.Join(errs...)
}

// auditKeys compares the tokens that each sink says it holds with those issued.
func (a *auditor) auditKeys(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(a.sinks)) {
		keeper, ok := a.sinks[name].(sinks.Keeper)
		if !ok {
			continue
		}
		there := map[string]int{}
		for key, err := range keeper.Keys(ctx, sinks.Key{}) {
			if err != nil {
				return err
			}
			there[key.Hash]++
		}
		a.compare("sink "+name, there)
	}
	return nil
}

// compare looks for what is not there once.
func (a *auditor) compare(where string, there map[string]int) {
	for hash, t := range a.byHash {
		if there[hash] == 0 {
			a.lose("%s has nothing of %s (account %s)", where, t.Token, t.account)
		}
	}
	for hash, n := range there {
		if a.byHash[hash] == nil {
			a.double("%s holds %s, which nobody issued", where, hash)
		} else if n > 1 {
			a.double("%s holds %s %d times", where, a.byHash[hash].Token, n)
		}
	}
}

// auditMessages reads the stream that takes the nats sink's messages.
func (a *auditor) auditMessages(ctx context.Context) error {
	there := map[string]int{}
	err := eachMessage(ctx, a.js, resultsStream, func(m *jetstream.RawStreamMsg) {
		hash := strings.TrimPrefix(m.Header.Get(jetstream.MsgIDHeader), "stream:")
		there[hash]++
		a.figures.natsMessages++
		a.sameMessage("a NATS message", hash, m.Data)
	})
	a.compare("the NATS stream", there)
	return err
}

// eachMessage visits all messages of a stream.
func eachMessage(ctx context.Context, js jetstream.JetStream, name string, visit func(*jetstream.RawStreamMsg)) error {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		visit(m)
	}
	return nil
}

func (a *auditor) auditWebhooks() {
	hook := a.standIns.hook
	hook.mu.Lock()
	defer hook.mu.Unlock()
	if hook.forged > 0 {
		a.differ("%d webhooks with a wrong signature", hook.forged)
	}
	there := map[string]int{}
	for id, c := range hook.calls {
		there[id] = 1 // a receiver drops repetitions
		a.figures.webhookIDs++
		a.figures.webhookRepeats += c.times - 1
		if c.differs {
			a.differ("webhooks with the id %s say different things", id)
		}
		a.sameMessage("a webhook", id, c.body)
	}
	a.compare("the webhook receiver", there)
}

// auditDead compares dead letters with the forged events.
func (a *auditor) auditDead(ctx context.Context) error {
	want := map[string]forged{}
	for _, f := range a.forgeries {
		want[f.body] = f
	}
	there := map[string]int{}
	err := event.ReadDeadLetters(ctx, a.js, func(l event.DeadLetter) error {
		body := string(l.Body)
		f, forged := want[body]
		switch there[body]++; {
		case !forged:
			a.differ("dead letter %d (%s, %s) is of a good token: %s", l.Sequence, l.Reason, l.Code, l.Detail)
		case there[body] > 1:
			a.double("forged event %s has %d dead letters", body, there[body])
		case l.Reason != f.reason || l.Account != f.account || l.Subject == "" || l.Attempts == 0:
			a.differ("dead letter %d of account %s says %s: %s", l.Sequence, l.Account, l.Reason, l.Detail)
		}
		return nil
	})
	for body := range want {
		if there[body] == 0 {
			a.lose("forged event %s has no dead letter", body)
		}
	}
	return err
}

// auditParked looks for parked results that are left when everything is delivered.
func (a *auditor) auditParked(ctx context.Context) error {
	store, err := a.js.ObjectStore(ctx, parkedBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // nothing was ever parked
	}
	if err != nil {
		return err
	}
	list, err := store.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil
	}
	for _, object := range list {
		a.differ("a parked result is left: %s", object.Name)
	}
	return err
}

// parkedBucket is the object store of parked results.
const parkedBucket = "FACEID_PARKED"

// shown is how many tokens are looked at through the command line.
const shown = 3

// auditCommands asks the program itself.
func (a *auditor) auditCommands(ctx context.Context) error {
	out, err := a.command(ctx, "verify")
	a.figures.verified = strings.TrimSpace(string(out))
	if err != nil {
		a.differ("faceid-ingest verify: %s: %s", err, out)
	}
	for i := range min(shown, len(a.tokens)) {
		t := a.tokens[i*len(a.tokens)/shown]
		out, err := a.command(ctx, "show", t.Token, "--reveal", "--json", "--reason", "chaos")
		if err != nil {
			a.differ("faceid-ingest show %s: %s: %s", t.Token, err, out)
			continue
		}
		if seen := t.Product == result.Enhanced || t.Code == 0; seen && !bytes.Contains(out, []byte(t.Person.IDCard)) {
			a.differ("faceid-ingest show %s does not reveal the person", t.Token)
		}
	}
	return ctx.Err()
}

// command runs the program and returns what it prints.
func (a *auditor) command(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, a.binary, append([]string{"--config", a.workers[0].config}, args...)...) //nolint:gosec // the program under test
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		out = append(out, errs.Bytes()...)
	}
	return out, err
}
