package result_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

const canary = "测试甲-CANARY"

// holder has values where printers look for them: directly, in structs, behind
// pointers, in slices, maps and interfaces.
type holder struct {
	Name    result.Sensitive
	Pointer *result.Sensitive
	List    []result.Sensitive
	Map     map[string]result.Sensitive
	Any     any
	hidden  result.Sensitive
}

func newHolder() holder {
	s := result.NewSensitive(canary)
	return holder{s, &s, []result.Sensitive{s}, map[string]result.Sensitive{"k": s}, s, s}
}

func TestSensitiveIsNeverPrinted(t *testing.T) {
	h := newHolder()
	whole := &result.Result{Person: result.Person{Name: h.Name}, Attempts: []result.Attempt{{IDCard: h.Name}}, Raw: h.Name}
	var out bytes.Buffer
	for _, v := range []any{h.Name, h.Pointer, h, &h, h.hidden, whole, *whole, []any{h}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%10.3s", "%t", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
			log.Info("message", "value", v, slog.Group("group", "value", v))
		}
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(&out, fmt.Errorf("wrapped: %v: %w", v, errors.New("cause")))
	}
	printed := out.String()
	for _, form := range []string{canary, "CANARY", fmt.Sprintf("%x", "CANARY"), fmt.Sprintf("%X", "CANARY"), "67 65 78 65 82 89"} {
		if strings.Contains(printed, form) {
			t.Errorf("printed %q", form)
		}
	}
	if !strings.Contains(printed, "[redacted]") {
		t.Error("nothing was printed")
	}
}

func TestSensitive(t *testing.T) {
	full, empty := result.NewSensitive(canary), result.NewSensitive("")
	if full.Reveal() != canary || full.IsEmpty() || empty.Reveal() != "" || !empty.IsEmpty() {
		t.Error("a value does not come back")
	}
	if empty.String() != "" || fmt.Sprint(empty) != "" {
		t.Error("an empty value cannot be told from one that is there")
	}
	for in, want := range map[string]string{`"a\u00e9"`: "aé", `null`: "", `""`: "", `13800000000`: "13800000000"} {
		got := full
		if err := json.Unmarshal([]byte(in), &got); err != nil || got.Reveal() != want {
			t.Errorf("%s: %q, %v", in, got.Reveal(), err)
		}
	}
	for _, in := range []string{`{"CANARY":1}`, `true`, `["CANARY"]`} {
		var s result.Sensitive
		if err := json.Unmarshal([]byte(in), &s); err == nil || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "12345") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// TestOnlyPrivacyReveals reads the project's own code: outside tests, nobody but
// pipeline/privacy calls Reveal.
func TestOnlyPrivacyReveals(t *testing.T) {
	root := filepath.Join("..", "..")
	calls, files := 0, 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Reveal" {
				calls++
				if folder := filepath.ToSlash(filepath.Dir(path)); folder != "../../pipeline/privacy" {
					t.Errorf("%s calls Reveal", path)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls == 0 || files < 20 {
		t.Errorf("found %d calls in %d files: the test looks in the wrong place", calls, files)
	}
}
