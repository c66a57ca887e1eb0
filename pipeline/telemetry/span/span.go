// Package span marks the steps of an event's way as OpenTelemetry spans.
//
// A step is a child of the span in its context and goes wherever that one goes, so
// that nothing but the context is passed around; without one, nothing happens.
// Attributes are those below. None holds anything of a person but the token, and no
// span holds an error's text: drivers and the API may repeat in it what they were sent.
package span

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the name of the tracer.
const Scope = "github.com/faceid-ingest/faceid-ingest"

// The attributes of spans.
const (
	Account = attribute.Key("faceid.account")
	Product = attribute.Key("faceid.product")
	Lane    = attribute.Key("faceid.lane")
	Token   = attribute.Key("faceid.token")
	// Attempt is which delivery of the event it is, from 1.
	Attempt = attribute.Key("faceid.attempt")
	// Outcome is what became of the delivery, a telemetry.Outcome.
	Outcome = attribute.Key("faceid.outcome")
	Sink    = attribute.Key("faceid.sink")
	// Action and RequestID are those of a call of the API.
	Action    = attribute.Key("faceid.action")
	RequestID = attribute.Key("faceid.request_id")
	// Media is how many media an answer has.
	Media = attribute.Key("faceid.media")
	// ErrorClass is the class of an error, ErrorCode the API's code of it.
	ErrorClass = attribute.Key("error.type")
	ErrorCode  = attribute.Key("faceid.error_code")
)

// Start starts a step inside the program; whoever started it ends it.
func Start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return tracer(ctx).Start(ctx, name, trace.WithAttributes(attributes...))
}

// StartCall is Start for a request to another program.
func StartCall(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return tracer(ctx).Start(ctx, name, trace.WithAttributes(attributes...), trace.WithSpanKind(trace.SpanKindClient))
}

func tracer(ctx context.Context) trace.Tracer {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(Scope)
}

// Fail marks a step as failed. class comes from a closed set; code, which may be
// empty, is the API's.
func Fail(s trace.Span, class, code string) {
	s.SetStatus(codes.Error, class)
	s.SetAttributes(ErrorClass.String(class))
	if code != "" {
		s.SetAttributes(ErrorCode.String(code))
	}
}
