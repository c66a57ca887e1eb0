package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
)

// RightsError says which rights the user of the connection lacks.
type RightsError struct {
	// Missing are what the server named: "publish to SUBJECT", or "subscribe to SUBJECT".
	Missing []string
	at      string
}

func (e *RightsError) Error() string {
	return fmt.Sprintf("NATS at %s: the user lacks a right: to %s: grant it in the server's configuration (deploy/nats has users with the least rights)", e.at, strings.Join(e.Missing, ", to "))
}

func (e *RightsError) Unwrap() error { return nats.ErrPermissionViolation }

// violation matches what servers say, such as: Permissions Violation for Publish to "a.b".
var violation = regexp.MustCompile(`(?i)violation for (publish|subscription) to "([^"]*)"`)

// lackOf returns what a violation is of; ok is false of other errors.
func lackOf(err error) (lack string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	found := violation.FindStringSubmatch(err.Error())
	switch {
	case found == nil:
		return "do what the server does not name", true
	case strings.EqualFold(found[1], "publish"):
		return "publish to " + found[2], true
	}
	return "subscribe to " + found[2], true
}

// refused hears of a violation: the server tells it beside the request, which is just
// not answered.
func (c *Conn) refused(lack string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.lacks[lack]
	c.lacks[lack] = true
	for _, cancel := range c.waiting {
		cancel(&RightsError{[]string{lack}, c.at})
	}
	select {
	case c.violated <- struct{}{}:
	default:
	}
	if !known {
		c.cfg.Log.Error("NATS refuses what the daemon needs: grant the right in the server's configuration", "nats", c.at, "right", lack)
	}
}

// forgive forgets violations, for a connection that was made anew or rights that were
// granted.
func (c *Conn) forgive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.lacks)
}

// Violated receives something after the server has refused something for want of a right.
func (c *Conn) Violated() <-chan struct{} { return c.violated }

// Do calls do, whose context ends as soon as the server says that the user lacks a right:
// a request without an answer would take seconds, and not say why. Its error is that of
// do, with what to do about it, see Explain.
func (c *Conn) Do(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.lastCall++
	call := c.lastCall
	c.waiting[call] = cancel
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, call)
	}()

	err := do(ctx)
	var lacking *RightsError
	if err != nil && errors.As(context.Cause(ctx), &lacking) && errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", withoutCancel(err), lacking)
	}
	return c.Explain(err)
}

// withoutCancel says what was being done without the words of a context that ended.
func withoutCancel(err error) error {
	text := strings.TrimSuffix(err.Error(), ": "+context.Canceled.Error())
	return errors.New(text)
}

// noStream is the name of no stream: the others refuse a message that is meant for it.
const noStream = "faceid-ingest-check"

// Lacks tries which of the subjects the user may not publish to, and whether it may
// subscribe to answers. What it sends has no effect: no stream takes it, and nothing of
// JetStream's API or of a consumer understands it. The error is a *RightsError if
// something is missing.
func (c *Conn) Lacks(ctx context.Context, subjects []string) error {
	var missing []string
	inbox := c.NATS.NewInbox()
	sub, err := c.NATS.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("NATS at %s: subscribe to answers: %w", c.at, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // its connection may be gone
	lack, err := c.refusedBy(ctx, func() error { return nil })
	if err != nil {
		return err
	}
	if strings.HasPrefix(lack, "subscribe") {
		missing = append(missing, lack)
	}

	// All at once first: mostly nothing is missing.
	lack, err = c.refusedBy(ctx, func() error {
		for _, subject := range subjects {
			if err := c.try(subject, inbox); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if lack != "" {
		for _, subject := range subjects {
			lack, err := c.refusedBy(ctx, func() error { return c.try(subject, inbox) })
			if err != nil {
				return err
			}
			if lack == "publish to "+subject && !slices.Contains(missing, lack) {
				missing = append(missing, lack)
			}
		}
	}
	if len(missing) > 0 {
		return &RightsError{missing, c.at}
	}
	c.forgive()
	return nil
}

// harmless returns a request that has no effect. The API takes what is not JSON for a
// request without options, such as to purge all, so what begins like JSON and is none is
// sent; where a request destroys, it is one that is understood and finds nothing.
func harmless(subject string) []byte {
	switch {
	case strings.Contains(subject, ".STREAM.PURGE."):
		return []byte(`{"filter":"` + noStream + `"}`)
	case strings.Contains(subject, ".STREAM.MSG.DELETE."):
		return []byte(`{"seq":18446744073709551615}`)
	default:
		return []byte("{")
	}
}

// try sends what has no effect.
func (c *Conn) try(subject, reply string) error {
	msg := nats.NewMsg(subject)
	msg.Reply, msg.Data = reply, harmless(subject)
	msg.Header.Set(nats.ExpectedStreamHdr, noStream)
	if err := c.NATS.PublishMsg(msg); err != nil {
		return fmt.Errorf("NATS at %s: try the rights: %w", c.at, err)
	}
	return nil
}

// refusedBy returns what the server has refused of what do sent: it says so before it
// answers the next ping.
func (c *Conn) refusedBy(ctx context.Context, do func() error) (lack string, err error) {
	before := c.NATS.LastError()
	if err := do(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	if err := c.NATS.FlushWithContext(ctx); err != nil {
		return "", fmt.Errorf("NATS at %s: try the rights: %w", c.at, err)
	}
	if after := c.NATS.LastError(); after != before { //nolint:errorlint // another error than before may say the same
		lack, _ = lackOf(after)
	}
	return lack, nil
}
