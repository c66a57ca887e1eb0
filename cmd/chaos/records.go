//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/privacy"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/notice"
)

// auditRecords compares every row with its check, and counts the rows.
func (a *auditor) auditRecords(ctx context.Context) error {
	rows, ok := a.sinks["rows"].(sinks.RecordKeeper)
	if !ok {
		return errors.New("the sink of rows keeps no records")
	}
	for _, t := range a.tokens {
		rec, err := rows.Get(ctx, sinks.KeyOf(t.Product, t.Token))
		if errors.Is(err, sinks.ErrNotFound) {
			continue // auditKeys has said so
		}
		if err != nil {
			return err
		}
		if problem := a.sameRecord(rec, t); problem != "" {
			a.differ("the row of %s (account %s): %s", t.Token, t.account, problem)
		}
	}
	return a.countRows(ctx)
}

// countRows counts the rows of all tables past the sink.
func (a *auditor) countRows(ctx context.Context) error {
	want := map[string]int{"results": len(a.tokens), "attempts": 0, "assets": 0, "warnings": len(a.tokens), "erased": 0}
	for _, t := range a.tokens {
		want["assets"] += len(t.media())
		want["attempts"] += t.FailedAttempts + 1
	}
	db, err := pgx.Connect(ctx, a.database+"?sslmode=disable")
	if err != nil {
		return errors.New("PostgreSQL does not answer") // the error may hold the URL
	}
	defer func() { _ = db.Close(ctx) }()
	for table, n := range want {
		var there int
		if err := db.QueryRow(ctx, "SELECT count(*) FROM "+pgx.Identifier{table}.Sanitize()).Scan(&there); err != nil {
			return err
		}
		switch {
		case there > n:
			a.double("table %s has %d rows, not %d", table, there, n)
		case there < n:
			a.lose("table %s has %d rows, not %d", table, there, n)
		}
	}
	return nil
}

// sameRecord says how a record differs from its check, or nothing.
func (a *auditor) sameRecord(r *privacy.Record, t *issued) string {
	switch {
	case r.Product != t.Product || r.Token != t.Token || r.TokenHash != t.hash() || r.Account != t.account || r.RuleID != t.RuleID || r.RequestID == "":
		return "it is of another token, account or rule"
	case len(r.Attempts) != t.FailedAttempts+1:
		return fmt.Sprintf("%d attempts, not %d", len(r.Attempts), t.FailedAttempts+1)
	case len(r.Warnings) != 1 || r.Warnings[0].Code != -9107:
		return fmt.Sprintf("%d warnings", len(r.Warnings))
	}
	if problem := sameVerdict(r.Verdict, t.Check); problem != "" {
		return problem
	}
	if problem := a.samePerson(r, t); problem != "" {
		return problem
	}
	media := t.media()
	if len(r.Assets) != len(media) {
		return fmt.Sprintf("%d assets, not %d", len(r.Assets), len(media))
	}
	for _, m := range media {
		i := slices.IndexFunc(r.Assets, func(x privacy.Asset) bool { return x.Field == m.Field })
		if i < 0 {
			return "no asset " + m.Field
		}
		if problem := a.sameAsset(r.Assets[i], m, t); problem != "" {
			return m.Field + ": " + problem
		}
	}
	return ""
}

func sameVerdict(v privacy.Verdict, c faceidtest.Check) string {
	modes := map[string]result.IntentionMode{"": result.IntentionOff, "0": result.IntentionQuestion, "1": result.IntentionNod, "2": result.IntentionReadAloud}
	passed := c.Code == 0 && (c.Intention == "" || c.IntentionCode == 0)
	sameCode := c.Intention == "" && v.IntentionCode == nil || c.Intention != "" && v.IntentionCode != nil && *v.IntentionCode == c.IntentionCode
	if v.Passed != passed || v.Code != c.Code || v.Message != c.Message || v.Intention != modes[c.Intention] || !sameCode {
		return "another verdict"
	}
	return ""
}

