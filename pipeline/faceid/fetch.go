package faceid

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/extract"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// opened is an answer without an error and without encryption.
type opened struct {
	// members are those of the Response object, with handles in place of media.
	members map[string]json.RawMessage
	media   map[string]extract.Medium
}

// keyRefused is what the service says when it cannot open the key of a request.
const keyRefused = "FailedOperation.DecryptSystemError"

// fetch makes one call and opens its answer. Where the service does not open the
// request's key it tries once more with a new one, for a kept data key may be what
// is wrong (FACTS §3.1).
func (c *Client) fetch(ctx context.Context, q Query, batch *spool.Batch) (*opened, error) {
	answer, err := c.fetchOnce(ctx, q, batch)
	var refused *Error
	if errors.As(err, &refused) && refused.Code == keyRefused && c.cfg.Encryption.Forget != nil {
		c.cfg.Encryption.Forget()
		answer, err = c.fetchOnce(ctx, q, batch)
	}
	return answer, err
}

// fetchOnce waits for the limiter, and tells it when the API throttles.
func (c *Client) fetchOnce(ctx context.Context, q Query, batch *spool.Batch) (*opened, error) {
	if c.cfg.Limit == nil {
		return c.call(ctx, q, batch)
	}
	if err := c.cfg.Limit.Wait(ctx, q.Priority); err != nil {
		return nil, &Error{Class: Canceled, Err: err}
	}
	answer, err := c.call(ctx, q, batch)
	var refused *Error
	if errors.As(err, &refused) && refused.Class == Throttled {
		c.cfg.Limit.Throttled(refused.After)
	}
	return answer, err
}

func (c *Client) call(ctx context.Context, q Query, batch *spool.Batch) (*opened, error) {
	session, err := c.session(ctx, q.Product)
	if err != nil {
		return nil, err
	}
	if session != nil {
		defer session.Wipe()
	}
	action, params := q.action()
	maps.Copy(params, c.cfg.Encryption.parameters(session))
	doc, members, err := c.ask(ctx, action, params, batch)
	if err != nil {
		return nil, err
	}
	ctx, step := span.Start(ctx, "open")
	began := time.Now()
	answer, err := c.open(ctx, doc, members, session, batch)
	c.cfg.Observe(ctx, "open", time.Since(began))
	endStep(step, err)
	return answer, err
}

// ask sends one request, and returns the members of an answer that is no error.
func (c *Client) ask(ctx context.Context, action string, params map[string]any, batch *spool.Batch) (_ *extract.Document, members map[string]json.RawMessage, err error) {
	ctx, step := span.StartCall(ctx, action, span.Action.String(action))
	defer func() {
		step.SetAttributes(span.RequestID.String(shownID(requestIDOf(members))))
		endStep(step, err)
	}()
	doc, err := c.caller.send(ctx, action, params, batch)
	if err != nil {
		return nil, nil, err
	}
	c.cfg.Observe(ctx, "extract", doc.Took)
	if members, err = splitResponse(doc.JSON); err != nil {
		return nil, nil, err
	}
	return doc, members, namePermission(apiError(members), "faceid:"+action)
}

// endStep ends a step that ended with err, of which it keeps the class and the API's
// code.
func endStep(step trace.Span, err error) {
	if err != nil {
		var known *Error
		code := ""
		if errors.As(err, &known) {
			code = known.Code
		}
		span.Fail(step, string(ClassOf(err)), code)
	}
	step.End()
}

// fetchParts asks for one part after the other and puts their answers together:
// tooLarge is what the API said to the whole. A part that is too large itself
// cannot be had.
func (c *Client) fetchParts(ctx context.Context, q Query, batch *spool.Batch, tooLarge error) (*opened, error) {
	parts := q.parts()
	if len(parts) == 1 {
		return nil, tooLarge
	}
	whole := &opened{map[string]json.RawMessage{}, map[string]extract.Medium{}}
	for _, part := range parts {
		one, err := c.fetch(ctx, part, batch)
		if err != nil {
			return nil, err
		}
		whole.add(one)
	}
	return whole, nil
}

// add takes what other has and o has not: the answer to a part has null for the
// others. A flag that any part sets is set.
func (o *opened) add(other *opened) {
	for name, value := range other.members {
		if isNothing(o.members[name]) || string(value) == "true" {
			o.members[name] = value
		}
	}
	maps.Copy(o.media, other.media)
}

// isNothing tells whether a value says nothing: parts that were not asked for come
// as null, "", an empty list or an object of nothing but those (FACTS §1.2).
func isNothing(value json.RawMessage) bool {
	value = bytes.TrimSpace(value)
	switch string(value) {
	case "", "null", `""`, "[]", "{}":
		return true
	}
	if value[0] != '{' {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil {
		return false
	}
	for _, member := range members {
		if !isNothing(member) {
			return false
		}
	}
	return true
}

var errUnexpected = errors.New("the answer does not have the documented form")

// splitResponse returns the members of the Response object of an answer.
func splitResponse(doc []byte) (map[string]json.RawMessage, error) {
	var envelope struct{ Response map[string]json.RawMessage }
	if err := json.Unmarshal(doc, &envelope); err != nil || envelope.Response == nil {
		return nil, &Error{Class: Transient, Err: errUnexpected}
	}
	return envelope.Response, nil
}

// apiError returns the error that an answer holds, if it does.
func apiError(members map[string]json.RawMessage) error {
	var refusal struct{ Code text }
	if isNothing(members["Error"]) {
		return nil
	}
	if err := json.Unmarshal(members["Error"], &refusal); err != nil || refusal.Code == "" {
		return &Error{Class: Transient, Err: errUnexpected}
	}
	return newAPIError(string(refusal.Code), requestIDOf(members))
}

func requestIDOf(members map[string]json.RawMessage) string {
	var id text
	if err := json.Unmarshal(members["RequestId"], &id); err != nil {
		return ""
	}
	return plainASCII(string(id))
}
