package privacy

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/faceid-ingest/faceid-ingest/pipeline/setting"
)

// Cipher is the algorithm new values are sealed with.
type Cipher string

const (
	// AES256GCM is AES with a 256-bit key in Galois counter mode.
	AES256GCM Cipher = "AES-256-GCM"
	// SM4GCM is SM4 (GB/T 32907) in Galois counter mode, for owners who must
	// use the Chinese national algorithms.
	SM4GCM Cipher = "SM4-GCM"
)

// Ciphers lists every cipher, the default first.
func Ciphers() []Cipher { return []Cipher{AES256GCM, SM4GCM} }

// Config is the "privacy" part of the configuration file.
type Config struct {
	// KeyringFile holds the keys that seal personal fields; empty means
	// <data_dir>/keyring.json, which the first start of an installation that holds
	// nothing makes. Keep a copy of it elsewhere: without it, what is sealed cannot be
	// opened. All daemons of an installation have the same.
	KeyringFile string `yaml:"keyring_file"`
	// Cipher seals new values, AES-256-GCM or SM4-GCM; what another cipher has sealed
	// still opens.
	Cipher Cipher `yaml:"cipher" enum:"AES-256-GCM,SM4-GCM"`
	// Fields is the rule per field: plain, mask, hash, seal, drop, seal+hash or
	// mask+hash. A field that is not listed keeps its default, so that leaving one
	// out never stores more.
	Fields map[Field]Rule `yaml:"fields"`
}

// DefaultConfig seals every personal field, and adds a blind index to names,
// numbers, addresses and phones, which people look records up by.
func DefaultConfig() Config {
	fields := make(map[Field]Rule, len(traits))
	for _, t := range traits {
		fields[t.field] = t.rule
	}
	return Config{Cipher: AES256GCM, Fields: fields}
}

// InvalidFieldError says that one value of the configuration is wrong.
type InvalidFieldError struct {
	// Field is the yaml path inside "privacy", such as "fields.name".
	Field string
	// Problem says what is expected.
	Problem string
}

func (e *InvalidFieldError) Error() string { return e.Field + ": " + e.Problem }

// Validate says what is wrong with the values: a joined error of one
// *InvalidFieldError each, in a stable order. It touches nothing outside the
// process.
func (c Config) Validate() error {
	var problems []error
	for _, p := range setting.Check(c) {
		problems = append(problems, &InvalidFieldError{p.Path, p.Problem})
	}
	for _, f := range slices.Sorted(maps.Keys(c.Fields)) {
		if problem := fieldProblem(f, c.Fields[f]); problem != "" {
			problems = append(problems, &InvalidFieldError{"fields." + string(f), problem})
		}
	}
	return errors.Join(problems...)
}

func fieldProblem(f Field, r Rule) string {
	t, known := traitOf[f]
	if !known {
		return fmt.Sprintf("unknown field; did you mean %q?", string(nearest(f)))
	}
	r, err := ParseRule(string(r))
	if err != nil {
		return err.Error()
	}
	if t.kind == document && (r == Mask || r.hashes()) {
		return fmt.Sprintf("cannot be %s: want %s", r, orList([]Rule{Plain, Seal, Drop}))
	}
	return ""
}

// rule is the rule in force for a field of a valid configuration.
func (c Config) rule(f Field) Rule {
	if r, err := ParseRule(string(c.Fields[f])); err == nil {
		return r
	}
	return traitOf[f].rule
}

// nearest returns the known field that takes the fewest edits to reach.
func nearest(f Field) Field {
	return slices.MinFunc(Fields(), func(a, b Field) int { return edits(f, a) - edits(f, b) })
}

// edits is the Levenshtein distance of a and b in bytes.
func edits(a, b Field) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
