package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"text/tabwriter"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid"
)

// looksNumeric tells result codes from the API's error codes.
var looksNumeric = regexp.MustCompile(`^[+-]?[0-9]+$`)

type codesCmd struct {
	Code string `arg:"" optional:"" help:"A result code such as 2016 (after -- if negative), or an error code of the API such as AuthFailure.SignatureExpire; left out, all."`
	JSON bool   `help:"Print one JSON object per line."`
}

// resultCode and apiCode are the lines of --json.
type resultCode struct {
	Step    faceid.Step `json:"step"`
	Code    int64       `json:"code"`
	English string      `json:"english"`
	Chinese string      `json:"chinese"`
}

type apiCode struct {
	Code  string       `json:"code"`
	Class faceid.Class `json:"class"`
	Text  string       `json:"text"`
}

func (c *codesCmd) Run(a *app) error {
	results, errors, err := c.find()
	if err != nil {
		return err
	}
	if c.JSON {
		lines := json.NewEncoder(a.stdout)
		for _, r := range results {
			if err := lines.Encode(resultCode(r)); err != nil {
				return err
			}
		}
		for _, e := range errors {
			if err := lines.Encode(apiCode(e)); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	if len(results) > 0 {
		_, _ = fmt.Fprintln(table, "STEP\tCODE\tMEANING\t含义")
	}
	for _, r := range results {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", r.Step, r.Code, r.English, r.Chinese)
	}
	if len(results) > 0 && len(errors) > 0 {
		_, _ = fmt.Fprintln(table)
	}
	if len(errors) > 0 {
		_, _ = fmt.Fprintln(table, "API ERROR\tCLASS\tMEANING\t")
	}
	for _, e := range errors {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t\n", e.Code, e.Class, e.Text)
	}
	return table.Flush()
}

// find returns what Code names, or everything.
func (c *codesCmd) find() ([]faceid.ResultCode, []faceid.APICode, error) {
	if c.Code == "" {
		return faceid.ResultCodes(), faceid.APICodes(), nil
	}
	if !looksNumeric.MatchString(c.Code) {
		return nil, []faceid.APICode{faceid.DescribeAPICode(c.Code)}, nil
	}
	number, err := strconv.ParseInt(c.Code, 10, 64)
	if err != nil {
		return nil, nil, usagef("%s is too large a number for a code", c.Code)
	}
	var found []faceid.ResultCode
	for _, r := range faceid.ResultCodes() {
		if r.Code == number {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil, nil, fmt.Errorf("no result code %d is documented; results keep such a code as it is", number)
	}
	return found, nil, nil
}
