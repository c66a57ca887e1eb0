package sinktest_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGoodSinkPasses(t *testing.T) { sinktest.Run(t, factory("")) }

// Every check is needed: there is a bug that it finds.
func TestBadSinkFails(t *testing.T) {
	found := map[string]bool{}
	for _, test := range []struct {
		bug         bug
		check, says string
	}{
		{"counts calls", "Idempotent", "after five calls"},
		{"reverses receipts", "Idempotent", "in the order of assets"},
		{"lies about digests", "Idempotent", "SHA-256"},
		{"changes the result", "Idempotent", "changed the result"},
		{"loses the record", "Idempotent", "no record"},
		{"numbers its messages", "Idempotent", "different ids"},
		{"sends different bodies", "Idempotent", "one id and different bodies"},
		{"sends nothing", "Idempotent", "0 messages"},
		{"names objects by token", "Idempotent", "the token"},
		{"puts sealed values elsewhere", "IdempotentSealed", "a stored value of mobile"},
		{"names objects by time", "Redelivered", "after another fetch"},
		{"adds to old rows", "Replaced", "the record differs"},
		{"takes one call at a time", "ConcurrentOneToken", "busy"},
		{"takes one call at a time", "ConcurrentReplicas", "busy"},
		{"mixes tokens", "ConcurrentTokens", ""},
		{"writes the manifest first", "Crash", "claims to be complete"},
		{"writes half a record", "Crash", "claims to be complete"},
		{"leaves its leftovers", "Crash", "incoming"},
		{"has no fault points", "Crash", "no steps"},
		{"keeps an outdated manifest", "CrashWhileReplacing", "claims to be complete"},
		{"takes every error for final", "ErrorAtEveryStep", "permanent"},
		{"cannot be cancelled", "CancelledBefore", "class"},
		{"calls cancellation an error", "CancelledAtEveryStep", "transient"},
		{"reads on", "CancelledWhileReading", "more bytes"},
		{"gives up for good", "ErrorClasses", "permanent"},
		{"says nothing helpful", "ErrorClasses", "does not say"},
		{"Check sees nothing", "ErrorClasses", "Check says"},
		{"does not heal", "ErrorClasses", "is over"},
		{"quotes values in errors", "ErrorClasses", "personal value"},
		{"cuts large assets", "LargeAsset", ""},
		{"loses empty assets", "EmptyAsset", "nothing is stored"},
		{"has no empty manifest", "NoAssets", "no manifest"},
		{"loses assets in COS", "OnlyCOSAssets", "location"},
		{"fails for what is missing", "MissingAsset", "class"},
		{"gives up at once what is missing", "MissingAsset", "class"},
		{"waits for ever for what is missing", "MissingAsset", "deliver a result"},
		{"keeps quiet about what is missing", "MissingAsset", "say of a missing asset"},
		{"never looks again for what is missing", "MissingAsset", "location"},
		{"believes what it reads", "WrongContent", "was archived"},
		{"tidies names", "HostileValues", "differs from the asset"},
		{"stores values in the clear", "NoPersonalData", "holds a personal value"},
		{"logs values", "Idempotent", "in the log"},
		{"erases no objects", "Erased", "there are objects"},
		{"erases no manifest", "Erased", "there is a manifest"},
		{"erases no record", "Erased", "there is a record"},
		{"keeps the person in its dump", "Erased", "the person's name is still in the dump"},
		{"leaves no tombstone", "Erased", "want sinks.ErrErased"},
		{"forgets tombstones", "Erased", "opened anew"},
		{"calls erased tokens permanent", "Erased", "want sinks.ErrErased"},
		{"counts erasures", "Erased", "after Erase of an erased token"},
		{"erases the neighbour", "Erased", "after Erase of other tokens"},
		{"erases only what is there", "Erased", "erase a token"},
		{"lists erased tokens", "Erased", "Keys lists the token"},
		{"looks for the tombstone too early", "EraseWhileDelivering", "after Erase while others delivered"},
		{"removes before it puts the tombstone up", "EraseAtEveryStep", "claims to be complete"},
		{"takes a tombstone for the end", "EraseAtEveryStep", "and another Erase"},
		{"takes every error for final", "EraseAtEveryStep", "permanent"},
		{"has no fault points", "EraseAtEveryStep", "no steps"},
		{"cannot be cancelled", "EraseCancelledBefore", "class"},
		{"does not tell of erasures", "EraseNotified", "one for its erasure"},
		{"numbers its erasures", "EraseNotified", "messages of 3 ids"},
		{"tells of known tokens only", "EraseNotified", "no message of its own"},
		{"names the token in erasures", "EraseNotified", "the token is in the message"},
		{"holds nothing it says", "EraseReports", "Holds says"},
		{"looks at what was there when it is gone", "EraseReports", "was there, Holds said"},
		{"puts up a tombstone anew", "EraseReports", "of a token erased just now"},
		{"keeps a reason as it comes", "EraseReports", "for a long reason"},
		{"lists in any order", "Keys", "want"},
		{"lists the key it was given", "Keys", "want"},
		{"lists what is not whole", "Keys", "has no manifest"},
		{"lists once", "Keys", "the first keys"},
		{"lists whatever its context says", "Keys", "class"},
		{"reads back another manifest", "ReadBack", "differs from the receipts"},
		{"reads back other bytes", "ReadBack", "which differ"},
		{"reads back another record", "ReadBack", "the record differs"},
		{"finds what is not there", "ReadBack", "want sinks.ErrNotFound"},
		{"opens any receipt", "ReadBack", "in no manifest gives something"},
		{"reseals nothing", "Resealed", "changed nothing"},
		{"reseals again and again", "Resealed", "want false"},
		{"reseals a part", "Resealed", "removal of the old key"},
		{"removes the old form first", "ResealAtEveryStep", "after a crash at step"},
		{"takes every error for final", "ResealAtEveryStep", "permanent"},
		{"forgets the keyring", "Keyring", "Keyring says"},
		{"takes any keyring", "Keyring", "want sinks.ErrOtherKeyring"},
		{"takes any keyring", "KeyringOnce", "of 4 first marks at once"},
		{"counts the active key", "KeyUse", "KeyUse after"},
		{"lists the oldest first", "List", "no filter"},
		{"takes To for in", "List", "with To"},
		{"ignores the index", "List", "with Index"},
		{"ignores the limit", "List", "with Limit"},
		{"lists values", "List", "shows a personal value"},
		{"Check leaves something", "Check", "after Check"},
		{"Check ignores its context", "Check", "cancelled Check"},
		{"has another name", "Close", "the name is"},
		{"complains about Close", "Close", "already closed"},
	} {
		t.Run(string(test.bug)+"/"+test.check, func(t *testing.T) {
			failed, said := verdict(t, sinktest.Checks()[test.check], factory(test.bug))
			if !failed || !strings.Contains(said, test.says) {
				t.Errorf("failed: %v; the suite says %q, want %q in it", failed, said, test.says)
			}
		})
		found[test.check] = true
	}
	for name := range sinktest.Checks() {
		if !found[name] {
			t.Errorf("no bug is known that the check %s finds", name)
		}
	}
}

