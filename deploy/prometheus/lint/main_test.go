package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for _, test := range []struct{ in, out, err string }{
		{`["sum by (a) (rate(x_total{b=\"1\",c!~\"2\"}[5m])) / on (a) group_left () max(y) > 3"]`,
			`[[{"metric":"x_total","labels":["b","c"]},{"metric":"y","labels":[]}]]`, ""},
		{`["max_over_time((z offset 1d)[1w:1h]) or {__name__=\"v\"}", "vector(1)"]`,
			`[[{"metric":"z","labels":[]},{"metric":"v","labels":[]}],[]]`, ""},
		{`["x", "sum("]`, "", "sum(: "},
		{`{`, "", "read expressions"},
	} {
		var out strings.Builder
		err := run(strings.NewReader(test.in), &out)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v", test.in, err)
			}
			continue
		}
		if got := strings.TrimSpace(out.String()); err != nil || got != test.out {
			t.Errorf("%s: %s, %v", test.in, got, err)
		}
	}
}
