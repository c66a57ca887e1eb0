package natsmsg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

// The subjects of the server's API, for words about missing rights.
const (
	apiNames  = "$JS.API.STREAM.NAMES"
	apiInfo   = "$JS.API.STREAM.INFO."
	apiPurge  = "$JS.API.STREAM.PURGE."
	apiCreate = "$JS.API.STREAM.CREATE."
)

// Codes of the server that nats.go has no names for (errors.json of nats-server).
const (
	codePurgeFailed jetstream.ErrorCode = 10110
	codeStoreFailed jetstream.ErrorCode = 10077
	codeResources   jetstream.ErrorCode = 10023
)

// disconnected says that there is no connection, and why.
func (s *Sink) disconnected() error {
	last := s.nats.LastError()
	if lost := s.lost.Load(); last == nil && lost != nil {
		last = *lost
	}
	if last == nil {
		return fmt.Errorf("nats %s: not connected: check that the server runs, and url", s.server)
	}
	last = wire.Closed(last)
	hint := notice.TLSHint(last)
	switch {
	case hint != "":
	case errors.Is(last, nats.ErrAuthorization), errors.Is(last, nats.ErrAuthExpired):
		hint = "check user, password_file or creds_file"
	default:
		hint = "check that the server runs, and url"
	}
	return fmt.Errorf("nats %s: not connected: %s: %w", s.server, hint, last)
}

// explain says what is wrong with a request on a subject and what to do about it.
func (s *Sink) explain(ctx context.Context, subject string, err error) error {
	at := "nats " + s.server
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", at, ctx.Err())
	}
	err = wire.Closed(err)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return sinks.Permanent(fmt.Errorf("%s: the message is larger than the server takes, %d bytes: "+
			"raise max_payload, or send fewer fields: %w", at, s.nats.MaxPayload(), err))
	case errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum):
		return sinks.Permanent(fmt.Errorf("%s: the message is larger than the stream of %s takes: "+
			"raise its max_msg_size, or send fewer fields: %w", at, subject, err))
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("%s: no stream takes subject %s: create one, or set create_stream", at, subject)
	case errors.Is(err, jetstream.ErrInvalidJSAck):
		return fmt.Errorf("%s: what answers on subject %s is no stream: have no other subscriber answer there: %w", at, subject, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%s: JetStream is not enabled for this user: enable it in the server or account: %w", at, err)
	case errors.Is(err, context.DeadlineExceeded):
		return s.explainSilence(at, subject, err)
	case !s.nats.IsConnected():
		return s.disconnected()
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return fmt.Errorf("%s: subject %s: %serror %d of the server: %w", at, subject, apiHint(api), api.ErrorCode, err)
	}
	return fmt.Errorf("%s: subject %s: %w", at, subject, err)
}

// explainSilence says why there may be no answer. A missing right is told by the
// server beside the request, not in answer to it.
func (s *Sink) explainSilence(at, subject string, err error) error {
	last := s.nats.LastError()
	if errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), `"`+subject+`"`) {
		return fmt.Errorf("%s: give the user the right to publish on %s: %w", at, subject, wire.Closed(last))
	}
	return fmt.Errorf("%s: no answer on subject %s: look at the server and its disks; "+
		"the user may lack the right to publish there, or to subscribe to _INBOX.>: %w", at, subject, err)
}

// apiHint says what to do about an error of the server; it ends with a colon, or is
// empty.
func apiHint(api *jetstream.APIError) string {
	switch api.ErrorCode {
	case codePurgeFailed:
		return "the stream cannot be purged; it may be sealed or forbid it (deny_purge): allow it, or take the token's messages away by hand: "
	case codeStoreFailed:
		return "the stream cannot store it; it may be full (discard new): raise its limits or free some space: "
	case codeResources:
		return "the server is out of storage: raise its limits or free some space: "
	case jetstream.JSErrCodeStreamNameInUse:
		return "a stream of this name is there and does not take the subject: add the subject to it, or choose another create_stream: "
	}
	return ""
}
