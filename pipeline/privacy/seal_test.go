package privacy_test

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

func withCipher(c privacy.Cipher) privacy.Config {
	cfg := privacy.DefaultConfig()
	cfg.Cipher = c
	return cfg
}

func wantUnknownKey(t *testing.T, err error, id string) {
	t.Helper()
	var unknown *privacy.UnknownKeyError
	if !errors.As(err, &unknown) || unknown.ID != id || !strings.Contains(err.Error(), id) {
		t.Errorf("error %v, want one that names key %s", err, id)
	}
}

func TestSealedValueOpensWhereItBelongs(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		t.Run(string(c), func(t *testing.T) {
			policy := newPolicy(t, withCipher(c), newKeyring(t))
			rapid.Check(t, func(t *rapid.T) {
				value := rapid.OneOf(
					rapid.String(),
					rapid.StringOfN(rapid.RuneFrom([]rune("\x00\u0080汉")), 0, 40, -1),
					rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
				).Draw(t, "value")
				r := &result.Result{
					Product: rapid.SampledFrom(result.Products()).Draw(t, "product"),
					Token:   rapid.String().Draw(t, "token"),
					Raw:     result.NewSensitive(value),
				}
				rec, err := policy.Protect(r)
				if err != nil {
					t.Fatal(err)
				}
				if (rec.Raw.Value == "") != (value == "") {
					t.Fatal("sealed and empty do not agree")
				}
				if value == "" {
					return
				}
				ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Raw}
				opened, err := policy.Open(ref, rec.Raw.Value)
				if err != nil || opened.Reveal() != value {
					t.Fatalf("opened to another value, or %v", err)
				}
			})
		})
	}
}

func TestSealedValueOpensNowhereElse(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	r := someone()
	rec := protect(t, policy, r)
	home := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.AttemptName, Position: 1}
	stored := rec.Attempts[1].Name.Value
	if _, err := policy.Open(home, stored); err != nil {
		t.Fatal(err)
	}
	elsewhere := map[string]func(*privacy.Ref){
		"product":  func(ref *privacy.Ref) { ref.Product = result.EID },
		"token":    func(ref *privacy.Ref) { ref.Token = "T-0002" },
		"field":    func(ref *privacy.Ref) { ref.Field = privacy.Name },
		"no field": func(ref *privacy.Ref) { ref.Field = "" },
		"position": func(ref *privacy.Ref) { ref.Position = 0 },
		"negative": func(ref *privacy.Ref) { ref.Position = -1 },
	}
	for name, move := range elsewhere {
		t.Run(name, func(t *testing.T) {
			ref := home
			move(&ref)
			opened, err := policy.Open(ref, stored)
			if !errors.Is(err, privacy.ErrNotAuthentic) || !opened.IsEmpty() {
				t.Errorf("error %v, want ErrNotAuthentic", err)
			}
			if _, _, err := policy.Reseal(ref, stored); !errors.Is(err, privacy.ErrNotAuthentic) {
				t.Errorf("reseal: error %v, want ErrNotAuthentic", err)
			}
		})
	}
}

func TestOpenRefusesEveryAlteration(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	r := someone()
	stored := protect(t, policy, r).Person.Name.Value
	ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Name}
	for i := range stored {
		for _, c := range []byte{'A', '0', ':', '=', 0xff} {
			if stored[i] == c {
				continue
			}
			altered := stored[:i] + string([]byte{c}) + stored[i+1:]
			if opened, err := policy.Open(ref, altered); err == nil || !opened.IsEmpty() {
				t.Errorf("opened with byte %d replaced by %q", i, c)
			}
		}
		if opened, err := policy.Open(ref, stored[:i]); err == nil || !opened.IsEmpty() {
			t.Errorf("opened when cut at byte %d", i)
		}
	}
	for _, longer := range []string{stored + "A", stored + "\n", stored + "AAAA", stored + "=="} {
		if _, err := policy.Open(ref, longer); err == nil {
			t.Error("opened with something appended")
		}
	}
}

func TestOpenOfWhatIsNotSealed(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	for _, stored := range []string{
		"", "测*", "seal:", "seal:v1:", "seal:v1::", "seal:v2:00000000:AAAA", "seal:v1:0000000G:AAAA",
		"seal:v1:00000000:AAAA", "seal:v1:00000000:" + strings.Repeat("/", 120),
		"seal:v1:00000000:" + strings.Repeat("A", 120), // of cipher 0
	} {
		_, err := policy.Open(privacy.Ref{Field: privacy.Name}, stored)
		if !errors.Is(err, privacy.ErrNotSealed) {
			t.Errorf("%q: error %v, want ErrNotSealed", stored, err)
		}
	}
}

