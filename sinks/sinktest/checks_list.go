package sinktest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
)

// listed are results that differ in all that a list can filter.
func listed() []*result.Result {
	all := make([]*result.Result, 0, 12)
	for seed := range cap(all) {
		r := Archived(Result(seed))
		r.FetchedAt = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seed*7%12) * 12 * time.Hour)
		r.Account = []string{"main", "second", "%"}[seed%3]
		if r.Product == result.Enhanced {
			r.RuleID = []string{"1", "2"}[seed/2%2]
		}
		if seed%4 == 3 {
			r.Verdict.Passed, r.Verdict.Code, r.Verdict.Message = false, -4006, "动作不符"
		}
		if seed == 5 {
			r.Verdict.Intention, r.Verdict.IntentionCode = "", nil
			r.Assets = r.Assets[:2]
		}
		if seed == 6 { // the check passed, the intention step did not
			failed := int64(-802)
			r.Verdict.Passed, r.Verdict.Code, r.Verdict.IntentionCode = false, 0, &failed
		}
		if seed == 9 { // the same person as in the first
			r.Person = Result(0).Person
		}
		all = append(all, r)
	}
	return all
}

// lists: List finds what matches, the latest first, and shows no personal data.
func lists(t testing.TB, f Factory) {
	t.Helper()
	g := newRigWith(t, f, defaultPolicy(t))
	h := g.open(t, nil)
	keeper, ok := h.Sink.(sinks.RecordKeeper)
	if !ok {
		return
	}
	if got := h.list(t, sinks.Filter{}); len(got) > 0 {
		t.Fatalf("List of an empty destination: %v", got)
	}
	all := listed()
	for _, r := range all {
		h.must(t, r)
	}
	slices.SortFunc(all, func(a, b *result.Result) int { return b.FetchedAt.Compare(a.FetchedAt) })
	for _, c := range listCases(g.policy) {
		h.matches(t, all, c)
	}

	h.erase(t, all[2])
	all = slices.Delete(all, 2, 3)
	h.matches(t, all, listCase{name: "no filter, after an erasure"})
	h.listStops(t, keeper, all)
}

// listCase is a filter and which results it lets through.
type listCase struct {
	name   string
	filter sinks.Filter
	want   func(*result.Result) bool
}

func listCases(policy *privacy.Policy) []listCase {
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	no, yes, code, zero, intention := false, true, int64(-4006), int64(0), int64(-802)
	name := Result(0).Person
	person := func(r *result.Result) bool {
		return policy.Index(privacy.Name, r.Person.Name) == policy.Index(privacy.Name, name.Name)
	}
	cases := []listCase{
		{"no filter", sinks.Filter{}, nil},
		{"From", sinks.Filter{From: day(3)}, func(r *result.Result) bool { return !r.FetchedAt.Before(day(3)) }},
		{"To, which is not in", sinks.Filter{To: day(3)}, func(r *result.Result) bool { return r.FetchedAt.Before(day(3)) }},
		{"a day in another zone", sinks.Filter{From: day(2).In(time.FixedZone("", 8*3600)), To: day(3)}, func(r *result.Result) bool {
			return !r.FetchedAt.Before(day(2)) && r.FetchedAt.Before(day(3))
		}},
		{"Account", sinks.Filter{Account: "second"}, func(r *result.Result) bool { return r.Account == "second" }},
		{"an account that looks like a pattern", sinks.Filter{Account: "%"}, func(r *result.Result) bool { return r.Account == "%" }},
		{"an account with a quote", sinks.Filter{Account: "' OR '1'='1"}, func(*result.Result) bool { return false }},
		{"Product", sinks.Filter{Product: result.EID}, func(r *result.Result) bool { return r.Product == result.EID }},
		{"RuleID", sinks.Filter{RuleID: "2"}, func(r *result.Result) bool { return r.RuleID == "2" }},
		{"Passed", sinks.Filter{Passed: &yes}, func(r *result.Result) bool { return r.Verdict.Passed }},
		{"not Passed", sinks.Filter{Passed: &no}, func(r *result.Result) bool { return !r.Verdict.Passed }},
		{"Code", sinks.Filter{Code: &code}, func(r *result.Result) bool { return r.Verdict.Code == code }},
		{"Code 0", sinks.Filter{Code: &zero}, func(r *result.Result) bool { return r.Verdict.Code == 0 }},
		{"Code of the intention step", sinks.Filter{Code: &intention}, func(r *result.Result) bool {
			return r.Verdict.IntentionCode != nil && *r.Verdict.IntentionCode == intention
		}},
		{"Limit", sinks.Filter{Limit: 3}, nil},
		{"Limit of all", sinks.Filter{Limit: 12}, nil},
		{"several", sinks.Filter{Product: result.EID, Account: "main", Passed: &no, From: day(1)}, func(r *result.Result) bool {
			return r.Product == result.EID && r.Account == "main" && !r.Verdict.Passed
		}},
		{"Index of a value that nobody has", sinks.Filter{
			IndexField: privacy.Name, Index: policy.Index(privacy.Name, result.NewSensitive("无人")),
		}, func(*result.Result) bool { return false }},
	}
	return slices.Concat(cases, indexCases(policy, name, person))
}

