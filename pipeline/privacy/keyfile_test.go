package privacy

import (
	"io/fs"
	"testing"
)

// It is tested from inside: what a file of root's may be depends on who runs the
// test.
func TestAllowedMode(t *testing.T) {
	tests := []struct {
		name        string
		owner, self int
		want        fs.FileMode
	}{
		{"own file", 1000, 1000, 0o700},
		{"root's own file", 0, 0, 0o700},
		{"a mounted secret", 0, 1000, 0o740},
		{"another's file, read by root", 1000, 0, 0o700},
		{"another's file", 1001, 1000, 0o700},
		{"owner not known", -1, 1000, 0o700},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := allowedMode(tt.owner, tt.self); got != tt.want {
				t.Errorf("%o, want %o", got, tt.want)
			}
		})
	}
}
