package privacy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
)

func TestDefaultConfigCoversEveryField(t *testing.T) {
	cfg := privacy.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, f := range privacy.Fields() {
		if !f.Valid() {
			t.Errorf("%s is listed and not valid", f)
		}
		if r := cfg.Fields[f]; r != privacy.Seal && r != privacy.SealHash {
			t.Errorf("%s is %s by default, want it sealed", f, r)
		}
	}
	for _, f := range []privacy.Field{privacy.Name, privacy.IDCard, privacy.Mobile, privacy.OCRName, privacy.OCRIDCard, privacy.OCRAddress} {
		if cfg.Fields[f] != privacy.SealHash {
			t.Errorf("%s is %s by default, want seal+hash", f, cfg.Fields[f])
		}
	}
}

func TestParseRule(t *testing.T) {
	for _, r := range privacy.Rules() {
		if got, err := privacy.ParseRule(string(r)); got != r || err != nil {
			t.Errorf("ParseRule(%q) = %q, %v", r, got, err)
		}
	}
	for text, want := range map[string]privacy.Rule{"hash+seal": privacy.SealHash, "hash+mask": privacy.MaskHash} {
		if got, err := privacy.ParseRule(text); got != want || err != nil {
			t.Errorf("ParseRule(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Seal", "seal ", "seal+mask", "seal+seal", "hash+", "hash+hash", "plain+hash"} {
		_, err := privacy.ParseRule(text)
		if err == nil {
			t.Errorf("ParseRule(%q) succeeded", text)
		} else if !strings.Contains(err.Error(), "want plain, mask, hash, seal, drop, seal+hash or mask+hash") {
			t.Errorf("ParseRule(%q) does not list the rules: %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name, yaml string
		field      string
		problem    string
	}{
		{"cipher", "cipher: AES", "cipher", "must be AES-256-GCM or SM4-GCM"},
		{"misspelled field", "fields: {nam: seal}", "fields.nam", `did you mean "name"?`},
		{"another product's spelling", "fields: {idcard: seal}", "fields.idcard", `did you mean "id_card"?`},
		{"rule", "fields: {name: sealed}", "fields.name", `unknown rule "sealed"`},
		{"no rule", "fields: {name: }", "fields.name", `unknown rule ""`},
		{"raw masked", "fields: {raw: mask}", "fields.raw", "cannot be mask: want plain, seal or drop"},
		{"raw hashed", "fields: {raw: hash+seal}", "fields.raw", "cannot be seal+hash"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := decode(t, tt.yaml).Validate()
			var field *privacy.InvalidFieldError
			if !errors.As(err, &field) {
				t.Fatalf("error %v, want an InvalidFieldError", err)
			}
			if field.Field != tt.field || !strings.Contains(field.Problem, tt.problem) {
				t.Errorf("got %q: %q", field.Field, field.Problem)
			}
		})
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	err := decode(t, "cipher: x\nfields: {zzz: seal, name: x}").Validate()
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) != 3 {
		t.Fatalf("error %v, want three problems", err)
	}
}

func TestConfigFromYAML(t *testing.T) {
	cfg := decode(t, "keyring_file: k.json\ncipher: SM4-GCM\nfields: {name: mask, mobile: hash+seal, raw: drop}")
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if cfg.KeyringFile != "k.json" || cfg.Cipher != privacy.SM4GCM {
		t.Errorf("decoded %+v", cfg)
	}
	policy := newPolicy(t, cfg, newKeyring(t))
	for f, want := range map[privacy.Field]privacy.Rule{
		privacy.Name: privacy.Mask, privacy.Mobile: privacy.SealHash, privacy.Raw: privacy.Drop, privacy.IDCard: privacy.SealHash,
	} {
		if got := policy.Rule(f); got != want {
			t.Errorf("%s is %s, want %s", f, got, want)
		}
	}
}

// A rule of the wrong shape is told with its line.
func TestYAMLErrorsHaveAPosition(t *testing.T) {
	cfg := privacy.DefaultConfig()
	err := yaml.UnmarshalWithOptions([]byte("cipher: SM4-GCM\nfields:\n  name: {seal: true}\n"), &cfg, yaml.Strict())
	if err == nil || !strings.Contains(err.Error(), "[3:") {
		t.Errorf("error %v, want one about line 3", err)
	}
}

func decode(t *testing.T, text string) privacy.Config {
	t.Helper()
	cfg := privacy.DefaultConfig()
	if err := yaml.UnmarshalWithOptions([]byte(text), &cfg, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return cfg
}
