package privacy_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func newKeyring(t testing.TB) *privacy.Keyring {
	t.Helper()
	keys, err := privacy.CreateKeyring(filepath.Join(t.TempDir(), "keyring.json"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newPolicy(t testing.TB, cfg privacy.Config, keys *privacy.Keyring) *privacy.Policy {
	t.Helper()
	policy, err := privacy.NewPolicy(cfg, keys)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// defaults is the default policy with some rules changed.
func defaults(rules map[privacy.Field]privacy.Rule) privacy.Config {
	cfg := privacy.DefaultConfig()
	for f, r := range rules {
		cfg.Fields[f] = r
	}
	return cfg
}

// everywhere gives every field one rule; raw keeps its own where it cannot have it.
func everywhere(r privacy.Rule) privacy.Config {
	cfg := privacy.DefaultConfig()
	for f := range cfg.Fields {
		cfg.Fields[f] = r
	}
	if cfg.Validate() != nil {
		delete(cfg.Fields, privacy.Raw)
	}
	return cfg
}

func protect(t testing.TB, policy *privacy.Policy, r *result.Result) *privacy.Record {
	t.Helper()
	rec, err := policy.Protect(r)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// someone is a result with an invented person.
func someone() *result.Result {
	return &result.Result{
		Product: result.Enhanced, Account: "main", Token: "T-0001", RuleID: "1",
		FetchedAt: time.Date(2026, 11, 24, 16, 30, 0, 0, time.FixedZone("", 8*3600)),
		Person: result.Person{
			Name:   result.NewSensitive("测试人"),
			IDCard: result.NewSensitive("000000190001010000"),
			Mobile: result.NewSensitive("10000000000"),
		},
		Attempts: []result.Attempt{
			{Name: result.NewSensitive("测试人")},
			{Name: result.NewSensitive("测试人")},
		},
		Intention: result.Intention{Answers: []result.Sensitive{
			result.NewSensitive("我同意"), result.NewSensitive("是的"),
		}},
	}
}
