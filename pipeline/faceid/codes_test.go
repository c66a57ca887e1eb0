package faceid_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
)

func TestResultCodes(t *testing.T) {
	want := map[string]bool{}
	add := func(step faceid.Step, from, to int64) {
		for code := from; code <= to; code++ {
			want[fmt.Sprint(step, code)] = true
		}
	}
	for _, code := range []int64{0, 1, 2, 3, 4, 7, 8, 10, 12, 13} {
		add(faceid.StepCheck, code, code)
	}
	add(faceid.StepCheck, 14, 19)
	add(faceid.StepCheck, 201, 204)
	add(faceid.StepCheck, 301, 303)
	add(faceid.StepCheck, 1001, 1008)
	add(faceid.StepCheck, 1101, 1109)
	add(faceid.StepCheck, 1201, 1205)
	add(faceid.StepCheck, 2001, 2018)
	add(faceid.StepIntention, -2, 0)
	add(faceid.StepIntention, -107, -101)
	add(faceid.StepIntention, -202, -201)
	add(faceid.StepIntention, -302, -301)
	add(faceid.StepIntention, -804, -800)
	add(faceid.StepIntention, -999, -998)
	add(faceid.StepReadAloud, -17, 0)
	add(faceid.StepReadAloud, 3001, 3003)
	add(faceid.StepReadAloud, 3011, 3012)
	add(faceid.StepReadAloud, -803, -800)

	for _, c := range faceid.ResultCodes() {
		key := fmt.Sprint(c.Step, c.Code)
		if !want[key] {
			t.Errorf("%s is not documented, or twice", key)
		}
		delete(want, key)
		if c.English == "" || c.Chinese == "" || c.English == c.Chinese {
			t.Errorf("%s has no text", key)
		}
	}
	for key := range want {
		t.Errorf("%s is missing", key)
	}
}

func TestDescribeAPICode(t *testing.T) {
	if c := faceid.DescribeAPICode("AuthFailure.SignatureExpire"); c.Class != faceid.AccountTrouble || c.Text == "" {
		t.Errorf("%+v", c)
	}
	if c := faceid.DescribeAPICode("AuthFailure.Novel"); c.Class != faceid.AccountTrouble || c.Code != "AuthFailure.Novel" {
		t.Errorf("%+v", c)
	}
	rows := map[string]bool{}
	for _, c := range faceid.APICodes() {
		rows[c.Code] = true
	}
	for _, names := range documented {
		for code := range strings.FieldsSeq(names) {
			if !rows[code] {
				t.Errorf("%s is missing", code)
			}
		}
	}
}
