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
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/pipeline/spool"
	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry/span"
)

// opened is an answer without an error and without encryption.
type opened struct {
	// members are those of the Response object, with handles in place of media.
	members map[string]json.RawMessage
	media   map[string]extract.Medium
	// odd are fields outside of the model that are not of their documented type.
	odd []string
	// damaged are media whose base64 cannot be decoded.
	damaged []*extract.FieldError
}

// encryptionField is the member that says how an answer is encrypted.
const encryptionField = "Encryption"

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
		span.Fail(step, string(ClassOf(err)), apiCodeOf(err))
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
	whole := &opened{members: map[string]json.RawMessage{}, media: map[string]extract.Medium{}}
	for _, part := range parts {
		one, err := c.fetch(ctx, part, batch)
		if part.Product == result.EID && part.InfoType == partVideo && refusesPart(err) {
			// The documents disagree on whether eid has a video.
			c.cfg.Log.Info("the service refuses the video part of an eid result; the result is whole without it", "code", apiCodeOf(err))
			continue
		}
		if err != nil {
			return nil, err
		}
		whole.add(one)
	}
	return whole, nil
}

// refusesPart reports whether the service answered that it will not send a part.
func refusesPart(err error) bool {
	switch ClassOf(err) {
	case RequestTrouble, Permanent, TooLarge:
		return err != nil && apiCodeOf(err) != ""
	default:
		return false
	}
}

// apiCodeOf returns the API's code of an error, "" if it has none.
func apiCodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
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
	o.odd = append(o.odd, other.odd...)
	o.damaged = append(o.damaged, other.damaged...)
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

// splitResponse returns the members of the Response object of an answer, or those of an
// answer from which a gateway took that object off.
func splitResponse(doc []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(doc, &members); err != nil || members == nil {
		return nil, failure(Transient, "%w: %d bytes that are no JSON object, as from a proxy or gateway in between", errUnexpected, len(doc))
	}

	inner, wrapped := members["Response"]
	if !wrapped {
		for _, name := range []string{"Text", "EncryptedBody", "Error", "RequestId"} {
			if _, ok := members[name]; ok {
				return members, nil
			}
		}
		return nil, failure(Transient, "%w: a JSON object without Response, as from a proxy or gateway in between", errUnexpected)
	}
	members = nil
	if err := json.Unmarshal(inner, &members); err != nil || members == nil {
		return nil, failure(Transient, "%w: Response is no object", errUnexpected)
	}
	return members, nil
}

// apiError returns the error that an answer holds, if it does.
func apiError(members map[string]json.RawMessage) error {
	if isNothing(members["Error"]) {
		return nil
	}
	var refusal struct{ Code any }
	if err := json.Unmarshal(members["Error"], &refusal); err != nil {
		return failure(Transient, "%w: Error is no object", errUnexpected)
	}
	code := new(filler).text(refusal.Code, "")
	if code == "" {
		return failure(Transient, "%w: Error has no code", errUnexpected)
	}
	return newAPIError(code, requestIDOf(members))
}

func requestIDOf(members map[string]json.RawMessage) string {
	decoder := json.NewDecoder(bytes.NewReader(members["RequestId"]))
	decoder.UseNumber()
	var id any
	if err := decoder.Decode(&id); err != nil {
		return ""
	}
	return plainASCII(new(filler).text(id, ""))
}
