package config_test

import (
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// What is no YAML is refused with its line, the key, the character and what to do, and
// without the value, which may be a secret.
func TestSyntax(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"too far left", "worker:\n  slots: 1\n ack_wait: hidden\n", `c.yaml:3:2: is not valid YAML: key "ack_wait" begins in column 2, and what it could belong to above in 1 or 3: keys of one mapping begin in the same column`},
		{"in an item", "accounts:\n  - name: a\n    secret_id: b\n   secret_key: hidden\n", `c.yaml:4:4: is not valid YAML: key "secret_key" begins in column 4, and what it could belong to above in 1 or 3 or 5`},
		{"tab", "worker:\n\tslots: hidden\n", `c.yaml:2:1: is not valid YAML: key "slots" is indented by a tab: YAML takes only spaces there`},
		{"tab behind spaces", "worker:\n  slots: 1\n  \tack_wait: hidden\n", `c.yaml:3:3: is not valid YAML: key "ack_wait" is indented by a tab`},
		{"twice", "worker:\n  slots: 1\n  slots: hidden\n", `c.yaml:3:3: is not valid YAML: key "slots" is there twice, first in line 2: take one`},
		{"twice at the top", "log: {level: info}\nspool: {}\nlog: {format: hidden}\n", `c.yaml:3:1: is not valid YAML: key "log" is there twice, first in line 1`},
		{"at sign", "nats:\n  password: @hidden\n", `c.yaml:2:13: is not valid YAML: key "password" has a value that begins with the character @, which YAML keeps for itself: put the value into quotes`},
		{"backquote", "nats:\n  password: `hidden`\n", "the character `, which"},
		{"quote", "nats:\n  password: \"hidden\n", `key "password" has a value that begins with the character ", and it is not closed`},
		{"colon in a value", "nats:\n  password: hidden: x\n", `key "password" has a value in which ": " or "- " would begin something new: put the value into quotes`},
		{"bracket not closed", "worker: {slots: 1\nlog: {level: hidden}\n", `is not closed: put the missing "]" or "}"`},
		{"bracket not opened", "log: {level: info}}\n", `key "log" has the character }, which nothing before opens`},
		{"no colon", "log\n  level: hidden\n", `key "log" has no ":"`},
		{"no space", "log:\n  level:hidden\n", `with a space behind the colon`},
		{"full-width colon", "log: {level：hidden}\n", `key "level" in log has a full-width colon, where ":" with a space behind it is meant (U+FF1A)`},
		{"full-width colon of a mapping", "log：\n  level: hidden\n", `key "log" has a full-width colon`},
		{"no-break space", "log:\n\u00a0\u00a0level: hidden\n", "a no-break space, where a space is meant (U+00A0)"},
		{"list and mapping", "accounts:\n  name: a\n  - secret_id: hidden\n", "c.yaml:3:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := config.Parse("c.yaml", []byte(test.text), func(string) (string, bool) { return "", false })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("no %q in\n%v", test.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("the value is repeated: %v", err)
			}
		})
	}
	if _, err := config.Parse("c.yaml", []byte("\ufefflog: {level: info}\n"), nil); err != nil {
		t.Errorf("a byte order mark: %v", err)
	}
}
