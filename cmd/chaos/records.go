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
	opened, err := a.open(r)
	if err != nil {
		return err.Error()
	}
	if problem := samePerson(opened, t); problem != "" {
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

// personal is a value of a record, and what it should be.
type personal struct {
	field  privacy.Field
	stored privacy.Stored
	want   string
}

// samePerson compares the values of a record that was opened with the person.
func samePerson(r *privacy.Record, t *issued) string {
	last := t.FailedAttempts
	values := []personal{{privacy.Name, r.Person.Name, t.Person.Name}, {privacy.IDCard, r.Person.IDCard, t.Person.IDCard}}
	if t.Product == result.Enhanced {
		values = append(values, []personal{
			{privacy.Mobile, r.Person.Mobile, t.Person.Mobile},
			{privacy.OCRName, r.Document.Name, t.Person.Name},
			{privacy.OCRIDCard, r.Document.IDCard, t.Person.IDCard},
			{privacy.OCRAddress, r.Document.Address, t.Person.Address},
			{privacy.AttemptName, r.Attempts[last].Name, t.Person.Name},
			{privacy.AttemptIDCard, r.Attempts[last].IDCard, t.Person.IDCard},
		}...)
	}
	for _, v := range values {
		want := v.want
		if t.Product == result.EID && t.Code != 0 {
			want = "" // eid tells who it was only when all is done
		}
		if v.stored.Value != want {
			return fmt.Sprintf("%s is of somebody else", v.field)
		}
	}
	if !strings.Contains(r.Raw.Value, "order-"+t.Token) {
		return "the answer itself is another one"
	}
	return ""
}

// open returns a record with its values opened, of which none may have been in clear.
func (a *auditor) open(r *privacy.Record) (*privacy.Record, error) {
	err := r.Each(func(f privacy.Field, _ int, s *privacy.Stored) error {
		if s.Value != "" && !privacy.IsSealed(s.Value) {
			return fmt.Errorf("%s is not sealed", f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.policy.OpenRecord(r, a.opened, privacy.AuditEntry{Action: "reveal", Reason: "chaos"})
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
