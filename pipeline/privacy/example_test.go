package privacy_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func ExamplePolicy_Protect() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(dir, "keyring.json"))
	if err != nil {
		panic(err)
	}
	cfg := privacy.DefaultConfig()
	cfg.Fields[privacy.Name] = privacy.Mask
	cfg.Fields[privacy.Mobile] = privacy.Drop
	policy, err := privacy.NewPolicy(cfg, keys)
	if err != nil {
		panic(err)
	}

	rec, err := policy.Protect(&result.Result{
		Product: result.Enhanced,
		Token:   "T-0001",
		Person: result.Person{
			Name:   result.NewSensitive("测试人"),
			IDCard: result.NewSensitive("000000190001010000"),
			Mobile: result.NewSensitive("10000000000"),
		},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(rec.Person.Name.Value)
	fmt.Println(privacy.IsSealed(rec.Person.IDCard.Value))
	fmt.Println(rec.Person.IDCard.Index == policy.Index(privacy.IDCard, result.NewSensitive("000000190001010000")))
	fmt.Println(rec.Person.Mobile.Value == "")
	// Output:
	// 测*
	// true
	// true
	// true
}

func ExamplePolicy_Open() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(dir, "keyring.json"))
	if err != nil {
		panic(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		panic(err)
	}
	rec, err := policy.Protect(&result.Result{
		Product: result.Enhanced,
		Token:   "T-0001",
		Person:  result.Person{Name: result.NewSensitive("测试人")},
	})
	if err != nil {
		panic(err)
	}

	home := privacy.Ref{Product: result.Enhanced, Token: "T-0001", Field: privacy.Name}
	name, err := policy.Open(home, rec.Person.Name.Value)
	fmt.Println(name, err) // a Sensitive prints nothing of itself

	// In another token's row it does not open.
	elsewhere := privacy.Ref{Product: result.Enhanced, Token: "T-0002", Field: privacy.Name}
	_, err = policy.Open(elsewhere, rec.Person.Name.Value)
	fmt.Println(err)
	// Output:
	// [redacted] <nil>
	// open name: the sealed value was altered or belongs elsewhere
}

func ExamplePolicy_SealMedia() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	keys, err := privacy.OpenOrCreateKeyring(filepath.Join(dir, "keyring.json"))
	if err != nil {
		panic(err)
	}
	policy, err := privacy.NewPolicy(privacy.DefaultConfig(), keys)
	if err != nil {
		panic(err)
	}
	photo := picture("the bytes of a photo") // in the daemon, an asset's Content and Digest
	ref := privacy.MediaRef{
		Product: result.Enhanced, TokenHash: result.TokenHash(result.Enhanced, "T-0001"), Field: "BestFrame.BestFrame",
	}
	media, err := policy.SealMedia(ref, described(photo), photo)
	if err != nil {
		panic(err)
	}
	sealed, err := media.Open() // a sink stores what this gives
	if err != nil {
		panic(err)
	}
	opened, err := policy.OpenMedia(ref, sealed)
	if err != nil {
		panic(err)
	}
	text, err := io.ReadAll(opened)
	fmt.Println(media.Size(), string(text), err)
	// Output:
	// 104 the bytes of a photo <nil>
}