// The length of what is stored must not tell nations or genders apart.
func TestSealedLengthHidesShortValues(t *testing.T) {
	policy := newPolicy(t, privacy.DefaultConfig(), newKeyring(t))
	lengths := map[int]bool{}
	for _, nation := range []string{"汉", "维吾尔", "柯尔克孜"} {
		lengths[len(protect(t, policy, only(privacy.OCRNation, nation)).Document.Nation.Value)] = true
	}
	if len(lengths) != 1 {
		t.Errorf("%d different lengths", len(lengths))
	}
}

func TestKeyRotation(t *testing.T) {
	keys := newKeyring(t)
	policy := newPolicy(t, privacy.DefaultConfig(), keys)
	r := someone()
	ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Name}
	old := keys.List()[0].ID
	before := protect(t, policy, r).Person.Name.Value

	if _, changed, err := policy.Reseal(ref, before); changed || err != nil {
		t.Errorf("reseal under the active key: changed %t, %v", changed, err)
	}
	fresh, err := keys.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	opened, err := policy.Open(ref, before)
	if err != nil || opened.Reveal() != "测试人" {
		t.Errorf("a retired key does not open: %v", err)
	}
	after := protect(t, policy, r).Person.Name.Value
	if !strings.HasPrefix(after, "seal:v1:"+fresh.ID+":") {
		t.Errorf("not sealed under the new key")
	}
	// The right value under the wrong key's name.
	swapped := strings.Replace(before, old, fresh.ID, 1)
	if _, err := policy.Open(ref, swapped); !errors.Is(err, privacy.ErrNotAuthentic) {
		t.Errorf("another key's id: error %v, want ErrNotAuthentic", err)
	}

	resealed, changed, err := policy.Reseal(ref, before)
	if err != nil || !changed {
		t.Fatalf("reseal: changed %t, %v", changed, err)
	}
	if err := keys.Remove(old); err != nil {
		t.Fatal(err)
	}
	if opened, err = policy.Open(ref, resealed); err != nil || opened.Reveal() != "测试人" {
		t.Errorf("the resealed value does not open: %v", err)
	}
	_, err = policy.Open(ref, before)
	wantUnknownKey(t, err, old)
	_, _, err = policy.Reseal(ref, before)
	wantUnknownKey(t, err, old)
}

func TestCipherChange(t *testing.T) {
	keys := newKeyring(t)
	r := someone()
	ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Name}
	stored := protect(t, newPolicy(t, withCipher(privacy.AES256GCM), keys), r).Person.Name.Value

	policy := newPolicy(t, withCipher(privacy.SM4GCM), keys)
	if _, err := policy.Open(ref, stored); err != nil {
		t.Errorf("what the other cipher sealed does not open: %v", err)
	}
	resealed, changed, err := policy.Reseal(ref, stored)
	if err != nil || !changed {
		t.Fatalf("reseal: changed %t, %v", changed, err)
	}
	if opened, err := policy.Open(ref, resealed); err != nil || opened.Reveal() != "测试人" {
		t.Errorf("the resealed value does not open: %v", err)
	}
}

// gmsm's SM4 blocks are not safe for several goroutines; ours must be.
func TestPolicyIsSafeForGoroutines(t *testing.T) {
	for _, c := range privacy.Ciphers() {
		t.Run(string(c), func(t *testing.T) {
			keys := newKeyring(t)
			policy := newPolicy(t, withCipher(c), keys)
			var group sync.WaitGroup
			for i := range 32 {
				group.Go(func() {
					r := someone()
					r.Token = "T-" + strconv.Itoa(i)
					ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.IDCard}
					for range 25 {
						rec, err := policy.Protect(r)
						if err != nil {
							t.Error(err)
							return
						}
						opened, err := policy.Open(ref, rec.Person.IDCard.Value)
						if err != nil || opened.Reveal() != "000000190001010000" {
							t.Errorf("opened to another value, or %v", err)
							return
						}
					}
				})
			}
			if _, err := keys.Rotate(); err != nil {
				t.Error(err)
			}
			group.Wait()
		})
	}
}

func FuzzOpen(f *testing.F) {
	keys := newKeyring(f)
	policy := newPolicy(f, privacy.DefaultConfig(), keys)
	id := keys.List()[0].ID
	r := someone()
	ref := privacy.Ref{Product: r.Product, Token: r.Token, Field: privacy.Name}
	// The keyring is new in each run, so the corpus leaves its id out.
	f.Add(strings.Replace(protect(f, policy, r).Person.Name.Value, id, "ID", 1))
	f.Fuzz(func(t *testing.T, text string) {
		stored := strings.Replace(text, "ID", id, 1)
		opened, err := policy.Open(ref, stored)
		if err != nil {
			if !opened.IsEmpty() {
				t.Fatal("an error with a value")
			}
			return
		}
		if opened.Reveal() != "测试人" {
			t.Fatal("opened what was never sealed")
		}
	})
}
