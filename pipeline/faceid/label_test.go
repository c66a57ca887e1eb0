package faceid_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Whatever an endpoint sends becomes one of few labels.
func TestCodeLabel(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "ok"},
		{&faceid.Error{Class: faceid.Throttled, Code: "RequestLimitExceeded"}, "RequestLimitExceeded"},
		{fmt.Errorf("pull: %w", &faceid.Error{Class: faceid.Permanent, Code: "InvalidParameterValue.BizTokenExpired"}), "InvalidParameterValue.BizTokenExpired"},
		{&faceid.Error{Class: faceid.Transient, Code: "FailedOperation.SomethingNew"}, "other"},
		{&faceid.Error{Class: faceid.Transient, Code: "x\"} 1\nevil"}, "other"},
		{&faceid.Error{Class: faceid.Transient, Err: errors.New("connection refused")}, "none"},
		{context.Canceled, "none"},
	} {
		if got := faceid.CodeLabel(tt.err); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestVerdictLabel(t *testing.T) {
	code := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		name    string
		verdict result.Verdict
		want    string
	}{
		{"passed", result.Verdict{Passed: true}, "0"},
		{"passed with intention", result.Verdict{Passed: true, Intention: result.IntentionNod, IntentionCode: code(0)}, "0"},
		{"the face", result.Verdict{Code: 2016}, "2016"},
		{"the face, before an intention", result.Verdict{Code: 2016, Intention: result.IntentionNod}, "2016"},
		{"not documented", result.Verdict{Code: 987654}, "other"},
		{"neither passed nor a code", result.Verdict{}, "other"},
		{"an intention step unknown", result.Verdict{Intention: result.IntentionUnknown, IntentionCode: code(987654)}, "other"},
	} {
		if got := faceid.VerdictLabel(tt.verdict); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// Every documented code has a label of its own.
	labels := map[string]bool{}
	for _, c := range faceid.ResultCodes() {
		v := result.Verdict{Code: c.Code}
		switch c.Step {
		case faceid.StepIntention:
			v = result.Verdict{Intention: result.IntentionQuestion, IntentionCode: &c.Code}
		case faceid.StepReadAloud:
			v = result.Verdict{Intention: result.IntentionReadAloud, IntentionCode: &c.Code}
		}
		label := faceid.VerdictLabel(v)
		if c.Code != 0 && (labels[label] || label == "other") {
			t.Errorf("%s %d has the label %q", c.Step, c.Code, label)
		}
		labels[label] = true
	}
	t.Logf("%d labels", len(labels))
}