// indexCases look for a person by blind indexes.
func indexCases(policy *privacy.Policy, p result.Person, has func(*result.Result) bool) []listCase {
	var cases []listCase //nolint:prealloc // a handful
	for f, v := range map[privacy.Field]result.Sensitive{privacy.Name: p.Name, privacy.IDCard: p.IDCard, privacy.Mobile: p.Mobile} {
		filter := sinks.Filter{IndexField: f, Index: policy.Index(f, v)}
		cases = append(cases, listCase{"Index of " + string(f), filter, has})
		filter.Product = result.EID
		cases = append(cases, listCase{
			"Index of " + string(f) + " and another condition", filter,
			func(r *result.Result) bool { return has(r) && r.Product == result.EID },
		})
	}
	return cases
}

// matches ends the check unless List gives what a filter lets through of all,
// which are in the order of the list.
func (h *handle) matches(t testing.TB, all []*result.Result, c listCase) {
	t.Helper()
	var want []sinks.Summary
	for _, r := range all {
		if (c.want == nil || c.want(r)) && (c.filter.Limit == 0 || len(want) < c.filter.Limit) {
			want = append(want, summaryOf(r))
		}
	}
	got := h.list(t, c.filter)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("List with %s gives %d results, want %d: %s", c.name, len(got), len(want), firstDifference(mustJSON(got), mustJSON(want)))
	}
}

// list collects what List gives.
func (h *handle) list(t testing.TB, filter sinks.Filter) []sinks.Summary {
	t.Helper()
	var all []sinks.Summary
	keeper, ok := h.Sink.(sinks.RecordKeeper)
	if !ok {
		t.Fatal("another sink opened on the destination is no sinks.RecordKeeper")
	}
	for s, err := range keeper.List(t.Context(), filter) {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		if text := fmt.Sprintf("%+v %s", s, mustJSON(s)); leaked([]byte(text)) != "" || strings.Contains(text, "seal:v1:") {
			t.Fatal("List shows a personal value")
		}
		s.FetchedAt = s.FetchedAt.UTC()
		all = append(all, s)
	}
	return all
}

func summaryOf(r *result.Result) sinks.Summary {
	return sinks.Summary{
		Product: r.Product, Token: r.Token, TokenHash: r.TokenHash(), Account: r.Account, RuleID: r.RuleID,
		FetchedAt: r.FetchedAt, Passed: r.Verdict.Passed, Code: r.Verdict.Code, Message: r.Verdict.Message,
		Similarity: r.Verdict.Similarity, Intention: r.Verdict.Intention, IntentionCode: r.Verdict.IntentionCode,
		Assets: len(r.Assets),
	}
}

// listStops ends the check unless a list can be left, and ends with its context.
func (h *handle) listStops(t testing.TB, keeper sinks.RecordKeeper, all []*result.Result) {
	t.Helper()
	for s, err := range keeper.List(t.Context(), sinks.Filter{}) {
		if err != nil || s.Token != all[0].Token {
			t.Fatalf("the first of a list is not the latest result: %v", err)
		}
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range keeper.List(ctx, sinks.Filter{}) {
		last = err
	}
	wantCancelled(t, last)
}
