package main

import (
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const open, plain = "application/openmetrics-text; version=1.0.0", "text/plain; version=0.0.4"
	for _, test := range []struct{ kind, in, out, err string }{
		{open, "# TYPE a counter\na_total 1.0 # {trace_id=\"7\"} 1.0\n# TYPE b gauge\nb{c=\"d\"} 2.0\n# EOF\n",
			`{"types":{"a":"counter","b":"gauge"},"exemplars":{"a_total":["7"]},"series":2}`, ""},
		{plain, "# TYPE a_total counter\na_total 1\n", `{"types":{"a_total":"counter"},"exemplars":{},"series":1}`, ""},
		{open, "# TYPE a counter\na_total 1.0\n", "", "# EOF"},
		{plain, "a{ 1\n", "", "while parsing"},
		{"image/png", "", "", "unsupported"},
	} {
		var out strings.Builder
		err := run([]string{test.kind}, strings.NewReader(test.in), &out)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s %q: error %v", test.kind, test.in, err)
			}
			continue
		}
		if got := strings.TrimSpace(out.String()); err != nil || got != test.out {
			t.Errorf("%s %q: %s, %v", test.kind, test.in, got, err)
		}
	}
}
