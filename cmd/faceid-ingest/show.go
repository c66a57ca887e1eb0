package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

type showCmd struct {
	Token   string          `arg:"" help:"BizToken or EidToken."`
	Product string          `help:"Product of the token: enhanced or eid; either if left out." enum:",enhanced,eid" default:"" placeholder:"PRODUCT"`
	Open    bool            `name:"reveal" help:"Open sealed values. Needs the keyring and --reason, and leaves an entry in the audit log."`
	Reason  string          `help:"Why values are opened, for the audit log, such as a ticket number." placeholder:"TEXT"`
	Fields  []privacy.Field `name:"field" sep:"none" help:"Open only this field, such as name or id_card; may be given again." placeholder:"NAME"`
	Sink    string          `predictor:"sink" help:"Record sink to read from; the first one if left out." placeholder:"NAME"`
	JSON    bool            `help:"Print the whole record as JSON."`
}

// Validate says what is wrong with the flags.
func (c *showCmd) Validate() error {
	if c.Open && strings.TrimSpace(c.Reason) == "" {
		return errors.New("--reveal needs a reason for the audit log: add --reason, such as a ticket number")
	}
	if !c.Open && len(c.Fields) > 0 {
		return errors.New("--field is for --reveal: without it every value stays sealed")
	}

	for _, f := range c.Fields {
		if !f.Valid() {
			return unknownField(string(f), privacy.Fields())
		}
	}
	return nil
}

// unknownField refuses a name of a --field, and says which there are.
func unknownField[F ~string](name string, known []F) error {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = printable([]byte(f))
	}
	return usagef("--field: there is no %q; known are %s", name, strings.Join(names, ", "))
}

func (c *showCmd) Run(ctx context.Context, a *app) (err error) {
	s, records, err := a.openRecords(ctx, c.Sink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rec, err := findStored(ctx, records, c.Product, c.Token)
	if err != nil {
		return err
	}
	var closed error
	if c.Open {
		log, entry := audit(s.cfg, "reveal", c.Reason)
		open, err := s.policy.OpenRecord(rec, log, entry, c.Fields...)
		if open == nil {
			return err
		}
		rec, closed = open, err
	}
	if c.JSON {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetIndent("", "  ")
		return errors.Join(encoder.Encode(rec), closed)
	}
	return errors.Join(showTable(a.stdout, rec), closed)
}

// showTable prints a record for people.
func showTable(out io.Writer, rec *privacy.Record) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			// A value that breaks lines or cells could pass for another.
			value = strings.NewReplacer("\n", " ", "\t", " ").Replace(printable([]byte(value)))
			_, _ = fmt.Fprintf(table, "%s\t%s\n", name, value) // Flush tells of errors
		}
	}
	line("token", rec.Token)
	line("product", string(rec.Product))
	line("account", rec.Account)
	line("rule", rec.RuleID)
	line("fetched", timeText(rec.FetchedAt))
	line("request", rec.RequestID)
	v := rec.Verdict
	outcome := "failed"
	switch {
	case v.Unreadable:
		outcome = "not passed, for the outcome cannot be read"
	case v.Passed:
		outcome = "passed"
	}
	line("verdict", strings.TrimSpace(fmt.Sprintf("%s, code %d %s", outcome, v.Code, v.Message)))
	line("similarity", v.Similarity)
	if v.Intention != "" {
		code := "none"
		if v.IntentionCode != nil {
			code = strconv.FormatInt(*v.IntentionCode, 10)
		}
		line("intention", fmt.Sprintf("%s, code %s %s", v.Intention, code, v.IntentionMessage))
	}
	_ = rec.Each(func(f privacy.Field, position int, s *privacy.Stored) error {
		name := string(f)
		switch f {
		case privacy.AttemptName, privacy.AttemptIDCard, privacy.Answer:
			name = fmt.Sprintf("%s[%d]", f, position)
		}
		line(name, storedText(f, *s))
		return nil
	})
	for i, t := range rec.Attempts {
		charged := ""
		if t.Charged {
			charged = ", charged"
		}
		line(fmt.Sprintf("attempt[%d]", i), fmt.Sprintf("%s %s%s", timeText(t.Time), t.Message, charged))
	}
	for _, w := range rec.Warnings {
		line("warning", fmt.Sprintf("%s %d", w.Side, w.Code))
	}
	missing := map[string]string{}
	for _, m := range rec.Missing {
		missing[m.Field] = "missing: " + missingText[m.Reason]
	}
	for _, asset := range rec.Assets {
		line(asset.Field, cmp.Or(missing[asset.Field], assetText(asset)))
		delete(missing, asset.Field)
	}
	for _, m := range rec.Missing {
		line(m.Field, missing[m.Field])
	}
	line("unread", strings.Join(rec.Unread, ", "))
	return table.Flush()
}

// missingText says why a part of a check is not in its result.
var missingText = map[result.MissingReason]string{
	result.ForeignPlace: "it lies where the account's storage does not point to",
	result.NotMedia:     "neither base64 nor a place in COS",
	result.NotOpened:    "eid.private_key_file did not open it",
	result.NotSent:      "the service did not send it",
	result.NotFound:     "its object is not there",
}

// storedText says what is stored of a value.
func storedText(f privacy.Field, s privacy.Stored) string {
	switch {
	case privacy.IsSealed(s.Value):
		return "[sealed]"
	case s.Value == "" && s.Index != "":
		return "[hashed]"
	case f == privacy.Raw && s.Value != "":
		var compact bytes.Buffer
		if json.Compact(&compact, []byte(s.Value)) == nil {
			return compact.String()
		}
	}
	return s.Value
}

func assetText(a privacy.Asset) string {
	where := make([]string, 0, len(a.Stored))
	for _, r := range a.Stored {
		text := r.Sink + ": " + r.Location
		if r.Size >= 0 {
			text += ", " + bytesText(r.Size)
		}
		where = append(where, text)
	}
	if len(where) == 0 {
		where = []string{"stored nowhere"}
	}
	return a.ContentType + ", " + strings.Join(where, "; ")
}