func TestFactoryWithoutTroublesFails(t *testing.T) {
	f := factory("")
	f.Troubles = nil
	if failed, _ := verdict(t, sinktest.Checks()["ErrorClasses"], f); !failed {
		t.Error("a factory without troubles passes")
	}
}

func TestNilFaultsPass(t *testing.T) {
	var faults *sinktest.Faults
	if err := errors.Join(faults.Step(), new(sinktest.Faults).Step()); err != nil {
		t.Error(err)
	}
}

// Results have every field set, so that a sink which loses one is noticed.
func TestResultIsFull(t *testing.T) {
	full := map[string]bool{}
	for seed := range 2 {
		for path, set := range leaves(reflect.ValueOf(*sinktest.Archived(sinktest.Result(seed))), "") {
			full[path] = full[path] || set
		}
	}
	for path, set := range full {
		// A passed check has the code 0 and can be read, and what is stored is not missing.
		if !set && path != ".Verdict.Code" && path != ".Verdict.Unreadable" && path != ".Assets[].Stored[].Missing" {
			t.Errorf("no result has %s", path)
		}
	}
}

// leaves tells of each field whether some value has it.
func leaves(v reflect.Value, path string) map[string]bool {
	if _, leaf := v.Interface().(interface{ IsZero() bool }); leaf || v.Type() == reflect.TypeFor[result.Sensitive]() {
		return map[string]bool{path: !v.IsZero()}
	}
	all := map[string]bool{}
	add := func(more map[string]bool) {
		for p, set := range more {
			all[p] = all[p] || set
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			add(leaves(v.Field(i), path+"."+v.Type().Field(i).Name))
		}
	case reflect.Slice:
		for i := range v.Len() {
			add(leaves(v.Index(i), path+"[]"))
		}
	default:
		all[path] = !v.IsZero()
	}
	return all
}

func TestSeedsDiffer(t *testing.T) {
	tokens, secrets := map[string]bool{}, map[string]bool{}
	for seed := range 50 {
		tokens[sinktest.Result(seed).Token] = true
		for _, s := range sinktest.Secrets(seed) {
			if secrets[s] && !strings.HasPrefix(s, "000000") {
				t.Errorf("a value of seed %d belongs to another seed, too", seed)
			}
			secrets[s] = true
		}
		if !reflect.DeepEqual(sinktest.Result(seed), sinktest.Result(seed)) {
			t.Errorf("two results of seed %d differ", seed)
		}
	}
	if len(tokens) != 50 {
		t.Errorf("%d tokens of 50 seeds", len(tokens))
	}
}

func ExampleResult() {
	r := sinktest.Result(1)
	fmt.Println(r.Product, r.Token, r.Person.Name, len(r.Assets), "assets")
	// Output: eid TOKEN-00000001-ABCD [redacted] 5 assets
}