// samePerson opens the values of a record and compares them with the person.
func (a *auditor) samePerson(r *privacy.Record, t *issued) string {
	last := t.FailedAttempts
	values := []struct {
		field    privacy.Field
		position int
		stored   privacy.Stored
		want     string
	}{
		{privacy.Name, 0, r.Person.Name, t.Person.Name},
		{privacy.IDCard, 0, r.Person.IDCard, t.Person.IDCard},
	}
	if t.Product == result.Enhanced {
		values = append(values, []struct {
			field    privacy.Field
			position int
			stored   privacy.Stored
			want     string
		}{
			{privacy.Mobile, 0, r.Person.Mobile, t.Person.Mobile},
			{privacy.OCRName, 0, r.Document.Name, t.Person.Name},
			{privacy.OCRIDCard, 0, r.Document.IDCard, t.Person.IDCard},
			{privacy.OCRAddress, 0, r.Document.Address, t.Person.Address},
			{privacy.AttemptName, last, r.Attempts[last].Name, t.Person.Name},
			{privacy.AttemptIDCard, last, r.Attempts[last].IDCard, t.Person.IDCard},
		}...)
	}
	for _, v := range values {
		want := v.want
		if t.Product == result.EID && t.Code != 0 {
			want = "" // eid tells who it was only when all is done
		}
		if problem := a.opens(r, v.field, v.position, v.stored, func(value string) bool { return value == want }); problem != "" {
			return problem
		}
	}
	return a.opens(r, privacy.Raw, 0, r.Raw, func(value string) bool { return strings.Contains(value, "order-"+t.Token) })
}

// opens says why a sealed value is not what it should be, or nothing.
func (a *auditor) opens(r *privacy.Record, field privacy.Field, position int, stored privacy.Stored, right func(string) bool) string {
	if stored.Value == "" {
		if right("") {
			return ""
		}
		return string(field) + " is empty"
	}
	value, err := a.policy.Open(privacy.Ref{Product: r.Product, Token: r.Token, Field: field, Position: position}, stored.Value)
	switch {
	case err != nil:
		return fmt.Sprintf("%s: %v", field, err)
	case !right(value.Reveal()):
		return string(field) + " is of somebody else"
	}
	return ""
}

// sameAsset compares what a record says of an asset with the medium.
func (a *auditor) sameAsset(asset privacy.Asset, m faceidtest.Medium, t *issued) string {
	if len(asset.Stored) != 2 {
		return fmt.Sprintf("%d receipts of two archives", len(asset.Stored))
	}
	if m.Form.InCOS() {
		if asset.COS == nil || *asset.COS != (privacy.COSObject{Bucket: t.Bucket, Region: t.Region, Key: m.Key()}) {
			return "another place in COS"
		}
		return ""
	}
	d := a.digests[m.Seed]
	want := privacy.Digest{Size: d.Size, SHA256: d.SHA256Hex(), CRC64: strconv.FormatUint(d.CRC64, 10)}
	if asset.Inline == nil || *asset.Inline != want {
		return "another digest"
	}
	return ""
}

// sameMessage compares a notification with its check.
func (a *auditor) sameMessage(what, hash string, body []byte) {
	t := a.byHash[hash]
	if t == nil {
		return // compare says so
	}
	var e notice.Event
	var r notice.Result
	if json.Unmarshal(body, &e) != nil || json.Unmarshal(e.Data, &r) != nil {
		a.differ("%s of %s is not JSON", what, t.Token)
		return
	}
	problem := sameVerdict(r.Verdict, t.Check)
	switch {
	case e.ID != hash || e.Type != notice.TypeStored || r.Token != t.Token || r.Account != t.account:
		problem = "it is of something else"
	case len(r.Assets) != len(t.media()):
		problem = fmt.Sprintf("%d assets, not %d", len(r.Assets), len(t.media()))
	}
	if problem != "" {
		a.differ("%s of %s: %s", what, t.Token, problem)
	}
}
